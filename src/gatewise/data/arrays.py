"""Arrays: sequences of feature vectors from Python, from `.npz` and `.npy`, and piano rolls from `.mat`."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gatewise.data.array_targets import check_finite, targets_of, to_numbers, with_two_axes
from gatewise.data.examples import Examples, TargetKind, some
from gatewise.data.files import name_of, read_bytes, reason_of
from gatewise.errors import DataError

Matrix = Literal["steps", "features"]
INPUT_NAMES = ("X", "x", "inputs", "data", "features")
TARGET_NAMES = ("y", "Y", "targets", "target", "labels", "label")
PART_NAMES = {  # of a file that holds several parts, as piano rolls do
    "training": ("train", "traindata", "training"),
    "validation": ("valid", "validdata", "validation", "dev"),
    "test": ("test", "testdata"),
}


def examples_of(
    inputs: Any,
    targets: Any = None,
    *,
    lengths: Any = None,
    target_kind: TargetKind | None = None,
    feature_names: Sequence[str] = (),
    groups: Sequence[Any] | np.ndarray | None = None,
    matrix: Matrix = "steps",
    name: str = "X",
) -> Examples:
    """Sequences of feature vectors, with their targets, as examples.

    inputs: (N, T, F) numbers; or a list of N arrays (T_i, F); or (N, T), or a list of N arrays (T_i,), of one feature.
    lengths (N,): how many steps of each row of an (N, T, F) array count; or, with inputs (sum of T_i, F), how long the
        sequences are that lie in it end to end.
    targets: of `target_kind`
        "label"    N labels
        "labels"   N collections of labels, or (N, K) of 0 and 1
        "tags"     (N, T) tags, or N lists of T_i tags
        "numbers"  (N, T, K) or (N, T) numbers, or N arrays (T_i, K) or (T_i,)
        unless it is given: (N,) is "label"; a target of as many steps as its input is "tags" if it holds whole numbers
        or texts, else "numbers"; anything else is "labels".
    groups: N, for a split by group.
    matrix: what the columns of an array of two axes are: steps of one feature, or features of one step each.
    name: what messages call the inputs.

    Raises DataError: no example, no number, NaN or infinite (`X[3, 7, 2]`), other features than in the first sequence,
    a sequence without a step, lengths or targets that do not fit.
    """
    is_matrix = matrix == "features" and lengths is None and isinstance(inputs, np.ndarray) and inputs.ndim == 2
    if is_matrix:
        inputs = _rows(inputs, name)[:, None]
    arrays = _sequences(inputs, lengths, name)
    if not arrays:
        raise DataError(f"{name}: no example")
    features = arrays[0].shape[1]
    names = tuple(feature_names) or unnamed(features)
    if len(names) != features:
        raise DataError(f"{name}: {features} features and {len(names)} names for them; give as many")
    for row, steps in enumerate(arrays):
        if not len(steps):
            raise DataError(f"{name}[{row}] has no step")
        if steps.shape[1] != features:
            raise DataError(f"{name}[{row}] has {steps.shape[1]} features, and {name}[0] has {features}")
        check_finite(steps, f"{name}[{row}")
    kind: TargetKind = "none"
    converted, target_names = None, ()
    if targets is not None:
        kind, converted, target_names = targets_of(targets, list(map(len, arrays)), target_kind)
    return Examples(
        name,
        "steps",
        arrays,
        kind,
        converted,
        [f"{name}[{row}]" for row in range(len(arrays))],
        groups=None if groups is None else [str(group) for group in groups],
        feature_names=names,
        target_names=target_names,
        matrix=is_matrix,
    )


def unnamed(features: int) -> tuple[str, ...]:
    """What features without names are called."""
    return tuple(f"feature {i}" for i in range(features))


def read_arrays(
    source: str | Path,
    targets_source: str | Path | None = None,
    *,
    target_kind: TargetKind | None = None,
    matrix: Matrix = "steps",
    with_targets: bool = True,
) -> Examples:
    """The sequences of an `.npz` file, or of an `.npy` file with the targets in another one, as in `examples_of`.

    An `.npz` holds the inputs as one of INPUT_NAMES, the targets as one of TARGET_NAMES, and perhaps `lengths`,
    `groups` and `feature_names`.

    Raises DataError: as `examples_of`; a broken file; an array that is missing, or of Python objects.
    """
    name = name_of(source)
    held = _load(source)
    if isinstance(held, np.ndarray):
        arrays, key = {"X": held}, "X"
    else:
        arrays, key = held, _key(held, INPUT_NAMES, name, "inputs")
    targets = None
    if with_targets and targets_source is not None:
        given = _load(targets_source)
        if not isinstance(given, np.ndarray):
            given = given[_key(given, TARGET_NAMES, name_of(targets_source), "targets")]
        targets = given
    elif with_targets:
        targets = arrays[_key(arrays, TARGET_NAMES, name, "targets")]
    try:
        return examples_of(
            arrays[key],
            targets,
            lengths=arrays.get("lengths"),
            target_kind=target_kind,
            feature_names=[str(feature) for feature in arrays.get("feature_names", ())],
            groups=arrays.get("groups"),
            matrix=matrix,
            name=f"{name}: {key}",
        )
    except DataError as error:
        raise error if str(error).startswith(name) else DataError(f"{name}: {error}") from error


def read_matlab(source: str | Path, variable: str) -> Examples:
    """The sequences (T_i, F) in a cell array of a `.mat` file, such as a corpus of piano rolls; without targets.

    Raises DataError: as `examples_of`; no such variable; SciPy (extra `matlab`) is not installed.
    """
    name = name_of(source)
    variables = _load_matlab(source)
    if variable not in variables:
        raise DataError(f"{name}: no variable {variable} in it; there is {some(variables)}")
    return examples_of([np.asarray(cell) for cell in variables[variable].ravel()], name=f"{name}: {variable}")


def read_matlab_parts(source: str | Path) -> dict[str, Examples]:
    """The training, validation and test parts of a `.mat` file that holds them as `traindata` and so on."""
    variables = _load_matlab(source)
    found = {part: [name for name in names if name in variables] for part, names in PART_NAMES.items()}
    if not found["training"]:
        raise DataError(f"{name_of(source)}: no variable {PART_NAMES['training'][1]} in it; there is {some(variables)}")
    return {part: read_matlab(source, names[0]) for part, names in found.items() if names}


def next_steps(examples: Examples) -> Examples:
    """The sequences without their last step, each step with the one after it as its target, as numbers.

    Raises DataError if a sequence has one step only.
    """
    for steps, place in zip(examples.steps, examples.places, strict=True):
        if len(steps) < 2:
            raise DataError(f"{place} has 1 step, and a next step to predict needs 2")
    return replace(
        examples,
        inputs=[steps[:-1] for steps in examples.steps],
        target_kind="numbers",
        targets=[steps[1:] for steps in examples.steps],
        target_names=examples.feature_names,
    )


def _rows(matrix: np.ndarray, name: str) -> np.ndarray:
    """A matrix (N, F) of numbers as float32. Raises DataError, in the words that scikit-learn looks for."""
    if matrix.shape[1] == 0:
        raise DataError(f"{name}: 0 feature(s) (shape={matrix.shape}) while a minimum of 1 is required.")
    rows = to_numbers(matrix, name)
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0].tolist()
        raise DataError(f"{name}[{row}, {column}] is {matrix[row, column]}; expected a number, no NaN and no infinity")
    return rows


def _sequences(inputs: Any, lengths: Any, name: str) -> list[np.ndarray]:
    """N arrays (T_i, F) float32."""
    if not isinstance(inputs, np.ndarray) and hasattr(inputs, "__len__") and lengths is None:
        return [with_two_axes(item, f"{name}[{row}]") for row, item in enumerate(inputs)]
    if isinstance(inputs, np.ndarray) and inputs.dtype == object and lengths is None:
        return [with_two_axes(item, f"{name}[{row}]") for row, item in enumerate(inputs)]
    array = to_numbers(inputs, name)
    if lengths is None:
        if array.ndim not in (2, 3):
            raise DataError(
                f"{name}: expected (N, T, F) or (N, T), or a list of arrays (T, F), got shape {array.shape}"
            )
        return list(array[:, :, None] if array.ndim == 2 else array)
    lengths = to_numbers(lengths, "lengths").astype(np.int64)
    if lengths.ndim == 1 and array.ndim == 2 and lengths.sum() == len(array):
        return np.split(array, np.cumsum(lengths)[:-1])
    if array.ndim != 3 or lengths.shape != array.shape[:1]:
        raise DataError(
            f"{name}: expected (N, T, F) with N lengths, got shape {array.shape} with {lengths.size} lengths"
        )
    wrong = np.flatnonzero((lengths < 0) | (lengths > array.shape[1]))
    if len(wrong):
        raise DataError(
            f"{name}: lengths[{wrong[0]}] is {lengths[wrong[0]]}; expected 0 to {array.shape[1]}, the steps there are"
        )
    return [steps[:length] for steps, length in zip(array, lengths, strict=True)]


def _load(source: str | Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of an `.npy`, or the arrays of an `.npz`."""
    name, data = name_of(source), read_bytes(source)
    if not data.startswith((b"PK\3\4", b"\x93NUMPY")):
        raise DataError(f"{name}: no .npy or .npz file: it begins with neither's mark")
    try:
        held = np.load(io.BytesIO(data), allow_pickle=False)
        return held if isinstance(held, np.ndarray) else {key: held[key] for key in held.files}
    except ValueError as error:
        if "pickle" in str(error):
            raise DataError(
                f"{name}: holds Python objects, which are not read from files: they could run any code; "
                "save plain arrays, ragged ones end to end with their lengths"
            ) from error
        raise DataError(f"{name}: damaged: {reason_of(error)}") from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{name}: damaged: {reason_of(error)}") from error


def _key(arrays: dict[str, np.ndarray], names: tuple[str, ...], name: str, what: str) -> str:
    found = [key for key in names if key in arrays]
    if not found:
        raise DataError(f"{name}: no {what} in it: expected an array {' or '.join(names)}, found {some(arrays)}")
    return found[0]


def _load_matlab(source: str | Path) -> dict[str, np.ndarray]:
    """The variables of a `.mat` file that hold arrays."""
    name, data = name_of(source), read_bytes(source)
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(f"{name}: needs SciPy to be read: pip install 'gatewise[matlab]'") from error
    try:
        variables = loadmat(io.BytesIO(data))
    except Exception as error:  # SciPy raises what it meets: ValueError, TypeError, its own MatReadError, ...
        raise DataError(f"{name}: damaged .mat file: {reason_of(error)}") from error
    return {key: value for key, value in variables.items() if isinstance(value, np.ndarray)}
