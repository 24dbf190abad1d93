"""Windows of series, to learn to forecast: what was seen, what is known of the time to come, and what came.

A batch of training is a function of the seed, the epoch and its index alone, as those of `PaddedBatches`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gatewise.data.ragged import Ragged
from gatewise.errors import DataError


@dataclass(frozen=True)
class SeriesBatch:
    """B windows of `context` steps seen (P) and `horizon` steps to forecast (H).

    past (P, B, D), future (H, B, D): the targets. known (P + H, B, C): the known covariates of both.
    static (B, S): numbers of the whole series.
    series (B,), origins (B,): which series, and its first step that is forecast; int64 arrays.
    """

    past: Tensor
    future: Tensor
    known: Tensor
    static: Tensor
    series: np.ndarray
    origins: np.ndarray


class SeriesWindows:
    """Batches of windows at some origins.

    values: of each series (T_i, D) float32, scaled. known: of each (T_i + F_i, C) float32.
    static (number of series, S) float32.
    origins (M, 2) int64: (series, first step forecast), as `forecast_origins` gives them.

    Raises DataError if there is no origin: every series is too short for context and horizon.
    """

    def __init__(
        self,
        values: Sequence[np.ndarray],
        known: Sequence[np.ndarray],
        static: np.ndarray,
        origins: np.ndarray,
        *,
        context: int,
        horizon: int,
        batch_size: int,
        seed: int = 0,
    ):
        if not len(origins):
            raise DataError(
                f"every series is shorter than a window of context = {context} and horizon = {horizon} steps; "
                "lower them, or give longer series"
            )
        self.context = context
        self.horizon = horizon
        self.batch_size = batch_size
        self.seed = seed
        self.origins = origins
        self.batches_per_epoch = -(-len(origins) // batch_size)
        self._values = Ragged.of(values, np.float32)
        self._known = Ragged.of(known, np.float32)
        self._static = np.asarray(static, dtype=np.float32)
        self._epoch: int | None = None

    def batch(self, epoch: int, index: int) -> SeriesBatch:
        """Number `index` of `batches_per_epoch` of the epoch, for training; every window comes once an epoch."""
        if not 0 <= index < self.batches_per_epoch:
            raise IndexError(f"batch {index} of an epoch of {self.batches_per_epoch}")
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self.origins))
            self._epoch = epoch
        return self.cut(self._order[index * self.batch_size : (index + 1) * self.batch_size])

    def in_order(self) -> Iterator[SeriesBatch]:
        """Every window once, in the order of the origins, for evaluation."""
        for start in range(0, len(self.origins), self.batch_size):
            yield self.cut(np.arange(start, min(start + self.batch_size, len(self.origins))))

    def cut(self, windows: np.ndarray) -> SeriesBatch:
        """The batch of these windows, numbers of rows of `origins`."""
        series, origins = self.origins[windows].T
        steps = np.arange(-self.context, self.horizon)[:, None] + origins
        targets = torch.from_numpy(self._values.values[steps + self._values.offsets[series]])
        return SeriesBatch(
            past=targets[: self.context],
            future=targets[self.context :],
            known=torch.from_numpy(self._known.values[steps + self._known.offsets[series]]),
            static=torch.from_numpy(self._static[series]),
            series=series,
            origins=origins,
        )
