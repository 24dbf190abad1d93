"""Splits of series by time, the origins of forecasts, and windows in batches."""

from typing import Any

import numpy as np
import pytest
import torch

from gatewise.data.frequency import Frequency
from gatewise.data.series import Series, SeriesTable
from gatewise.data.series_splits import SeriesSplit, forecast_origins, split_series
from gatewise.data.series_windows import SeriesBatch, SeriesWindows
from gatewise.errors import DataError


def table_of(*lengths: int) -> SeriesTable:
    series = [
        Series(
            name=str(i),
            times=np.arange(length),
            values=np.arange(length, dtype=np.float64)[:, None],
            known=np.empty((length, 0)),
            static_numbers=np.empty(0),
            static_labels=(),
            place=f"t.csv, id {i}",
        )
        for i, length in enumerate(lengths)
    ]
    return SeriesTable("t.csv", series, Frequency(1, "step"), ("y",), (), (), (), None, "id", None)


def ends(split: SeriesSplit) -> list[list[int]]:
    return np.stack([split.training_end, split.validation_end, split.test_end], axis=1).tolist()


def error_of(table: SeriesTable, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        split_series(table, **settings)
    return str(caught.value)


def test_shares_and_numbers():
    split = split_series(table_of(100, 50))
    assert ends(split) == [[80, 90, 100], [40, 45, 50]]
    assert split.rules == (
        "validation: 5 to 10 steps of each series after those of training",
        "test: 5 to 10 steps of each series after those of validation",
    )
    assert split.to_json()["steps"] == {"training": 120, "validation": 15, "test": 15}
    split = split_series(table_of(144), validation=0, test=24)
    assert ends(split) == [[120, 120, 144]]
    assert split.rules == ("test: 24 steps of each series after those of training",)


def test_as_the_benchmarks_split_transformers():
    month = 30 * 24
    split = split_series(table_of(17_420), training=12 * month, validation=4 * month, test=4 * month, horizon=24)
    assert ends(split) == [[8640, 11_520, 14_400]]
    start, end = split.part("test")
    assert len(forecast_origins(start, end, context=96, horizon=24)) == 4 * month - 23


def test_series_too_short():
    assert error_of(table_of(100, 30), validation=12, test=12, horizon=12) == (
        "t.csv, id 1: 30 steps are too few for validation = 12 and test = 12, and a training of at least the horizon, "
        "12; give a longer series, or hold out less"
    )
    assert error_of(table_of(10), training=8, validation=2, test=2) == (
        "t.csv, id 0: 10 steps are too few for training = 8, validation = 2 and test = 2, "
        "and a training of at least the horizon, 1; give a longer series, or hold out less"
    )
    assert error_of(table_of(100), test=8, horizon=12) == (
        "t.csv, id 0: validation = 0.1 is 10 of 100 steps, shorter than the horizon, 12"
    )
    assert error_of(table_of(4), validation=0.1, test=0) == (
        "t.csv, id 0: validation = 0.1 is 0 of 4 steps, shorter than the horizon, 1"
    )
    assert error_of(table_of(4), test=1.5) == "test: expected a share below 1 or a number of steps, got 1.5"


def test_origins():
    start, end = np.array([0, 10]), np.array([5, 16])
    assert forecast_origins(start, end, context=2, horizon=3).tolist() == [[0, 2], [1, 10], [1, 11], [1, 12], [1, 13]]
    assert forecast_origins(start, end, context=2, horizon=2, stride=2).tolist() == [[0, 3], [1, 10], [1, 12], [1, 14]]
    assert forecast_origins(start, end, context=9, horizon=9).tolist() == []


def windows_of(table: SeriesTable, batch_size: int = 3, **settings: Any) -> SeriesWindows:
    values = [series.values.astype(np.float32) + 100 * i for i, series in enumerate(table.series)]
    known = [np.concatenate([series, series[-1:] + 1]) * 2 for series in values]
    origins = forecast_origins(
        np.zeros(len(values), dtype=np.int64), np.array([len(series) for series in values]), context=4, horizon=2
    )
    static = np.arange(len(values), dtype=np.float32)[:, None]
    return SeriesWindows(values, known, static, origins, context=4, horizon=2, batch_size=batch_size, **settings)


def pairs_of(batch: SeriesBatch) -> list[list[int]]:
    return np.stack([batch.series, batch.origins], axis=1).tolist()


def test_windows():
    windows = windows_of(table_of(8, 7))
    first, last = windows.in_order()
    assert (first.series.tolist(), first.origins.tolist()) == ([0, 0, 0], [4, 5, 6])
    assert (last.series.tolist(), last.origins.tolist()) == ([1, 1], [4, 5])
    assert first.past[:, 1, 0].tolist() == [1, 2, 3, 4]
    assert first.future[:, 1, 0].tolist() == [5, 6]
    assert last.past[:, 0, 0].tolist() == [100, 101, 102, 103]
    assert torch.equal(last.known, 2 * torch.cat([last.past, last.future]))
    assert last.static.tolist() == [[1], [1]]
    assert last.past.dtype == torch.float32


def test_every_window_once_an_epoch_in_an_order_of_seed_and_epoch():
    windows = windows_of(table_of(30, 20), batch_size=7, seed=3)
    orders = []
    for epoch in (0, 1):
        batches = [windows.batch(epoch, index) for index in range(windows.batches_per_epoch)]
        orders.append([pair for batch in batches for pair in pairs_of(batch)])
        assert sorted(orders[-1]) == windows.origins.tolist()
    assert orders[0] != orders[1]
    assert pairs_of(windows_of(table_of(30, 20), batch_size=7, seed=3).batch(1, 2)) == orders[1][14:21]
    with pytest.raises(IndexError, match=r"^batch 6 of an epoch of 6$"):
        windows.batch(0, windows.batches_per_epoch)


def test_no_window():
    with pytest.raises(DataError) as caught:
        windows_of(table_of(5, 4))
    assert str(caught.value) == (
        "every series is shorter than a window of context = 4 and horizon = 2 steps; lower them, or give longer series"
    )
