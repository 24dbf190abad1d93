"""The calendar as covariates, against dates whose place in day, week and year is known."""

import numpy as np
import pytest

from gatewise.data.calendar import calendar_of, cycles_of, width_of
from gatewise.data.frequency import Frequency


def _days(first: str, number: int) -> np.ndarray:
    return np.datetime64(first, "us") + np.arange(number) * np.timedelta64(1, "D")


@pytest.mark.parametrize(
    ("frequency", "days", "cycles"),
    [
        ("1 hour", 3, ("day",)),
        ("1 hour", 20, ("day", "week")),
        ("15 minutes", 800, ("day", "week", "year")),
        ("1 day", 10, ()),
        ("1 day", 15, ("week",)),
        ("1 business day", 800, ("week", "year")),
        ("1 week", 800, ("year",)),
        ("1 month", 800, ("year",)),
        ("1 month", 400, ()),
        ("1 year", 8000, ()),
    ],
)
def test_cycles_that_training_has_seen_twice(frequency, days, cycles):
    assert cycles_of(Frequency.parse(frequency), [_days("2024-01-01", 1), _days("2024-01-01", days)]) == cycles


def test_numbers_have_no_calendar():
    assert cycles_of(Frequency(1, "step"), [np.arange(1000)]) == ()
    assert calendar_of(np.arange(3), ()).shape == (3, 0)


def test_covariates():
    times = np.array(["2024-01-01T06:00", "2024-01-06T12:00"], dtype="M8[us]")  # a Monday and a Saturday
    found = calendar_of(times, ("day", "week", "year"))
    assert found.shape == (2, width_of(("day", "week", "year"))) == (2, 13)
    day, week, weekend, year = found[:, :4], found[:, 4:8], found[:, 8], found[:, 9:]
    np.testing.assert_allclose(day, [[1, 0, 0, -1], [0, -1, 0, 1]], atol=1e-6)
    angle = 2 * np.pi * np.array([0.25, 5.5]) / 7
    expected = np.stack([np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)], 1)
    np.testing.assert_allclose(week, expected, atol=1e-6)
    assert weekend.tolist() == [0, 1]
    angle = 2 * np.pi * np.array([0.25, 5.5]) / 366
    np.testing.assert_allclose(year[:, :2], np.stack([np.sin(angle), np.cos(angle)], 1), atol=1e-6)


def test_a_year_later_is_the_same_place():
    one, other = (calendar_of(np.array([f"{year}-03-01"], dtype="M8[us]"), ("year",)) for year in (2022, 2023))
    np.testing.assert_array_equal(one, other)


def test_before_1970():
    assert calendar_of(np.array(["1969-12-28"], dtype="M8[us]"), ("week",))[0, 4] == 1  # a Sunday
