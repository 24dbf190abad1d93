"""Series as a network reads them: scales of the training part alone, columns that must be there, times to come."""

import numpy as np
import pytest

from gatewise.data.series_arrays import series_of
from gatewise.data.series_encoding import SeriesEncoding
from gatewise.data.series_table import read_series
from gatewise.errors import DataError, InputError

CSV = """day,store,sales,price,size,town
2024-01-01,a,10,1,5,Ulm
2024-01-02,a,12,2,5,Ulm
2024-01-03,a,1000,3,5,Ulm
2024-01-01,b,20,5,7,Jena
2024-01-02,b,22,4,7,Jena
2024-01-03,b,24,3,7,Jena
2024-01-04,b,,2,7,Jena
"""
COLUMNS = {
    "target_columns": ["sales"],
    "id_column": "store",
    "known_columns": ["price"],
    "static_columns": ["size", "town"],
}


@pytest.fixture
def table(tmp_path):
    (tmp_path / "sales.csv").write_text(CSV)
    return read_series(tmp_path / "sales.csv", **COLUMNS)


@pytest.fixture
def encoding(table):
    return SeriesEncoding.fit(table, [2, 2], cycles=("week",))


def test_scales_of_the_training_part_alone(table, encoding):
    values = np.array([10, 12, 20, 22])
    assert encoding.scaler.mean.tolist() == [values.mean()]
    assert encoding.scaler.scale.tolist() == [values.std()]
    np.testing.assert_allclose(encoding.scaled(np.array([[1000.0]])), [[(1000 - 16) / values.std()]], rtol=1e-6)
    np.testing.assert_allclose(
        encoding.restored(encoding.scaled(values[:, None].astype(float)))[:, 0], values, rtol=1e-6
    )


def test_panel(table, encoding):
    assert encoding.sizes == (1, 1 + 5, 1 + 2)
    panel = encoding.encode(table)
    assert panel.names == ["a", "b"]
    assert [len(values) for values in panel.values] == [3, 3]
    assert [len(known) for known in panel.known] == [3, 4]
    prices = np.array([1, 2, 5, 4])
    np.testing.assert_allclose(panel.known[1][3, 0], (2 - prices.mean()) / prices.std(), rtol=1e-6)
    np.testing.assert_allclose(panel.static, [[-1, 0, 1], [1, 1, 0]])  # sizes 5 and 7; Jena, Ulm
    assert encoding.times_of(panel.times[1])[-1] == np.datetime64("2024-01-04")


def test_counts_stay_as_they_are(table):
    encoding = SeriesEncoding.fit(table, [2, 2], unscaled=True)
    assert encoding.scaled(np.array([[7.0]])).tolist() == [[7]]
    assert encoding.restored(np.array([[7.0]])).tolist() == [[7]]


def test_a_document(table, encoding):
    other = SeriesEncoding.from_json(encoding.to_json())
    assert other.to_json() == encoding.to_json()
    np.testing.assert_array_equal(other.encode(table).known.values, encoding.encode(table).known.values)
    with pytest.raises(InputError, match=r"^damaged series: 'scaler'$"):
        SeriesEncoding.from_json(encoding.to_json().replace('"scaler": {', '"other": {'))


def test_a_label_that_training_does_not_have_is_none_of_its_own(table, encoding, tmp_path):
    (tmp_path / "other.csv").write_text(CSV.replace("Ulm", "Bonn"))
    panel = encoding.encode(encoding.read(tmp_path / "other.csv", missing="error"))
    np.testing.assert_allclose(panel.static, [[-1, 0, 0], [1, 1, 0]])


def test_times_to_come(table, encoding):
    panel = encoding.encode(table)
    assert encoding.with_times_after(panel, 0).times.lengths.tolist() == [3, 4]
    with pytest.raises(DataError) as caught:
        encoding.with_times_after(panel, 1)
    assert str(caught.value) == (
        f"{table.source}, store a: price known for 0 steps to come, and a forecast of 1 needs as many; add rows with "
        "empty targets at the end"
    )
    plain = series_of({"a": [1, 2, 3]}, times={"a": np.array(["2024-01-30", "2024-01-31", "2024-02-01"], "M8")})
    encoding = SeriesEncoding.fit(plain, [3], cycles=("week",))
    longer = encoding.with_times_after(encoding.encode(plain), 2)
    assert encoding.times_of(longer.times[0])[-1] == np.datetime64("2024-02-03")
    assert longer.known[0][-1, 4] == 1  # a Saturday


def test_other_columns_are_refused(table, encoding, tmp_path):
    (tmp_path / "other.csv").write_text(CSV.replace("sales", "sold"))
    with pytest.raises(DataError) as caught:
        encoding.read(tmp_path / "other.csv", missing="error")
    assert str(caught.value) == (
        f'{tmp_path / "other.csv"}: no column "sales"; its columns are day, store, sold, price, size, town'
    )
    with pytest.raises(DataError) as caught:
        encoding.encode(series_of(np.zeros((3, 2))))
    assert str(caught.value) == ("series: expected 1 target columns, as in training (sales), got 2 (y1, y2)")
    weekly = series_of([1, 2], times=np.array(["2024-01-01", "2024-01-08"], "M8"))
    with pytest.raises(DataError) as caught:
        SeriesEncoding.fit(series_of([1, 2], times=np.array(["2024-01-01", "2024-01-02"], "M8")), [2]).encode(weekly)
    assert str(caught.value) == "series: has a step every 1 week, and the model was trained on one every 1 day"
