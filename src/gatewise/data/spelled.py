"""Words as a tagger reads them: the token of each, and its characters."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gatewise.data.ragged import Ragged
from gatewise.data.vocabulary import Vocabulary
from gatewise.errors import InputError

LONGEST = 24  # characters of a word that are read: of a longer one its beginning and its end


class SpelledWords:
    """Sentences to tokens, and to characters where words are spelled.

    words: tokens of words; characters: of their characters, or None.
    """

    def __init__(self, words: Vocabulary, characters: Vocabulary | None):
        self.words = words
        self.characters = characters

    @staticmethod
    def fit(
        sentences: Sequence[Sequence[str]], *, lower_case: bool, min_count: int, max_size: int, spelled: bool
    ) -> "SpelledWords":
        """The words of the training sentences, and, of spelled ones, the characters, whose case is kept."""
        words = Vocabulary.fit(sentences, lower_case=lower_case, min_count=min_count, max_size=max_size)
        characters = Vocabulary.fit(word for sentence in sentences for word in sentence) if spelled else None
        return SpelledWords(words, characters)

    def encode(self, sentences: Sequence[Sequence[str]]) -> dict[str, Ragged]:
        """The columns "inputs", tokens (T_i,), and, of spelled words, "spelling", characters (T_i, LONGEST)."""
        columns = {"inputs": Ragged.of([self.words.encode(sentence) for sentence in sentences])}
        if self.characters is not None:
            flat = [word for sentence in sentences for word in sentence]
            spelling = np.zeros((len(flat), LONGEST), dtype=np.int32)
            encoded = self.characters.encode_characters(flat, LONGEST)
            spelling[:, : encoded.shape[1]] = encoded
            columns["spelling"] = Ragged(spelling, columns["inputs"].offsets.copy())  # no file keeps what is shared
        return columns

    def to_json(self) -> str:
        """A JSON document from which `from_json` makes the same."""
        both = (self.words, self.characters)
        return json.dumps([None if each is None else json.loads(each.to_json()) for each in both], ensure_ascii=False)

    @staticmethod
    def from_json(document: str) -> "SpelledWords":
        """What `to_json` wrote. Raises InputError."""
        try:
            words, characters = json.loads(document)
        except ValueError as error:
            raise InputError("damaged words: expected their vocabulary and that of their characters") from error
        return SpelledWords(
            Vocabulary.from_json(json.dumps(words)),
            None if characters is None else Vocabulary.from_json(json.dumps(characters)),
        )


def distinct_spellings(spelling: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each different spelling of a batch once, so that no word is read twice.

    spelling (T, B, C) int: characters, 0 after a word's end. Returns the place (T, B) int64 of each word's spelling,
    the spellings (C', N) int64, and their lengths (N,) int64, at least 1.
    """
    flat = spelling.flatten(0, 1).numpy()
    rows = np.ascontiguousarray(flat).view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel()
    _, first, places = np.unique(rows, return_index=True, return_inverse=True)
    distinct = torch.from_numpy(flat[first])
    lengths = (distinct != 0).sum(1).clamp(min=1)
    characters = distinct[:, : int(lengths.max())].T.long()
    return torch.from_numpy(places.reshape(spelling.shape[:2])), characters, lengths
