"""Vocabularies: words or characters to ids, with padding and unknown; and labels to classes, with neither."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from gatewise.data.documents import load_document, read_document, write_document
from gatewise.data.examples import some
from gatewise.errors import DataError, InputError
from gatewise.run_folder import atomic_write

PADDING = "<pad>"
UNKNOWN = "<unk>"
START = "<s>"
END = "</s>"

_TOKENS = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|U|O)")
_INTEGER = re.compile(r"-?\d{1,18}")


def tokenize(text: str) -> list[str]:
    """The words of a text, with their apostrophes, and each mark by itself; white space is dropped."""
    return _TOKENS.findall(text)


class _Counted(ABC):
    """Names with their counts in the training part; number i is `names[i]`."""

    kind: ClassVar[str]

    def __init__(self, names: Sequence[str], counts: Sequence[int]):
        self.names = list(names)
        self.counts = list(counts)
        self._ids = {name: i for i, name in enumerate(self.names)}
        if len(self._ids) != len(self.names) or len(self.counts) != len(self.names):
            raise InputError(f"damaged {self.kind}: expected different names, and a count for each")

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Counted) and self.to_json() == other.to_json()

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def to_json(self) -> str:
        """A JSON document from which `from_json` makes the same again."""
        return write_document(self.kind, self._content())

    def save(self, path: str | Path) -> None:
        """Write the JSON document. Raises RunError if it cannot be written."""
        atomic_write(Path(path), self.to_json().encode("utf-8", "surrogatepass"))

    @classmethod
    def from_json(cls, document: str) -> Self:
        """What `to_json` wrote; InputError if the document is damaged or from a newer version."""
        content = read_document(cls.kind, document)
        names, counts = content.get("names"), content.get("counts")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"damaged {cls.kind}: expected names, a list of texts")
        if not isinstance(counts, list) or not all(isinstance(count, int) for count in counts):
            raise InputError(f"damaged {cls.kind}: expected counts, a list of whole numbers")
        return cls._from_content(content)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote; InputError, naming the file, if it is missing, damaged or newer."""
        return load_document(cls.kind, path, cls.from_json)

    def _content(self) -> dict[str, Any]:
        return {"names": self.names, "counts": self.counts}

    @classmethod
    @abstractmethod
    def _from_content(cls, content: dict[str, Any]) -> Self: ...


class Vocabulary(_Counted):
    """Words, or characters, to ids and back.

    0 is `<pad>`, 1 is `<unk>`; with sentence marks, 2 is `<s>` and 3 is `</s>`. Then the tokens by falling frequency,
    ties in the order of code points.
    """

    kind = "vocabulary"
    padding_id = 0
    unknown_id = 1
    start_id = 2
    end_id = 3

    def __init__(self, names: Sequence[str], counts: Sequence[int], *, lower_case: bool = False):
        super().__init__(names, counts)
        if self.names[:2] != [PADDING, UNKNOWN]:
            raise InputError(f"damaged vocabulary: expected {PADDING}, {UNKNOWN}, then the tokens")
        self.lower_case = lower_case
        self.sentence_marks = self.names[2:4] == [START, END]

    @staticmethod
    def fit(
        sequences: Iterable[Iterable[str]],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        lower_case: bool = False,
        sentence_marks: bool = False,
    ) -> "Vocabulary":
        """The vocabulary of some sequences of words; of some words, the vocabulary of their characters.

        min_count: a token that occurs less often is unknown.
        max_size: ids at most, the marks among them; the most frequent tokens are kept.
        lower_case: tokens are turned into lower case, here and in `encode`.
        sentence_marks: with `<s>` and `</s>`, for texts that are to be written.
        """
        counts: Counter[str] = Counter()
        for sequence in sequences:
            counts.update(sequence)
        if lower_case:
            lower: Counter[str] = Counter()
            for token, count in counts.items():
                lower[token.lower()] += count
            counts = lower
        marks = [PADDING, UNKNOWN, *([START, END] if sentence_marks else [])]
        for mark in marks:
            counts.pop(mark, None)
        kept = sorted(
            (token for token in counts if counts[token] >= min_count), key=lambda token: (-counts[token], token)
        )
        kept = kept[: None if max_size is None else max(0, max_size - len(marks))]
        dropped = counts.total() - sum(counts[token] for token in kept)
        known = [counts[token] for token in kept]
        return Vocabulary([*marks, *kept], [0, dropped, *[0] * (len(marks) - 2), *known], lower_case=lower_case)

    def encode(self, tokens: Iterable[str]) -> np.ndarray:
        """The ids of the tokens: (N,) int32, 1 for one that is unknown."""
        ids = self._ids
        if self.lower_case:
            tokens = (token.lower() for token in tokens)
        return np.array([ids.get(token, 1) for token in tokens], dtype=np.int32)

    def encode_characters(self, words: Sequence[str], longest: int) -> np.ndarray:
        """The ids of the characters of each word: (N, C) int32, padded; C is that of the longest word, or `longest`.

        Of a longer word the first and the last characters are kept, half of `longest` each: its end says most of it.
        """
        start, end = longest - longest // 2, longest // 2
        cut = [word if len(word) <= longest else word[:start] + word[len(word) - end :] for word in words]
        lengths = np.fromiter(map(len, cut), dtype=np.int64, count=len(cut))
        characters = np.zeros((len(cut), lengths.max(initial=0)), dtype=np.int32)
        characters[np.arange(characters.shape[1]) < lengths[:, None]] = self.encode("".join(cut))
        return characters

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The tokens of the ids."""
        return [self.names[i] for i in ids]

    def describe(self) -> dict[str, Any]:
        """Numbers for a report: size, and how many of the training part's tokens are unknown."""
        total = sum(self.counts)
        return {"size": len(self), "unknown": self.counts[1], "unknown_share": self.counts[1] / total if total else 0.0}

    def _content(self) -> dict[str, Any]:
        return super()._content() | {"lower_case": self.lower_case}

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> "Vocabulary":
        return cls(content["names"], content["counts"], lower_case=bool(content.get("lower_case")))


