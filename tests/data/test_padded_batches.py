"""Ragged arrays and padded batches: every row once, rows of like lengths together, the same for the same numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.data import padded_batches
from gatewise.data.padded_batches import PaddedBatches
from gatewise.data.ragged import Ragged
from gatewise.errors import DataError


def rows_of(batches: PaddedBatches, epoch: int) -> list[list[int]]:
    return [batches.batch(epoch, index).rows.tolist() for index in range(batches.batches_per_epoch)]


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=8), st.data())
def test_ragged_equals_the_lists(lists: list[list[int]], data: Any):
    ragged = Ragged.of(lists, np.int32)
    assert len(ragged) == len(lists)
    assert [row.tolist() for row in ragged] == lists
    assert ragged[-1].tolist() == lists[-1]
    assert ragged.lengths.tolist() == [len(row) for row in lists]
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), min_size=1, max_size=5))
    padded = ragged.padded(np.array(rows), fill=-1)
    longest = max(len(lists[row]) for row in rows)
    assert padded.shape == (longest, len(rows))
    for column, row in enumerate(rows):
        assert padded[:, column].tolist() == lists[row] + [-1] * (longest - len(lists[row]))


def test_ragged_of_arrays_with_features():
    arrays = [np.full((length, 3), length, dtype=np.float32) for length in (2, 0, 1)]
    ragged = Ragged.of(arrays)
    assert ragged.values.shape == (3, 3)
    padded = ragged.padded(np.array([0, 1, 2]))
    assert padded.dtype == np.float32
    assert padded[:, :, 0].tolist() == [[2, 0, 1], [2, 0, 0]]
    with pytest.raises(IndexError):
        ragged[3]


def test_ragged_of_nothing():
    assert len(Ragged.of([], np.int32)) == 0
    assert Ragged.of([[], []], np.int32).padded(np.array([0, 1])).shape == (0, 2)


def test_batch_of_several_columns():
    batches = PaddedBatches(
        {
            "words": Ragged.of([[1, 2, 3], [4]], np.int64),
            "characters": Ragged.of([np.ones((3, 5), np.int32), np.ones((1, 5), np.int32)]),
            "written": Ragged.of([[7], [8, 9]], np.int64),
            "label": np.array([1, 0]),
        },
        2,
        padding={"written": -1},
    )
    (batch,) = batches.in_order()
    assert batch.rows.tolist() == [1, 0]
    assert batch.columns["words"].tolist() == [[4, 1], [0, 2], [0, 3]]
    assert batch.columns["words"].dtype == torch.int64
    assert batch.columns["characters"].shape == (3, 2, 5)
    assert batch.columns["written"].tolist() == [[8, 7], [9, -1]]
    assert batch.columns["label"].tolist() == [0, 1]
    assert {name: lengths.tolist() for name, lengths in batch.lengths.items()} == {
        "words": [1, 3],
        "characters": [1, 3],
        "written": [2, 1],
    }


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 7), st.integers(0, 3))
def test_every_row_once_an_epoch(lengths: list[int], batch_size: int, epoch: int):
    ragged = Ragged.of([np.zeros(length) for length in lengths])
    batches = PaddedBatches({"x": ragged}, batch_size, seed=1)
    rows = rows_of(batches, epoch)
    assert len(rows) == batches.batches_per_epoch
    assert sorted(row for batch in rows for row in batch) == list(range(len(lengths)))
    assert all(len(batch) <= batch_size for batch in rows)
    evaluated = [row for batch in batches.in_order() for row in batch.rows.tolist()]
    assert sorted(evaluated) == list(range(len(lengths)))
    assert [lengths[row] for row in evaluated] == sorted(lengths)


def test_order_depends_on_seed_and_epoch_alone():
    ragged = Ragged.of([np.zeros(length) for length in np.random.default_rng(0).integers(1, 40, 200)])
    first = PaddedBatches({"x": ragged}, 8, seed=5)
    orders = [rows_of(first, epoch) for epoch in (0, 1, 2)]
    assert orders[0] != orders[1] != orders[2]
    resumed = PaddedBatches({"x": ragged}, 8, seed=5)
    assert resumed.batch(2, 7).rows.tolist() == orders[2][7]
    assert rows_of(resumed, 0) == orders[0]
    assert rows_of(PaddedBatches({"x": ragged}, 8, seed=6), 0) != orders[0]


def test_rows_of_like_lengths_are_together(monkeypatch: pytest.MonkeyPatch):
    lengths = np.random.default_rng(0).integers(1, 100, 2000)
    batches = PaddedBatches({"x": Ragged.of([np.zeros(length) for length in lengths])}, 20)

    def share_of_padding() -> float:
        rows = rows_of(PaddedBatches(batches.columns, 20), 0)
        steps = sum(len(batch) * lengths[batch].max() for batch in rows)
        return 1 - lengths.sum() / steps

    assert share_of_padding() < 0.03
    monkeypatch.setattr(padded_batches, "POOL", 1)
    assert share_of_padding() > 0.3


def test_length_of_another_column():
    columns = {"x": Ragged.of([[1], [1, 2], [1, 2, 3]]), "y": Ragged.of([[1, 2, 3], [1, 2], [1]])}
    assert [batch.rows.tolist() for batch in PaddedBatches(columns, 1, length_of="y").in_order()] == [[2], [1], [0]]


def test_columns_without_lengths():
    batches = PaddedBatches({"x": np.arange(5.0)}, 2)
    assert [batch.columns["x"].tolist() for batch in batches.in_order()] == [[0, 1], [2, 3], [4]]


def test_wrong_columns():
    with pytest.raises(DataError) as caught:
        PaddedBatches({"x": np.zeros(3), "y": np.zeros(2)}, 2)
    assert str(caught.value) == "expected columns of the same number of rows, one or more, got {'x': 3, 'y': 2}"
    with pytest.raises(DataError):
        PaddedBatches({"x": np.zeros(0)}, 2)
    with pytest.raises(IndexError, match="batch 2 of an epoch of 2"):
        PaddedBatches({"x": np.zeros(3)}, 2).batch(0, 2)
