"""The network of a classifier: a sequence of tokens or of feature vectors to a score for each class."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from gatewise.config import ClassifierConfig
from gatewise.errors import InputError
from gatewise.layers.attention import AttentionPooling
from gatewise.models.embeddings import WordBatch, WordEmbedding
from gatewise.models.recurrent_layers import recurrent_layers
from gatewise.models.sequential import Pooling, SequentialNetwork


class ClassifierNetwork(nn.Module):
    """input -> dropout -> recurrent layers, with dropout between them -> pooling -> dropout -> output.

    config: with every "auto" decided. classes (K). Of the next two, one is given:
    vocabulary_size (V): tokens, of which `unknown` stands for those that are not known; None for features.
    features (F): of a step; None for tokens.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        classes: int,
        *,
        vocabulary_size: int | None = None,
        features: int | None = None,
        unknown: int | None = None,
    ) -> None:
        super().__init__()
        sizes = (config.embedding_size, config.hidden_size, config.dropout, config.word_dropout)
        if "auto" in sizes or (vocabulary_size is None) == (features is None):
            raise InputError(
                "ClassifierNetwork: expected sizes and dropout to be numbers, and either vocabulary_size or features, "
                f"got {sizes}, {vocabulary_size} and {features}"
            )
        embedding_size, hidden_size, dropout, word_dropout = (float(size) for size in sizes)
        self.input = None
        if vocabulary_size is not None:
            self.input = WordEmbedding(
                vocabulary_size,
                int(embedding_size),
                word_dropout=0.0 if unknown is None else word_dropout,
                unknown=unknown or 0,
            )
        self.dropout = nn.Dropout(dropout)
        self.recurrent = recurrent_layers(
            config.cell,
            features if self.input is None else self.input.size,  # pyright: ignore[reportArgumentType]
            int(hidden_size),
            config.num_layers,
            bidirectional=config.bidirectional,
            dropout=dropout,
            weight_dropout=config.weight_dropout,
            recurrent_dropout=config.recurrent_dropout,
            reset=config.reset,
            backend=config.backend,
        )
        self.directions = 2 if config.bidirectional else 1
        size = int(hidden_size) * self.directions
        self.pooling = AttentionPooling(size) if config.pooling == "attention" else Pooling(config.pooling)
        self.output = nn.Linear(size, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, K). x (T, B) int64: tokens, or (T, B, F) float: features; lengths (B,), at least 1."""
        if self.input is not None:
            x = self.dropout(self.input(WordBatch(x)))
        x, _ = self.recurrent(x, lengths=lengths)
        return self.output(self.dropout(self._pooled(x, lengths)))

    def _pooled(self, x: Tensor, lengths: Tensor) -> Tensor:
        """One vector for each row, (B, D * H)."""
        if isinstance(self.pooling, AttentionPooling):
            return self.pooling(x, lengths)[0]
        return self.pooling(x, lengths, self.directions)

    def as_sequential(self) -> SequentialNetwork:
        """The same network, with the same parameters, as a chain of layers: tokens or features to logits.

        Raises InputError if it pools by attention, which is no layer of a chain.
        """
        if isinstance(self.pooling, AttentionPooling):
            raise InputError(
                "ClassifierNetwork: pooling by attention cannot be carried to other libraries; "
                "train with model.pooling = last, mean or max"
            )
        first: list[Any] = [] if self.input is None else [self.input.as_embedding()]
        return SequentialNetwork([*first, self.recurrent, self.pooling, self.output])

    def activations(self, x: Tensor, lengths: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The name and the output of each part in the order of computation, without dropout; (B, ...) when pooled."""
        was_training = self.training
        self.eval()
        try:
            if self.input is not None:
                x = self.input(WordBatch(x))
                yield "input", x
            x, _ = self.recurrent(x, lengths=lengths)
            yield "recurrent", x
            x = self._pooled(x, lengths)
            yield "pooling", x
            yield "output", self.output(x)
        finally:
            self.train(was_training)