class LabelSet(_Counted):
    """Labels or tags to classes 0 to K - 1 and back; sorted as numbers if all are whole numbers, else as texts.

    dtype: that of the labels before they became texts, as NumPy writes it; None for texts of a file.
    """

    kind = "label set"

    def __init__(self, names: Sequence[str], counts: Sequence[int], dtype: str | None = None):
        super().__init__(names, counts)
        self.dtype = dtype

    @staticmethod
    def fit(labels: Iterable[str], dtype: str | None = None) -> "LabelSet":
        """The different labels, with their counts; texts of memory are sorted as texts, as `np.unique` does it."""
        counts = Counter(labels)
        texts = dtype is not None and np.dtype(dtype).kind in "UO"
        if not texts and all(_INTEGER.fullmatch(label) for label in counts):
            names = sorted(counts, key=lambda label: (int(label), label))
        else:
            names = sorted(counts)
        return LabelSet(names, [counts[name] for name in names], dtype)

    @property
    def values(self) -> np.ndarray:
        """The labels in their own type, (K,): what `data.array_targets` made texts of."""
        kind = "U" if self.dtype is None else np.dtype(self.dtype).kind
        if kind in "UO":
            return np.array(self.names, dtype=object if kind == "O" else np.str_)
        if kind == "b":
            return np.array([name == "true" for name in self.names])
        return np.array([int(name) for name in self.names], dtype=self.dtype)

    def encode(self, labels: Iterable[str], place: str = "") -> np.ndarray:
        """The classes of the labels: (N,) int64. DataError, naming the place, if one is unknown."""
        try:
            return np.array([self._ids[label] for label in labels], dtype=np.int64)
        except KeyError as error:
            where = f"{place}: " if place else ""
            raise DataError(
                f'{where}the label "{error.args[0]}" is not one that was trained: {some(self.names)}'
            ) from None

    def encode_many(self, label_sets: Iterable[Iterable[str]], place: str = "") -> np.ndarray:
        """For each set of labels a row of 0 and 1: (N, K) float32. DataError if a label is unknown."""
        rows = [self.encode(labels, place) for labels in label_sets]
        chosen = np.zeros((len(rows), len(self)), dtype=np.float32)
        for row, classes in zip(chosen, rows, strict=True):
            row[classes] = 1
        return chosen

    def encode_known(self, labels: Iterable[str]) -> np.ndarray:
        """The classes of the labels: (N,) int64, -1 for one that is unknown, as a tag that only a test set has."""
        return np.array([self._ids.get(label, -1) for label in labels], dtype=np.int64)

    def decode(self, classes: Iterable[int]) -> list[str]:
        """The labels of the classes."""
        return [self.names[i] for i in classes]

    def balanced_weights(self) -> np.ndarray:
        """(K,) float32: the weight of each class that makes all count alike, 1 on average over the examples."""
        counts = np.maximum(np.array(self.counts, dtype=np.float64), 1)
        return (counts.sum() / (len(counts) * counts)).astype(np.float32)

    def _content(self) -> dict[str, Any]:
        return super()._content() | ({} if self.dtype is None else {"dtype": self.dtype})

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> "LabelSet":
        dtype = content.get("dtype")
        if dtype is not None and not (isinstance(dtype, str) and _DTYPE.fullmatch(dtype)):
            raise InputError("damaged label set: expected dtype, a type of NumPy's such as <i8")
        return cls(content["names"], content["counts"], dtype)
