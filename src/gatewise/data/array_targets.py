"""Targets of sequences of feature vectors as people hold them: classes, sets, a tag or numbers at every step."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gatewise.data.examples import TargetKind
from gatewise.errors import DataError


def targets_of(
    targets: Any, lengths: Sequence[int], kind: TargetKind | None
) -> tuple[TargetKind, list[Any], tuple[str, ...]]:
    """(the kind, N targets of it as in `Examples`, the names of the K numbers), as `examples_of` describes.

    lengths: of the N sequences.
    """
    if isinstance(targets, np.ndarray) and len(targets) != len(lengths) and len(targets) == sum(lengths):
        targets = np.split(targets, np.cumsum(lengths)[:-1])  # end to end, as the inputs
    if len(targets) != len(lengths):
        raise DataError(f"y has {len(targets)} targets for {len(lengths)} sequences; give one for each")
    if kind is None:
        kind = _kind(targets, lengths)
    if kind == "label":
        return kind, [_label(target, f"y[{row}]") for row, target in enumerate(targets)], ()
    if kind == "labels":
        return kind, _label_sets(targets), ()
    if kind not in ("tags", "numbers"):
        raise DataError(f"target_kind: expected label, labels, tags or numbers, got {kind}")
    cut = [_cut(target, length, f"y[{row}]") for row, (target, length) in enumerate(zip(targets, lengths, strict=True))]
    if kind == "tags":
        return kind, [[_label(tag, f"y[{row}]") for tag in tags] for row, tags in enumerate(cut)], ()
    numbers = [with_two_axes(target, f"y[{row}]") for row, target in enumerate(cut)]
    width = numbers[0].shape[1]
    for row, steps in enumerate(numbers):
        if steps.shape[1] != width:
            raise DataError(f"y[{row}] has {steps.shape[1]} numbers a step, and y[0] has {width}")
        check_finite(steps, f"y[{row}")
    return kind, numbers, tuple(f"target {i}" for i in range(width))


def with_two_axes(item: Any, name: str) -> np.ndarray:
    """The steps (T, F) float32 of a sequence (T, F) or (T,). Raises DataError."""
    array = to_numbers(item, name)
    if array.ndim not in (1, 2):
        raise DataError(f"{name}: expected (T, F), got shape {array.shape}")
    return array[:, None] if array.ndim == 1 else array


def to_numbers(value: Any, name: str) -> np.ndarray:
    """The value as float32. DataError if it is ragged, or no numbers."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name}: ragged: its rows have different lengths; give a list of arrays (T, F)") from error
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise DataError(f"{name}: expected numbers, got Python objects such as {array.flat[0]!r}") from None
    if array.dtype.kind == "c":
        raise DataError(f"{name}: Complex data not supported; give real numbers")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected numbers, got {array.dtype}")
    with np.errstate(over="ignore"):  # an infinite value is said by name
        return array.astype(np.float32)


def check_finite(steps: np.ndarray, name: str) -> None:
    """DataError for the first value that is NaN or infinite; `name` is that of the steps with a bracket open."""
    if not np.isfinite(steps).all():
        step, feature = np.argwhere(~np.isfinite(steps))[0].tolist()
        raise DataError(f"{name}, {step}, {feature}] is {steps[step, feature]}; expected a finite number")


def _kind(targets: Any, lengths: Sequence[int]) -> TargetKind:
    if all(isinstance(target, str) or np.ndim(target) == 0 for target in targets):
        return "label"
    if isinstance(targets, np.ndarray) and targets.ndim > 1:
        per_step = targets.shape[1] == max(lengths)
    else:
        per_step = all(
            hasattr(target, "__len__") and len(target) == length
            for target, length in zip(targets, lengths, strict=True)
        )
    if not per_step:
        return "labels"
    first = np.asarray(targets[0])
    return "tags" if first.ndim == 1 and first.dtype.kind in "iubUO" else "numbers"


def _cut(target: Any, length: int, name: str) -> Any:
    """The target's first steps; padding after them is dropped."""
    if not hasattr(target, "__len__") or len(target) < length:
        steps = len(target) if hasattr(target, "__len__") else 1
        raise DataError(f"{name} has {steps} steps, and its sequence has {length}")
    return target[:length]


def _label(value: Any, name: str) -> str:
    """A label as a text: 3, 3.0 and "3" are "3"."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            raise DataError(f"{name} is {value}; expected a label")
        return str(int(value)) if value == int(value) else str(float(value))
    if value is None or not str(value).strip():
        raise DataError(f"{name} is empty; expected a label")
    return str(value).strip()


def _label_sets(targets: Any) -> list[tuple[str, ...]]:
    if isinstance(targets, np.ndarray) and targets.ndim == 2:
        if not np.isin(targets, (0, 1)).all():
            raise DataError("y: several labels as an array (N, K) are 0 or 1; it holds other values")
        return [tuple(str(label) for label in np.flatnonzero(row)) for row in targets]
    for row, labels in enumerate(targets):
        if isinstance(labels, str) or not hasattr(labels, "__iter__"):
            raise DataError(f"y[{row}]: expected a collection of labels, got {labels!r}")
    return [tuple(sorted({_label(x, f"y[{row}]") for x in labels})) for row, labels in enumerate(targets)]
