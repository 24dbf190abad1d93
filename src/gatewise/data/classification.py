"""What a classifier reads: files of many kinds, or lists and arrays in memory, as examples with a label or labels."""

from pathlib import Path
from typing import Any

import numpy as np

from gatewise.config import ClassifierData
from gatewise.data.array_targets import targets_of
from gatewise.data.arrays import examples_of, read_arrays
from gatewise.data.examples import Examples
from gatewise.data.files import STANDARD_INPUT, find_one, name_of, read_lines, suffix_of
from gatewise.data.folders import read_labelled_folder
from gatewise.data.labelled_table import read_labelled_table
from gatewise.data.line_pairs import read_texts, read_texts_and_labels
from gatewise.data.series_archive import read_series_archive
from gatewise.data.table import is_table
from gatewise.errors import DataError

LINES = (".txt", ".in", "")  # ends of names of files with a text in each line


def read_classified(source: str | Path, config: ClassifierData, *, with_labels: bool = True) -> Examples:
    """The examples of a file or folder, by the end of its name:

        .csv .tsv .jsonl .parquet   a table with a column of texts and one of labels
        .ts                         an archive of series
        .npz                        arrays, (N, T, F) with lengths, or end to end
        a folder                    a folder of .txt files for each label; or the files seq.in and label, line by line
        .txt, standard input        a text a line, to predict

    All of it may be gzip. with_labels: False for examples to predict. Raises DataError.
    """
    path = Path(source)
    if path.is_dir():
        texts = find_one(path, ("seq.in",))
        if texts is None:
            examples = read_labelled_folder(path)
            return examples if with_labels else examples.without_targets()
        labels = find_one(path, ("label", "labels"))
        if with_labels and labels is None:
            raise DataError(f"{path}: has {texts.name} but no label beside it; expected a file with a label a line")
        return read_texts_and_labels(texts, labels) if with_labels and labels else read_texts(texts)
    suffix = suffix_of(source)
    if suffix == ".ts":
        return read_series_archive(source, with_labels=with_labels)
    if suffix in (".npz", ".npy"):
        return read_arrays(source, with_targets=with_labels)
    if is_table(source) or (with_labels and str(source) == STANDARD_INPUT):
        return read_labelled_table(
            source,
            text_column=config.text_column,
            label_column=config.label_column,
            label_separator=config.label_separator,
            group_column=config.group_column if with_labels else None,
            time_column=config.time_column if with_labels else None,
            with_labels=with_labels,
        )
    if suffix in LINES and not with_labels:
        return read_texts(source)
    read_lines(source)  # what cannot be read at all is said as such
    raise DataError(
        f"{name_of(source)}: holds no labels that could be read; expected .csv, .tsv, .jsonl, .parquet, .ts, .npz, "
        "or a folder of .txt files for each label"
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
