"""What a run folder holds, as its report reads it."""

import json
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from gatewise.config import JOBS, Job, validate
from gatewise.errors import RunError
from gatewise.gates import plots
from gatewise.run_folder import RunFolder

Line = dict[str, Any]  # of metrics.jsonl or samples.jsonl


class Tensor(NamedTuple):
    """A tensor of the saved model."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Run:
    """What a run folder holds so far; what is not there yet is empty.

    unit: what its speed counts, "tokens". rank: of a validation, lower where it is better.
    data, evaluation: of a training on examples, data.json and evaluation.json.
    """

    name: str
    job: Any
    unit: str
    rank: Callable[[Line], Any]
    training: list[Line]
    validation: list[Line]
    samples: list[Line]
    environment: dict[str, Any]
    tensors: list[Tensor]
    data: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Line | None:
        """The best validation; the saved model is the one that was validated there."""
        return min(self.validation, key=self.rank, default=None)

    @property
    def last(self) -> Line | None:
        """The latest line of metrics."""
        return max(self.training + self.validation, key=lambda line: line["step"], default=None)

    @property
    def parameters(self) -> int:
        """How many the saved model has."""
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def units_per_second(self) -> float | None:
        """The mean over the training steps; each line stands for equally many units."""
        rates = curve(self.training, f"{self.unit}_per_second").values
        return len(rates) / math.fsum(1 / rate for rate in rates) if rates else None


def read_run(folder: RunFolder, *, unit: str, loss_name: str, rank: Callable[[Line], Any]) -> Run:
    """What the folder holds; lines of metrics without a finite loss are left out. Raises RunError."""
    tables = tomllib.loads(folder.config.read_text("utf-8"))
    del tables["format"]
    job: type[Job] = JOBS[tables.pop("task", next(iter(JOBS)))]
    metrics = [line for line in folder.read_metrics() if is_finite(line.get(loss_name))]
    return Run(
        name=folder.path.resolve().name,
        job=validate(job, tables, source=str(folder.config)),
        unit=unit,
        rank=rank,
        training=[line for line in metrics if line["split"] == "train"],
        validation=[line for line in metrics if line["split"] == "validation"],
        samples=folder.read_samples(),
        environment=_document(folder.environment),
        tensors=_tensors(folder.model),
        data=_document(folder.data),
        evaluation=_document(folder.evaluation),
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError as error:
        raise RunError(f"{path}: damaged: {error}") from error


def _tensors(path: Path) -> list[Tensor]:
    """The tensors that the header of a safetensors file names; the tensors themselves are not read."""
    if not path.exists():
        return []
    try:
        with safe_open(path, framework="numpy") as file:
            views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            return [_tensor(name, tuple(view.get_shape()), view.get_dtype()) for name, view in views.items()]
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: damaged: {error}") from error


def _tensor(name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    parameters = math.prod(shape)
    return Tensor(name, shape, dtype, parameters, parameters * int(dtype.strip("BFIU")) // 8)  # F32, BF16, I64


def curve(lines: list[Line], key: str) -> plots.Curve:
    """The finite values of `key` against steps."""
    points = [(line["step"], line[key]) for line in lines if is_finite(line.get(key))]
    return plots.Curve([step for step, _ in points], [value for _, value in points])


def is_finite(value: float | None) -> bool:
    """Whether there is a value, neither NaN nor infinite."""
    return value is not None and math.isfinite(value)


def spread(count: int, most: int, kept: int) -> list[int]:
    """Indices of at most `most` + 1 of `count` things: dense at first, where most is learned, the last, and `kept`."""
    if count <= most:
        return list(range(count))
    return sorted({round(count ** (number / (most - 1))) - 1 for number in range(most)} | {kept})


def nearest(lines: list[Line], step: int) -> Line | None:
    """The last of `lines` that is not after `step`."""
    return max((line for line in lines if line["step"] <= step), key=lambda line: line["step"], default=None)
