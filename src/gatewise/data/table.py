"""Tables: CSV, TSV, JSON lines and Parquet by polars, columns by name, and the row of whatever is wrong.

CSV and TSV cells are read as texts, so that a label 01 stays 01; a column of numbers is made when it is asked for.
"""

import csv
import difflib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from gatewise.data.examples import some
from gatewise.data.files import decode, name_of, read_bytes, reason_of, split_lines, suffix_of
from gatewise.errors import DataError

Format = Literal["csv", "tsv", "jsonl", "parquet"]

FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}

_QUOTED_FIELD = re.compile(r'(?:^|(?<=\t))"(?:[^"]|"")*"(?=\t|$)', re.MULTILINE)
_QUOTED_START = re.compile(r'(?:^|(?<=\t))"', re.MULTILINE)
_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """The rows of a file, without those that are blank.

    numbers_of_rows (N,) int64: where they lie; row 1 is the first below the header, and of JSON lines the first line.
    """

    name: str
    frame: pl.DataFrame
    format: Format
    numbers_of_rows: np.ndarray

    def __len__(self) -> int:
        return self.frame.height

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return self.frame.columns

    def place(self, row: int) -> str:
        """Where a row lies, counted from 0 here, for messages: `train.csv: row 7`."""
        return f"{self.name}: {'line' if self.format == 'jsonl' else 'row'} {self.numbers_of_rows[row]}"

    def places(self) -> list[str]:
        """Where each row lies."""
        return [self.place(row) for row in range(len(self))]

    def column(self, column: str) -> pl.Series:
        """A column as it is. DataError if there is none of this name, with those there are."""
        if column not in self.columns:
            near = difflib.get_close_matches(column.lower(), [name.lower() for name in self.columns], 1, 0.65)
            meant = [name for name in self.columns if name.lower() in near]
            hint = f'; did you mean "{meant[0]}"?' if meant else ""
            raise DataError(f'{self.name}: no column "{column}"; its columns are {some(self.columns, 20)}{hint}')
        return self.frame.get_column(column)

    def texts(self, column: str) -> list[str]:
        """A column as texts without white space around them. DataError, with the row, if a cell is empty."""
        cells = self.column(column)
        if cells.dtype.is_nested():
            raise DataError(f'{self.name}: column "{column}" holds {cells.dtype}; expected texts')
        if cells.dtype == pl.Boolean:
            cells = cells.replace_strict({True: "true", False: "false"}, default=None, return_dtype=pl.String)
        elif cells.dtype == pl.Binary:
            raise DataError(f'{self.name}: column "{column}" holds bytes; expected texts')
        cells = cells.cast(pl.String).str.strip_chars()
        empty = (cells.is_null() | (cells == "")).arg_true()
        if len(empty):
            more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
            raise DataError(f'{self.place(empty[0])}: column "{column}" is empty{more}; fill or delete the row')
        return cells.to_list()

    def numbers(self, column: str, *, empty: bool = False) -> np.ndarray:
        """A column as numbers, (N,) float64.

        empty: whether a cell may be empty (or NaN, NA, null); it becomes NaN.
        DataError, with the row: a cell is no number, infinite, or (unless `empty`) empty.
        """
        cells = self.column(column)
        if cells.dtype == pl.String:
            texts = cells.str.strip_chars()
            cells = texts.set(texts.str.to_lowercase().is_in(["", "na", "nan", "null", "none", "n/a"]), None)
            numbers = cells.cast(pl.Float64, strict=False)
        elif cells.dtype.is_numeric() or cells.dtype in (pl.Boolean, pl.Null):
            numbers = cells.cast(pl.Float64)
        else:
            raise DataError(f'{self.name}: column "{column}" holds {cells.dtype}; expected numbers')
        wrong = (numbers.is_null() & cells.is_not_null()).arg_true()
        if len(wrong):
            found = str(cells[wrong[0]])
            hint = "; write decimals with a point" if re.fullmatch(r"-?\d+,\d+", found) else ""
            raise DataError(f'{self.place(wrong[0])}, column "{column}": expected a number, got "{found}"{hint}')
        values = numbers.to_numpy(writable=True).astype(np.float64)  # null becomes NaN
        bad = np.isinf(values) if empty else ~np.isfinite(values)
        if bad.any():
            row = int(bad.argmax())
            what = "infinite" if np.isinf(values[row]) else "empty or NaN"
            more = f" (and {bad.sum() - 1} more)" if bad.sum() > 1 else ""
            raise DataError(f'{self.place(row)}, column "{column}": {what}{more}; expected a finite number')
        return values

    def lists(self, column: str, separator: str | None = None) -> list[list[str]]:
        """A column as lists of texts: lists as they are, else the text of a cell, cut at the separator.

        separator: None: white space. An empty cell is an empty list.
        """
        cells = self.column(column)
        if isinstance(cells.dtype, pl.List | pl.Array):
            return [[str(item) for item in items if item is not None] for items in cells.fill_null([]).to_list()]
        texts = cells.cast(pl.String).fill_null("").to_list()
        return [[part for item in text.split(separator) if (part := item.strip())] for text in texts]


