"""Forecaster: fit it to series, forecast with it, judge it by a backtest, save it."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl
import torch

from gatewise.config import (
    Auto,
    Backend,
    Cell,
    ForecasterData,
    ForecasterJob,
    ForecasterTraining,
    Reset,
)
from gatewise.data.series import SeriesTable
from gatewise.data.series_arrays import series_of
from gatewise.data.series_encoding import Panel, SeriesEncoding
from gatewise.data.series_splits import forecast_origins
from gatewise.data.times import write_times
from gatewise.errors import ConfigError, DataError
from gatewise.models.distributions import Likelihood
from gatewise.models.forecaster import NETWORKS, ForecasterNetwork
from gatewise.models.recurrent_layers import recurrent_layers
from gatewise.models.separate_targets import SeparateTargets
from gatewise.run_folder import RunFolder, atomic_write
from gatewise.training.checkpoint import load_checkpoint, load_weights
from gatewise.training.choices import Choices, settled
from gatewise.training.environment import choose_device, environment, settings
from gatewise.training.estimator import Estimator, Prepared
from gatewise.training.fitted import Fitted
from gatewise.training.forecaster_choices import decide
from gatewise.training.forecaster_task import ForecasterTask
from gatewise.training.forecasting import ForecastEvaluation, Rolling
from gatewise.training.futures import Futures
from gatewise.training.kept_data import keep, read_kept, same
from gatewise.training.loop import TrainingResult
from gatewise.training.naive_forecasts import NaiveForecasts
from gatewise.training.observer import Observer
from gatewise.training.parameters import RandomState
from gatewise.training.plan import ExamplePlan, plan_examples
from gatewise.training.resumption import check_unchanged, say_other_threads
from gatewise.training.saved_model import read_job, read_model, write_documents, write_job
from gatewise.training.series_training import SeriesTraining, Source, read_source

DRAWS = 400  # of a forecast's future, where its quantiles have no formula
LEVEL = 0.8  # of an interval, unless another one is asked for
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Forecaster(Estimator[ForecasterJob]):
    """Series to a distribution of what comes next.

        model = gw.Forecaster(horizon=24).fit("sales.csv", run="runs/sales")
        model.predict("sales.csv")

    `fit` takes a table as `data.series_table.read_series` reads it; or numbers (T,) or (T, K), or a mapping of such
    arrays by the ids of their series; or what `data.series_arrays.series_of` makes of them with times, known and static
    covariates.

    The arguments are the keys of `ForecasterConfig`, which has their meaning; data, training: how tables are read and
    split by time, and how it is trained, sections or dicts of their keys; random_state: a seed in place of
    `training.seed`. They are only stored here; `fit` checks them. Once it has been fitted or loaded, a model has

        network     ForecasterNetwork: the torch module, in eval mode
        encoding    SeriesEncoding: columns, frequency and scales
        config      ForecasterJob: everything it was trained with, with what was decided by the series
        result      TrainingResult: what came of the training, only after `fit`
        evaluations of each part that was held out, "validation" and "test", else of "train": only after `fit`
        choices     what was decided by the series, with reasons: only after `fit`
    """

    job_type = ForecasterJob
    _source = "series (a file, or arrays)"

    network = Fitted[ForecasterNetwork]()
    encoding = Fitted[SeriesEncoding]()
    evaluations = Fitted[dict[str, ForecastEvaluation]]()
    choices = Fitted[list[str]]()
    result = Fitted[TrainingResult[ForecastEvaluation]]()
    _naive: NaiveForecasts

    def __init__(
        self,
        horizon: int | Auto = "auto",
        *,
        context: int | Auto = "auto",
        season: int | Auto | None = "auto",
        mode: Literal["direct", "recurrent"] = "direct",
        targets: Literal["together", "apart"] | Auto = "auto",
        likelihood: Likelihood | Auto = "auto",
        cell: Cell = "gru",
        reset: Reset = "after",
        hidden_size: int | Auto = "auto",
        num_layers: int = 1,
        dropout: float | Auto = "auto",
        backend: Backend = "auto",
        data: ForecasterData | Mapping[str, Any] | None = None,
        training: ForecasterTraining | Mapping[str, Any] | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.horizon = horizon
        self.context = context
        self.season = season
        self.mode: Literal["direct", "recurrent"] = mode
        self.targets: Literal["together", "apart"] | Auto = targets
        self.likelihood: Likelihood | Auto = likelihood
        self.cell: Cell = cell
        self.reset: Reset = reset
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.backend: Backend = backend
        self.data = data
        self.training = training
        self.random_state = random_state

    def fit(
        self,
        series: Source | None,
        run: str | Path | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
        observer: Observer | None = None,
    ) -> Self:
        """Train; afterwards this is the model that was best on validation (the last one without any).

        series: a file, or series in memory; `data` says how they are split by time.
        run: the run folder to write; None keeps nothing but this object.
        resume: go on from the last checkpoint in `run`, bit for bit as if the training had never been stopped; series
            may be None then, for the run has kept them.
        overwrite: replace a run that lies there.
        observer: is told of the progress, of what was guessed and decided.

        Ctrl-C ends the training after the step it is at, with a checkpoint, and raises TrainingInterrupted (a
        KeyboardInterrupt). Raises ConfigError, DataError, RunError, BackendError, NonFiniteLoss.
        """
        job = self._job(read_job(RunFolder(run), self.job_type.task) if resume and run is not None else None)
        source = None if series is None else read_source(series, job.data)
        return self._fit(source, run, job, resume=resume, overwrite=overwrite, observer=observer)

    def plan(self, series: Source) -> ExamplePlan:
        """What `fit` would take, from a few steps of which nothing is kept. Raises what `fit` would raise first."""
        job = self._job(None)
        table = read_source(series, job.data)
        device = choose_device(job.training.device)
        temporary = tempfile.TemporaryDirectory(prefix="gatewise-", ignore_cleanup_errors=True)
        with temporary as folder, settings(job.training, device):
            prepared = self._start(table, RunFolder(folder), job, device, True, Observer())
            del self._kept
            task: Any = prepared.task
            return plan_examples(task, prepared.job.training, len(task.training.origins), self.choices)

    def evaluate(self, series: Source, *, stride: int = 1, level: float = LEVEL) -> ForecastEvaluation:
        """A backtest: forecasts from every `stride`-th step at which there is enough history, against what came.

        Where the series go on after what the model has learned from, only what comes after that is forecast. level: of
        the intervals. Raises DataError: no step has enough steps before and after it.
        """
        self._check_fitted()
        panel = self.encoding.encode(self._table(series))
        model = self.config.model
        lengths = panel.values.lengths
        starts = np.array([self._first_unseen(panel, row) for row in range(len(panel))])
        notes = []
        if not (starts + int(model.horizon) <= lengths).any():
            if (starts > 0).any():
                notes.append("these steps were part of the training, so new ones will be forecast less well")
            starts = np.zeros_like(starts)
        origins = forecast_origins(
            starts, lengths, context=int(model.context), horizon=int(model.horizon), stride=stride
        )
        if not len(origins):
            longest = int(lengths.argmax())
            raise DataError(
                f"{panel.places[longest]}: {lengths[longest]} steps are too few: the model reads {model.context} steps "
                f"and forecasts {model.horizon}, so a series needs {int(model.context) + int(model.horizon)}"
            )
        return self._backtest(panel, origins, notes, level)

    def score(self, series: Source, y: Any = None) -> float:
        """By what part its mean error is smaller than that of the better naive forecast; at most 1, below 0 if not.

        y: not used; scikit-learn gives it.
        """
        return self.evaluate(series).metrics["skill"].value

    def predict_paths(
        self, series: Source, *, horizon: int | None = None, draws: int = DRAWS, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Of each series, by its id, drawn futures (draws, N, K) in the units of the data.

        horizon: steps to forecast, those of the training unless given; a direct forecaster can do no more.
        Raises DataError: a series shorter than the context; too few rows to come of what is known in advance.
        """
        return self._futures(series, horizon, draws, seed).paths()

    def predict(
        self,
        series: Source,
        *,
        horizon: int | None = None,
        level: float = LEVEL,
        quantiles: Sequence[float] = QUANTILES,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> pl.DataFrame:
        """A table of forecasts after the end of each series: a row for each series, time and target.

        Its columns: id (where there are ids), time, target, point (the median), mean, lower and upper (of the central
        interval that holds what comes with the probability `level`), and a column for each quantile, such as q0.05.
        draws: from so many futures where there is no formula, for counts and with mode = "recurrent". The rest is as
        in `predict_paths`.
        """
        return self._futures(series, horizon, draws, seed).table(level, quantiles)

    def predict_rows(self, source: str | Path) -> list[dict[str, Any]]:
        """The rows of `predict`, times written as in the data."""
        table = self.predict(source)
        times = write_times(table["time"].to_numpy(), self.encoding.time_format)
        rows = table.with_columns(pl.Series("time", times)).to_dicts()
        names = [name for name in table.columns if name.startswith("q")]
        return [
            {**{key: row[key] for key in row if key not in names}, "quantiles": {name[1:]: row[name] for name in names}}
            for row in rows
        ]

    @classmethod
    def from_run(cls, folder: RunFolder, device: str = "auto") -> Self:
        """The best model of the training in a run folder, so far. Raises RunError, BackendError."""
        job, documents, tensors, metadata = read_model(folder, cls.job_type.task)
        model = cls(**job.model.model_dump(), data=job.data, training=job.training)
        model.config, model._trained = job, metadata
        model._read_documents(documents)
        model.network = model._network(job).to(choose_device(device)).eval()
        load_weights(model.network, tensors, folder.model)
        return model

    def _table(self, series: Source) -> SeriesTable:
        """The series of a file with the columns of the training, or those in memory."""
        if isinstance(series, str | Path):
            return self.encoding.read(series, missing=self.config.data.missing)
        return series if isinstance(series, SeriesTable) else series_of(series)

    def _start(
        self,
        source: SeriesTable,
        folder: RunFolder,
        job: ForecasterJob,
        device: torch.device,
        overwrite: bool,
        observer: Observer,
    ) -> Prepared[ForecasterJob]:
        folder.check_new(overwrite)
        choices = Choices(job)
        split, self.encoding = decide(choices, source)
        job = choices.job
        held = [split.training_end, split.validation_end, split.test_end]
        training = SeriesTraining(self.encoding.encode(source), np.stack(held, axis=1))
        self._naive = NaiveForecasts.fit(training.panel, split.validation_end, _baseline_season(job, source))
        network = self._network(job).to(device)
        task = self._task(network, job, training)
        network.paths(task.batch(0, 0)[0], 2)  # a backend that cannot serve is refused before anything is written
        for message in dict.fromkeys([*source.notes, *split.rules, *choices.reasons]):
            observer.on_message(message)
        folder.create(overwrite)
        write_job(folder, job)
        write_documents(folder, self._documents())
        about = {
            "series": source.describe(),
            "split": split.to_json(),
            "notes": list(source.notes),
            "choices": choices.reasons,
        }
        atomic_write(folder.data, json.dumps(about, indent=1).encode())
        trained_on = {"data": source.source, "series": len(source.series), "windows": len(task.training.origins)}
        atomic_write(folder.environment, json.dumps(environment(device) | trained_on, indent=2).encode())
        self.choices = choices.reasons
        self._kept = training
        return Prepared(job, task, self._documents(), keep(folder.examples, training.kept()))

    def _resume(
        self,
        source: SeriesTable | None,
        folder: RunFolder,
        job: ForecasterJob,
        device: torch.device,
        observer: Observer,
    ) -> Prepared[ForecasterJob]:
        stored, documents, _, _ = read_model(folder, job.task)
        job = settled(job, stored)
        check_unchanged(folder, stored, job)
        checkpoint = load_checkpoint(folder.checkpoint)
        self._read_documents(documents)
        parts = read_kept(folder.examples, checkpoint.data)
        training = SeriesTraining.of(parts)
        if source is not None and not same(SeriesTraining(self.encoding.encode(source), training.ends).kept(), parts):
            raise DataError(
                f"{source.source}: not the series that {folder.path} is trained on; resume it with its own, or with "
                "none, for the run has kept them"
            )
        say_other_threads(checkpoint, observer)
        network = self._network(job).to(device)
        task = self._task(network, job, training)
        network.paths(task.batch(0, 0)[0], 2)
        write_job(folder, job)
        folder.truncate_metrics(checkpoint.progress.step)
        self.choices = json.loads(folder.data.read_text("utf-8"))["choices"] if folder.data.exists() else []
        self._kept = training
        return Prepared(job, task, self._documents(), checkpoint.data, checkpoint)

    def _network(self, job: ForecasterJob) -> ForecasterNetwork:
        model = job.model
        layers = partial(_layers, cell=model.cell, reset=model.reset, backend=model.backend)
        assert model.likelihood != "auto"
        assert model.season != "auto"
        targets, covariates, static = self.encoding.sizes
        apart = model.targets == "apart" and targets > 1
        network = NETWORKS[model.mode](
            1 if apart else targets,
            covariates,
            static + targets if apart else static,
            make_layer=layers,
            hidden_size=int(model.hidden_size),
            num_layers=model.num_layers,
            dropout=float(model.dropout),
            likelihood=model.likelihood,
            season=model.season,
        )
        return SeparateTargets(network, targets) if apart else network

    def _task(self, network: ForecasterNetwork, job: ForecasterJob, training: SeriesTraining) -> ForecasterTask:
        return ForecasterTask(network, *training.windows(self.encoding, job))

    def _documents(self) -> dict[str, str]:
        return {"series": self.encoding.to_json(), "baseline": self._naive.to_json()}

    def _read_documents(self, documents: dict[str, str]) -> None:
        self.encoding = SeriesEncoding.from_json(documents["series"])
        self._naive = NaiveForecasts.from_json(documents["baseline"])

    def _backtest(self, panel: Panel, origins: np.ndarray, notes: list[str], level: float) -> ForecastEvaluation:
        model = self.config.model
        first = [int(origins[origins[:, 0] == row, 1].min(initial=2**62)) for row in range(len(panel))]
        rolling = Rolling(
            self.network,
            self.encoding,
            panel,
            origins,
            int(model.context),
            int(model.horizon),
            self._naive.season,
            self._naive.errors_of(panel, first),
            level=level,
        )
        return rolling.evaluate(notes)

    def _first_unseen(self, panel: Panel, row: int) -> int:
        """The first step of a series that comes after what the model has seen of it."""
        seen = self._naive.seen_until.get(panel.names[row])
        return 0 if seen is None else int(np.searchsorted(panel.times[row][: len(panel.values[row])], seen, "right"))

    def _futures(self, series: Source, horizon: int | None, draws: int, seed: int) -> Futures:
        self._check_fitted()
        model = self.config.model
        trained = int(model.horizon)
        steps = trained if horizon is None else horizon
        if steps < 1 or (steps > trained and model.mode == "direct"):
            raise ConfigError(
                f"Forecaster.predict: horizon: expected 1 to {trained} steps, as it was trained, got {steps}; train "
                "with a larger model.horizon, or model.mode = recurrent"
            )
        panel = self.encoding.with_times_after(self.encoding.encode(self._table(series)), steps)
        return Futures(self.network, self.encoding, panel, int(model.context), steps, draws, seed)

    def _conclude(self, folder: RunFolder, observer: Observer) -> None:
        """Judge the best weights on what was held out, and write evaluation.json."""
        training, model = self._kept, self.config.model
        lengths = {"context": int(model.context), "horizon": int(model.horizon)}
        origins = {part: training.origins(part, **lengths) for part in ("validation", "test")}
        origins = {part: found for part, found in origins.items() if len(found)}
        if not origins:
            origins = {"train": training.origins("training", **lengths)}
        self.evaluations = {part: self._backtest(training.panel, found, [], LEVEL) for part, found in origins.items()}
        del self._kept
        last = list(self.evaluations)[-1]
        self.result = replace(self.result, evaluation=self.evaluations[last], split=last)
        self._write_evaluations(folder)

    _kept: SeriesTraining  # while it is trained


def _baseline_season(job: ForecasterJob, table: SeriesTable) -> int | None:
    """That of the model; else the one of the calendar, as far as the context reaches: people will compare with it."""
    season = job.model.season if job.model.season not in (None, "auto") else table.frequency.season
    return int(season) if season is not None and 1 < int(season) <= int(job.model.context) else None


def _layers(
    input_size: int, hidden_size: int, num_layers: int, *, cell: Cell, reset: Reset, backend: Backend, dropout: float
) -> Any:
    return recurrent_layers(cell, input_size, hidden_size, num_layers, dropout=dropout, reset=reset, backend=backend)
