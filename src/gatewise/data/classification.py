"""What a classifier reads: a source, or lists and arrays in memory, as examples with a label or labels."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gatewise.config import ClassifierData
from gatewise.data.array_targets import targets_of
from gatewise.data.arrays import examples_of, unnamed
from gatewise.data.examples import Examples, TargetKind, some
from gatewise.data.sources import read_to_classify
from gatewise.errors import DataError


def read_classified(source: str | Path, config: ClassifierData, *, with_labels: bool = True) -> Examples:
    """The examples of a source as `sources.read_to_classify` reads it, with the columns of the configuration.

    with_labels: False for examples to predict. Raises DataError.
    """
    return read_to_classify(
        source,
        text_column=config.text_column,
        label_column=config.label_column if with_labels else None,
        label_separator=config.label_separator,
        group_column=config.group_column if with_labels else None,
        time_column=config.time_column if with_labels else None,
        missing=config.missing,
        matrix="steps" if config.matrix == "auto" else config.matrix,
        with_labels=with_labels,
    )


def classified(
    inputs: Any, labels: Any = None, name: str = "X", *, matrix: Literal["features", "steps", "auto"] = "auto"
) -> Examples:
    """Examples in memory.

    inputs: N texts; N lists of words; (N, T, F) numbers or N arrays (T_i, F), as in `arrays.examples_of`; or a matrix
        of numbers: an array (N, F), a data frame, N lists of F numbers.
    labels: N labels, N collections of labels, or (N, K) of 0 and 1; None for examples to predict.
    matrix: what the columns of a matrix are: features of one step, or steps of one feature; auto: features.
    Raises DataError.
    """
    inputs, columns = _held(inputs, matrix, name)
    kind, dtype = "none", None
    if labels is not None:
        labels, kind, dtype = _labels(labels)
    first = next(iter(inputs), None)
    if first is None:
        raise DataError(f"{name}: expected texts, lists of words, or arrays of steps, got nothing")
    words = isinstance(first, list | tuple) and all(isinstance(word, str) for word in first) and len(first) > 0
    if not isinstance(first, str) and not words:
        known = None if labels is None else kind
        columns_are = "steps" if matrix == "steps" else "features"
        found = examples_of(inputs, labels, target_kind=known, feature_names=columns, matrix=columns_are, name=name)
        return replace(found, label_dtype=dtype)
    values = [str(text) if not words else list(map(str, text)) for text in inputs]
    places = [f"{name}[{row}]" for row in range(len(values))]
    for value, given, place in zip(values, inputs, places, strict=True):
        if words != (not isinstance(given, str)):
            raise DataError(f"{place}: expected {'a list of words' if words else 'a text'} as in the first one")
        if not value or (isinstance(value, str) and not value.strip()):
            raise DataError(f"{place} is empty; leave it out")
    targets = None if labels is None else targets_of(labels, [1] * len(values), kind)[1]
    return Examples(name, "words" if words else "text", values, kind, targets, places, label_dtype=dtype)


def check_features(examples: Examples, names: Sequence[str]) -> None:
    """DataError unless sequences have as many features as there are names, and, if both have names, these."""
    if not examples.steps:
        return
    source, given, features = examples.source, examples.feature_names, len(names)
    if len(given) != features and examples.matrix:
        raise DataError(
            f"{source} has {len(given)} features, but Classifier is expecting {features} features as input, as it was "
            "trained"
        )
    if len(given) != features:
        raise DataError(f"{source}: expected {features} features, as the model was trained on, got {len(given)}")
    if tuple(names) != given and unnamed(features) not in (tuple(names), given):
        raise DataError(f"{source}: its columns are {some(given)}; the model was trained on {some(names)}")


def _held(inputs: Any, matrix: str, name: str) -> tuple[Any, tuple[str, ...]]:
    """The inputs as a list or an array of at least two axes; of a data frame the names of its columns."""
    if hasattr(inputs, "tocsr"):
        raise DataError(f"{name}: sparse data are not supported; give {name}.toarray()")
    columns = tuple(getattr(inputs, "columns", ()))
    columns = columns if all(isinstance(column, str) for column in columns) else ()
    if hasattr(inputs, "__array__"):
        inputs = np.asarray(inputs)
    elif isinstance(inputs, str | Mapping) or not hasattr(inputs, "__len__"):
        raise DataError(f"{name}: expected texts, lists of words, or arrays of steps, got {type(inputs).__name__}")
    else:
        inputs = list(inputs)
        if matrix != "steps" and _is_table(inputs, arrays=matrix == "features"):
            inputs = np.asarray(inputs)
    if isinstance(inputs, np.ndarray) and inputs.ndim == 1 and inputs.dtype.kind in "OU":
        inputs = inputs.tolist()
    if len(inputs) and not hasattr(inputs[0], "__len__"):
        raise DataError(
            f"{name}: expected a matrix (N, F) or sequences (N, T, F), got one dimension. Reshape your data: "
            f"{name}.reshape(-1, 1) if each number is an example, {name}.reshape(1, -1) if all are one"
        )
    return inputs, columns


def _is_table(inputs: list[Any], *, arrays: bool) -> bool:
    """Whether these are rows of as many numbers each; arrays: even if they are arrays, which else are series."""
    kinds = list | tuple | np.ndarray if arrays else list | tuple
    return (
        len({len(row) if isinstance(row, kinds) else -1 for row in inputs}) == 1
        and isinstance(inputs[0], kinds)
        and not any(isinstance(value, str) or hasattr(value, "__len__") for row in inputs for value in row)
    )


def _labels(labels: Any) -> tuple[Any, TargetKind, str | None]:
    """The labels, whether an example has one or several, and the dtype they have. Raises DataError."""
    if hasattr(labels, "__array__"):
        labels = np.asarray(labels)
        if labels.ndim == 2 and labels.shape[1] == 1:
            category = getattr(sys.modules.get("sklearn.exceptions"), "DataConversionWarning", UserWarning)
            warnings.warn(
                "A column-vector y was passed when a 1d array was expected; it is read as y.ravel().",
                category,
                stacklevel=2,
            )
            labels = labels.ravel()
    one = _is_label(labels)
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        return labels, "labels", np.dtype(np.int64).str  # of 0 and 1: the labels are the numbers of the columns
    held = labels
    if not isinstance(labels, np.ndarray) or labels.dtype == object:
        held = np.array([label for each in labels for label in ([each] if one else each)])
    if held.dtype.kind == "c":
        raise DataError("y: Complex data not supported; give labels")
    if held.dtype.kind == "f" and np.isfinite(held).all() and (held != np.floor(held)).any():
        value = held[held != np.floor(held)][0]
        raise DataError(f"y: expected labels, got continuous numbers such as {value}; a classifier is for classes")
    dtype = held.dtype.str
    if held.dtype.kind == "U":
        dtype = "|O" if isinstance(labels, np.ndarray) and labels.dtype.kind == "O" else "<U"
    return labels, "label" if one else "labels", dtype


def _is_label(labels: Any) -> bool:
    """Whether there is one label for each example."""
    if isinstance(labels, np.ndarray):
        return labels.ndim == 1 and (labels.dtype != object or _is_label(labels.tolist()))
    return all(isinstance(label, str) or not hasattr(label, "__len__") for label in labels)
