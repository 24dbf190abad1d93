"""Sources: a file, a folder or standard input to examples, for each task, by what the name says that it is.

    classify   tables (CSV, TSV, JSON lines, Parquet), folders of .txt by label, .ts archives, .npz and .npy arrays,
               a file of texts with a file of labels
    tag        CoNLL, CoNLL-U, tables, a file of words with a file of tags, .npz and .npy arrays, .mat piano rolls
    translate  two columns, plain or in a zip; tables; a file with a file of its translations
    forecast   see data/series_table.py

gzip anywhere; `-` is standard input. What was guessed is in the examples' notes.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gatewise.data.arrays import Matrix, next_steps, read_arrays, read_matlab_parts
from gatewise.data.conll import read_conll, read_conllu
from gatewise.data.examples import Examples, TargetKind
from gatewise.data.files import find_one, name_of, suffix_of
from gatewise.data.folders import read_labelled_folder
from gatewise.data.labelled_table import read_labelled_table, read_tagged_table, read_translation_table
from gatewise.data.line_pairs import (
    read_texts,
    read_texts_and_labels,
    read_translations,
    read_words,
    read_words_and_tags,
)
from gatewise.data.missing import Missing
from gatewise.data.parallel import read_parallel
from gatewise.data.series_archive import read_series_archive
from gatewise.data.table import is_table
from gatewise.errors import DataError

CONLLU = (".conllu", ".conllup")
CONLL = (".conll", ".conll03", ".iob", ".iob2", ".bio", ".bmes", ".ner")
ARRAYS = (".npz", ".npy")
INPUT_LINES = ("seq.in", "words.txt", "texts.txt")  # files of a folder that belong together line by line
LABEL_LINES = ("label", "labels.txt")
TAG_LINES = ("seq.out", "tags.txt")

_PARTS = {
    "training": ("train", "training"),
    "validation": ("dev", "devel", "valid", "validation", "val"),
    "test": ("test", "testing", "eval"),
}


def read_to_classify(
    source: str | Path,
    labels_source: str | Path | None = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    group_column: str | None = None,
    time_column: str | None = None,
    time_format: str | None = None,
    missing: Missing = "error",
    matrix: Matrix = "steps",
    with_labels: bool = True,
) -> Examples:
    """The examples of a source for a classifier: texts or arrays, with a label or labels.

    labels_source: the labels of a file of texts, line by line, or of an `.npy` file.
    text_column to time_format: of tables, as in `read_labelled_table`.
    missing: of `.ts` files, as in `fill_missing`; matrix: of arrays, as in `examples_of`.
    with_labels: False for examples to predict; then a `.txt` file, or standard input without a `text_column`, has a
        text a line.

    Raises DataError: whatever the reader of the source raises; a source of no known kind.
    """
    suffix = suffix_of(source)
    if Path(source).is_dir():
        texts, labels = find_one(Path(source), INPUT_LINES), find_one(Path(source), LABEL_LINES)
        if texts is None:
            examples = read_labelled_folder(source)
            return examples if with_labels else examples.without_targets()
        if not with_labels:
            return read_texts(texts)
        if labels is None:
            raise DataError(f"{source}: has {texts.name} but no label beside it; expected a file with a label a line")
        return read_texts_and_labels(texts, labels)
    if suffix == ".ts":
        return read_series_archive(source, missing=missing, with_labels=with_labels)
    if suffix in ARRAYS:
        return read_arrays(source, labels_source, matrix=matrix, with_targets=with_labels)
    if labels_source is not None:
        return read_texts_and_labels(source, labels_source)
    if not with_labels and text_column is None and not is_table(source):
        return read_texts(source)
    if is_table(source) or suffix == "" or text_column is not None:
        return read_labelled_table(
            source,
            text_column=text_column,
            label_column=label_column,
            label_separator=label_separator,
            group_column=group_column,
            time_column=time_column,
            time_format=time_format,
            with_labels=with_labels,
        )
    raise _unknown(source, "a table, .ts, .npz or .npy file, a folder of .txt by label, or texts with a file of labels")


def read_to_tag(
    source: str | Path,
    tags_source: str | Path | None = None,
    *,
    words_column: str | None = None,
    tags_column: str | None = None,
    group_column: str | None = None,
    target_kind: TargetKind | None = None,
    with_tags: bool = True,
) -> Examples:
    """The examples of a source for a tagger: words or arrays, with a tag or numbers for each step.

    tags_source: the tags of a file of words, line by line, or of an `.npy` file.
    words_column, tags_column: of tables and CoNLL-U by name (upos unless given), of CoNLL by number (the first and
        the last unless given).
    target_kind: of arrays, as in `examples_of`.
    with_tags: False for examples to predict; then a `.txt` file or standard input has the words of a sentence a line.

    Raises DataError: whatever the reader of the source raises; a source of no known kind.
    """
    suffix = suffix_of(source)
    if Path(source).is_dir():
        words, tags = find_one(Path(source), INPUT_LINES), find_one(Path(source), TAG_LINES)
        if not words or not tags:
            raise DataError(
                f"{source}: expected a folder with {INPUT_LINES[0]} and {TAG_LINES[0]}, or name a file in it"
            )
        return read_words_and_tags(words, tags)
    if suffix in CONLLU:
        return read_conllu(source, tag_column=(tags_column or "upos") if with_tags else None)
    if suffix in ARRAYS:
        return read_arrays(source, tags_source, target_kind=target_kind, with_targets=with_tags)
    if tags_source is not None:
        return read_words_and_tags(source, tags_source)
    if is_table(source):
        return read_tagged_table(
            source,
            words_column=words_column,
            tags_column=tags_column,
            group_column=group_column,
            with_tags=with_tags,
        )
    if not with_tags and suffix not in CONLL:
        return read_words(source)
    if suffix in (*CONLL, ".txt", ""):
        return read_conll(
            source,
            word_column=_number("words_column", words_column or "1"),
            tag_column=_number("tags_column", tags_column or "-1") if with_tags else None,
        )
    raise _unknown(source, "a .conllu or .conll file, a table, .npz or .npy, or words with a file of tags")


def read_to_translate(
    source: str | Path,
    *,
    target_suffix: str | None = None,
    source_column: str | None = None,
    target_column: str | None = None,
    group_column: str | None = None,
    member: str | None = None,
    with_targets: bool = True,
) -> Examples:
    """The examples of a source for a translator: texts with their translations.

    target_suffix: the translations lie, line by line, in a file of their own, whose name ends with this in place of the
        source's own suffix: "en" for train.fr with train.en, compressed or not.
    source_column, target_column: of CSV, JSON lines and Parquet by name, of two columns without a header by number
        (1 and 2 unless given). A TSV has a header if they are names.
    member: of a zip.
    with_targets: False for sentences to translate; then any other file, and standard input, has one a line.

    Raises DataError: whatever the reader of the source raises; there is no file of translations.
    """
    if target_suffix is not None and with_targets:
        return read_translations(source, _partner(Path(source), target_suffix))
    numbered = all(column is None or column.isdecimal() for column in (source_column, target_column))
    suffix = suffix_of(source)
    if is_table(source) and not (numbered and suffix in (".tsv", ".tab")):
        return read_translation_table(
            source,
            source_column=source_column,
            target_column=target_column,
            group_column=group_column,
            with_targets=with_targets,
        )
    if not with_targets:
        return read_texts(source)
    return read_parallel(
        source,
        source_column=_number("source_column", source_column or "1"),
        target_column=_number("target_column", target_column or "2"),
        member=member,
    )


def _partner(source: Path, target_suffix: str) -> Path:
    """The file of the translations of a file of sentences."""
    name = source.stem if source.suffix.lower() == ".gz" else source.name
    wanted = f"{Path(name).stem}.{target_suffix.removeprefix('.')}"
    found = find_one(source.parent, (wanted,))
    if found is None or found == source:
        raise DataError(
            f"{source}: its translations are not there: expected a file {wanted} beside it, for target_suffix = "
            f"{target_suffix}"
        )
    return found


def read_parts(
    source: str | Path,
    read: Callable[[str | Path], Examples],
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    ignored: str | None = None,
) -> dict[str, Examples]:
    """The parts that there are of "training", "validation" and "test", each read by `read`.

    validation, test: their sources. Unless one is given, they are looked for: a folder with a file (or folder) for
    training and one for validation or test, as their names say (`en-train.conllu`, `dev/`); a `.mat` of piano rolls
    that holds several, whose targets are the next steps. ignored: suffix of files that are no parts by themselves.

    Raises DataError: whatever `read` raises; two files for one part.
    """
    if suffix_of(source) == ".mat" and not Path(source).is_dir():
        return {part: next_steps(examples) for part, examples in read_matlab_parts(source).items()}
    given = {"validation": validation, "test": test}
    sources: dict[str, str | Path] = {"training": source, **{part: path for part, path in given.items() if path}}
    found = _parts_in(Path(source), ignored) if len(sources) == 1 else {}
    parts = {part: read(path) for part, path in (found or sources).items()}
    if found:
        said = ", ".join(f"{part} from {path.name}" for part, path in found.items())
        training = parts["training"]
        parts["training"] = replace(training, notes=(*training.notes, f"{source}: took {said}"))
    return parts


def _parts_in(folder: Path, ignored: str | None) -> dict[str, Path]:
    """The file or folder of each part in a folder; none unless there is one for training and another."""
    if not folder.is_dir():
        return {}
    parts: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if ignored is not None and suffix_of(path) == f".{ignored.lower().removeprefix('.')}":
            continue
        words = re.split(r"[^a-z]+", path.name.lower())
        for part, names in _PARTS.items():
            if not path.name.startswith(".") and set(words) & set(names):
                if part in parts:
                    raise DataError(
                        f"{folder}: {parts[part].name} and {path.name} may both be for {part}; name the files"
                    )
                parts[part] = path
    return {part: parts[part] for part in _PARTS if part in parts} if "training" in parts and len(parts) > 1 else {}


def _number(argument: str, column: str) -> int:
    if not re.fullmatch(r"-?\d+", column):
        raise DataError(f'{argument}: expected the number of a column, counted from 1, got "{column}"')
    return int(column)


def _unknown(source: str | Path, expected: str) -> DataError:
    if not Path(source).exists():
        return DataError(f"{name_of(source)}: no such file")
    return DataError(f"{name_of(source)}: expected {expected}")
