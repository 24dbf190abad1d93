"""What a forecaster says of the time after the end of each series: drawn futures, or a table of quantiles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from gatewise.data.series_encoding import Panel, SeriesEncoding
from gatewise.data.series_windows import SeriesWindows
from gatewise.errors import DataError
from gatewise.models.forecaster import ForecasterNetwork, Window
from gatewise.training.forecast_scores import ends, even_levels
from gatewise.training.forecaster_task import window_of

MEAN_LEVELS = 100  # of a distribution, whose mean is taken for its own
BATCH_SIZE = 64


@dataclass(frozen=True)
class Futures:
    """The `steps` steps (N) after the end of each series of a panel, which has their times and known covariates.

    context: steps that are read before them. draws: of the future of each series, where its quantiles have no formula.
    seed: of the draws; the same seed, the same draws.

    Raises DataError: a series shorter than the context.
    """

    network: ForecasterNetwork
    encoding: SeriesEncoding
    panel: Panel
    context: int
    steps: int
    draws: int
    seed: int

    def __post_init__(self) -> None:
        for values, place in zip(self.panel.values, self.panel.places, strict=True):
            if len(values) < self.context:
                raise DataError(
                    f"{place}: {len(values)} steps are too few: the model reads {self.context} steps before its "
                    "forecast"
                )

    def paths(self) -> dict[str, np.ndarray]:
        """Of each series, by its id, drawn futures (draws, N, K) in the units of the data."""
        return self._said(lambda window: self.network.paths(window, self.draws))

    def table(self, level: float, quantiles: Sequence[float]) -> pl.DataFrame:
        """A row for each series, time and target: see `Forecaster.predict`."""
        wanted = [0.5, *ends(level), *quantiles]
        levels = torch.tensor([*wanted, *even_levels(MEAN_LEVELS)], dtype=torch.float32)
        names = ["point", "lower", "upper", *(f"q{part:g}" for part in quantiles)]
        tables = []
        found = self._said(lambda window: self.network.quantiles(window, levels.to(window.history.device), self.draws))
        targets = self.encoding.target_names
        for row, (name, said) in enumerate(found.items()):
            columns = dict(zip(names, said, strict=False))
            columns = {"point": columns.pop("point"), "mean": said[len(wanted) :].mean(0), **columns}
            length = len(self.panel.values[row])
            times = self.encoding.times_of(self.panel.times[row][length : length + self.steps])
            table = {
                "id": [name] * (self.steps * len(targets)),
                "time": np.repeat(times, len(targets)),
                "target": list(targets) * self.steps,
                **{key: values.ravel() for key, values in columns.items()},
            }
            tables.append(pl.DataFrame(table))
        joined = pl.concat(tables)
        return joined if self.encoding.id_name else joined.drop("id")

    def _said(self, say: Callable[[Window], Tensor]) -> dict[str, np.ndarray]:
        """Of each series by its id what `say` makes of its window, (M, N, K) in the units of the data."""
        panel, encoding = self.panel, self.encoding
        to_come = np.zeros((self.steps, len(encoding.target_names)), np.float32)
        scaled = [np.concatenate([encoding.scaled(values), to_come]) for values in panel.values]
        origins = np.stack([np.arange(len(panel)), panel.values.lengths], axis=1)
        lengths = {"context": self.context, "horizon": self.steps}
        windows = SeriesWindows(scaled, list(panel.known), panel.static, origins, **lengths, batch_size=BATCH_SIZE)
        device = next(self.network.parameters()).device
        found: dict[str, np.ndarray] = {}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            for batch in windows.in_order():
                said = encoding.restored(say(window_of(batch, device)).cpu().numpy())
                for b, row in enumerate(batch.series):
                    found[panel.names[row]] = said[:, :, b]
        return found
