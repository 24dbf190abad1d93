"""The series that a forecaster is trained on: read, encoded, and cut into windows of each part."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from gatewise.config import ForecasterData, ForecasterJob
from gatewise.config.forecaster import columns_of
from gatewise.data.series import SeriesTable
from gatewise.data.series_arrays import series_of
from gatewise.data.series_encoding import Panel, SeriesEncoding
from gatewise.data.series_splits import SeriesSplit, forecast_origins
from gatewise.data.series_table import read_series
from gatewise.data.series_windows import SeriesWindows
from gatewise.training.kept_data import Part

MOST_VALIDATED = 1000  # windows of a validation in the course of a training; the one at its end is made on all
VALIDATION_BATCH = 256
Source = str | Path | SeriesTable | Any  # a file, or series in memory


@dataclass(frozen=True)
class SeriesTraining:
    """The series of a training, and where its parts end: (N, 3), of training, validation and test."""

    panel: Panel
    ends: np.ndarray

    def origins(self, part: str, context: int, horizon: int, stride: int = 1) -> np.ndarray:
        """(W, 2): of every window of a part the series and the first step that is forecast."""
        start, end = SeriesSplit(*self.ends.T, rules=()).part(part)
        return forecast_origins(start, end, context=context, horizon=horizon, stride=stride)

    def windows(self, encoding: SeriesEncoding, job: ForecasterJob) -> tuple[SeriesWindows, SeriesWindows | None]:
        """The windows to train on, and those to validate on: evenly apart where there are many; None without any."""
        lengths = {"context": int(job.model.context), "horizon": int(job.model.horizon)}
        panel = self.panel
        scaled = [encoding.scaled(values) for values in panel.values]

        def cut(part: str, batch_size: int, stride: int = 1) -> SeriesWindows:
            origins = self.origins(part, **lengths, stride=stride)
            sizes = {**lengths, "batch_size": batch_size, "seed": job.training.seed}
            return SeriesWindows(scaled, list(panel.known), panel.static, origins, **sizes)

        count = len(self.origins("validation", **lengths))
        validation = cut("validation", VALIDATION_BATCH, -(-count // MOST_VALIDATED)) if count else None
        return cut("training", int(job.training.batch_size)), validation

    def kept(self) -> dict[str, Part]:
        """As it is kept in a run."""
        panel = self.panel
        columns = {
            "times": panel.times,
            "values": panel.values,
            "known": panel.known,
            "static": panel.static,
            "ends": self.ends,
        }
        return {"training": Part(columns, panel.places, panel.names)}

    @classmethod
    def of(cls, parts: dict[str, Part]) -> Self:
        """What `kept` gave."""
        part = parts["training"]
        columns: Any = part.columns
        names = part.texts or []
        panel = Panel(names, part.places, columns["times"], columns["values"], columns["known"], columns["static"])
        return cls(panel, columns["ends"])


def read_source(series: Source, data: ForecasterData) -> SeriesTable:
    """The series of a file, as the configuration says; or those in memory. Raises DataError."""
    if isinstance(series, SeriesTable):
        return series
    if not isinstance(series, str | Path):
        return series_of(series)
    return read_series(
        series,
        target_columns=columns_of(data.target_columns),
        time_column=data.time_column,
        time_format=data.time_format,
        id_column=data.id_column,
        known_columns=columns_of(data.known_columns),
        static_columns=columns_of(data.static_columns),
        frequency=data.frequency,
        missing=data.missing,
    )
