"""Words with their tags, a word a line: CoNLL columns and CoNLL-U.

EU       B-ORG       1  From  from  ADP  IN ...
rejects  O           2  the   the   DET  DT ...
"""

from dataclasses import dataclass, field
from pathlib import Path

from gatewise.data.examples import Examples, some
from gatewise.data.files import name_of, read_lines
from gatewise.errors import DataError

CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
FEWEST_DOCUMENTS = 20  # that make groups: fewer cannot be shared out between the parts of a split

_DOCUMENT = "-DOCSTART-"
_GLOBAL_COLUMNS = "# global.columns ="


def read_conllu(source: str | Path, *, tag_column: str | None = "upos") -> Examples:
    """The sentences of a CoNLL-U file as words and tags; its documents are the groups.

    Multiword tokens (1-2) and empty nodes (1.1) are no words, and skipped.
    tag_column: upos, xpos, feats, deprel ..., or a column that the file names itself (CoNLL-U Plus); None: words alone.

    Raises DataError, with the line: another number of columns, an id out of order, an empty word, no such column.
    """
    name = name_of(source)
    lines = read_lines(source)
    columns = CONLLU_COLUMNS
    if lines[0].startswith(_GLOBAL_COLUMNS):
        columns = tuple(lines[0].removeprefix(_GLOBAL_COLUMNS).lower().split())
    word = _position(name, "form", columns)
    tag = None if tag_column is None else _position(name, tag_column, columns)
    sentences = _Sentences(name)
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            sentences.end()
        elif line[0] == "#":
            if line.startswith("# newdoc"):
                sentences.documents += 1
        else:
            cells = line.split("\t")
            if len(cells) != len(columns):
                raise DataError(
                    f"{name}: line {number}: expected {len(columns)} columns separated by tabs, got {len(cells)}"
                )
            if cells[0].isdecimal():
                if int(cells[0]) != sentences.length + 1:
                    raise DataError(f"{name}: line {number}: expected the id {sentences.length + 1}, got {cells[0]}")
                sentences.add(number, cells[word], None if tag is None else cells[tag])
            elif not cells[0].replace("-", ".", 1).replace(".", "", 1).isdecimal():
                raise DataError(f"{name}: line {number}: expected the id {sentences.length + 1}, got {cells[0]}")
    return sentences.examples(with_tags=tag is not None)


def read_conll(source: str | Path, *, word_column: int = 1, tag_column: int | None = -1) -> Examples:
    """The sentences of a CoNLL file, a word a line and a blank line after each sentence, as words and tags.

    Columns are separated by tabs if the first line has one, else by spaces. `-DOCSTART-` begins a document; the
    documents are the groups. Comments (`# ...`) before a sentence are skipped.
    word_column, tag_column: counted from 1, or from -1 at the end; tag_column None: words alone.

    Raises DataError, with the line: another number of columns than in the first line, no such column.
    """
    name = name_of(source)
    lines = read_lines(source)
    tabs = any("\t" in line for line in lines[:100])
    width = 0
    sentences = _Sentences(name)
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            sentences.end()
            continue
        cells = line.split("\t") if tabs else line.split()
        if cells[0] == _DOCUMENT:
            sentences.end()
            sentences.documents += 1
            continue
        if sentences.length == 0 and line.startswith("# ") and len(cells) != width:
            continue
        if not width:
            width, first = len(cells), number
            word = _number(name, "word_column", word_column, width)
            tag = None if tag_column is None else _number(name, "tag_column", tag_column, width)
            if word == tag:
                raise DataError(
                    f"{name}: line {number}: expected two columns or more, a word and its tag, got {line.strip()!r}"
                )
        if len(cells) != width:
            separated = "tabs" if tabs else "spaces"
            raise DataError(
                f"{name}: line {number}: expected {width} columns separated by {separated} as in line {first}, "
                f"got {len(cells)}"
            )
        sentences.add(number, cells[word], None if tag is None else cells[tag])
    return sentences.examples(with_tags=tag_column is not None)


@dataclass
class _Sentences:
    """Sentences as they are read, a word at a time."""

    name: str
    words: list[list[str]] = field(default_factory=list)
    tags: list[list[str]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    documents: int = 0
    length: int = 0  # of the sentence that is being read

    def add(self, number: int, word: str, tag: str | None) -> None:
        if not word or (tag is not None and not tag):
            raise DataError(f"{self.name}: line {number}: the {'tag' if word else 'word'} is empty")
        if not self.length:
            self.words.append([])
            self.tags.append([])
            self.places.append(f"{self.name}: line {number}")
            self.groups.append(str(self.documents))
        self.words[-1].append(word)
        if tag is not None:
            self.tags[-1].append(tag)
        self.length += 1

    def end(self) -> None:
        self.length = 0

    def examples(self, *, with_tags: bool) -> Examples:
        if not self.words:
            raise DataError(f"{self.name}: no sentence in it")
        return Examples(
            self.name,
            "words",
            self.words,
            "tags" if with_tags else "none",
            self.tags if with_tags else None,
            self.places,
            groups=self.groups if len(set(self.groups)) >= FEWEST_DOCUMENTS else None,
        )


def _position(name: str, column: str, columns: tuple[str, ...]) -> int:
    if column.lower() not in columns:
        raise DataError(f'{name}: no column "{column}"; its columns are {some(columns)}')
    return columns.index(column.lower())


def _number(name: str, argument: str, column: int, width: int) -> int:
    """The position, from 0, of a column counted from 1, or from -1 at the end."""
    if column == 0 or abs(column) > width:
        raise DataError(f"{name}: {argument} = {column}, but a line has {width} columns, counted from 1")
    return column - 1 if column > 0 else width + column
