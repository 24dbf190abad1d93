"""How tokens enter a network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gatewise.errors import InputError
from gatewise.layers.gru import GRU


class OneHot(nn.Module):
    """Tokens (T, B) as vectors (T, B, V) that are 1 at the token's place and 0 elsewhere."""

    one: Tensor

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.register_buffer("one", torch.ones(()), persistent=False)  # takes the network's dtype and device

    def forward(self, tokens: Tensor) -> Tensor:
        """The vectors (T, B, V), of the network's dtype, of tokens (T, B) int64."""
        zeros = torch.zeros(*tokens.shape, self.vocabulary_size, dtype=self.one.dtype, device=tokens.device)
        return zeros.scatter_(-1, tokens.unsqueeze(-1), 1.0)


@dataclass(frozen=True)
class WordBatch:
    """Words of a padded batch.

    words (T, B) int64: the token of each; spellings (T, B) int64: the place of each word's spelling among `characters`;
    characters (C, N) int64: the spellings of the batch's different words, padded; character_lengths (N,), at least 1.
    The last three are None where words are not spelled.
    """

    words: Tensor
    spellings: Tensor | None = None
    characters: Tensor | None = None
    character_lengths: Tensor | None = None

    def to(self, device: torch.device) -> "WordBatch":
        """The same on a device."""
        spelled = (self.spellings, self.characters, self.character_lengths)
        return WordBatch(self.words.to(device), *(None if t is None else t.to(device) for t in spelled))


class WordEmbedding(nn.Module):
    """A vector for each word: learned for it, and, if it is spelled, what a bidirectional GRU makes of its characters.

    The vector of a word and that of its spelling stand side by side (Lample, Ballesteros, Subramanian, Kawakami, Dyer,
    "Neural Architectures for Named Entity Recognition", 2016, section 4.1, there with LSTM), so that an unknown word
    is known by its spelling.

    vocabulary_size (V), size (E): words and their vectors. characters: number of different characters, None for words
    that are not spelled; character_size: of a character's vector; spelling_size: of a spelling's, both directions.
    word_dropout: probability of a word's token to be replaced by `unknown` in training, for the network to learn what
    to do without it.
    """

    def __init__(
        self,
        vocabulary_size: int,
        size: int,
        *,
        characters: int | None = None,
        character_size: int = 32,
        spelling_size: int = 100,
        word_dropout: float = 0.0,
        unknown: int = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, size)
        self.size = size + (spelling_size if characters else 0)
        self.word_dropout, self.unknown = word_dropout, unknown
        if characters:
            self.characters = nn.Embedding(characters, character_size)
            self.spelling = GRU(character_size, spelling_size // 2, bidirectional=True, backend=backend)

    def forward(self, batch: WordBatch) -> Tensor:
        """The vectors (T, B, size) of the words of a batch."""
        words = batch.words
        if self.training and self.word_dropout > 0:
            dropped = torch.rand(words.shape, device=words.device) < self.word_dropout
            words = torch.where(dropped, self.unknown, words)
        vectors = self.words(words)
        if batch.characters is None:
            return vectors
        _, hn = self.spelling(self.characters(batch.characters), lengths=batch.character_lengths)
        spellings = torch.cat([hn[0], hn[1]], -1)  # (N, spelling_size)
        return torch.cat([vectors, spellings[batch.spellings]], -1)

    def as_embedding(self) -> nn.Embedding:
        """The words' own embedding. InputError if words are spelled, which no embedding can hold."""
        if hasattr(self, "spelling"):
            raise InputError(
                "WordEmbedding: words that are known by their characters cannot be carried to other libraries"
            )
        return self.words
