"""How good forecasts are: of a value, of an interval, of a distribution. Arrays are NumPy's, float64 inside.

Notation: N steps ahead, K targets, windows W; `paths` are drawn futures (draws, W, N, K).
"""

from dataclasses import dataclass

import numpy as np

from gatewise.errors import InputError

Array = np.ndarray


def mean_error_of_naive(training: Array, season: int | None) -> Array:
    """The mean |y_t - y_(t-m)| of a training series (T, K), for each target, with m the season, 1 without one.

    Raises InputError if the series is not longer than a season, or repeats itself exactly in a target.
    """
    lag = season or 1
    if len(training) <= lag:
        raise InputError(f"mase: expected a training series of more than {lag} steps, one season, got {len(training)}")
    error = np.abs(training[lag:].astype(np.float64) - training[:-lag]).mean(0)
    if not np.all(error > 0):
        raise InputError(
            f"mase: target {int(np.argmin(error))} of the training series repeats itself exactly after {lag} steps: "
            "its naive forecast has no error that another could be measured by"
        )
    return error


def mase(values: Array, forecast: Array, training: Array, season: int | None) -> Array:
    """Mean |error| over that of the naive forecast, one step ahead, in training: (K,); below 1 is better than it.

    Hyndman, Koehler, "Another look at measures of forecast accuracy", 2006; seasonal naive if there is a season.
    values, forecast (..., K); training (T, K). Raises InputError.
    """
    axes = tuple(range(values.ndim - 1))
    return np.abs(values.astype(np.float64) - forecast).mean(axes) / mean_error_of_naive(training, season)


def smape(values: Array, forecast: Array) -> Array:
    """Mean of 200 |y - f| / (|y| + |f|), in per cent from 0 to 200, (K,); 0 where both are 0.

    Makridakis, Hibon, "The M3-Competition", 2000.
    """
    size = np.abs(values.astype(np.float64)) + np.abs(forecast)
    error = np.divide(200 * np.abs(values - forecast), size, out=np.zeros_like(size), where=size > 0)
    return error.mean(tuple(range(values.ndim - 1)))


def crps(values: Array, paths: Array) -> Array:
    """The continuous ranked probability score of each value, in its unit; smaller is better: (W, N, K).

    E|X - y| - E|X - X'| / 2 over the draws (Gneiting, Raftery, "Strictly Proper Scoring Rules, Prediction, and
    Estimation", 2007, equation 21), the second mean over all pairs of different draws, so that few draws do not
    favour a narrow distribution. values (W, N, K); paths (draws, W, N, K), two or more draws.
    """
    drawn = np.sort(paths.astype(np.float64), axis=0)
    count = len(drawn)
    # Sum over pairs of |x_i - x_j| = sum of (2 i - count + 1) x_i over the sorted draws.
    factors = (2 * np.arange(count) - count + 1).reshape(-1, *[1] * values.ndim)
    spread = (factors * drawn).sum(0) / (count * (count - 1) / 2)
    return np.abs(drawn - values).mean(0) - spread / 2


def interval(paths: Array, level: float) -> tuple[Array, Array]:
    """The lower and the upper end of the central interval that holds `level` of the draws, (W, N, K) each."""
    low, high = np.quantile(paths, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def coverage(values: Array, paths: Array, level: float) -> Array:
    """Part of the values that lie within the interval of `level`, (K,): as near to it as the intervals are honest."""
    low, high = interval(paths, level)
    return ((values >= low) & (values <= high)).mean(tuple(range(values.ndim - 1)))


@dataclass(frozen=True)
class ForecastScores:
    """The scores of one way of forecasting: the means over windows, steps and targets.

    mse, mae: of the point forecast, the median of the draws; crps, coverage: None for a forecast without a
    distribution. level: that of the intervals.
    """

    mse: float
    mae: float
    mase: float
    smape: float
    crps: float | None = None
    coverage: float | None = None
    level: float = 0.8


def score_point(values: Array, forecast: Array, training: Array, season: int | None) -> ForecastScores:
    """The scores of a forecast without a distribution. values, forecast (W, N, K); training (T, K)."""
    error = values.astype(np.float64) - forecast
    return ForecastScores(
        float((error**2).mean()),
        float(np.abs(error).mean()),
        float(mase(values, forecast, training, season).mean()),
        float(smape(values, forecast).mean()),
    )


def score_paths(values: Array, paths: Array, training: Array, season: int | None, level: float = 0.8) -> ForecastScores:
    """The scores of drawn futures. values (W, N, K); paths (draws, W, N, K); training (T, K)."""
    point = score_point(values, np.median(paths, axis=0), training, season)
    return ForecastScores(
        **{key: getattr(point, key) for key in ("mse", "mae", "mase", "smape")},
        crps=float(crps(values, paths).mean()),
        coverage=float(coverage(values, paths, level).mean()),
        level=level,
    )
