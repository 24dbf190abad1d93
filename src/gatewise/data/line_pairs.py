"""Pairs of files that belong together line by line: texts and labels, words and tags, sentences and translations."""

from pathlib import Path

from gatewise.data.examples import Examples
from gatewise.data.files import name_of, read_lines
from gatewise.errors import DataError


def read_texts_and_labels(texts_source: str | Path, labels_source: str | Path) -> Examples:
    """The texts of one file with the labels of another. Raises DataError as `read_line_pairs` does."""
    pairs = read_line_pairs(texts_source, labels_source)
    return _examples(texts_source, pairs, "text", [text for _, text, _ in pairs], "label", [x for _, _, x in pairs])


def read_translations(source: str | Path, target: str | Path) -> Examples:
    """The sentences of one file with those of another as their translations. DataError as `read_line_pairs`."""
    pairs = read_line_pairs(source, target)
    return _examples(source, pairs, "text", [text for _, text, _ in pairs], "text", [x for _, _, x in pairs])


def read_words_and_tags(words_source: str | Path, tags_source: str | Path) -> Examples:
    """The words of the lines of one file with the tags of another; both are separated by white space.

    Raises DataError as `read_line_pairs` does, and if a line has not as many words as tags.
    """
    pairs = read_line_pairs(words_source, tags_source, of_words=True)
    words, tags = [words.split() for _, words, _ in pairs], [tags.split() for _, _, tags in pairs]
    return _examples(words_source, pairs, "words", words, "tags", tags)


def read_texts(source: str | Path) -> Examples:
    """The lines of a file as texts without a target; blank lines are skipped."""
    numbered = _numbered(source)
    return _examples(source, numbered, "text", [text for _, text in numbered], "none", None)


def read_words(source: str | Path) -> Examples:
    """The words of the lines of a file, separated by white space, without tags; blank lines are skipped."""
    numbered = _numbered(source)
    return _examples(source, numbered, "words", [text.split() for _, text in numbered], "none", None)


def read_line_pairs(first: str | Path, second: str | Path, *, of_words: bool = False) -> list[tuple[int, str, str]]:
    """(the number of the line, its text in the first file, its text in the second), without white space around it.

    of_words: both must have as many words.
    A line that is blank in both files is skipped. Raises DataError, with the line: it is blank in one file; it has
    more words than its partner; a file has more lines than the other.
    """
    names = name_of(first), name_of(second)
    lines = read_lines(first), read_lines(second)
    pairs = [(i, a, b) for i, (a, b) in enumerate(zip(*(map(str.strip, file) for file in lines), strict=False), 1)]
    counts = len(lines[0]), len(lines[1])
    uneven = next((pair for pair in pairs if len(pair[1].split()) != len(pair[2].split())), None) if of_words else None
    if counts[0] != counts[1]:
        more = int(counts[1] > counts[0])
        message = f"{names[0]} has {counts[0]} lines and {names[1]} has {counts[1]}; "
        if uneven:
            raise DataError(f"{message}line {uneven[0]} is the first with another number of words")
        raise DataError(f"{message}line {min(counts) + 1} of {names[more]} is the first without a partner")
    if uneven:
        number, a, b = uneven
        raise DataError(
            f"{names[0]}: line {number} has {len(a.split())} words, and {len(b.split())} in {names[1]}; give as many"
        )
    blank = [(number, int(bool(a))) for number, a, b in pairs if bool(a) != bool(b)]
    if blank:
        number, file = blank[0]
        others = f" (and {len(blank) - 1} more such lines)" if len(blank) > 1 else ""
        raise DataError(
            f"{names[file]}: line {number} is blank, and in {names[1 - file]} it is not{others}; fill or delete it"
        )
    return [pair for pair in pairs if pair[1]]


def _numbered(source: str | Path) -> list[tuple[int, str]]:
    lines = enumerate(map(str.strip, read_lines(source)), 1)
    return [(number, line) for number, line in lines if line]


def _examples(source, lines, input_kind, inputs, target_kind, targets) -> Examples:
    name = name_of(source)
    return Examples(name, input_kind, inputs, target_kind, targets, [f"{name}: line {line[0]}" for line in lines])
