"""How good forecasts are: of a value, of an interval, of a distribution. Arrays are NumPy's, float64 inside.

Notation: N steps ahead, K targets, windows W; `drawn` are futures (draws, W, N, K), each value's draws in rising order.
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


def crps(values: Array, drawn: Array) -> Array:
    """The continuous ranked probability score of each value, in its unit; smaller is better: (W, N, K).

    E|X - y| - E|X - X'| / 2 over the draws (Gneiting, Raftery, "Strictly Proper Scoring Rules, Prediction, and
    Estimation", 2007, equation 21), the second mean over all pairs of different draws, so that few draws do not
    favour a narrow distribution. values (W, N, K); two or more draws.
    """
    count = len(drawn)
    # Sum over pairs of |x_i - x_j| = sum of (2 i - count + 1) x_i over the rising draws.
    spread = np.tensordot(2.0 * np.arange(count) - count + 1, drawn, 1) / (count * (count - 1) / 2)
    return np.abs(drawn - values).mean(0) - spread / 2


def quantile(drawn: Array, part: float) -> Array:
    """The value below which a part of the draws lies, (W, N, K); between two of them linearly."""
    place = part * (len(drawn) - 1)
    below = min(int(place), len(drawn) - 2)
    return drawn[below] + (place - below) * (drawn[below + 1] - drawn[below])


def interval(drawn: Array, level: float) -> tuple[Array, Array]:
    """The lower and the upper end of the central interval that holds `level` of the draws, (W, N, K) each."""
    return quantile(drawn, (1 - level) / 2), quantile(drawn, (1 + level) / 2)
