"""Times: every way to write them, written back alike, and the row of one that is written otherwise."""

import datetime

import numpy as np
import polars as pl
import pytest

from gatewise.data.table import Table
from gatewise.data.times import read_times, write_times
from gatewise.errors import DataError


def table_of(*cells: object) -> Table:
    return Table("t.csv", pl.DataFrame({"time": cells}), "csv", np.arange(1, len(cells) + 1))


@pytest.mark.parametrize(
    ("first", "second", "format"),
    [
        ("2020-01-31", "2020-02-29", "%Y-%m-%d"),
        ("2020-01-31 00:30:00", "2020-02-29 00:00:00", "%Y-%m-%d %H:%M:%S"),
        ("2020-01-31T00:30:00", "2020-02-29T00:00:00", "%Y-%m-%dT%H:%M:%S"),
        ("2020-01-31 00:30", "2020-02-29 00:00", "%Y-%m-%d %H:%M"),
        ("2020-01-31T00:30:00.250", "2020-02-29T00:00:00.500", "%Y-%m-%dT%H:%M:%S%.f"),
        ("2020/01/31", "2020/02/29", "%Y/%m/%d"),
        ("31.01.2020 00:30", "29.02.2020 00:00", "%d.%m.%Y %H:%M"),
        ("01/31/2020", "02/29/2020", "%m/%d/%Y"),
        ("31/01/2020", "29/02/2020", "%d/%m/%Y"),
        ("31 Jan 2020", "29 Feb 2020", "%d %b %Y"),
        ("20200131", "20200229", "%Y%m%d"),
    ],
)
def test_formats(first: str, second: str, format: str):
    times, found = read_times(table_of(first, f" {second}"), "time")
    assert found == format
    assert times.dtype == np.dtype("M8[us]")
    assert times.astype("M8[D]").astype(str).tolist() == ["2020-01-31", "2020-02-29"]
    assert ("30" in str(times[0].astype("M8[m]"))[-2:]) == ("30" in first)
    assert write_times(times, found) == [first, second]


@pytest.mark.parametrize("texts", [("1949-01", "1949-12"), ("1949/01", "1949/12"), ("Jan 1949", "Dec 1949")])
def test_months(texts: tuple[str, str]):
    times, found = read_times(table_of(*texts), "time")
    assert times.astype("M8[D]").astype(str).tolist() == ["1949-01-01", "1949-12-01"]
    assert write_times(times, found) == list(texts)


def test_zones_become_utc():
    times, found = read_times(table_of("2020-01-31T00:00:00Z", "2020-01-31T00:00:00+02:00"), "time")
    assert times.astype("M8[h]").astype(str).tolist() == ["2020-01-31T00", "2020-01-30T22"]
    assert write_times(times, found)[1] == "2020-01-30T22:00:00+00:00"


def test_numbers_stay_numbers():
    for cells in (("1949", "-3"), (1949, -3)):
        times, found = read_times(table_of(*cells), "time")
        assert found is None
        assert times.dtype == np.int64
        assert times.tolist() == [1949, -3]
        assert write_times(times, found) == ["1949", "-3"]


def test_times_of_parquet():
    day = datetime.date(2020, 1, 31)
    assert read_times(table_of(day), "time")[0].astype(str).tolist() == ["2020-01-31T00:00:00.000000"]
    noon = datetime.datetime(2020, 1, 31, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    times, found = read_times(table_of(noon), "time")
    assert times.astype("M8[h]").astype(str).tolist() == ["2020-01-31T10"]
    assert write_times(times, found) == ["2020-01-31 10:00:00"]


def test_format_that_is_given():
    times, found = read_times(table_of("5|2|2020"), "time", "%d|%m|%Y")
    assert times.astype("M8[D]").astype(str).tolist() == ["2020-02-05"]
    assert write_times(times, found) == ["05|02|2020"]


@pytest.mark.parametrize(
    ("cells", "time_format", "expected"),
    [
        (
            ("soon",),
            None,
            't.csv: row 1, column "time": expected a time, got "soon"; give time_format, for example "%d.%m.%Y %H:%M"',
        ),
        (
            ("2020-01-31", "2020-02-30"),
            None,
            't.csv: row 2, column "time": expected a time written like "2020-01-31", got "2020-02-30"',
        ),
        (
            ("2020-01-31", "31.01.2020"),
            "%Y-%m-%d",
            't.csv: row 2, column "time": expected a time of the format "%Y-%m-%d", got "31.01.2020"',
        ),
        (("1949", "1950a"), None, 't.csv: row 2, column "time": expected a whole number like "1949", got "1950a"'),
        (("2020-01-31", None), None, 't.csv: row 2, column "time": empty; expected a time'),
        (
            ("01/02/2020", "03/02/2020"),
            None,
            't.csv: column "time": "01/02/2020" may be day/month or month/day; '
            'give time_format, "%d/%m/%Y" or "%m/%d/%Y"',
        ),
    ],
)
def test_wrong(cells: tuple[object, ...], time_format: str | None, expected: str):
    with pytest.raises(DataError) as caught:
        read_times(table_of(*cells), "time", time_format)
    assert str(caught.value) == expected


def test_broken_format():
    with pytest.raises(DataError, match=r'^time_format "%d %H": '):
        read_times(table_of("31 12"), "time", "%d %H")
