"""Texts: where they come from and how they are cleaned, in pieces, so that none needs to fit into memory.

    source -> decode -> letters only -> whole words -> lower case -> first characters -> pieces

The pieces joined are the text, wherever the pieces of the file fell: in the middle of a character, of a line
ending, of a run that becomes one space. Each piece ends where every tokenizer may stop (see `_whole_words`), so the
tokens of the pieces joined are the tokens of the text.
"""

import codecs
import difflib
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from gatewise.config import TextConfig
from gatewise.data.files import reason_of
from gatewise.errors import TextError

PIECE_SIZE = 1 << 16  # bytes; a bpe tokenizer encodes pieces of 1 MiB at 0.4 of the speed and with 140 MB more memory
LONGEST_WORD = 1 << 20  # characters that may be held back in the search for the end of a word

TIME_MACHINE_URL = "http://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt"
TIME_MACHINE_SHA1 = "090b5e7e70c295757f55df93cb0a180b9691891a"

_NOT_LETTERS = re.compile("[^A-Za-z]+")
_UP_TO_LAST_WORD = re.compile(r".*(?:\w(?= )|\S(?=\n))", re.DOTALL)


def iter_text(source: str | Path, config: TextConfig, *, piece_size: int = PIECE_SIZE) -> Iterator[str]:
    """The cleaned text of `source`, piece by piece; joined, the pieces are the whole text.

    source: a name of CORPORA, or the path of a UTF-8 text, plain or gzip (write `./time-machine` for a file that bears
        the name of a corpus). A byte order mark is dropped, and every line ending becomes one newline, as in Python's
        text files.
    config: letters_only, lower_case and max_characters are applied here, in this order, as the Time Machine tutorials
        do: clean, then cut.
    piece_size: bytes read at a time.

    Raises TextError at the call if there is no such text, and during the iteration if it is not UTF-8 (with the byte
    offset), if it is empty, or if nothing but white space is left of it.
    """
    if isinstance(source, str) and source in CORPORA:
        pieces = CORPORA[source](piece_size)
    else:
        pieces = _decoded(_text_file(source), piece_size)
    if config.letters_only:
        pieces = _letters_only(pieces)
    pieces = _whole_words(pieces)
    if config.lower_case:
        pieces = (piece.lower() for piece in pieces)
    if config.max_characters is not None:
        pieces = _first_characters(pieces, config.max_characters)
    return _not_blank(pieces, source, config)


def clean(text: str, config: TextConfig) -> str:
    """A short text, such as a prompt, cleaned as `iter_text` cleans a long one; never cut."""
    if config.letters_only:
        text = _NOT_LETTERS.sub(" ", text)
    return text.lower() if config.lower_case else text


def python_topics(piece_size: int = PIECE_SIZE) -> Iterator[str]:
    """English prose that every CPython carries: the language reference, as its help() shows it."""
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    return (text[start : start + piece_size] for start in range(0, len(text), piece_size))


def time_machine(piece_size: int = PIECE_SIZE) -> Iterator[str]:
    """H. G. Wells, The Time Machine (1895); downloaded once, its SHA-1 checked, and cached per user."""
    import pooch

    folder = pooch.os_cache("gatewise")
    path = Path(folder) / "timemachine.txt"
    by_hand = f"put the file with SHA-1 {TIME_MACHINE_SHA1} at {path}"
    try:
        pooch.retrieve(TIME_MACHINE_URL, known_hash=f"sha1:{TIME_MACHINE_SHA1}", fname=path.name, path=folder)
    except OSError as error:  # every error of the network is one, too
        reason = error.strerror or type(error).__name__
        raise TextError(f"time-machine: cannot be downloaded from {TIME_MACHINE_URL} ({reason}); {by_hand}") from error
    except ValueError as error:
        raise TextError(f"time-machine: {TIME_MACHINE_URL} sent a file with another SHA-1; {by_hand}") from error
    return _decoded(path, piece_size)


CORPORA: dict[str, Callable[[int], Iterator[str]]] = {"python-topics": python_topics, "time-machine": time_machine}


