"""Standardisation: against scikit-learn's, back again, constant features, values that are not finite."""

import json
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from gatewise.data.scaling import Scaler
from gatewise.errors import DataError, InputError, ShapeError


def test_as_scikit_learn():
    random = np.random.default_rng(0)
    arrays = [random.normal([1e6, 0, -3], [1, 1e-3, 50], (length, 3)) for length in (5, 0, 40, 1)]
    scaler = Scaler.fit(arrays, ["a", "b", "c"])
    theirs: Any = StandardScaler().fit(np.concatenate(arrays))
    np.testing.assert_allclose(scaler.mean, theirs.mean_, rtol=1e-12)
    np.testing.assert_allclose(scaler.scale, theirs.scale_, rtol=1e-9)
    scaled = scaler.transform(arrays[2])
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, theirs.transform(arrays[2]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scaler.inverse(scaled), arrays[2], rtol=1e-6, atol=1e-6)


def test_constant_feature_becomes_zero():
    scaler = Scaler.fit([np.full((7, 2), [0.1, 0.0])])
    assert scaler.scale.tolist() == [1.0, 1.0]
    assert np.abs(scaler.transform(np.full((1, 2), [0.1, 0.0]))).max() < 1e-15


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_not_finite(bad: float):
    array = np.ones((3, 2), dtype=np.float32)
    array[1, 1] = bad
    with pytest.raises(DataError, match=r"^load: a value is NaN or infinite; a scaler needs finite values$"):
        Scaler.fit([array], ["time", "load"])
    with pytest.raises(DataError, match=r"^feature 1: a value is NaN"):
        Scaler.fit([array, -array])


def test_nothing_to_fit():
    with pytest.raises(DataError, match=r"^nothing to fit a scaler to: there is no step$"):
        Scaler.fit([np.zeros((0, 2))])


def test_other_features():
    scaler = Scaler.fit([np.eye(2)], ["a", "b"])
    for method in (scaler.transform, scaler.inverse):
        with pytest.raises(ShapeError, match=r"^expected 2 features \(a, b\), got shape \(4, 3\)$"):
            method(np.zeros((4, 3)))


def test_json(tmp_path):
    scaler = Scaler.fit([np.random.default_rng(0).normal(size=(9, 2))], ["a", "ß"])
    scaler.save(tmp_path / "scaler.json")
    again = Scaler.load(tmp_path / "scaler.json")
    assert (again.mean.tolist(), again.scale.tolist()) == (scaler.mean.tolist(), scaler.scale.tolist())
    assert again.names == ("a", "ß")
    for damage in ({"mean": [1]}, {"scale": ["x", "y"]}, {"names": None}):
        document = json.dumps(json.loads(scaler.to_json()) | damage)
        with pytest.raises(InputError, match=r"^damaged scaler: expected mean, scale and names, of each one for each"):
            Scaler.from_json(document)
