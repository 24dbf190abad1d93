"""Tables: every format, columns as texts, numbers and lists, and the row of whatever is wrong."""

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from gatewise.data.table import Table, read_table
from gatewise.errors import DataError


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def error_of(path: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path, **settings)
    return str(caught.value).removeprefix(f"{path}: ")


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file)
    return file.getvalue()


def table_of(**columns: Any) -> Table:
    frame = pl.DataFrame(columns)
    return Table("t.parquet", frame, "parquet", np.arange(1, frame.height + 1))


# Formats


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'text,label\n"one, ""two""",01\n\nthree,02\n'),
        ("t.csv", 'text;label\r\none, "two";01\r\n;\r\nthree;02\r\n'.replace('one, "two"', '"one, ""two"""')),
        ("t.tsv", 'text\tlabel\none, "two"\t01\n\t\nthree\t02\n'),
        ("t.tsv", 'text\tlabel\n"one, ""two"""\t01\n\t\n"three"\t02\n'),
        ("t.jsonl", '{"text": "one, \\"two\\"", "label": "01"}\n\n{"label": "02", "text": "three"}\n'),
        ("t.parquet", parquet(text=['one, "two"', None, "three"], label=["01", None, "02"])),
        ("t.parquet.gz", gzip.compress(parquet(text=['one, "two"', None, "three"], label=["01", None, "02"]), mtime=0)),
        ("t.csv.gz", gzip.compress(b'\xef\xbb\xbftext,label\n"one, ""two""",01\n\nthree,02', mtime=0)),
        ("t", '{"text": "one, \\"two\\"", "label": "01"}\n \n{"label": "02", "text": "three"}\n'),
    ],
)
def test_formats(name: str, content: str | bytes, tmp_path: Path):
    table = read_table(write(tmp_path / name, content))
    assert table.columns == ["text", "label"]
    assert len(table) == 2
    assert table.texts("text") == ['one, "two"', "three"]
    assert table.texts("label") == ["01", "02"]
    what = "line" if table.format == "jsonl" else "row"
    assert table.places() == [f"{tmp_path / name}: {what} 1", f"{tmp_path / name}: {what} 3"]


def test_quotes_of_a_tsv_are_left_where_one_does_not_fit(tmp_path: Path):
    path = write(tmp_path / "t.tsv", 'text\tlabel\n"Go" he said\ta\n"Stop."\tb\n')
    assert read_table(path).texts("text") == ['"Go" he said', '"Stop."']


def test_without_header(tmp_path: Path):
    table = read_table(write(tmp_path / "t.csv", "a,b\nc,d\n"), header=False)
    assert table.columns == ["1", "2"]
    assert table.texts("2") == ["b", "d"]


def test_cells_over_several_lines(tmp_path: Path):
    table = read_table(write(tmp_path / "t.csv", 'text,label\n"one\ntwo",a\nthree,b\n'))
    assert table.texts("text") == ["one\ntwo", "three"]
    assert table.place(1) == f"{tmp_path / 't.csv'}: row 2"


def test_columns_without_a_name(tmp_path: Path):
    assert read_table(write(tmp_path / "t.csv", ",text, label\n0,a,b\n")).columns == ["1", "text", "label"]


# Columns


def test_missing_column():
    table = table_of(Text=["a"], label=["b"])
    for column, hint in (("txt", '; did you mean "Text"?'), ("spam", "")):
        with pytest.raises(DataError) as caught:
            table.texts(column)
        assert str(caught.value) == f't.parquet: no column "{column}"; its columns are Text, label{hint}'


def test_texts_of_other_types():
    table = table_of(whole=[1, 2], yes=[True, False], half=[0.5, 1], list=[[1], [2]], bytes=[b"a", b"b"])
    assert table.texts("whole") == ["1", "2"]
    assert table.texts("yes") == ["true", "false"]
    assert table.texts("half") == ["0.5", "1.0"]
    with pytest.raises(DataError, match=r'^t.parquet: column "list" holds List\(Int64\); expected texts$'):
        table.texts("list")
    with pytest.raises(DataError, match=r'^t.parquet: column "bytes" holds bytes; expected texts$'):
        table.texts("bytes")


