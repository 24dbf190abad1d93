"""Sentences as a translator reads and writes them: the tokens of a tokenizer, and marks of the start and the end."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from gatewise.data.tokenizers import BPETokenizer, CharTokenizer, Tokenizer, WordTokenizer


class SentenceTokens:
    """Sentences to tokens and back. The marks follow the tokenizer's own tokens: `start`, then `end`."""

    def __init__(self, tokenizer: Tokenizer, *, lower_case: bool):
        self.tokenizer = tokenizer
        self.lower_case = lower_case

    @staticmethod
    def fit(
        sentences: Sequence[str], kind: Literal["word", "char", "bpe"], vocabulary_size: int, *, lower_case: bool
    ) -> "SentenceTokens":
        """The tokens of the training sentences; vocabulary_size: at most, without the marks."""
        texts = [sentence.lower() for sentence in sentences] if lower_case else sentences
        if kind == "char":
            tokenizer: Tokenizer = CharTokenizer.fit(texts)
        else:
            tokenizer = {"word": WordTokenizer, "bpe": BPETokenizer}[kind].fit(texts, vocabulary_size)
        return SentenceTokens(tokenizer, lower_case=lower_case)

    @property
    def start(self) -> int:
        """The mark that is read before the first token."""
        return self.tokenizer.size

    @property
    def end(self) -> int:
        """The mark that is written after the last token."""
        return self.tokenizer.size + 1

    @property
    def size(self) -> int:
        """Number of different tokens, the marks among them."""
        return self.tokenizer.size + 2

    @property
    def forbidden(self) -> tuple[int, ...]:
        """The tokens that are never to be written: the unknown one."""
        unknown = self.tokenizer.unknown_id
        return () if unknown is None else (unknown,)

    def encode(self, sentence: str) -> np.ndarray:
        """The tokens (T,) int32, without marks."""
        return self.tokenizer.encode(sentence.lower() if self.lower_case else sentence)

    def encode_all(self, sentences: Iterable[str]) -> list[np.ndarray]:
        """The tokens of each sentence."""
        return [self.encode(sentence) for sentence in sentences]

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """What each token says, for people; spaces as they are."""
        return [self.tokenizer.decode([token]) for token in tokens]

    def decode(self, tokens: Iterable[int]) -> str:
        """The sentence of tokens without marks."""
        return self.tokenizer.decode(tokens).strip()

    def to_json(self) -> str:
        """The tokenizer's JSON document."""
        return self.tokenizer.to_json()

    @staticmethod
    def from_json(document: str, *, lower_case: bool) -> "SentenceTokens":
        """What `to_json` wrote. Raises InputError."""
        return SentenceTokens(Tokenizer.from_json(document), lower_case=lower_case)
