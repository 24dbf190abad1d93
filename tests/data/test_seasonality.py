"""Seasons that were put into series, and none where there is none."""

import numpy as np
import pytest

from gatewise.data.frequency import Frequency
from gatewise.data.seasonality import find_season

RANDOM = np.random.default_rng(0)
MONTHS = np.arange(120)


def _seasonal(season: int, trend: float = 0.0, noise: float = 0.2, steps: int = 120) -> np.ndarray:
    t = np.arange(steps)
    return (np.sin(2 * np.pi * t / season) + trend * t + noise * RANDOM.standard_normal(steps))[:, None]


def test_a_season_of_the_calendar():
    found = find_season([_seasonal(12)], Frequency(1, "month"), 12)
    assert found.season == 12
    assert found.error < 0.6


def test_a_trend_hides_no_season():
    assert find_season([_seasonal(12, trend=0.2)], Frequency(1, "month"), 24).season == 12


@pytest.mark.parametrize("season", [5, 9])
def test_the_season_of_numbered_steps_is_searched(season):
    assert find_season([_seasonal(season)], Frequency(1, "step"), 4).season == season


def test_a_week_of_hours():
    hours = np.arange(24 * 70)
    values = np.sin(2 * np.pi * hours / 24) * (hours // 24 % 7 < 5) + 0.02 * RANDOM.standard_normal(len(hours))
    assert find_season([values[:, None]], Frequency(1, "hour"), 24).season == 168
    assert find_season([values[::2, None]], Frequency(2, "hour"), 12).season == 84


@pytest.mark.parametrize("frequency", ["1 month", "1 step", "1 year"])
def test_a_random_walk_has_none(frequency):
    walk = RANDOM.standard_normal((400, 2)).cumsum(0)
    assert find_season([walk], Frequency.parse(frequency), 12).season is None


def test_too_short_or_constant():
    assert find_season([_seasonal(12)[:30]], Frequency(1, "month"), 6).season is None
    assert find_season([np.ones((100, 1))], Frequency(1, "month"), 6).season is None
    assert find_season([], Frequency(1, "month"), 6).season is None


def test_each_series_and_target_counts_alike():
    small, large = _seasonal(12), 1000 * RANDOM.standard_normal((120, 1)).cumsum(0)
    alone = find_season([np.concatenate([small, small], 1), large], Frequency(1, "month"), 12)
    scaled = find_season([np.concatenate([small, 1000 * small], 1), large / 1000], Frequency(1, "month"), 12)
    assert alone.error == pytest.approx(scaled.error)
