"""Splits of series by time: of each series the first steps for training, then validation, then test.

A window of a part forecasts steps of that part alone; what it has seen before may reach back into the part before.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gatewise.data.series import SeriesTable
from gatewise.errors import DataError


@dataclass(frozen=True)
class SeriesSplit:
    """Where the parts of each series end, (S,) int64 each: training is steps 0 to training_end - 1, and so on.

    A part that there is not ends where the one before ends. Steps from test_end on are not used.
    """

    training_end: np.ndarray
    validation_end: np.ndarray
    test_end: np.ndarray
    rules: tuple[str, ...]

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(first step, end) of a part of each series: "training", "validation" or "test"."""
        ends = {"training": self.training_end, "validation": self.validation_end, "test": self.test_end}
        starts = {
            "training": np.zeros_like(self.training_end),
            "validation": self.training_end,
            "test": self.validation_end,
        }
        return starts[name], ends[name]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a report: the rules, and the steps of each part over all series."""
        steps = {}
        for name in ("training", "validation", "test"):
            start, end = self.part(name)
            steps[name] = int((end - start).sum())
        return {"rules": list(self.rules), "steps": steps}


def split_series(
    table: SeriesTable,
    *,
    validation: float | int = 0.1,
    test: float | int = 0.1,
    training: int | None = None,
    horizon: int = 1,
) -> SeriesSplit:
    """The split of every series by time.

    validation, test: a share of each series below 1, or a number of steps; 0 for no such part.
    training: None: all that is left. A number of steps: training begins with the series, validation and test follow,
        and what is left at the end is not used (as in benchmarks of 12, 4 and 4 months).
    horizon: every part that there is must have as many steps.

    Raises DataError: a series is too short, a part is empty or shorter than the horizon.
    """
    lengths = np.array([len(series) for series in table.series], dtype=np.int64)
    steps = {name: _steps(name, amount, lengths) for name, amount in (("validation", validation), ("test", test))}
    held_out = steps["validation"] + steps["test"]
    training_end = lengths - held_out if training is None else np.full_like(lengths, training)
    for series, length, end, held in zip(table.series, lengths, training_end, held_out, strict=True):
        if end + held > length or end < horizon:
            wanted = {"training": training, "validation": validation, "test": test}
            given = [f"{name} = {amount:g}" for name, amount in wanted.items() if amount]
            parts = " and ".join([", ".join(given[:-1]), given[-1]] if len(given) > 1 else given)
            least = f"a training of at least the horizon, {horizon}"
            raise DataError(
                f"{series.place}: {length} steps are too few for {f'{parts}, and {least}' if parts else least}; give a "
                f"longer series{', or hold out less' if held else ''}"
            )
    for name, amount in (("validation", validation), ("test", test)):
        short = np.flatnonzero((steps[name] > 0) & (steps[name] < horizon) | ((steps[name] == 0) & (amount > 0)))
        if len(short):
            raise DataError(
                f"{table.series[short[0]].place}: {name} = {amount:g} is {steps[name][short[0]]} of "
                f"{lengths[short[0]]} steps, shorter than the horizon, {horizon}"
            )
    rules = tuple(
        f"{name}: {_range(counts)} steps of each series after those of {before}"
        for name, before, counts in (
            ("validation", "training", steps["validation"]),
            ("test", "validation" if validation else "training", steps["test"]),
        )
        if counts.any()
    )
    validation_end = training_end + steps["validation"]
    return SeriesSplit(training_end, validation_end, validation_end + steps["test"], rules)


def forecast_origins(start: np.ndarray, end: np.ndarray, *, context: int, horizon: int, stride: int = 1) -> np.ndarray:
    """(M, 2) int64: the series and the first step that is forecast, of every window of a part; the earliest first.

    start, end (S,): the steps of the part, of each series, as `SeriesSplit.part` gives them.
    context: steps that come before the first one forecast; they may lie before the part.
    horizon: steps forecast, all of them in the part.
    stride: steps from one origin to the next, counted back from the last that fits.
    """
    windows = []
    for number, (first, stop) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        origins = np.arange(stop - horizon, max(first, context) - 1, -stride, dtype=np.int64)[::-1]
        windows.append(np.stack([np.full_like(origins, number), origins], axis=1))
    return np.concatenate(windows) if windows else np.empty((0, 2), dtype=np.int64)


def _steps(name: str, amount: float | int, lengths: np.ndarray) -> np.ndarray:
    if amount < 0 or (amount >= 1 and amount != int(amount)):
        raise DataError(f"{name}: expected a share below 1 or a number of steps, got {amount}")
    if amount < 1:
        return np.round(lengths * amount).astype(np.int64)
    return np.full_like(lengths, int(amount))


def _range(counts: np.ndarray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"