def test_empty_texts():
    with pytest.raises(DataError) as caught:
        table_of(text=["a", " ", None, "b"]).texts("text")
    assert str(caught.value) == 't.parquet: row 2: column "text" is empty (and 1 more); fill or delete the row'


def test_numbers():
    table = table_of(text=[" 1", "-2.5e3"], whole=[1, None], yes=[True, False], nothing=[None, None], gap=["NA", "1"])
    assert table.numbers("text").tolist() == [1, -2500]
    assert table.numbers("yes").tolist() == [1, 0]
    assert table.numbers("whole", empty=True).tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert table.numbers("gap", empty=True).tolist() == pytest.approx([np.nan, 1], nan_ok=True)
    assert np.isnan(table.numbers("nothing", empty=True)).all()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "two"], 'expected a number, got "two"'),
        (["1", "1,5"], 'expected a number, got "1,5"; write decimals with a point'),
        (["1", ""], "empty or NaN; expected a finite number"),
        ([1.0, float("nan"), None], "empty or NaN (and 1 more); expected a finite number"),
        (["1", "-inf"], "infinite; expected a finite number"),
        ([1.0, float("inf")], "infinite; expected a finite number"),
    ],
)
def test_no_numbers(cells: list[Any], expected: str):
    with pytest.raises(DataError) as caught:
        table_of(load=cells).numbers("load")
    assert str(caught.value) == f't.parquet: row 2, column "load": {expected}'


def test_infinite_also_where_cells_may_be_empty():
    with pytest.raises(DataError, match=r'^t.parquet: row 2, column "load": infinite; expected a finite number$'):
        table_of(load=[None, float("inf")]).numbers("load", empty=True)


def test_numbers_of_another_type():
    with pytest.raises(DataError, match=r'^t.parquet: column "x" holds List\(Int64\); expected numbers$'):
        table_of(x=[[1]]).numbers("x")


def test_lists():
    table = table_of(text=["a  b", None], cut=["a| b c|", ""], list=[["a", None], None])
    assert table.lists("text") == [["a", "b"], []]
    assert table.lists("cut", "|") == [["a", "b c"], []]
    assert table.lists("list") == [["a"], []]


# What is wrong


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.csv", "a,b\n1,2\n\n3\n", "row 3: expected 2 cells as in the first line, got 1"),
        ("t.csv", "a,b\n1,2\n3,4,5\n", "row 2: expected 2 cells as in the first line, got 3"),
        ("t.csv", 'a,b\n1,"2\n3,4\n', "line 3: unexpected end of data"),
        ("t.csv", 'a,b\n1,"2"x\n3,4\n', "line 2: ',' expected after '\"'"),
        ("t.csv", "a,b,a\n1,2,3\n", 'two columns are called "a"; rename one'),
        ("t.csv", "a,b\n\n,\n", "no row in it, only the header a, b"),
        ("t.csv", "a,b\ncaf\u00e9,\ud800".encode("utf-8", "surrogatepass"), None),
        ("t.jsonl", '{"a": 1}\n{"a": \n', "line 2: no JSON: expecting value at column 7"),
        ("t.jsonl", '{"a": 1}\n\n[1]\n', "line 3: expected a JSON object, got [1]"),
        ("t.jsonl", '{"a": NaN}\n', "line 1: no JSON: NaN is no number of JSON; write null"),
        ("t.parquet", "a,b\n1,2\n", "no Parquet: it does not begin with PAR1"),
        ("t.parquet", parquet(a=[1])[:-10], None),
        ("t.parquet", b"PAR1" + b"\xff" * 60 + b"PAR1", None),
    ],
)
def test_broken(name: str, content: str | bytes, expected: str | None, tmp_path: Path):
    path = write(tmp_path / name, content)
    said = error_of(path)
    if expected is not None:
        assert said == expected
    elif name == "t.csv":
        assert said == "not UTF-8: byte 0xed in line 2; convert it to UTF-8 first, for example with iconv"
    else:
        assert said.startswith("damaged Parquet: ")
        assert "\n" not in said


def test_row_of_a_table_without_header(tmp_path: Path):
    assert error_of(write(tmp_path / "t.csv", "1,2\n3,4,5\n"), header=False) == (
        "row 2: expected 2 cells as in the first line, got 3"
    )
