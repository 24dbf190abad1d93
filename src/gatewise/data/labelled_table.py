"""Tables of examples: which column is the text, which the label; named by the user, or guessed where it is obvious.

A guess is never silent: it is a sentence in the examples' notes. Where it is not obvious, the columns are listed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gatewise.data.examples import Examples, some
from gatewise.data.table import Format, Table, read_table
from gatewise.data.times import read_times
from gatewise.errors import DataError

# Names that say what a column holds, the plainest first.
TEXT_NAMES = (
    *("text", "sentence", "document", "content", "review", "utterance", "message", "comment", "tweet", "body", "query"),
    *("question", "description", "headline", "title", "abstract", "input", "x"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "category", "categories", "target", "intent", "sentiment", "topic", "tag", "tags"),
    *("rating", "stars", "score", "language", "output", "y"),
)
WORDS_NAMES = ("words", "tokens", "sentence", "text", "utterance", "input", "seq_in")
TAGS_NAMES = ("tags", "ner_tags", "pos_tags", "upos", "slots", "bio", "labels", "label", "output", "seq_out")
SOURCE_NAMES = ("source", "src", "source_text", "input")
TARGET_NAMES = ("target", "tgt", "trg", "translation", "target_text", "output")


def read_labelled_table(
    source: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    group_column: str | None = None,
    time_column: str | None = None,
    time_format: str | None = None,
    with_labels: bool = True,
    header: bool | None = None,
    format: Format | None = None,
) -> Examples:
    """The texts of a table with their labels.

    text_column, label_column: unless given, the column with such a name, or the only one that it can be.
    label_separator: cuts a cell into several labels; a column of lists has several anyway.
    group_column, time_column, time_format: for a split by group, by time.
    with_labels: False for examples to predict, whose table needs no label.
    header: of CSV and TSV; unless given, the first line is one, unless it holds a value of the rows below it.
    format: unless given, by the end of the name.

    Raises DataError: as `read_table`; no such column; a column cannot be guessed; an empty text or label, with the row.
    """
    table, notes = _read(source, header, format, [text_column, label_column, group_column, time_column])
    taken = [column for column in (group_column, time_column) if column]
    label: str | None = label_column
    if with_labels and label is None:
        label = _named(table, LABEL_NAMES, [*taken, text_column])
    text = text_column or _named(table, TEXT_NAMES, [*taken, label]) or _only(table, [*taken, label])
    if text is None and (with_labels or len(table.columns) > 1):
        text = _wordy(table, [*taken, label])
    if text is None:
        raise _cannot_guess(table, "text", "text_column")
    if with_labels and label is None:
        label = _only(table, [*taken, text])
        if label is None:
            raise _cannot_guess(table, "label", "label_column")
    notes += _guessed(
        table,
        {"text": (text_column, text), "label": (label_column, label)} if with_labels else {"text": (text_column, text)},
    )
    several = with_labels and (label_separator is not None or isinstance(table.column(label or "").dtype, pl.List))
    targets: list[Any] | None = None
    if several:
        targets = [tuple(sorted(set(labels))) for labels in table.lists(label or "", label_separator)]
    elif with_labels:
        targets = table.texts(label or "")
    return Examples(
        table.name,
        "text",
        table.texts(text),
        "labels" if several else "label" if with_labels else "none",
        targets,
        table.places(),
        groups=table.texts(group_column) if group_column else None,
        times=read_times(table, time_column, time_format)[0] if time_column else None,
        notes=notes,
    )


def read_tagged_table(
    source: str | Path,
    *,
    words_column: str | None = None,
    tags_column: str | None = None,
    group_column: str | None = None,
    with_tags: bool = True,
    format: Format | None = None,
) -> Examples:
    """The sentences of a table with their tags: lists (JSON lines, Parquet), or texts cut at white space.

    Raises DataError: as `read_table`; no such column; a column cannot be guessed; a row has not as many words as tags.
    """
    table = read_table(source, format=format)
    words, tags, notes = _two_columns(
        table,
        ("words", "words_column", words_column, WORDS_NAMES),
        ("tags", "tags_column", tags_column, TAGS_NAMES),
        with_tags,
    )
    return Examples(
        table.name,
        "words",
        _not_empty(table, words),
        "tags" if with_tags else "none",
        table.lists(tags) if with_tags else None,
        table.places(),
        groups=table.texts(group_column) if group_column else None,
        notes=notes,
    )


def read_translation_table(
    source: str | Path,
    *,
    source_column: str | None = None,
    target_column: str | None = None,
    group_column: str | None = None,
    with_targets: bool = True,
    format: Format | None = None,
) -> Examples:
    """The sentences of a table with their translations.

    Raises DataError: as `read_table`; no such column; a column cannot be guessed; an empty sentence, with the row.
    """
    table = read_table(source, format=format)
    one, other, notes = _two_columns(
        table,
        ("source", "source_column", source_column, SOURCE_NAMES),
        ("target", "target_column", target_column, TARGET_NAMES),
        with_targets,
    )
    return Examples(
        table.name,
        "text",
        table.texts(one),
        "text" if with_targets else "none",
        table.texts(other) if with_targets else None,
        table.places(),
        groups=table.texts(group_column) if group_column else None,
        notes=notes,
    )


def _read(
    source: str | Path, header: bool | None, format: Format | None, named: list[str | None]
) -> tuple[Table, tuple[str, ...]]:
    """(the table, what was guessed of its header)."""
    table = read_table(source, format=format, header=header is not False)
    if header is None and table.format in ("csv", "tsv") and not set(table.columns) & set(named):
        for column in table.columns:
            if column.lower() not in TEXT_NAMES + LABEL_NAMES and (table.column(column) == column).any():
                table = read_table(source, format=format, header=False)
                return table, (f'{table.name}: has no header, for "{column}" in its first line is a value below, too',)
    return table, ()


def _two_columns(
    table: Table,
    first: tuple[str, str, str | None, tuple[str, ...]],
    second: tuple[str, str, str | None, tuple[str, ...]],
    with_second: bool,
) -> tuple[str, str, tuple[str, ...]]:
    """(the column of the inputs, that of the targets or "", the notes); each is (what, argument, given, names)."""
    what, argument, given, names = first
    other_what, other_argument, other_given, other_names = second
    one = given or _named(table, names, [other_given])
    if not with_second:
        one = one or _only(table, [])
        if one is None:
            raise _cannot_guess(table, what, argument)
        return one, "", _guessed(table, {what: (given, one)})
    other = other_given or _named(table, other_names, [one])
    if one is None and other is None and len(table.columns) == 2:
        one, other = table.columns
    one = one or _only(table, [other])
    if one is None:
        raise _cannot_guess(table, what, argument)
    other = other or _only(table, [one])
    if other is None:
        raise _cannot_guess(table, other_what, other_argument)
    return one, other, _guessed(table, {what: (given, one), other_what: (other_given, other)})


def _not_empty(table: Table, column: str) -> list[list[str]]:
    lists = table.lists(column)
    for row, words in enumerate(lists):
        if not words:
            raise DataError(f'{table.place(row)}: column "{column}" is empty; fill or delete the row')
    return lists


def _named(table: Table, names: tuple[str, ...], others: Sequence[str | None]) -> str | None:
    """The column with the plainest of these names, of those that serve for nothing else."""
    ranks = {column: names.index(column.lower()) for column in _left(table, others) if column.lower() in names}
    return min(ranks, key=lambda column: ranks[column], default=None)


def _only(table: Table, others: Sequence[str | None]) -> str | None:
    left = _left(table, others)
    return left[0] if len(left) == 1 else None


def _wordy(table: Table, others: Sequence[str | None]) -> str | None:
    """The only column of which half the cells, of the first 1000, have three words or more."""
    wordy = []
    for column in _left(table, others):
        cells = table.column(column).head(1000)
        if cells.dtype == pl.String and (cells.str.count_matches(r"\S+") >= 3).sum() * 2 >= len(cells):
            wordy.append(column)
    return wordy[0] if len(wordy) == 1 else None


def _left(table: Table, others: Sequence[str | None]) -> list[str]:
    return [column for column in table.columns if column not in others]


def _guessed(table: Table, columns: dict[str, tuple[str | None, str | None]]) -> tuple[str, ...]:
    """A note of the columns that were not named by the user."""
    guessed = [f'the {what} from column "{found}"' for what, (given, found) in columns.items() if given is None]
    return (f"{table.name}: took {' and '.join(guessed)}, of {some(table.columns)}",) if guessed else ()


def _cannot_guess(table: Table, what: str, argument: str) -> DataError:
    return DataError(f"{table.name}: which column is the {what}? give {argument}, one of {some(table.columns, 20)}")
