"""What a model must be better than."""

import json
from dataclasses import dataclass
from typing import Self

import numpy as np

from gatewise.errors import InputError


@dataclass(frozen=True)
class WordTags:
    """Says of each word the tag that it has most often in training, and of others the most frequent one.

    tags: class by token, where it is not the most frequent one of all; other: that one; steps: of training.
    """

    tags: dict[int, int]
    other: int
    steps: int

    @classmethod
    def fit(cls, words: np.ndarray | None, classes: np.ndarray) -> Self:
        """From tokens (N,), None where there are none, and their classes (N,) int64."""
        counts = np.bincount(classes)
        other = int(counts.argmax())
        if words is None:
            return cls({}, other, len(classes))
        pairs, numbers = np.unique(words.astype(np.int64) * len(counts) + classes, return_counts=True)
        order = np.argsort(numbers, kind="stable")  # so that the most frequent class of a word is written last
        best = dict(zip((pairs[order] // len(counts)).tolist(), (pairs[order] % len(counts)).tolist(), strict=True))
        return cls({word: tag for word, tag in sorted(best.items()) if tag != other}, other, len(classes))

    def predict(self, words: np.ndarray) -> np.ndarray:
        """The classes (N,) int64 of tokens (N,), or of steps (N, F), of which it knows nothing."""
        if words.ndim > 1 or not self.tags:
            return np.full(len(words), self.other)
        table = np.full(max(int(words.max(initial=0)), *self.tags) + 1, self.other)
        table[list(self.tags)] = list(self.tags.values())
        return table[words]

    def to_json(self) -> str:
        """A JSON document from which `from_json` makes the same."""
        return json.dumps({"other": self.other, "steps": self.steps, "tags": list(self.tags.items())})

    @classmethod
    def from_json(cls, document: str) -> Self:
        """What `to_json` wrote. Raises InputError."""
        try:
            content = json.loads(document)
            return cls({int(k): int(v) for k, v in content["tags"]}, int(content["other"]), int(content["steps"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("damaged baseline: expected other, steps and tags") from error
