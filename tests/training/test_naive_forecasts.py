"""Errors of the naive forecasts by series: of those in training, and of others."""

import numpy as np
import pytest

from gatewise.data.series_arrays import series_of
from gatewise.data.series_encoding import Panel, SeriesEncoding
from gatewise.errors import InputError
from gatewise.training.forecast_scores import naive_error
from gatewise.training.naive_forecasts import NaiveForecasts

RANDOM = np.random.default_rng(0)


def _panel(**series: np.ndarray) -> Panel:
    table = series_of(series)
    return SeriesEncoding.fit(table, [len(each) for each in table.series]).encode(table)


def test_errors_are_kept_by_id():
    a, b, c = RANDOM.standard_normal((3, 30, 1))
    naive = NaiveForecasts.fit(_panel(a=a, b=b), np.array([20, 25]), 3)
    assert naive.seen_until == {"a": 19, "b": 24}
    naive = NaiveForecasts.from_json(naive.to_json())
    found = naive.errors_of(_panel(b=RANDOM.standard_normal((9, 1)), c=c), [5, 10])
    np.testing.assert_allclose(found, [naive_error(b[:25], 3), naive_error(c[:10], 3)])


def test_what_repeats_itself_has_no_error():
    naive = NaiveForecasts.from_json(NaiveForecasts.fit(_panel(a=np.ones((9, 1))), np.array([9]), None).to_json())
    assert naive.errors == {"a": [None]}
    assert np.isnan(naive.errors_of(_panel(a=np.ones((9, 1))), [9])).all()


def test_a_damaged_document():
    with pytest.raises(InputError, match=r"^damaged baseline: expected season, errors and seen_until$"):
        NaiveForecasts.from_json('{"season": 3}')
