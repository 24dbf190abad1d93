"""How good forecasts are: a backtest with a rolling origin, always beside the naive forecasts.

    origin t:     history ... t-1 | t ... t+N-1      what the model, the last value and the last season say of these,
    origin t+1:    history ...  t | t+1 ... t+N      against what came

Notation: W windows, N steps ahead, K targets. Errors are in deviations of each target, as measured on the training
part, so that targets of any unit can be averaged; `targets` has them in the units of the data.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from gatewise.data.series_encoding import Panel, SeriesEncoding
from gatewise.data.series_windows import SeriesWindows
from gatewise.data.times import write_times
from gatewise.models.forecaster import ForecasterNetwork
from gatewise.training.bootstrap import Interval, intervals
from gatewise.training.forecast_scores import crps, ends, even_levels, smape
from gatewise.training.forecaster_task import window_of

LEVELS = 50  # of the distribution of each value, which the CRPS is a mean over
DRAWS = 200  # of each window's future, where its quantiles have no formula
BATCH_VALUES = 2_000_000  # of all draws that are made at once
FEWEST_BLOCKS = 5  # of windows that do not overlap: from fewer no interval can be drawn
PICTURES = 6


@dataclass(frozen=True)
class TargetScores:
    """How good the forecasts of one target are, in its own unit; coverage: part within the interval."""

    target: str
    mae: float
    rmse: float
    crps: float
    coverage: float
    mase: float | None
    naive_mae: float
    seasonal_naive_mae: float | None


@dataclass(frozen=True)
class ForecastPicture:
    """One forecast of one target against what came: so good that `rank` per cent of the windows have a smaller error.

    times: of history and future, as the data write them. point (the median), lower, upper, actual: N.
    """

    series: str
    target: str
    rank: float
    times: list[str]
    history: list[float]
    actual: list[float]
    point: list[float]
    lower: list[float]
    upper: list[float]


@dataclass(frozen=True)
class ForecastEvaluation:
    """How good a forecaster is on some windows.

    metrics: by name, with intervals of the bootstrap over stretches of windows that do not overlap; where these are too
        few, an interval has no width. mase: mean |error| over that of the (seasonal) naive forecast in training, one
        step ahead (Hyndman, Koehler 2006); smape: in per cent, from 0 to 200; mse, mae, crps: in deviations of each
        target in training; coverage: part of the values within the interval of `level`; skill: 1 - mae over that of
        the better naive forecast.
    baselines: the same, as far as it makes sense, of the naive forecast (the last value) and the seasonal naive one
        (the value a season before). better_baseline: the one of them with the smaller error.
    verdict: a sentence: whether the model is better than that.
    targets: each target in its own unit. by_step: mae of each step ahead, of the model and of the better baseline.
    """

    windows: int
    series: int
    horizon: int
    season: int | None
    level: float
    metrics: dict[str, Interval]
    baselines: dict[str, dict[str, float]]
    better_baseline: str
    verdict: str
    targets: list[TargetScores]
    by_step: dict[str, list[float]]
    pictures: list[ForecastPicture]
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> str:
        """What it was made on."""
        of = f" of {self.series:,} series" if self.series > 1 else ""
        return f"{self.windows:,} forecast{'s' if self.windows > 1 else ''} of {self.horizon:,} steps{of}"

    @property
    def beats_naive(self) -> bool:
        """Whether its error is smaller than that of the better naive forecast."""
        return self.metrics["skill"].value > 0


@dataclass(frozen=True)
class Rolling:
    """What a backtest needs: who forecasts, which series, from where, and what is known from training.

    origins (W, 2): the series and the first step that is forecast. season: of the seasonal naive forecast, at most the
    context; None for none. naive_errors (number of series, K): as `naive_error` gives them, of each series.
    """

    network: ForecasterNetwork
    encoding: SeriesEncoding
    panel: Panel
    origins: np.ndarray
    context: int
    horizon: int
    season: int | None
    naive_errors: np.ndarray
    level: float = 0.8
    seed: int = 0

    def evaluate(self, notes: list[str] | None = None) -> ForecastEvaluation:
        """The evaluation over all windows, the same for the same seed."""
        names = ["model", "naive", *(["seasonal naive"] if self.season else [])]
        errors = {name: _Errors() for name in names}
        levels = even_levels(LEVELS).tolist()
        for batch, (low, point, high, *said) in self._forecasts(np.arange(len(self.origins)), levels):
            past, actual = self._values(batch, -self.context, 0), self._values(batch, 0, self.horizon)
            errors["model"].add(actual, point)
            errors["model"].add_distribution(actual, np.stack(said), low, high)
            errors["naive"].add(actual, np.repeat(past[:, -1:], self.horizon, axis=1))
            if self.season:
                ahead = np.arange(self.horizon) % self.season
                errors["seasonal naive"].add(actual, past[:, -self.season :][:, ahead])
        found = {name: _Scores(error, self.encoding.scaler.scale, self._scales) for name, error in errors.items()}
        better = min(names[1:], key=lambda name: found[name].mean("mae"))
        metrics = self._intervals(found["model"], found[better])
        baselines = {name: found[name].means() for name in names[1:]}
        targets = self.encoding.target_names
        return ForecastEvaluation(
            len(self.origins),
            len(np.unique(self.origins[:, 0])),
            self.horizon,
            self.season,
            self.level,
            metrics,
            baselines,
            better,
            verdict(metrics, baselines[better], better),
            [_of_target(name, k, found) for k, name in enumerate(targets)],
            {"model": found["model"].by_step(), better: found[better].by_step()},
            self._pictures(found["model"].windows["mae"]),
            notes or [],
        )

    @property
    def _scales(self) -> np.ndarray:
        return self.naive_errors[self.origins[:, 0]]

    def _forecasts(self, rows: np.ndarray, levels: Sequence[float]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of a batch of windows their rows, and (3 + Q, B, N, K) in the units of the data: the lower end of the
        interval, the median, the upper end, and the quantiles at Q levels.
        """
        low, high = ends(self.level)
        wanted = torch.tensor([low, 0.5, high, *levels], dtype=torch.float32)
        size = max(1, BATCH_VALUES // (DRAWS * self.horizon * len(self.encoding.target_names)))
        scaled = [self.encoding.scaled(values) for values in self.panel.values]
        lengths = {"context": self.context, "horizon": self.horizon}
        windows = SeriesWindows(
            scaled, list(self.panel.known), self.panel.static, self.origins, **lengths, batch_size=size
        )
        device = next(self.network.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                window = window_of(windows.cut(batch), device)
                said = self.network.quantiles(window, wanted.to(device), DRAWS).transpose(1, 2).cpu().numpy()
                yield batch, self.encoding.restored(said)

    def _values(self, rows: np.ndarray, start: int, end: int) -> np.ndarray:
        """The values from `start` to `end` steps after the origin of each window, (B, steps, K)."""
        series, origins = self.origins[rows].T
        steps = (self.panel.values.offsets[series] + origins)[:, None] + np.arange(start, end)
        return self.panel.values.values[steps]

    def _intervals(self, model: "_Scores", other: "_Scores") -> dict[str, Interval]:
        """The metrics with intervals over stretches of windows that start within a horizon of each other."""
        series, origins = self.origins.T
        _, blocks = np.unique(np.stack([series, origins // self.horizon], 1), axis=0, return_inverse=True)
        blocks = blocks.reshape(-1)
        sums = {name: _by_block(values, blocks) for name, values in model.windows.items()}
        sums["other"] = _by_block(other.windows["mae"], blocks)

        def statistics(rows: np.ndarray) -> dict[str, float]:
            means = {}
            for name, (total, count) in sums.items():
                number = count[rows].sum()
                if number:
                    means[name] = float(total[rows].sum() / number)
            naive = means.pop("other")
            return {**means, "skill": 1 - means["mae"] / naive if naive > 0 else 0.0}

        number = int(blocks.max()) + 1
        if number < FEWEST_BLOCKS:
            return {name: Interval(value, value, value) for name, value in statistics(np.arange(number)).items()}
        return intervals(statistics, number, seed=self.seed)

    def _pictures(self, errors: np.ndarray) -> list[ForecastPicture]:
        """Forecasts from the best to the worst, of targets in turn."""
        order = np.argsort(errors, kind="stable")
        parts = np.linspace(0, 1, min(PICTURES, len(order)))
        rows = order[np.round(parts * (len(order) - 1)).astype(int)]
        shown: list[ForecastPicture] = []
        targets = self.encoding.target_names
        for batch, (low, point, high) in self._forecasts(rows, ()):
            history = self._values(batch, -min(self.context, 3 * self.horizon), 0)
            actual = self._values(batch, 0, self.horizon)
            for b, row in enumerate(batch):
                k = len(shown) % len(targets)
                series, origin = self.origins[row].tolist()
                times = self.panel.times[series][origin - history.shape[1] : origin + self.horizon]
                drawn = [each[b, :, k].tolist() for each in (history, actual, point, low, high)]
                written = write_times(self.encoding.times_of(times), self.encoding.time_format)
                rank = float((errors < errors[row]).mean())
                shown.append(ForecastPicture(self.panel.names[series], targets[k], rank, written, *drawn))
        return shown


class _Errors:
    """Errors of one way of forecasting, gathered batch by batch."""

    def __init__(self) -> None:
        self.absolute: list[np.ndarray] = []  # (B, N, K) each
        self.others: dict[str, list[np.ndarray]] = {}  # by name, (B, K) each

    def add(self, actual: np.ndarray, forecast: np.ndarray) -> None:
        self.absolute.append(np.abs(actual - forecast))
        self._add("squared", (actual - forecast) ** 2)
        self._add("smape", smape(actual, forecast))

    def add_distribution(self, actual: np.ndarray, said: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        self._add("crps", crps(actual, said))
        self._add("coverage", ((actual >= low) & (actual <= high)).astype(np.float64))

    def _add(self, name: str, values: np.ndarray) -> None:
        self.others.setdefault(name, []).append(values.mean(1))


class _Scores:
    """The scores of one way of forecasting, from its errors.

    targets: by name (W, K), in the units of the data; windows: by name (W,), NaN where there is none.
    """

    def __init__(self, errors: _Errors, deviations: np.ndarray, naive_errors: np.ndarray) -> None:
        absolute = np.concatenate(errors.absolute)
        self.steps = (absolute / deviations).mean((0, 2))
        self.targets = {name: np.concatenate(each) for name, each in errors.others.items()}
        self.targets["absolute"] = absolute.mean(1)
        self.targets["mase"] = self.targets["absolute"] / naive_errors
        known = ~np.isnan(self.targets["mase"])
        total = np.where(known, self.targets["mase"], 0).sum(1)
        self.windows = {
            "mase": np.divide(total, known.sum(1), out=np.full(len(total), np.nan), where=known.any(1)),
            "smape": self.targets["smape"].mean(1),
            "mse": (self.targets["squared"] / deviations**2).mean(1),
            "mae": (self.targets["absolute"] / deviations).mean(1),
        }
        if "crps" in self.targets:
            self.windows["crps"] = (self.targets["crps"] / deviations).mean(1)
            self.windows["coverage"] = self.targets["coverage"].mean(1)

    def mean(self, name: str) -> float:
        return float(self.windows[name].mean())

    def means(self) -> dict[str, float]:
        found = {name: float(values[~np.isnan(values)].mean()) for name, values in self._known().items()}
        return {**found, "crps": found["mae"]}  # of a forecast without a distribution they are the same

    def by_step(self) -> list[float]:
        return self.steps.tolist()

    def _known(self) -> dict[str, np.ndarray]:
        return {name: values for name, values in self.windows.items() if not np.isnan(values).all()}


def _of_target(name: str, k: int, found: dict[str, _Scores]) -> TargetScores:
    means = {key: float(values[:, k].mean()) for key, values in found["model"].targets.items() if key != "mase"}
    mase = found["model"].targets["mase"][:, k]
    mase = mase[~np.isnan(mase)]
    naive = {key: float(scores.targets["absolute"][:, k].mean()) for key, scores in found.items()}
    return TargetScores(
        name,
        means["absolute"],
        means["squared"] ** 0.5,
        means["crps"],
        means["coverage"],
        float(mase.mean()) if len(mase) else None,
        naive["naive"],
        naive.get("seasonal naive"),
    )


def _by_block(values: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each block the sum of the windows' values, and how many there are; NaN is none."""
    known = ~np.isnan(values)
    return np.bincount(blocks, np.where(known, values, 0)), np.bincount(blocks, known)


def verdict(metrics: dict[str, Interval], baseline: dict[str, float], name: str) -> str:
    """Whether a model of these metrics is better than a baseline, in a sentence."""
    skill = metrics["skill"]
    change = f"{abs(100 * skill.value):.0f}%"
    change = "the same" if change == "0%" else f"{change} {'smaller' if skill.value > 0 else 'larger'}"
    figures = f"its mean error is {change}"
    if "mase" in metrics and "mase" in baseline:
        figures += f", MASE {metrics['mase'].value:.3f} against {baseline['mase']:.3f}"
    if skill.value <= 0:
        return (
            f"The model does NOT beat the better naive forecast, the {name} one: {figures}. "
            "Do without it, or train it on more."
        )
    if skill.low <= 0 < skill.high and skill.low < skill.high:
        return (
            f"The model is better than the {name} forecast by no more than chance: {figures}, but between "
            f"{100 * skill.low:.0f}% and {100 * skill.high:.0f}% on other windows of the kind."
        )
    return f"The model beats the better naive forecast, the {name} one: {figures}."
