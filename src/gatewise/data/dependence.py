"""Dependence: whether what other targets have been tells more of a target to come than its own past does.

Two linear forecasts are compared, one that reads a target's own last values and one that reads those of all, each
fitted to the earlier windows and judged on the later ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EARLIER = 0.75  # of each series, to fit to
LEAST_WINDOWS = 10  # to judge on
MOST_INPUTS = 300  # of the forecast that reads all targets, by the steps that it looks back
MOST_WINDOWS = 2000  # evenly apart, where there are more
MOST_AHEAD = 4  # steps of the horizon that are forecast, evenly apart
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of a weight's square, in mean squares of the inputs; the best one counts


def error_with_others(series: Sequence[np.ndarray], context: int, horizon: int) -> float | None:
    """The mean squared error of the forecast that reads all targets, as a part of what the own past alone leaves.

    series: arrays (T_i, K), in one unit for each target. None if there are too few windows to say, or one target.
    """
    targets = series[0].shape[1] if series else 0
    steps = max(1, min(context, MOST_INPUTS // max(targets, 1)))
    if targets < 2 or not (windows := _cut(series, steps, horizon)):
        return None
    earlier, later = windows
    together = _errors(earlier.all_targets(), later.all_targets())
    alone = np.sum([_errors(earlier.of(k), later.of(k)) for k in range(targets)], axis=0)
    return float(together.min() / alone.min()) if alone.min() > 0 else None


@dataclass(frozen=True)
class _Windows:
    """inputs (W, steps, K), outputs (W, A, K): in deviations of each target, the last value taken away."""

    inputs: np.ndarray
    outputs: np.ndarray

    def all_targets(self) -> tuple[np.ndarray, np.ndarray]:
        return self.inputs.reshape(len(self.inputs), -1), self.outputs.reshape(len(self.outputs), -1)

    def of(self, target: int) -> tuple[np.ndarray, np.ndarray]:
        return self.inputs[:, :, target], self.outputs[:, :, target]


def _cut(series: Sequence[np.ndarray], steps: int, horizon: int) -> tuple[_Windows, _Windows] | None:
    """The windows to fit to, which end before the outputs of those to judge on begin; None if there are too few."""
    scale = np.concatenate(series).std(0)
    scale = np.where(scale > 0, scale, 1.0)
    ahead = np.unique(np.linspace(0, horizon - 1, min(horizon, MOST_AHEAD)).round().astype(int))
    apart = max(1, sum(map(len, series)) // MOST_WINDOWS)
    parts: tuple[list[tuple[np.ndarray, np.ndarray]], ...] = ([], [])
    for values in series:
        end = int(len(values) * EARLIER)
        for part, first, stop in ((0, steps, end), (1, max(end, steps), len(values))):
            origins = np.arange(first, stop - horizon + 1, apart)[:, None]
            now = values[origins - 1]
            past, future = values[origins + np.arange(-steps, 0)], values[origins + ahead]
            parts[part].append(((past - now) / scale, (future - now) / scale))
    earlier, later = (_Windows(*(np.concatenate(each) for each in zip(*part, strict=True))) for part in parts)
    return (earlier, later) if min(len(earlier.inputs), len(later.inputs)) >= LEAST_WINDOWS else None


def _errors(earlier: tuple[np.ndarray, np.ndarray], later: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The squared error on the later windows, summed, for each penalty: of ridge regression with an intercept."""
    x_mean, y_mean = (each.mean(0) for each in earlier)
    x, y = earlier[0] - x_mean, earlier[1] - y_mean
    values, vectors = np.linalg.eigh(x.T @ x)
    projected = vectors.T @ (x.T @ y)
    size = max(float(np.trace(x.T @ x)) / x.shape[1], 1e-12)
    seen, came = (later[0] - x_mean) @ vectors, later[1] - y_mean
    return np.array(
        [((came - seen @ (projected / (values + penalty * size)[:, None])) ** 2).sum() for penalty in PENALTIES]
    )
