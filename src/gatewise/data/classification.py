"""What a classifier reads: a source, or lists and arrays in memory, as examples with a label or labels."""

from pathlib import Path
from typing import Any

import numpy as np

from gatewise.config import ClassifierData
from gatewise.data.array_targets import targets_of
from gatewise.data.arrays import examples_of
from gatewise.data.examples import Examples
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
        with_labels=with_labels,
    )


def classified(inputs: Any, labels: Any = None, name: str = "X") -> Examples:
    """Examples in memory.

    inputs: N texts; N lists of words; (N, T, F) numbers or N arrays (T_i, F), as in `arrays.examples_of`.
    labels: N labels, N collections of labels, or (N, K) of 0 and 1; None for examples to predict.
    Raises DataError.
    """
    first = next(iter(inputs), None) if hasattr(inputs, "__len__") else None
    if first is None:
        raise DataError(f"{name}: expected texts, lists of words, or arrays of steps, got {_shown(inputs)}")
    words = isinstance(first, list | tuple) and all(isinstance(word, str) for word in first) and len(first) > 0
    if not isinstance(first, str) and not words:
        known = None if labels is None else "label" if _is_label(labels) else "labels"
        return examples_of(inputs, labels, target_kind=known, name=name)  # pyright: ignore[reportArgumentType]
    values = [str(text) if not words else list(map(str, text)) for text in inputs]
    places = [f"{name}[{row}]" for row in range(len(values))]
    for value, given, place in zip(values, inputs, places, strict=True):
        if words != (not isinstance(given, str)):
            raise DataError(f"{place}: expected {'a list of words' if words else 'a text'} as in the first one")
        if not value or (isinstance(value, str) and not value.strip()):
            raise DataError(f"{place} is empty; leave it out")
    kind, targets = "none", None
    if labels is not None:
        kind, targets, _ = targets_of(labels, [1] * len(values), "label" if _is_label(labels) else "labels")
    return Examples(name, "words" if words else "text", values, kind, targets, places)


def _is_label(labels: Any) -> bool:
    """Whether there is one label for each example."""
    if isinstance(labels, np.ndarray):
        return labels.ndim == 1 and (labels.dtype != object or _is_label(labels.tolist()))
    return all(isinstance(label, str) or not hasattr(label, "__len__") for label in labels)


def _shown(value: Any) -> str:
    return "nothing" if hasattr(value, "__len__") and len(value) == 0 else type(value).__name__