def read_table(source: str | Path, *, format: Format | None = None, header: bool = True) -> Table:
    """The table in a file, plain or gzip.

    format: unless given, that of the end of the name; of standard input, that of the first character.
    header: of CSV and TSV, whether the first line has the names of the columns; else they are 1, 2, ... A CSV may be
        separated by commas, semicolons, tabs or |, whichever its first line has most.

    Raises DataError: what `read_bytes` raises; not UTF-8; a row with more or fewer cells than the header, a line that
    is no JSON object, broken Parquet; two columns of one name; no row.
    """
    name = name_of(source)
    data = read_bytes(source)
    found = format or FORMATS.get(suffix_of(source)) or _sniffed(data)
    if found == "parquet":
        frame = _parquet(data, name)
    elif found == "jsonl":
        frame = _json_lines(decode(data, name), name)
    else:
        frame = _separated(decode(data, name), name, found, header)
    numbers = np.arange(1, frame.height + 1)
    if found == "jsonl":
        numbers = np.flatnonzero([line and not line.isspace() for line in split_lines(decode(data, name))]) + 1
    elif frame.width:
        written = ~frame.select(pl.all_horizontal(pl.all().is_null())).to_series().to_numpy()
        frame, numbers = frame.filter(written), numbers[written]
    if not frame.height:
        raise DataError(f"{name}: no row in it, only the header {some(frame.columns, 20)}")
    return Table(name, frame, found, numbers)


def is_table(source: str | Path) -> bool:
    """Whether the end of the name is that of a table."""
    return suffix_of(source) in FORMATS


def _sniffed(data: bytes) -> Format:
    """The format of a file whose name does not say it."""
    if data.startswith(b"PAR1"):
        return "parquet"
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return "jsonl"
    return "csv"


def _separated(text: str, name: str, format: Format, header: bool) -> pl.DataFrame:
    text = text.lstrip("\n")
    separator = "\t" if format == "tsv" else max(_SEPARATORS, key=text.partition("\n")[0].count)
    quoted = '"' in text
    if quoted and format == "tsv":
        # TSV as such has no quotes, but some programs write them as in CSV: they are quotes only if every one fits.
        quoted = len(_QUOTED_FIELD.findall(text)) == len(_QUOTED_START.findall(_QUOTED_FIELD.sub('"', text)))
    rows = _Rows(text, name, separator, quoted, header)
    try:
        frame = pl.read_csv(
            io.BytesIO(text.encode()),
            has_header=header,
            separator=separator,
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError as error:
        rows.check()
        raise DataError(f"{name}: {reason_of(error)}") from error
    names = [column.strip() or str(i) for i, column in enumerate(rows.first(), 1)]
    if len(names) != frame.width or frame.get_column(frame.columns[-1]).has_nulls():  # polars fills up what is missing
        rows.check()
    if not header:
        names = [str(i) for i in range(1, frame.width + 1)]
    elif twice := [column for column in names if names.count(column) > 1]:
        raise DataError(f'{name}: two columns are called "{twice[0]}"; rename one')
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


@dataclass(frozen=True)
class _Rows:
    """The rows of a CSV or TSV as Python reads them: slowly, but it can say where something is wrong."""

    text: str
    name: str
    separator: str
    quoted: bool
    header: bool

    def first(self) -> list[str]:
        return next(self._reader())

    def check(self) -> None:
        """DataError for the first row with more or fewer cells than the header; a blank row has as many."""
        reader = self._reader()
        try:
            width = len(next(reader))
            for number, row in enumerate(reader, 1 if self.header else 2):
                if row and len(row) != width:
                    raise DataError(
                        f"{self.name}: row {number}: expected {width} cells as in the first line, got {len(row)}"
                    )
        except csv.Error as error:
            raise DataError(f"{self.name}: line {reader.line_num}: {error}") from error

    def _reader(self) -> Any:
        csv.field_size_limit(max(csv.field_size_limit(), len(self.text)))
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        return csv.reader(io.StringIO(self.text, newline=""), delimiter=self.separator, quoting=quoting, strict=True)


def _json_lines(text: str, name: str) -> pl.DataFrame:
    try:
        return pl.read_ndjson(io.BytesIO(text.encode()), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        for number, line in enumerate(split_lines(text), 1):
            try:
                is_object = not line.strip() or isinstance(json.loads(line, parse_constant=_no_constant), dict)
            except json.JSONDecodeError as wrong:
                raise DataError(
                    f"{name}: line {number}: no JSON: {reason_of(wrong).partition(':')[0]} at column {wrong.colno}"
                ) from error
            except ValueError as wrong:
                raise DataError(f"{name}: line {number}: no JSON: {wrong}") from error
            if not is_object:
                raise DataError(f"{name}: line {number}: expected a JSON object, got {line[:40]}") from error
        raise DataError(f"{name}: {reason_of(error)}") from error


def _parquet(data: bytes, name: str) -> pl.DataFrame:
    if not data.startswith(b"PAR1"):
        raise DataError(f"{name}: no Parquet: it does not begin with PAR1")
    try:
        return pl.read_parquet(io.BytesIO(data))
    except Exception as error:  # polars raises PolarsError, OSError and, for some damage, its PanicException
        raise DataError(f"{name}: damaged Parquet: {reason_of(error)}") from error


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON; write null")
