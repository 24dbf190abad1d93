"""Series: numbers at regular times, to be forecast; with what is known of the future, and of the series as a whole."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gatewise.data.frequency import Frequency
from gatewise.data.times import write_times


@dataclass(frozen=True)
class Series:
    """One series of T observed times, and of F times after them of which only the covariates are known (often none).

    name: its id, or "" if there is but one.
    times (T + F,) datetime64[us], or int64 where the times are numbers or rows: rising, at the frequency of the table.
    values (T, D) float64: the targets, finite.
    known (T + F, C) float64: covariates that are known in advance (a holiday, a price), finite.
    static_numbers (S,) float64, static_labels: what holds for the whole series.
    place: `sales.csv, store 7`, for messages.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    known: np.ndarray
    static_numbers: np.ndarray
    static_labels: tuple[str, ...]
    place: str

    def __len__(self) -> int:
        """T, the observed times."""
        return len(self.values)


@dataclass(frozen=True)
class SeriesTable:
    """The series of one table: all with the same columns and the same frequency, in the order of their ids.

    target_names: the D columns to forecast. known_names: the C columns known in advance.
    static_number_names, static_label_names: the columns that hold for a whole series.
    time_name, id_name: the columns of the time and of the series' id, or None if there is none.
    time_format: how a time is written in the file, so that predictions are written alike; None where times are rows.
    notes: sentences for the user: what was guessed.
    """

    source: str
    series: list[Series]
    frequency: Frequency
    target_names: tuple[str, ...]
    known_names: tuple[str, ...]
    static_number_names: tuple[str, ...]
    static_label_names: tuple[str, ...]
    time_name: str | None
    id_name: str | None
    time_format: str | None
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Numbers for a report, ready for JSON."""
        lengths = np.array([len(series) for series in self.series])
        observed = [series.times[: len(series)] for series in self.series]
        ends = np.array([min(times[0] for times in observed), max(times[-1] for times in observed)])
        first, last = write_times(ends, self.time_format)
        return {
            "source": self.source,
            "series": len(self.series),
            "frequency": str(self.frequency),
            "season": self.frequency.season,
            "steps": {"total": int(lengths.sum()), "shortest": int(lengths.min()), "longest": int(lengths.max())},
            "first_time": first,
            "last_time": last,
            "targets": list(self.target_names),
            "known": list(self.known_names),
            "static": [*self.static_number_names, *self.static_label_names],
        }
