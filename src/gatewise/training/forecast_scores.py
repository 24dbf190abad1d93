"""How good forecasts are: of a value, of an interval, of a distribution. Arrays are NumPy's, float64 inside.

Notation: N steps ahead, K targets, W windows.
"""

import numpy as np

Array = np.ndarray


def naive_error(training: Array, season: int | None) -> Array:
    """The mean |y_t - y_(t-m)| of a training series (T, K), for each target, with m the season, 1 without one: (K,).

    The mean |error| of a forecast over this is its MASE: below 1 it errs less than the naive forecast did, one step
    ahead, in training (Hyndman, Koehler, "Another look at measures of forecast accuracy", 2006). NaN for a target that
    has no such error to be measured by: its series is not longer than a season, or repeats itself exactly.
    """
    lag = season or 1
    if len(training) <= lag:
        return np.full(training.shape[1], np.nan)
    error = np.abs(training[lag:].astype(np.float64) - training[:-lag]).mean(0)
    return np.where(error > 0, error, np.nan)


def smape(values: Array, forecast: Array) -> Array:
    """200 |y - f| / (|y| + |f|) of each value, in per cent from 0 to 200; 0 where both are 0.

    Its mean is the sMAPE of Makridakis, Hibon, "The M3-Competition", 2000. values, forecast: of one shape.
    """
    size = np.abs(values.astype(np.float64)) + np.abs(forecast)
    return np.divide(200 * np.abs(values - forecast), size, out=np.zeros_like(size), where=size > 0)


def crps(values: Array, quantiles: Array) -> Array:
    """The continuous ranked probability score of each value, in its unit; smaller is better: (W, N, K).

    Twice the pinball loss, as a mean over all levels (Laio, Tamea, "Verification Tools for Probabilistic Forecasts of
    Continuous Hydrological Variables", 2007, equation 7), here over Q that are evenly apart. values (W, N, K);
    quantiles (Q, W, N, K), at `even_levels`.
    """
    total = np.zeros(values.shape)
    for level, quantile in zip(even_levels(len(quantiles)), quantiles, strict=True):
        above = values - quantile
        total += np.maximum(level * above, (level - 1) * above)
    return 2 * total / len(quantiles)


def even_levels(count: int) -> Array:
    """The middles of `count` equal parts of 0 to 1."""
    return (np.arange(count) + 0.5) / count


def ends(level: float) -> tuple[float, float]:
    """The levels between which the central interval lies that holds the part `level`."""
    return (1 - level) / 2, (1 + level) / 2
