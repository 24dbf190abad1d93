"""Series as a network reads them: columns that must be there, one scale, calendar, labels as numbers.

What it takes for that is fitted to the training part alone, and kept as a JSON document.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.data.calendar import calendar_of, width_of
from gatewise.data.documents import read_document, write_document
from gatewise.data.frequency import Frequency
from gatewise.data.missing import Missing
from gatewise.data.ragged import Ragged
from gatewise.data.scaling import Scaler
from gatewise.data.series import SeriesTable
from gatewise.data.series_table import read_series
from gatewise.errors import DataError, InputError


@dataclass(frozen=True)
class Panel:
    """N series of T_i steps, and F_i steps after them whose covariates are known.

    names: their ids. places: what messages call them. times (T_i + F_i,) int64: of dates microseconds since 1970.
    values (T_i, K) float64: in the units of the data. known (T_i + F_i, C) float32: covariates, scaled, those of the
    calendar among them. static (N, S) float32.
    """

    names: list[str]
    places: list[str]
    times: Ragged
    values: Ragged
    known: Ragged
    static: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class SeriesEncoding:
    """Between tables of series and panels, all with the same columns and frequency.

    scaler: the K targets. covariates: the known columns and the static numbers, in this order. unscaled: whether the
    network reads the targets as they are (counts).
    labels: of each static column of labels those that training has; another one is none of them.
    cycles: of the calendar, those that the network reads. dated: whether times are dates.
    """

    target_names: tuple[str, ...]
    known_names: tuple[str, ...]
    static_number_names: tuple[str, ...]
    static_labels: dict[str, list[str]]
    time_name: str | None
    id_name: str | None
    time_format: str | None
    frequency: Frequency
    dated: bool
    cycles: tuple[str, ...]
    scaler: Scaler
    covariates: Scaler
    unscaled: bool

    @staticmethod
    def fit(
        table: SeriesTable, ends: Sequence[int], *, cycles: tuple[str, ...] = (), unscaled: bool = False
    ) -> "SeriesEncoding":
        """From the first `ends` steps of each series of the table."""
        parts = list(zip(table.series, ends, strict=True))
        known = Scaler.fit([series.known[:end] for series, end in parts], table.known_names)
        static = Scaler.fit([series.static_numbers[None] for series, _ in parts], table.static_number_names)
        labels = {
            name: sorted({series.static_labels[k] for series, _ in parts})
            for k, name in enumerate(table.static_label_names)
        }
        return SeriesEncoding(
            table.target_names,
            table.known_names,
            table.static_number_names,
            labels,
            table.time_name,
            table.id_name,
            table.time_format,
            table.frequency,
            table.series[0].times.dtype.kind == "M",
            cycles,
            Scaler.fit([series.values[:end] for series, end in parts], table.target_names),
            Scaler(
                np.concatenate([known.mean, static.mean]),
                np.concatenate([known.scale, static.scale]),
                (*known.names, *static.names),
            ),
            unscaled,
        )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(K, C, S): targets, covariates, static numbers and labels."""
        labels = sum(map(len, self.static_labels.values()))
        return (
            len(self.target_names),
            len(self.known_names) + width_of(self.cycles),
            len(self.static_number_names) + labels,
        )

    def read(self, source: str | Path, *, missing: Missing) -> SeriesTable:
        """The series of a file with the columns of the training. Raises DataError: as `read_series`."""
        return read_series(
            source,
            target_columns=self.target_names,
            time_column=self.time_name,
            time_format=self.time_format,
            id_column=self.id_name,
            known_columns=self.known_names,
            static_columns=(*self.static_number_names, *self.static_labels),
            frequency=str(self.frequency),
            missing=missing,
        )

    def encode(self, table: SeriesTable) -> Panel:
        """The series of a table with the same columns. DataError: other columns, another frequency."""
        for what in ("target_names", "known_names", "static_number_names"):
            expected, found = getattr(self, what), getattr(table, what)
            if len(found) != len(expected):
                raise DataError(
                    f"{table.source}: expected {len(expected)} {what.replace('_', ' ')[:-6]} columns, as in training "
                    f"({', '.join(expected) or 'none'}), got {len(found)} ({', '.join(found) or 'none'})"
                )
        if table.frequency != self.frequency and max(map(len, table.series)) > 1:
            raise DataError(
                f"{table.source}: has a step every {table.frequency}, and the model was trained on one every "
                f"{self.frequency}"
            )
        if table.static_label_names != tuple(self.static_labels):
            raise DataError(f"{table.source}: expected the static columns {', '.join(self.static_labels)}")
        width = len(self.known_names)
        known, static = [], []
        for series in table.series:
            numbers = (series.known - self.covariates.mean[:width]) / self.covariates.scale[:width]
            calendar = calendar_of(series.times, self.cycles)
            known.append(np.concatenate([numbers, calendar], 1).astype(np.float32))
            fixed = (series.static_numbers - self.covariates.mean[width:]) / self.covariates.scale[width:]
            labels = [
                [float(label == each) for each in known_labels]
                for label, known_labels in zip(series.static_labels, self.static_labels.values(), strict=True)
            ]
            static.append(np.concatenate([fixed, *labels]).astype(np.float32))
        return Panel(
            [series.name for series in table.series],
            [series.place for series in table.series],
            Ragged.of([series.times.astype(np.int64) for series in table.series]),
            Ragged.of([series.values for series in table.series], np.float64),
            Ragged.of(known, np.float32),
            np.stack(static),
        )

    def with_times_after(self, panel: Panel, steps: int) -> Panel:
        """The panel with as many times to come as are missing up to `steps`, where only the calendar is known of them.

        DataError if there are columns that are known in advance, and a series has too few rows to come.
        """
        times, known = [], []
        for row, place in enumerate(panel.places):
            given = len(panel.times[row]) - len(panel.values[row])
            if given < steps and self.known_names:
                raise DataError(
                    f"{place}: {', '.join(self.known_names)} known for {given} steps to come, and a forecast of "
                    f"{steps} needs as many; add rows with empty targets at the end"
                )
            more = self.times_of(panel.times[row])
            after = self.frequency.times_after(more[-1], max(0, steps - given))
            times.append(np.concatenate([more, after]).astype(np.int64))
            known.append(
                np.concatenate([panel.known[row], calendar_of(after, self.cycles)]) if len(after) else panel.known[row]
            )
        return Panel(panel.names, panel.places, Ragged.of(times), panel.values, Ragged.of(known), panel.static)

    def times_of(self, times: np.ndarray) -> np.ndarray:
        """Times of a panel as dates, if they are."""
        return times.view("M8[us]") if self.dated else times

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Values (..., K) as the network reads them, float32."""
        return values.astype(np.float32) if self.unscaled else self.scaler.transform(values)

    def restored(self, values: np.ndarray) -> np.ndarray:
        """What the network says, (..., K), in the units of the data, float64."""
        return values.astype(np.float64) if self.unscaled else self.scaler.inverse(values.astype(np.float64))

    def to_json(self) -> str:
        """A JSON document from which `from_json` makes the same."""
        content = {name: getattr(self, name) for name in (*_PLAIN, *_TUPLES)}
        scalers = {name: json.loads(getattr(self, name).to_json()) for name in _SCALERS}
        return write_document("series", {**content, "frequency": str(self.frequency), **scalers})

    @staticmethod
    def from_json(document: str) -> "SeriesEncoding":
        """What `to_json` wrote. Raises InputError."""
        content = read_document("series", document)
        try:
            values: dict[str, Any] = {name: content[name] for name in _PLAIN}
            values |= {name: tuple(content[name]) for name in _TUPLES}
            values |= {name: Scaler.from_json(json.dumps(content[name])) for name in _SCALERS}
            return SeriesEncoding(**values, frequency=Frequency.parse(content["frequency"]))
        except (KeyError, TypeError) as error:
            raise InputError(f"damaged series: {error}") from error


_PLAIN = ("static_labels", "time_name", "id_name", "time_format", "dated", "unscaled")
_SCALERS = ("scaler", "covariates")
_TUPLES = ("target_names", "known_names", "static_number_names", "cycles")
