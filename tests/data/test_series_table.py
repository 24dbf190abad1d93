"""Tables of series: columns, times, several series, times to come, and every row that can be wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatewise.data.series import SeriesTable
from gatewise.data.series_table import read_series
from gatewise.errors import DataError

STORES = """date,store,kind,size,sales,holiday
2024-01-01,b,city,1.5,10,1
2024-01-01,a,town,2,1,1
2024-01-02,b,city,1.5,11,0
2024-01-02,a,town,2,2,0
2024-01-03,b,city,1.5,,1
2024-01-03,a,town,2,3,1
2024-01-04,a,town,2,,0
"""
COLUMNS: dict[str, Any] = {
    "target_columns": ["sales"],
    "id_column": "store",
    "known_columns": ["holiday"],
    "static_columns": ["kind", "size"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.csv"


def read(path: Path, text: str, **settings: Any) -> SeriesTable:
    path.write_text(text)
    return read_series(path, **settings)


def error_of(path: Path, text: str, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, text, **settings)
    return str(caught.value).replace(f"{path}", "t.csv")


def days(*numbers: int, values: str = "") -> str:
    cells = values.split(",") if values else map(str, range(len(numbers)))
    return "date,y\n" + "".join(f"2024-01-{day:02},{cell}\n" for day, cell in zip(numbers, cells, strict=True))


def test_several_series(path: Path):
    table = read(path, STORES, **COLUMNS)
    assert [series.name for series in table.series] == ["b", "a"]
    b, a = table.series
    assert (len(b), len(a)) == (2, 3)
    assert (b.values.tolist(), a.values.tolist()) == ([[10], [11]], [[1], [2], [3]])
    assert (b.known.tolist(), a.known.tolist()) == ([[1], [0], [1]], [[1], [0], [1], [0]])
    assert a.times.astype("M8[D]").astype(str).tolist() == [f"2024-01-0{day}" for day in (1, 2, 3, 4)]
    assert (b.static_labels, b.static_numbers.tolist()) == (("city",), [1.5])
    assert (table.static_label_names, table.static_number_names) == (("kind",), ("size",))
    assert a.place == f"{path}, store a"
    assert str(table.frequency) == "1 day"
    assert table.time_format == "%Y-%m-%d"
    assert table.describe() == {
        "source": str(path),
        "series": 2,
        "frequency": "1 day",
        "season": 7,
        "steps": {"total": 5, "shortest": 2, "longest": 3},
        "first_time": "2024-01-01",
        "last_time": "2024-01-03",
        "targets": ["sales"],
        "known": ["holiday"],
        "static": ["size", "kind"],
    }


def test_guessed(path: Path):
    table = read(path, "Month,a,b,note\n2024-01,1,2,x\n2024-02,3,,y\n", missing="previous")
    assert table.target_names == ("a", "b")
    assert table.series[0].values.tolist() == [[1, 2], [3, 2]]
    assert [note.replace(str(path), "t.csv") for note in table.notes] == [
        't.csv: took the times from column "Month"',
        "t.csv: forecasting a, b, of the columns Month, a, b, note",
    ]
    table = read(path, "unique_id,ds,y,other\n1,2024-01-01,5,6\n1,2024-01-02,5,6\n")
    assert (table.target_names, table.id_name, table.time_name) == (("y",), "unique_id", "ds")


def test_rows_as_times(path: Path):
    table = read(path, "load\n1\n2\n3\n")
    assert table.series[0].times.tolist() == [0, 1, 2]
    assert (table.time_name, table.time_format, str(table.frequency)) == (None, None, "1 step")
    assert table.notes[-1] == f"{path}: no column of times, so each row is a step (columns: load)"
    table = read(path, "id,load\na,1\nb,2\na,3\nb,4\n")
    assert [series.times.tolist() for series in table.series] == [[0, 1], [0, 1]]


def test_latest_first_is_turned_round(path: Path):
    table = read(path, days(3, 2, 1))
    assert table.series[0].values[:, 0].tolist() == [2, 1, 0]
    assert table.notes[-1] == f"{path}: the latest rows come first, and were turned round"


def test_missing_times_and_values_are_filled(path: Path):
    text = days(1, 2, 4, 7, values="1,,5,8")
    assert read(path, text, missing="linear").series[0].values[:, 0].tolist() == pytest.approx(
        [1, 1 + 4 / 3, 1 + 8 / 3, 5, 6, 7, 8]
    )
    table = read(path, text, missing="previous")
    assert table.series[0].values[:, 0].tolist() == [1, 1, 1, 5, 5, 5, 8]
    assert np.diff(table.series[0].times).astype("m8[D]").astype(int).tolist() == [1] * 6


def test_business_days_and_given_frequency(path: Path):
    assert str(read(path, days(4, 5, 8, 9)).frequency) == "1 business day"
    assert str(read(path, days(1, 15), frequency="14 days").frequency) == "14 days"
    assert read(path, days(1), frequency="1 day").series[0].values.tolist() == [[0]]


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        (
            days(1, 3, 2),
            {},
            "t.csv: row 3: the time 2024-01-02 is earlier than 2024-01-03 in the row before; sort the rows by time",
        ),
        (days(1, 2, 2, 3), {}, "t.csv: row 3: the time 2024-01-02 comes twice, first in t.csv: row 2"),
        (
            days(1, 2, 3, 6, 7),
            {},
            "t.csv: row 4: 2 times are missing before 2024-01-06, every 1 day after 2024-01-03; "
            "add the rows, or have them filled with missing = previous or linear",
        ),
        (
            "time,y\n2024-01-01 10:00,1\n2024-01-01 11:00,2\n2024-01-01 12:00,2\n2024-01-01 12:30,3\n",
            {"missing": "linear"},
            "t.csv: row 4: the time 2024-01-01 12:30:00 is not one of every 1 hour after 2024-01-01 10:00:00; "
            "the times of a series must be regular",
        ),
        (
            "step,y\n1,1\n2,2\n4,3\n",
            {"time_column": "step"},
            "t.csv: row 3: 1 time is missing before 4, every 1 step after 2; "
            "add the rows, or have them filled with missing = previous or linear",
        ),
        (
            days(1, 2, 3, values="1,,nan"),
            {},
            't.csv: row 2, column "y": empty or NaN (and 1 more); '
            "give it, or have it filled with missing = previous or linear",
        ),
        ("date,a\n2024-01-01,x\n", {}, "t.csv: no column of numbers to forecast; give target_columns, of date, a"),
        ("a,b\n1,2\n3,4\nx,6\n", {}, 't.csv: row 3, column "a": expected a number, got "x"'),
        (
            days(1, 2, values="1,inf"),
            {"target_columns": ["y"]},
            't.csv: row 2, column "y": infinite; expected a finite number',
        ),
        (days(1), {}, "t.csv: a series has 1 row; a frequency needs 2, or give it, for example 1 day"),
        (days(1, 2), {"target_columns": ["z"]}, 't.csv: no column "z"; its columns are date, y'),
        (
            days(1, 2),
            {"target_columns": ["y"], "known_columns": ["y"]},
            't.csv: column "y" cannot be a target and something else',
        ),
        (days(1, 2), {"frequency": "daily"}, 'expected a frequency such as "1 hour" or "3 months", got "daily"'),
        (
            STORES.replace("a,town,2,3", "a,city,2,3"),
            COLUMNS,
            't.csv: row 6: the static column "kind" is "city", and "town" in t.csv: row 2 of a; '
            "it must not change within a series",
        ),
        (
            STORES.replace("2,2,0", "2,2,"),
            COLUMNS,
            't.csv: row 4, column "holiday": empty or NaN; '
            "give it, or have it filled with missing = previous or linear",
        ),
        (
            STORES.replace(",10,", ",,").replace(",11,", ",,"),
            COLUMNS,
            "t.csv, store b: no value of sales",
        ),
    ],
)
def test_wrong(text: str, settings: dict[str, Any], expected: str, path: Path):
    assert error_of(path, text, **settings) == expected


def test_a_gap_far_too_long(path: Path):
    said = error_of(path, "date,y\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n2999-01-01,4\n", missing="previous")
    assert said.startswith("t.csv: row 4: the time 2999-01-01 is not one of every 1 day after 2020-01-01")


def test_air_passengers(data_dir: Path):
    table = read_series(data_dir / "air-passengers" / "airline-passengers.csv")
    assert table.describe()["steps"]["total"] == 144
    assert (str(table.frequency), table.frequency.season) == ("1 month", 12)
    assert table.series[0].values[[0, -1], 0].tolist() == [112, 432]


def test_transformer(data_dir: Path):
    table = read_series(data_dir / "ett" / "ETTh2.csv")
    assert table.series[0].values.shape == (17_420, 7)
    assert str(table.frequency) == "1 hour"
    assert table.target_names == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
