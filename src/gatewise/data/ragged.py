"""Ragged arrays: sequences of different lengths, end to end in one array, so that a batch is cut out at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """N sequences of T_i steps.

    values (sum of T_i, ...): the steps of all sequences, one after the other.
    offsets (N + 1,) int64: sequence i is values[offsets[i] : offsets[i + 1]].
    """

    values: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def of(sequences: Sequence[Any], dtype: Any = None) -> "Ragged":
        """The sequences, arrays (T_i, ...) that agree but for T_i, or lists of numbers."""
        arrays = [np.asarray(sequence, dtype=dtype) for sequence in sequences]
        lengths = np.fromiter(map(len, arrays), dtype=np.int64, count=len(arrays))
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        kept = [array for array in arrays if len(array)] or arrays[:1]  # an empty list has no dtype of its own
        return Ragged(np.concatenate(kept) if kept else np.zeros(0, dtype=dtype), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64."""
        return np.diff(self.offsets)

    def padded(self, rows: np.ndarray, fill: float = 0) -> np.ndarray:
        """The sequences of some rows side by side: (T, B, ...), T that of the longest; `fill` after each one's end."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        steps = np.arange(lengths.max(initial=0))[:, None]
        inside = steps < lengths
        padded = self.values.take(np.where(inside, starts + steps, 0), axis=0, mode="clip")
        padded[~inside] = fill
        return padded
