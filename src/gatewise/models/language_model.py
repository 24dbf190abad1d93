"""The network of a language model: token by token, how likely each token of the vocabulary is to come next."""

from collections.abc import Iterator

from torch import Tensor, nn

from gatewise.config import LanguageModelConfig
from gatewise.errors import ConfigError
from gatewise.kernels import ops
from gatewise.layers.gru import GRU
from gatewise.models.embeddings import OneHot
from gatewise.models.sequential import SequentialNetwork


class LanguageModelNetwork(nn.Module):
    """embedding -> dropout -> GRU layers, with dropout between them -> dropout -> output (Zaremba et al. 2014).

    vocabulary_size (V): number of tokens. Raises ConfigError if the sizes of tied weights differ.
    """

    def __init__(self, vocabulary_size: int, config: LanguageModelConfig) -> None:
        super().__init__()
        if config.tied and (config.input == "one-hot" or config.embedding_size != config.hidden_size):
            raise ConfigError(
                "model.tied: the output can share the weights of an embedding of its size only: expected "
                f'model.input = "embedding" and model.embedding_size = model.hidden_size = {config.hidden_size}, '
                f'got model.input = "{config.input}" and model.embedding_size = {config.embedding_size}'
            )
        self.vocabulary_size = vocabulary_size
        one_hot = config.input == "one-hot"
        input_size = vocabulary_size if one_hot else config.embedding_size
        self.embedding = OneHot(vocabulary_size) if one_hot else nn.Embedding(vocabulary_size, input_size)
        self.gru = GRU(
            input_size,
            config.hidden_size,
            config.num_layers,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            reset=config.reset,
            backend=config.backend,
            weight_dropout=config.weight_dropout,
            recurrent_dropout=config.recurrent_dropout,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size, vocabulary_size)
        if config.tied:
            nn.init.normal_(self.output.weight, std=config.hidden_size**-0.5)  # logits of size 1 at the start
            self.embedding.weight = self.output.weight

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (T, B, V) of the token after each step, and the last state (L, B, H).

        tokens (T, B) int64: what is read; state (L, B, H): where the last call left off, zeros if None.
        """
        x = self.embedding(tokens)
        if isinstance(self.embedding, nn.Embedding):
            x = self.dropout(x)
        y, hn = self.gru(x, state)
        return self.output(self.dropout(y)), hn

    def as_sequential(self) -> SequentialNetwork:
        """The same network, with the same parameters, as a chain of layers: tokens to logits."""
        return SequentialNetwork([self.embedding, self.gru, self.output])

    def activations(self, tokens: Tensor, state: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        """The name and the output (T, B, ...) of each layer in the order of computation, without dropout."""
        x = self.embedding(tokens)
        yield "embedding", x
        for layer in range(self.gru.num_layers):
            h0 = x.new_zeros(x.size(1), self.gru.hidden_size) if state is None else state[layer]
            weights = self.gru.all_weights[layer]
            x, _ = ops.gru(x, h0, *weights, reset=self.gru.reset, backend=self.gru.backend)
            yield f"gru layer {layer}", x
        yield "output", self.output(x)
