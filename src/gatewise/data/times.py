"""Times of a table's column: whichever way they are written, if all rows are written alike."""

import re

import numpy as np
import polars as pl

from gatewise.data.files import reason_of
from gatewise.data.table import Table
from gatewise.errors import DataError

_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d %b %Y", "%d %B %Y")
_CLOCKS = ("", " %H:%M:%S", "T%H:%M:%S", " %H:%M", "T%H:%M", " %H:%M:%S%.f", "T%H:%M:%S%.f")
_ZONES = ("T%H:%M:%S%z", " %H:%M:%S%z", "T%H:%M:%S%.f%z", " %H:%M:%S%.f%z")
_MONTHS = ("%Y-%m", "%Y/%m", "%b %Y", "%B %Y")  # each read with a day before or after it
FORMATS = (
    *(date + clock for date in _DATES for clock in _CLOCKS),
    *(f"%Y-%m-%d{zone}" for zone in _ZONES),
    *_MONTHS,
    "%Y%m%d",
)
_FIRST_YEAR, _LAST_YEAR = 1700, 2300  # of 8 digits that are a date, and no number


def read_times(table: Table, column: str, time_format: str | None = None) -> tuple[np.ndarray, str | None]:
    """(the times of the rows, (N,) datetime64[us]; the format that they are written in).

    Whole numbers stay such, int64, and have the format None; years do, too. Times with a zone become UTC.
    time_format: as in strptime; unless given, the one of FORMATS that fits every row.

    Raises DataError, with the row: a cell is empty, or written unlike the first; the day and the month cannot be told
    apart.
    """
    cells = table.column(column)
    empty = cells.is_null().arg_true()
    if len(empty):
        raise DataError(f'{table.place(empty[0])}, column "{column}": empty; expected a time')
    if cells.dtype.is_temporal():
        return _microseconds(cells), "%Y-%m-%d" if cells.dtype == pl.Date else "%Y-%m-%d %H:%M:%S"
    if cells.dtype.is_integer() and time_format is None:
        return cells.to_numpy().astype(np.int64), None
    texts = cells.cast(pl.String).str.strip_chars()
    first = texts[0]
    if time_format is None:
        if re.fullmatch(r"-?\d{1,18}", first) and not _is_date(first):
            return _whole_numbers(table, column, texts), None
        fitting = [format for format in FORMATS if _parse(texts[:1], format).is_not_null().all()]
        if not fitting:
            raise DataError(
                f'{table.place(0)}, column "{column}": expected a time, got "{first}"; '
                'give time_format, for example "%d.%m.%Y %H:%M"'
            )
    else:
        fitting = [time_format]
    parsed = {format: _parse(texts, format) for format in fitting}
    best = max(parsed, key=lambda format: parsed[format].is_not_null().sum())
    wrong = parsed[best].is_null().arg_true()
    if len(wrong):
        as_first = f'a time written like "{first}"' if time_format is None else f'a time of the format "{best}"'
        raise DataError(f'{table.place(wrong[0])}, column "{column}": expected {as_first}, got "{texts[wrong[0]]}"')
    others = [format for format, times in parsed.items() if times.is_not_null().all() and (times != parsed[best]).any()]
    if others:
        raise DataError(
            f'{table.name}: column "{column}": "{first}" may be {_in_words(best)} or {_in_words(others[0])}; '
            f'give time_format, "{best}" or "{others[0]}"'
        )
    return _microseconds(parsed[best]), best


def write_times(times: np.ndarray, time_format: str | None) -> list[str]:
    """The times as texts, written as those that `read_times` read."""
    if times.dtype.kind != "M":
        return [str(time) for time in times.tolist()]
    format = (time_format or "%Y-%m-%dT%H:%M:%S").replace("%z", "+00:00")
    return pl.Series(times.astype("M8[us]")).dt.to_string(format).to_list()


def _parse(texts: pl.Series, format: str) -> pl.Series:
    """The times, null where a text does not fit."""
    if format in _MONTHS:
        texts, format = "1 " + texts, f"%d {format}"
    if "%z" in format:
        texts = texts.str.replace("Z$", "+0000")
    try:
        times = texts.str.to_datetime(format, strict=False, time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise DataError(f'time_format "{format}": {reason_of(error)}') from error
    return times.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if "%z" in format else times


def _microseconds(times: pl.Series) -> np.ndarray:
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone:
        times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return times.cast(pl.Datetime("us")).to_numpy().astype("M8[us]")


def _is_date(text: str) -> bool:
    """Whether 8 digits are a date."""
    return (
        len(text) == 8
        and _FIRST_YEAR <= int(text[:4]) < _LAST_YEAR
        and _parse(pl.Series([text]), "%Y%m%d")[0] is not None
    )


def _whole_numbers(table: Table, column: str, texts: pl.Series) -> np.ndarray:
    numbers = texts.cast(pl.Int64, strict=False)
    wrong = numbers.is_null().arg_true()
    if len(wrong):
        raise DataError(
            f'{table.place(wrong[0])}, column "{column}": expected a whole number like "{texts[0]}", '
            f'got "{texts[wrong[0]]}"'
        )
    return numbers.to_numpy().astype(np.int64)


def _in_words(format: str) -> str:
    return "day/month" if format.index("%d") < format.index("%m") else "month/day"
