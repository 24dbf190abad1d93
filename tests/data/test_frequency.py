"""Frequencies: inferred from times, as pandas' date_range makes them, and continued."""

import numpy as np
import pytest

from gatewise.data.frequency import Frequency, infer_frequency
from gatewise.errors import DataError


def times(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="M8[us]")


def every(start: str, step: str, number: int, unit: str) -> np.ndarray:
    count, of = step.split()
    return (np.datetime64(start, unit) + np.arange(number) * np.timedelta64(int(count), of)).astype("M8[us]")


@pytest.mark.parametrize(
    ("made", "text", "season"),
    [
        (every("2020-01-31T10", "1 h", 50, "h"), "1 hour", 24),
        (every("2020-01-31T10:15", "15 m", 50, "m"), "15 minutes", 96),
        (every("2020-01-01", "1 D", 50, "D"), "1 day", 7),
        (every("2020-01-01", "2 W", 50, "D"), "2 weeks", 26),
        (every("2020-01-01", "10 D", 50, "D"), "10 days", 1),
        (every("2020-01", "1 M", 50, "M"), "1 month", 12),
        (every("2020-01", "3 M", 50, "M"), "3 months", 4),
        (every("2020", "1 Y", 50, "Y"), "1 year", 1),
        (every("2020-01", "1 M", 50, "M") + np.timedelta64(10, "D"), "1 month", 12),
        (every("2020-02", "1 M", 50, "M") - np.timedelta64(1, "D"), "1 month, at month ends", 12),
        (every("2020-01-01T00:00:00", "1 s", 50, "s"), "1 second", 3600),
        (every("2020-01-01T00:00:00", "40 ms", 50, "ms"), "40 milliseconds", 1),
        (np.busday_offset(np.datetime64("2020-01-01"), np.arange(50)).astype("M8[us]"), "1 business day", 5),
        (np.arange(50), "1 step", 1),
        (np.arange(50) * 5 + 3, "5 steps", 1),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_inferred_and_continued(made: np.ndarray, text: str, season: int):
    frequency = infer_frequency(made[:40])
    assert frequency is not None
    assert str(frequency) == text
    assert Frequency.parse(text) == frequency
    assert frequency.season == season
    later = frequency.times_after(made[39], 10)
    assert later.dtype == made.dtype
    assert later.tolist() == made[40:].tolist()
    assert frequency.times_after(made[39], 0).tolist() == []


def test_most_common_distance_is_taken_where_one_is_missing():
    assert str(infer_frequency(times("2020-01-01", "2020-01-02", "2020-01-03", "2020-01-05"))) == "1 day"
    assert str(infer_frequency(times("2020-01", "2020-02", "2020-04", "2020-05"))) == "1 month"


def test_daily_data_of_a_whole_month_are_no_months():
    assert str(infer_frequency(every("2020-01-01", "1 D", 31, "D"))) == "1 day"


def test_too_short():
    assert infer_frequency(times("2020-01-01")) is None
    assert infer_frequency(times()) is None


@pytest.mark.parametrize("text", ["", "hour", "0 hours", "1 fortnight", "1 month, sometimes", "-1 day"])
def test_not_a_frequency(text: str):
    with pytest.raises(DataError) as caught:
        Frequency.parse(text)
    assert str(caught.value) == f'expected a frequency such as "1 hour" or "3 months", got "{text}"'
