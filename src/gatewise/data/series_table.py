"""Tables of series: a row a time, the times regular, one series or several by an id column.

date,store,sales,holiday          target_columns = sales, known_columns = holiday, id_column = store
2024-01-01,1,17,1
2024-01-02,1,,0                   at the end: a time to come, of which the known columns are known
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from gatewise.data.examples import some
from gatewise.data.frequency import Frequency, infer_frequency
from gatewise.data.missing import Missing, fill_missing
from gatewise.data.regular import regular_positions
from gatewise.data.series import Series, SeriesTable
from gatewise.data.table import Format, Table, read_table
from gatewise.data.times import read_times
from gatewise.errors import DataError

TIME_NAMES = (
    "time",
    "date",
    "datetime",
    "timestamp",
    "ds",
    "day",
    "week",
    "month",
    "quarter",
    "year",
    "hour",
    "period",
)
ID_NAMES = ("unique_id", "series_id", "item_id", "id", "series")
TARGET_NAMES = ("y", "target", "value")


def read_series(
    source: str | Path,
    *,
    target_columns: Sequence[str] = (),
    time_column: str | None = None,
    time_format: str | None = None,
    id_column: str | None = None,
    known_columns: Sequence[str] = (),
    static_columns: Sequence[str] = (),
    frequency: str | None = None,
    missing: Missing = "error",
    format: Format | None = None,
) -> SeriesTable:
    """The series of a table, each in the order of its times.

    target_columns: what to forecast; unless given, the column y, target or value, else every column of numbers that
        serves for nothing else.
    time_column: unless given, a column with such a name; if there is none, the rows themselves are the times.
    time_format: of the times, as in strptime; unless given, recognised.
    id_column: which series a row belongs to; unless given, a column with such a name, else there is one series.
    known_columns: numbers that are known of times to come, too: rows at the end of a series whose targets are empty.
    static_columns: the same in every row of a series; numbers or texts.
    frequency: "1 hour", "3 months"; unless given, the most common distance in the longest series.
    missing: error, or how to fill missing values and missing times (see `fill_missing`).

    Raises DataError, with the row: as `read_table` and `read_times`; no such column; a time twice, out of order,
    missing or off the frequency; a value that is missing or not finite; a static column that changes.
    """
    table = read_table(source, format=format)
    notes: list[str] = []
    time_column = time_column or _named(table, TIME_NAMES, "the times", [], notes)
    id_column = id_column or _named(table, ID_NAMES, "the series", [time_column, *target_columns], notes)
    used = [time_column, id_column, *known_columns, *static_columns]
    targets = tuple(target_columns) or _guess_targets(table, used, notes)
    if twice := {column for column in targets if column in used}:
        raise DataError(f'{table.name}: column "{min(twice)}" cannot be a target and something else')
    if time_column:
        times, time_format = read_times(table, time_column, time_format)
    else:
        times, time_format = np.arange(len(table), dtype=np.int64), None
        notes.append(f"{table.name}: no column of times, so each row is a step (columns: {some(table.columns)})")
    columns = _Columns(
        table,
        times,
        values=_stacked(table, targets),
        known=_stacked(table, known_columns),
        names=(targets, tuple(known_columns)),
        missing=missing,
    )
    rows = _rows_by_series(table, id_column)
    if not time_column and id_column:
        for numbers in rows.values():
            times[numbers] = np.arange(len(numbers))
    rows = _sorted(columns, rows, notes)
    every = _frequency(table, times, rows, frequency)
    static = _Static(table, rows, tuple(static_columns))
    return SeriesTable(
        table.name,
        [
            columns.series(
                name, numbers, every, f"{table.name}, {id_column} {name}" if id_column else table.name, static
            )
            for name, numbers in rows.items()
        ],
        every,
        targets,
        tuple(known_columns),
        static.number_names,
        static.label_names,
        time_column,
        id_column,
        time_format,
        tuple(notes),
    )


class _Columns:
    """The columns of all rows, out of which the series are cut."""

    def __init__(
        self,
        table: Table,
        times: np.ndarray,
        values: np.ndarray,
        known: np.ndarray,
        names: tuple[tuple[str, ...], tuple[str, ...]],
        missing: Missing,
    ):
        self.table = table
        self.times = times
        self.values = values
        self.known = known
        self.target_names, self.known_names = names
        self.missing: Missing = missing

    def series(self, name: str, rows: np.ndarray, frequency: Frequency, place: str, static: "_Static") -> Series:
        """The series of some rows, which are sorted by time."""
        times = self.times[rows]
        positions = regular_positions(
            times, frequency, lambda i: self.table.place(int(rows[i])), fill=self.missing != "error"
        )
        observed = len(rows)
        if self.known_names:  # rows at the end without any target are of times to come
            empty = np.isnan(self.values[rows]).all(axis=1)
            observed = int(np.max(np.flatnonzero(~empty), initial=-1)) + 1
            if not observed:
                raise DataError(f"{place}: no value of {some(self.target_names)}")
        if self.missing == "error":
            self._check(rows[:observed], self.values, self.target_names)
            self._check(rows, self.known, self.known_names)
        length, end = int(positions[-1]) + 1, int(positions[observed - 1]) + 1
        values = np.full((end, len(self.target_names)), np.nan)
        values[positions[:observed]] = self.values[rows[:observed]]
        known = np.full((length, len(self.known_names)), np.nan)
        known[positions] = self.known[rows]
        return Series(
            name,
            np.concatenate([times[:1], frequency.times_after(times[0], length - 1)]),
            fill_missing(values, self.missing, self.target_names, place),
            fill_missing(known, self.missing, self.known_names, place),
            static.numbers[name],
            static.labels[name],
            place,
        )

    def _check(self, rows: np.ndarray, values: np.ndarray, names: tuple[str, ...]) -> None:
        missing = np.isnan(values[rows])
        if missing.any():
            row, column = np.argwhere(missing)[0].tolist()
            more = f" (and {missing.sum() - 1} more)" if missing.sum() > 1 else ""
            raise DataError(
                f'{self.table.place(int(rows[row]))}, column "{names[column]}": empty or NaN{more}; '
                "give it, or have it filled with missing = previous or linear"
            )


class _Static:
    """The static columns of each series: `numbers` (S,) where every cell is a number, else `labels`."""

    def __init__(self, table: Table, rows: dict[str, np.ndarray], columns: tuple[str, ...]):
        numeric = {column for column in columns if _is_numeric(table, column)}
        self.number_names = tuple(column for column in columns if column in numeric)
        self.label_names = tuple(column for column in columns if column not in numeric)
        cells = {column: table.texts(column) for column in columns}
        first = {name: int(numbers[0]) for name, numbers in rows.items()}
        for column, texts in cells.items():
            for name, numbers in rows.items():
                expected = texts[first[name]]
                changed = next((row for row in numbers.tolist() if texts[row] != expected), None)
                if changed is not None:
                    of = f" of {name}" if name else ""
                    raise DataError(
                        f'{table.place(changed)}: the static column "{column}" is "{texts[changed]}", and '
                        f'"{expected}" in {table.place(first[name])}{of}; it must not change within a series'
                    )
        self.numbers = {
            name: np.array([float(cells[column][row]) for column in self.number_names]) for name, row in first.items()
        }
        self.labels = {name: tuple(cells[column][row] for column in self.label_names) for name, row in first.items()}


def _named(
    table: Table, names: tuple[str, ...], what: str, others: Sequence[str | None], notes: list[str]
) -> str | None:
    """The column with the plainest of these names; noted."""
    ranks = {column: names.index(column.lower()) for column in table.columns if column.lower() in names}
    ranks = {column: rank for column, rank in ranks.items() if column not in others}
    found = min(ranks, key=lambda column: ranks[column], default=None)
    if found is not None:
        notes.append(f'{table.name}: took {what} from column "{found}"')
    return found


def _guess_targets(table: Table, used: Sequence[str | None], notes: list[str]) -> tuple[str, ...]:
    left = [column for column in table.columns if column not in used]
    named = [column for column in left if column.lower() in TARGET_NAMES]
    targets = named[:1] or [column for column in left if _mostly_numeric(table, column)]
    if not targets:
        raise DataError(
            f"{table.name}: no column of numbers to forecast; give target_columns, of {some(table.columns, 20)}"
        )
    notes.append(f"{table.name}: forecasting {some(targets, 20)}, of the columns {some(table.columns, 20)}")
    return tuple(targets)


def _is_numeric(table: Table, column: str) -> bool:
    """Whether every cell is a number or empty, and not all are empty."""
    try:
        return not np.isnan(table.numbers(column, empty=True)).all()
    except DataError:
        return False


def _mostly_numeric(table: Table, column: str) -> bool:
    """Whether most cells that are not empty are numbers, so that one which is none is a mistake."""
    cells = table.column(column)
    if cells.dtype != pl.String:
        return cells.dtype.is_numeric() and cells.is_not_null().any()
    texts = cells.str.strip_chars()
    numbers = texts.cast(pl.Float64, strict=False)
    return bool(numbers.is_not_null().sum() * 2 > (texts != "").sum())


def _stacked(table: Table, columns: Sequence[str]) -> np.ndarray:
    """The columns side by side, (N, D) float64, NaN where a cell is empty."""
    numbers = [table.numbers(column, empty=True) for column in columns]
    return np.stack(numbers, axis=1) if numbers else np.empty((len(table), 0))


def _rows_by_series(table: Table, id_column: str | None) -> dict[str, np.ndarray]:
    """The rows of each series, in the order of the file; the series in the order of their first row."""
    if id_column is None:
        return {"": np.arange(len(table))}
    grouped = pl.DataFrame({"id": table.texts(id_column), "row": np.arange(len(table))})
    grouped = grouped.group_by("id", maintain_order=True).agg("row")
    return {name: np.array(rows) for name, rows in grouped.iter_rows()}


def _sorted(columns: _Columns, rows: dict[str, np.ndarray], notes: list[str]) -> dict[str, np.ndarray]:
    """The rows with the earliest first: turned round where the latest come first."""
    falling = all((np.diff(columns.times[numbers]).astype(np.int64) < 0).all() for numbers in rows.values())
    if falling and any(len(numbers) > 1 for numbers in rows.values()):
        notes.append(f"{columns.table.name}: the latest rows come first, and were turned round")
        return {name: numbers[::-1] for name, numbers in rows.items()}
    return rows


def _frequency(table: Table, times: np.ndarray, rows: dict[str, np.ndarray], given: str | None) -> Frequency:
    if given is not None:
        return Frequency.parse(given)
    longest = max(rows.values(), key=len)
    found = infer_frequency(np.sort(times[longest]))
    if found is None:
        raise DataError(f"{table.name}: a series has 1 row; a frequency needs 2, or give it, for example 1 day")
    return found