def _text_file(source: str | Path) -> Path:
    """The path, if a text can be read there, more than once; TextError says what is there instead."""
    path = Path(source)
    try:
        os.stat(source)
    except PermissionError as error:
        raise TextError(f"{path}: cannot be read: {error.strerror}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise TextError(_not_found(str(source))) from error
    if path.is_dir():
        raise TextError(f"{path}: is a folder; give one UTF-8 text file")
    if not path.is_file():
        raise TextError(f"{path}: is a pipe or a device, and a text is read more than once; write it to a file first")
    return path


def _not_found(source: str) -> str:
    """What to say of a source that is neither a corpus nor a path."""
    if "\n" in source or len(source) > 250:
        return f"expected the path of a UTF-8 text or the name of a corpus, got a text of {len(source)} characters"
    if near := difflib.get_close_matches(source, CORPORA, n=1):
        return f"{source}: no such text; did you mean the corpus {near[0]}?"
    return f"{source}: no such text; give the path of a UTF-8 text, or the name of a corpus: {', '.join(CORPORA)}"


def _decoded(path: Path, piece_size: int) -> Iterator[str]:
    """The file's text, strictly UTF-8, without a byte order mark and with newlines as the only line endings."""
    utf8 = codecs.getincrementaldecoder("utf-8")("strict")
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset = 0  # of the first byte that is not decoded yet
    at_start = True
    try:
        with _opened(path) as file:
            while True:
                data = file.read(piece_size)
                text = utf8.decode(data, final=not data)
                if at_start and text:
                    text, at_start = text.removeprefix("\ufeff"), False
                yield newlines.decode(text, final=not data)
                if not data:
                    return
                offset = file.tell() - len(utf8.getstate()[0])
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path}: not UTF-8: byte 0x{error.object[error.start]:02x} at offset {offset + error.start}; "
            "convert it to UTF-8 first, for example with iconv"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TextError(f"{path}: damaged gzip: {reason_of(error)}") from error
    except OSError as error:
        raise TextError(f"{path}: cannot be read: {error.strerror}") from error


def _opened(path: Path) -> BinaryIO:
    """The file, decompressed if it is gzip."""
    file = path.open("rb")
    compressed = file.peek(2).startswith(b"\x1f\x8b")
    if not compressed:
        return file
    file.close()
    return cast(BinaryIO, gzip.open(path, "rb"))


def _letters_only(pieces: Iterable[str]) -> Iterator[str]:
    """Each run of anything but the letters A to Z and a to z becomes one space, also a run across pieces."""
    after_space = False
    for piece in pieces:
        piece = _NOT_LETTERS.sub(" ", piece)
        if after_space:
            piece = piece.removeprefix(" ")
        if piece:
            after_space = piece.endswith(" ")
            yield piece


def _whole_words(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces that end with a word before a space, or with a line before its newline.

    There no tokenizer looks across, and no lower case depends on the next letter (as that of a final sigma does).
    A run of LONGEST_WORD characters without such a place is passed on as it is.
    """
    held = ""
    for piece in pieces:
        held += piece
        words = _UP_TO_LAST_WORD.match(held)
        end = words.end() if words else len(held) if len(held) >= LONGEST_WORD else 0
        if end:
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def _first_characters(pieces: Iterable[str], count: int) -> Iterator[str]:
    """The first `count` characters; what follows is not read."""
    for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return


def _not_blank(pieces: Iterable[str], source: str | Path, config: TextConfig) -> Iterator[str]:
    """The pieces as they are; TextError at their end if all of them were empty or white space."""
    blank = True
    empty = True
    for piece in pieces:
        empty = empty and not piece
        blank = blank and not piece.strip()
        yield piece
    if empty:
        raise TextError(f"{source}: empty; give a text with something to read")
    if blank:
        cleaning = config.model_dump(include={"letters_only", "max_characters"}, exclude_defaults=True)
        settings = ", ".join(f"{name} = {json.dumps(value)}" for name, value in cleaning.items())
        raise TextError(f"{source}: nothing but white space to read" + (f" with {settings}" if settings else ""))
