"""Padded batches: sequences of like lengths side by side, as torch tensors.

A batch of training is a function of the seed, the epoch and its index alone, so two whole numbers say where a training
goes on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gatewise.data.ragged import Ragged
from gatewise.errors import DataError

# Batches that are sorted by length together. Of 12,544 sentences (UD English EWT) in batches of 32, the padding is 68 %
# of a batch with 1, 25 % with 10, 8 % with 50, 4 % with 100, 2.5 % with 200; the fewer, the more freely rows meet.
POOL = 100


@dataclass(frozen=True)
class PaddedBatch:
    """B sequences.

    columns: by name, of a ragged column (T, B, ...), padded after each row's end; of a plain column (B, ...).
    lengths: by name of the ragged column, (B,) int64.
    rows (B,) int64: where the sequences lie in the columns that the batch was cut from.
    """

    columns: dict[str, Tensor]
    lengths: dict[str, Tensor]
    rows: np.ndarray


class PaddedBatches:
    """Batches of some columns of N rows each, rows of like lengths together.

    columns: by name, a Ragged column, or an array (N, ...) of one entry a row.
    batch_size: rows in a batch; the last one of an epoch may have fewer, every row comes once an epoch.
    seed: of the order of training.
    length_of: the ragged column whose lengths decide which rows go together; the first one unless given.
    padding: by name, what follows a row's end; 0 unless given.

    Raises DataError if there is no row, or the columns have different numbers of rows.
    """

    def __init__(
        self,
        columns: Mapping[str, Ragged | np.ndarray],
        batch_size: int,
        *,
        seed: int = 0,
        length_of: str | None = None,
        padding: Mapping[str, float] | None = None,
    ):
        numbers = {name: len(column) for name, column in columns.items()}
        if len(set(numbers.values())) != 1 or 0 in numbers.values():
            raise DataError(f"expected columns of the same number of rows, one or more, got {numbers}")
        self.columns = dict(columns)
        self.batch_size = batch_size
        self.seed = seed
        self.padding = dict(padding or {})
        self.rows = next(iter(numbers.values()))
        ragged = {name: column.lengths for name, column in columns.items() if isinstance(column, Ragged)}
        equal = np.ones(self.rows, dtype=np.int64)  # where no column has lengths
        self._lengths = ragged[length_of] if length_of else next(iter(ragged.values()), equal)
        self.batches_per_epoch = -(-self.rows // batch_size)
        self._epoch: int | None = None

    def batch(self, epoch: int, index: int) -> PaddedBatch:
        """Number `index` of `batches_per_epoch` of the epoch, for training."""
        if not 0 <= index < self.batches_per_epoch:
            raise IndexError(f"batch {index} of an epoch of {self.batches_per_epoch}")
        if epoch != self._epoch:
            self._order = self._shuffled(np.random.default_rng((self.seed, epoch)))
            self._epoch = epoch
        return self.cut(self._order[index])

    def in_order(self) -> Iterator[PaddedBatch]:
        """Every row once, the shortest first: always the same, for evaluation; `rows` says which is which."""
        order = np.argsort(self._lengths, kind="stable")
        for start in range(0, self.rows, self.batch_size):
            yield self.cut(order[start : start + self.batch_size])

    def cut(self, rows: np.ndarray) -> PaddedBatch:
        """The batch of these rows."""
        columns: dict[str, Tensor] = {}
        lengths: dict[str, Tensor] = {}
        for name, column in self.columns.items():
            if isinstance(column, Ragged):
                columns[name] = torch.from_numpy(column.padded(rows, self.padding.get(name, 0)))
                lengths[name] = torch.from_numpy(column.lengths[rows])
            else:
                columns[name] = torch.from_numpy(column[rows])
        return PaddedBatch(columns, lengths, rows)

    def _shuffled(self, random: np.random.Generator) -> list[np.ndarray]:
        """The rows of each batch: drawn in pools, sorted by length in their pool, and the batches shuffled again."""
        order = random.permutation(self.rows)
        pool = POOL * self.batch_size
        batches: list[np.ndarray] = []
        for start in range(0, self.rows, pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(self._lengths[rows], kind="stable")]
            batches += [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        return [batches[i] for i in random.permutation(len(batches))]
