"""Tokenizers: text to ids and back, by characters, words, or byte-level subwords.

All three give the text back unchanged when every token is known; `fit` makes one, `to_json` and `from_json` keep it.
"""

import codecs
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import tokenizers

from gatewise.config import TextConfig
from gatewise.data.documents import load_document
from gatewise.errors import InputError
from gatewise.run_folder import atomic_write

UNKNOWN = "<unk>"
VERSION = 1  # of the JSON document

# A word with its apostrophes, a mark with the spaces that touch it, a newline, or other white space. The one space
# between two words is no token (the group stays empty): words imply it.
_WORDS = re.compile(r"(?<!\W) (?!\W)|(\w+(?:['’]\w+)*| ?[^\w\s] ?|\n|[^\S\n]+)")


class DecodeStream(Protocol):
    """Turns ids into text one at a time."""

    def push(self, token: int) -> str:
        """The text that `token` adds to the tokens before it; it may be empty until a character is complete."""
        ...

    def finish(self) -> str:
        """The text still owed when no more tokens come: U+FFFD for a character that was never completed."""
        ...


class Tokenizer(ABC):
    """Text to ids and back. Token `i` is `vocabulary[i]`."""

    kind: ClassVar[str]
    unknown_id: ClassVar[int | None]

    def __init__(self, vocabulary: Sequence[str]):
        self.vocabulary = list(vocabulary)

    @property
    def size(self) -> int:
        """Number of different tokens."""
        return len(self.vocabulary)

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The tokens of `text`: (N,) int32."""

    @abstractmethod
    def decode_stream(self) -> DecodeStream:
        """A decoder of one token at a time; push the tokens of a prompt first, and the rest continues it."""

    @abstractmethod
    def unknown_characters(self, text: str) -> list[str]:
        """What `text` holds (characters, or words for a word tokenizer) that has no token, each once, in order."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of the tokens."""
        stream = self.decode_stream()
        return "".join(map(stream.push, tokens)) + stream.finish()

    def to_json(self) -> str:
        """A JSON document from which `from_json` makes the same tokenizer; the same for equal tokenizers."""
        return json.dumps(self._document(), ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the JSON document. Raises RunError if it cannot be written."""
        atomic_write(Path(path), self.to_json().encode())

    @staticmethod
    def from_json(document: str) -> "Tokenizer":
        """The tokenizer of a JSON document; InputError if the document is damaged or from a newer version."""
        try:
            content = json.loads(document)
        except json.JSONDecodeError as error:
            raise InputError(f"not a tokenizer: no JSON at line {error.lineno}, column {error.colno}") from error
        if not isinstance(content, dict) or "kind" not in content or not isinstance(content.get("version"), int):
            raise InputError("not a tokenizer: expected a JSON object with kind, version and vocabulary")
        if content["version"] > VERSION:
            raise InputError(
                f"written by a newer gatewise (tokenizer version {content['version']}, this one reads {VERSION}); "
                "upgrade gatewise"
            )
        if content["kind"] not in KINDS:
            raise InputError(f"unknown kind of tokenizer {json.dumps(content['kind'])}; known: {', '.join(KINDS)}")
        return KINDS[content["kind"]]._from_document(content)

    @staticmethod
    def load(path: str | Path) -> "Tokenizer":
        """The tokenizer of a file; InputError, naming the file, if it is missing, damaged or newer."""
        return load_document("tokenizer", path, Tokenizer.from_json)

    def _document(self) -> dict[str, object]:
        return {"kind": self.kind, "version": VERSION, "vocabulary": self.vocabulary}

    @classmethod
    def _from_document(cls, document: dict[str, object]) -> "Tokenizer":
        return cls(_vocabulary_of(document))


class CharTokenizer(Tokenizer):
    """One token a character: `<unk>`, then the characters by falling frequency, ties by code point."""

    kind = "char"
    unknown_id = 0

    def __init__(self, vocabulary: Sequence[str]):
        super().__init__(vocabulary)
        if self.vocabulary[:1] != [UNKNOWN] or any(len(character) != 1 for character in self.vocabulary[1:]):
            raise InputError(f"damaged char tokenizer: expected the vocabulary {UNKNOWN}, then single characters")
        points = [ord(character) for character in self.vocabulary[1:]]
        self._ids = np.zeros(max(points, default=0) + 2, dtype=np.int32)  # the last entry stays unknown
        self._ids[points] = np.arange(1, self.size, dtype=np.int32)

    @staticmethod
    def fit(pieces: Iterable[str]) -> "CharTokenizer":
        """The tokenizer that knows every character of the pieces."""
        counts = np.zeros(1, dtype=np.int64)
        for piece in pieces:
            found = np.bincount(_code_points(piece), minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        by_frequency = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        return CharTokenizer([UNKNOWN, *map(chr, by_frequency)])

    def encode(self, text: str) -> np.ndarray:
        """The tokens of the characters of `text`: (N,) int32, 0 for one that is unknown."""
        return self._ids.take(_code_points(text), mode="clip")

    def decode_stream(self) -> DecodeStream:
        """A decoder of one character at a time."""
        return _CharStream(self.vocabulary)

    def unknown_characters(self, text: str) -> list[str]:
        """The characters of `text` that have no token, each once, in order."""
        return list(dict.fromkeys(text[i] for i in np.flatnonzero(self.encode(text) == 0)))


class WordTokenizer(Tokenizer):
    """One token a word, a mark with the spaces that touch it, a newline, or a run of other white space.

    The single space between two words is implied: "Well, I see" is `Well`, `, `, `I`, `see`. So words are the plain
    words of the text, and decoding puts every known token back to its place.
    """

    kind = "word"
    unknown_id = 0

    def __init__(self, vocabulary: Sequence[str]):
        super().__init__(vocabulary)
        if self.vocabulary[:1] != [UNKNOWN] or not all(self.vocabulary):
            raise InputError(f"damaged word tokenizer: expected the vocabulary {UNKNOWN}, then words")
        self._ids = {word: i for i, word in enumerate(self.vocabulary)}

    @staticmethod
    def fit(pieces: Iterable[str], vocabulary_size: int) -> "WordTokenizer":
        """`<unk>` and the vocabulary_size - 1 most frequent words of the pieces, ties in the order of code points."""
        counts: Counter[str] = Counter()
        for piece in pieces:
            counts.update(_words(piece))
        by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
        return WordTokenizer([UNKNOWN, *by_frequency[: vocabulary_size - 1]])

    def encode(self, text: str) -> np.ndarray:
        """The tokens of the words, marks and white space of `text`: (N,) int32, 0 for one that is unknown."""
        ids = self._ids
        return np.array([ids.get(word, 0) for word in _words(text)], dtype=np.int32)

    def decode_stream(self) -> DecodeStream:
        """A decoder of one token at a time, which puts a space between two words."""
        return _WordStream(self.vocabulary)

    def unknown_characters(self, text: str) -> list[str]:
        """The words, marks and white space of `text` that have no token, each once, in order."""
        return list(dict.fromkeys(word for word in _words(text) if word not in self._ids))


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding (Sennrich 2016, Radford 2019): subwords, and no text that it cannot read.

    In the vocabulary each byte is written as one printable character, as in GPT-2.
    """

    kind = "bpe"
    unknown_id = None

    def __init__(self, vocabulary: Sequence[str], merges: Sequence[tuple[str, str]]):
        super().__init__(vocabulary)
        self.merges = list(merges)
        byte_of = _byte_of_printable()
        ids = {token: i for i, token in enumerate(self.vocabulary)}
        if not set(byte_of) <= set(ids) or not set("".join(ids)) <= set(byte_of):
            raise InputError("damaged bpe tokenizer: expected tokens of printable bytes, each of the 256 among them")
        self._bytes = [bytes(byte_of[character] for character in token) for token in self.vocabulary]
        try:
            self._bpe = _byte_level(tokenizers.models.BPE(ids, self.merges))
        except Exception as error:  # the library raises no other class
            raise InputError(f"damaged bpe tokenizer: {error}") from error

    @staticmethod
    def fit(pieces: Iterable[str], vocabulary_size: int) -> "BPETokenizer":
        """The 256 bytes, and the most frequent pairs of tokens merged until there are vocabulary_size tokens."""
        bpe = _byte_level(tokenizers.models.BPE())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator(pieces, trainer)
        model = json.loads(bpe.to_str())["model"]
        vocabulary = sorted(model["vocab"], key=model["vocab"].__getitem__)
        return BPETokenizer(vocabulary, [(left, right) for left, right in model["merges"]])

    def encode(self, text: str) -> np.ndarray:
        """The tokens of `text`, which must hold no lone surrogates: (N,) int32."""
        return np.array(self._bpe.encode(text).ids, dtype=np.int32)

    def decode_stream(self) -> DecodeStream:
        """A decoder of one token at a time, which holds back the bytes of an unfinished character."""
        return _ByteStream(self._bytes)

    def unknown_characters(self, text: str) -> list[str]:
        """Lone surrogates, which no UTF-8 can hold; everything else is bytes."""
        return list(dict.fromkeys(re.findall("[\ud800-\udfff]", text)))

    def _document(self) -> dict[str, object]:
        return {**super()._document(), "merges": self.merges}

    @classmethod
    def _from_document(cls, document: dict[str, object]) -> "BPETokenizer":
        merges = document.get("merges")
        if not isinstance(merges, list) or not all(_strings(pair) and len(pair) == 2 for pair in merges):
            raise InputError("damaged bpe tokenizer: expected merges, a list of pairs of tokens")
        return cls(_vocabulary_of(document), [(left, right) for left, right in merges])


KINDS: dict[str, type[Tokenizer]] = {cls.kind: cls for cls in (CharTokenizer, WordTokenizer, BPETokenizer)}


def fit(pieces: Iterable[str], config: TextConfig) -> Tokenizer:
    """The tokenizer that `config` asks for, fitted to a text in pieces; nothing is held but counts."""
    if config.tokenizer == "word":
        return WordTokenizer.fit(pieces, config.vocabulary_size)
    if config.tokenizer == "bpe":
        return BPETokenizer.fit(pieces, config.vocabulary_size)
    return CharTokenizer.fit(pieces)


class _CharStream:
    def __init__(self, vocabulary: Sequence[str]):
        self._vocabulary = vocabulary

    def push(self, token: int) -> str:
        return self._vocabulary[token]

    def finish(self) -> str:
        return ""


class _WordStream:
    def __init__(self, vocabulary: Sequence[str]):
        self._vocabulary = vocabulary
        self._after_word = False

    def push(self, token: int) -> str:
        word = self._vocabulary[token]
        is_word = token == 0 or word[0].isalnum() or word[0] == "_"
        implied = " " if is_word and self._after_word else ""
        self._after_word = is_word
        return implied + word

    def finish(self) -> str:
        return ""


class _ByteStream:
    def __init__(self, bytes_of_token: Sequence[bytes]):
        self._bytes_of_token = bytes_of_token
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._utf8.decode(self._bytes_of_token[token])

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.intp)


def _words(text: str) -> Iterator[str]:
    return filter(None, _WORDS.findall(text))


def _byte_level(model: tokenizers.models.BPE) -> tokenizers.Tokenizer:
    bpe = tokenizers.Tokenizer(model)
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return bpe


def _byte_of_printable() -> dict[str, int]:
    """GPT-2's printable character for each byte: its Latin-1 one, or one from U+0100 on where that does not print."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in prints]
    return {chr(byte): byte for byte in prints} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _vocabulary_of(document: dict[str, object]) -> list[str]:
    vocabulary = document.get("vocabulary")
    if not isinstance(vocabulary, list) or not _strings(vocabulary) or len(set(vocabulary)) != len(vocabulary):
        raise InputError(f"damaged {document['kind']} tokenizer: expected vocabulary, a list of different strings")
    return vocabulary
