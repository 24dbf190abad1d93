"""Seasonality: after how many steps some series repeat themselves, by what copying them would have cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gatewise.data.frequency import Frequency

LONGER = {"hour": (168,), "minute": (10_080,)}  # seasons beside the frequency's own, in units
LONGEST_SEARCHED = 400  # steps, where no unit of the calendar says what to look for
WORTH = 1.0  # a season of the calendar is taken if copying it errs at most so much of what the last value errs,
SEARCHED_WORTH = 0.9  # and one that is the best of many at most so much
SIMPLER = 0.1  # a shorter season, which needs less history, is taken if it errs at most so much more
TURNS = 3  # of a season that there must be


@dataclass(frozen=True)
class Seasonality:
    """A season, None for none; error: of copying the value before it, as a part of what copying the last one errs."""

    season: int | None
    error: float


def find_season(series: Sequence[np.ndarray], frequency: Frequency, horizon: int) -> Seasonality:
    """What predicts some series, arrays (T_i, K), best over a horizon, each target alike: a season, or the last value.

    Looked at are the seasons of the frequency; where the times are numbers or rows, all up to LONGEST_SEARCHED.
    """
    longest = max(map(len, series), default=0)
    candidates = [season for season in _candidates(frequency, longest) if season * TURNS <= longest]
    costs = _Costs(series)
    last = costs.error(range(1, horizon + 1))
    if not candidates or not last > 0:
        return Seasonality(None, 1.0)
    # What a forecast copies lies so many whole seasons before the step that it is for, as are needed.
    lags = [[season * -(-ahead // season) for ahead in range(1, horizon + 1)] for season in candidates]
    errors = np.array([costs.error(each) for each in lags]) / last
    errors = np.where(np.isnan(errors), np.inf, errors)
    best = int(np.flatnonzero(errors <= errors.min() + SIMPLER)[0])
    worth = SEARCHED_WORTH if frequency.unit == "step" else WORTH
    return Seasonality(candidates[best], float(errors[best])) if errors[best] <= worth else Seasonality(None, 1.0)


def _candidates(frequency: Frequency, longest: int) -> list[int]:
    if frequency.unit == "step":
        return list(range(2, min(longest // TURNS, LONGEST_SEARCHED) + 1))
    longer = [season // frequency.count for season in LONGER.get(frequency.unit, ()) if season % frequency.count == 0]
    return [season for season in (frequency.season, *longer) if season > 1]


class _Costs:
    """What copying the value so many steps before costs, in deviations of each series and target.

    The mean change over the steps is no part of it: a trend is learned, with either base, and hides no season.
    """

    def __init__(self, series: Sequence[np.ndarray]) -> None:
        scales = [values.std(0) for values in series]
        self.scaled = [
            values[:, scale > 0] / scale[scale > 0] for values, scale in zip(series, scales, strict=True) if len(values)
        ]
        self.sums: dict[int, tuple[float, int]] = {}

    def error(self, lags: Sequence[int]) -> float:
        """The mean |error| over the lags and all steps; NaN if there is no step that has one before it."""
        sums = [self._sum(lag) for lag in lags]
        count = sum(number for _, number in sums)
        return sum(total for total, _ in sums) / count if count else float("nan")

    def _sum(self, lag: int) -> tuple[float, int]:
        if lag not in self.sums:
            changes = [values[lag:] - values[:-lag] for values in self.scaled if len(values) > lag]
            errors = [np.abs(change - change.mean(0)) for change in changes]
            self.sums[lag] = sum(float(each.sum()) for each in errors), sum(each.size for each in errors)
        return self.sums[lag]
