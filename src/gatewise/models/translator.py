"""The network of a translator: an encoder that reads the source from both ends, a decoder that attends to it.

The decoder's recurrence runs over a whole target in one call, and its states attend to the source afterwards (Luong,
Pham, Manning, "Effective Approaches to Attention-based Neural Machine Translation", 2015, section 3.1, without input
feeding): so training costs one sweep of the kernels, not a Python step for each token.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.layers.attention import Attention, Score
from gatewise.layers.lstm import LSTM
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.layers.state import map_state

MakeLayer = Callable[..., RecurrentLayer]  # as gatewise.GRU: (input_size, hidden_size, num_layers, dropout=..., ...)


@dataclass(frozen=True)
class Encoded:
    """What the decoder needs of a batch of sources.

    keys (S, B, 2H): the encoder's states; projected (S, B, H): what attention needs of them; lengths (B,);
    state: the decoder's first state, as its layer's hx.
    """

    keys: Tensor
    projected: Tensor
    lengths: Tensor
    state: Any

    def select(self, rows: Tensor) -> "Encoded":
        """The same of the rows named, (N,) int64, which may repeat."""
        return Encoded(
            self.keys.index_select(1, rows),
            self.projected.index_select(1, rows),
            self.lengths.index_select(0, rows),
            map_state(self.state, lambda s: s.index_select(1, rows)),
        )


class TranslatorNetwork(nn.Module):
    """Encoder: embedding, bidirectional layers. Decoder: embedding, layers, attention, output.

    (1) keys = the encoder's states, both directions side by side
    (2) s_0 = tanh(W_l [last forward state; last backward state]) of each layer l; an LSTM's c likewise
    (3) s_t = the decoder's layers over the embedding of the token before
    (4) context_t, weights_t = attention(s_t, keys)
    (5) a_t = tanh(W_a [context_t; s_t])                    (Luong et al. 2015, equation 5)
    (6) logits_t = W_o a_t + b_o, where W_o may be the decoder's embedding

    make_layer: a recurrent layer of the family, such as gatewise.GRU or a partial of it.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        *,
        make_layer: MakeLayer,
        embedding_size: int = 256,
        hidden_size: int = 256,
        num_layers: int = 1,
        attention: Score = "multiplicative",
        dropout: float = 0.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        between = dropout if num_layers > 1 else 0.0
        self.source_embedding = nn.Embedding(source_size, embedding_size)
        self.target_embedding = nn.Embedding(target_size, embedding_size)
        self.encoder = make_layer(embedding_size, hidden_size, num_layers, dropout=between, bidirectional=True)
        self.decoder = make_layer(embedding_size, hidden_size, num_layers, dropout=between)
        states = 2 if isinstance(self.decoder, LSTM) else 1
        self.bridges = nn.ModuleList(nn.Linear(2 * hidden_size, hidden_size) for _ in range(states * num_layers))
        self.attention = Attention(hidden_size, 2 * hidden_size, attention)
        self.combine = nn.Linear(3 * hidden_size, embedding_size)
        self.output = nn.Linear(embedding_size, target_size)
        self.dropout = nn.Dropout(dropout)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=embedding_size**-0.5)  # logits of size 1, where it is tied
        if tied:
            self.output.weight = self.target_embedding.weight

    def encode(self, source: Tensor, lengths: Tensor) -> Encoded:
        """What the decoder needs of source (S, B) int64, whose rows have lengths (B,), at least 1."""
        keys, last = self.encoder(self.dropout(self.source_embedding(source)), lengths=lengths)  # (1)
        states = []
        for i, hn in enumerate(last if isinstance(last, tuple) else (last,)):
            ends = hn.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2)  # (L, B, 2H)
            bridges = self.bridges[i * len(ends) : (i + 1) * len(ends)]
            states.append(torch.stack([bridge(end) for bridge, end in zip(bridges, ends, strict=True)]).tanh())  # (2)
        state = tuple(states) if len(states) > 1 else states[0]
        return Encoded(keys, self.attention.project(keys), lengths, state)

    def decode(self, tokens: Tensor, encoded: Encoded, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        """Logits (T, B, V) of the token after each, the last state, and attention's weights (T, B, S).

        tokens (T, B) int64: what is read, the start token first; state: where the last call left off, that of the
        encoded source if None.
        """
        x = self.dropout(self.target_embedding(tokens))
        s, state = self.decoder(x, encoded.state if state is None else state)  # (3)
        context, weights = self.attention(s, encoded.keys, encoded.lengths, encoded.projected)  # (4)
        a = torch.tanh(self.combine(torch.cat([context, s], -1)))  # (5)
        return self.output(self.dropout(a)), state, weights  # (6)

    def activations(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The name and the output (T, B, ...) of each part in the order of computation, without dropout."""
        was_training = self.training
        self.eval()
        try:
            yield "source embedding", self.source_embedding(source)
            encoded = self.encode(source, lengths)
            yield "encoder", encoded.keys
            x = self.target_embedding(tokens)
            yield "target embedding", x
            s, _ = self.decoder(x, encoded.state)
            yield "decoder", s
            context, _ = self.attention(s, encoded.keys, encoded.lengths, encoded.projected)
            yield "attention", context
            yield "output", self.output(torch.tanh(self.combine(torch.cat([context, s], -1))))
        finally:
            self.train(was_training)

    def forward(
        self, source: Tensor, source_lengths: Tensor, tokens: Tensor, sampled: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Logits (T, B, V) of the token after each of tokens (T, B), and attention's weights (T, B, S).

        sampled: the probability of each token that is read to be what the network itself would have put there, drawn
        from its distribution: scheduled sampling (Bengio, Vinyals, Jaitly, Shazeer, 2015) in two passes, of which
        the first, without gradient, predicts all tokens at once (Mihaylova, Martins, "Scheduled Sampling for
        Transformers", 2019). The first token is never replaced.
        """
        encoded = self.encode(source, source_lengths)
        if sampled > 0:
            with torch.no_grad():
                logits, _, _ = self.decode(tokens, encoded)
                drawn = torch.distributions.Categorical(logits=logits[:-1]).sample()
                replaced = torch.rand(drawn.shape, device=drawn.device) < sampled
                tokens = torch.cat([tokens[:1], torch.where(replaced, drawn, tokens[1:])])
        logits, _, weights = self.decode(tokens, encoded)
        return logits, weights
