"""How a text, or a list of words, becomes the tokens that a network reads: words, characters or subwords."""

from collections.abc import Sequence

import numpy as np

from gatewise.config import TokenConfig
from gatewise.data.tokenizers import BPETokenizer, Tokenizer
from gatewise.data.vocabulary import Vocabulary, tokenize
from gatewise.errors import InputError

Text = str | list[str]


class TextTokens:
    """Texts to tokens.

    word: the words of a text, with their apostrophes, and single marks; of a list of words, these as they are.
    char: its characters. bpe: byte-level subwords, of which none is unknown.
    """

    def __init__(self, config: TokenConfig, known: Vocabulary | BPETokenizer):
        self.config = config
        self.known = known

    @staticmethod
    def fit(texts: Sequence[Text], config: TokenConfig) -> "TextTokens":
        """The tokens of the training texts; config: with min_count decided. Raises InputError."""
        if config.tokenizer == "bpe":
            return TextTokens(
                config, BPETokenizer.fit((_cased(text, config) for text in texts), config.vocabulary_size)
            )
        if config.min_count == "auto":
            raise InputError("TextTokens: expected min_count to be a number, got auto")
        sequences = (_cut(text, config) for text in texts)
        vocabulary = Vocabulary.fit(
            sequences, min_count=config.min_count, max_size=config.vocabulary_size, lower_case=config.lower_case
        )
        return TextTokens(config, vocabulary)

    @property
    def size(self) -> int:
        """Number of different tokens."""
        return self.known.size if isinstance(self.known, BPETokenizer) else len(self.known)

    @property
    def unknown_id(self) -> int | None:
        """The token for all that is unknown; None if nothing is."""
        return None if isinstance(self.known, BPETokenizer) else self.known.unknown_id

    def encode(self, text: Text) -> np.ndarray:
        """The tokens (T,) int32: at least one, at most `max_length`, from the start of the text."""
        if isinstance(self.known, BPETokenizer):
            tokens = self.known.encode(_cased(text, self.config))
        else:
            tokens = self.known.encode(_cut(text, self.config)[: self.config.max_length])
        if not len(tokens):
            return np.array([self.unknown_id or 0], dtype=np.int32)
        return tokens[: self.config.max_length]

    def to_json(self) -> str:
        """A JSON document from which `from_json` makes the same."""
        return self.known.to_json()

    @staticmethod
    def from_json(document: str, config: TokenConfig) -> "TextTokens":
        """What `to_json` wrote, of the same configuration. Raises InputError."""
        if config.tokenizer != "bpe":
            return TextTokens(config, Vocabulary.from_json(document))
        known = Tokenizer.from_json(document)
        if not isinstance(known, BPETokenizer):
            raise InputError(f"expected a bpe tokenizer, got a {known.kind} tokenizer")
        return TextTokens(config, known)


def _cut(text: Text, config: TokenConfig) -> list[str]:
    """The words or characters; the vocabulary turns them into lower case."""
    if config.tokenizer == "char":
        return list(text if isinstance(text, str) else " ".join(text))
    return tokenize(text) if isinstance(text, str) else text


def _cased(text: Text, config: TokenConfig) -> str:
    joined = text if isinstance(text, str) else " ".join(text)
    return joined.lower() if config.lower_case else joined
