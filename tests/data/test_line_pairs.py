"""Pairs of files, line by line: texts and labels, words and tags, translations; and where they do not go together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatewise.data.line_pairs import (
    read_texts,
    read_texts_and_labels,
    read_translations,
    read_words,
    read_words_and_tags,
)
from gatewise.errors import DataError

Write = Callable[[str, str], tuple[Path, Path]]


@pytest.fixture
def pair(tmp_path: Path) -> Write:
    def write(first: str, second: str) -> tuple[Path, Path]:
        paths = tmp_path / "seq.in", tmp_path / "seq.out"
        for path, text in zip(paths, (first, second), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    return write


def error_of(read: Any, *sources: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(*sources)
    return str(caught.value)


def test_words_and_tags(pair: Write):
    words, tags = pair("play some jazz \n\nstop\n", "O O  B-genre\n \nO")
    sentences = read_words_and_tags(words, tags)
    assert sentences.words == [["play", "some", "jazz"], ["stop"]]
    assert sentences.tags == [["O", "O", "B-genre"], ["O"]]
    assert sentences.places == [f"{words}: line 1", f"{words}: line 3"]


def test_texts_and_labels(pair: Write):
    texts, labels = pair(" a b \nc\n", "X\nY \n")
    examples = read_texts_and_labels(texts, labels)
    assert (examples.texts, examples.labels) == (["a b", "c"], ["X", "Y"])
    translations = read_translations(texts, labels)
    assert (translations.texts, translations.target_texts) == (["a b", "c"], ["X", "Y"])


def test_without_targets(pair: Write):
    path, _ = pair("a  b\n\n c\n", "-")
    assert read_texts(path).texts == ["a  b", "c"]
    assert read_words(path).words == [["a", "b"], ["c"]]
    assert read_words(path).places == [f"{path}: line 1", f"{path}: line 3"]
    assert read_words(path).target_kind == "none"


def test_unequal_numbers_of_lines(pair: Write):
    first, second = pair("a\nb\nc\n", "A\nB\n")
    assert error_of(read_translations, first, second) == (
        f"{first} has 3 lines and {second} has 2; line 3 of {first} is the first without a partner"
    )
    assert error_of(read_translations, second, first) == (
        f"{second} has 2 lines and {first} has 3; line 3 of {first} is the first without a partner"
    )
    first, second = pair("a\nb b\nc\n", "A\nC\n")
    assert error_of(read_words_and_tags, first, second) == (
        f"{first} has 3 lines and {second} has 2; line 2 is the first with another number of words"
    )


def test_unequal_numbers_of_words(pair: Write):
    first, second = pair("a\nb b\n", "A\nB B B\n")
    assert error_of(read_words_and_tags, first, second) == (
        f"{first}: line 2 has 2 words, and 3 in {second}; give as many"
    )


def test_blank_on_one_side(pair: Write):
    first, second = pair("a\n \nc\n\n", "A\nB\nC\nD\n")
    assert error_of(read_texts_and_labels, first, second) == (
        f"{first}: line 2 is blank, and in {second} it is not (and 1 more such lines); fill or delete it"
    )
    first, second = pair("a\nb\n", "A\n \n")
    assert error_of(read_texts_and_labels, first, second) == (
        f"{second}: line 2 is blank, and in {first} it is not; fill or delete it"
    )


def test_snips(data_dir: Path):
    counts = []
    for part in ("train", "dev"):
        folder = data_dir / "snips" / part
        tagged = read_words_and_tags(folder / "seq.in", folder / "seq.out")
        labelled = read_texts_and_labels(folder / "seq.in", folder / "label")
        counts.append((len(tagged), len(labelled), len(tagged.label_counts()), len(labelled.label_counts())))
    assert counts[0] == (13_084, 13_084, 72, 7)
    assert counts[1][:2] == (700, 700)
