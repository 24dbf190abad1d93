"""The network of a tagger: a label for every step of a sequence of words or of feature vectors."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from gatewise.errors import InputError
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.models.crf import ConditionalRandomField
from gatewise.models.embeddings import WordEmbedding
from gatewise.models.sequential import SequentialNetwork


class TaggerNetwork(nn.Module):
    """input -> dropout -> recurrent layers -> dropout -> a score for each class at each step.

    input: WordEmbedding, or None for feature vectors (T, B, F).
    recurrent: the layers, uni- or bidirectional, or several stacks of them, one on the other, of other sizes.
    classes (C). exclusive: one class a step (softmax, or the random field), or any number of them (a sigmoid each).
    crf: the classes of a sequence are scored together; with it `forbidden` pairs of neighbours cannot be.
    """

    def __init__(
        self,
        input: WordEmbedding | None,
        recurrent: Sequence[RecurrentLayer],
        classes: int,
        *,
        dropout: float = 0.0,
        exclusive: bool = True,
        crf: bool = False,
        forbidden: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        self.input = input
        self.dropout = nn.Dropout(dropout)
        self.recurrent = nn.ModuleList(recurrent)
        last = recurrent[-1]
        self.output = nn.Linear(last.hidden_size * (2 if last.bidirectional else 1), classes)
        self.exclusive = exclusive
        self.crf = ConditionalRandomField(classes, forbidden) if crf else None

    def forward(self, x: Any, lengths: Tensor) -> Tensor:
        """Scores (T, B, C): logits, or the emissions of the random field.

        x: what the input takes: a WordBatch, or features (T, B, F); lengths (B,), at least 1.
        """
        if self.input is not None:
            x = self.dropout(self.input(x))
        for layer in self.recurrent:
            x, _ = layer(x, lengths=lengths)
            x = self.dropout(x)
        return self.output(x)

    def loss(self, scores: Tensor, targets: Tensor, lengths: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """The mean over all steps of -ln p of what is there, in nats.

        targets (T, B) int64; or, of classes that do not exclude each other, (T, B, C), from 0 to 1, and the loss of a
        step is the sum over its classes. smoothing: of labels, without the random field.
        """
        steps = lengths.sum()
        if self.crf is not None:
            return -self.crf.log_likelihood(scores, targets, lengths).sum() / steps
        valid = torch.arange(len(scores), device=scores.device).unsqueeze(1) < lengths.to(scores.device)
        if self.exclusive:
            return cross_entropy(scores[valid], targets[valid], label_smoothing=smoothing)
        return binary_cross_entropy_with_logits(scores[valid], targets[valid], reduction="sum") / steps

    def predict(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """The classes: (T, B) int64, the likeliest sequence with the random field; or (T, B, C) bool where p > 0.5."""
        if self.crf is not None:
            return self.crf.decode(scores, lengths)
        return scores.argmax(-1) if self.exclusive else scores > 0

    def activations(self, x: Any, lengths: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The name and the output (T, B, ...) of each part in the order of computation, without dropout."""
        was_training = self.training
        self.eval()
        try:
            if self.input is not None:
                x = self.input(x)
                yield "input", x
            for number, layer in enumerate(self.recurrent):
                x, _ = layer(x, lengths=lengths)
                yield f"recurrent layer {number}", x
            yield "output", self.output(x)
        finally:
            self.train(was_training)

    def as_sequential(self) -> SequentialNetwork:
        """The same network, with the same parameters, as a chain of layers: tokens or features to scores.

        Raises InputError for a character-aware input or a random field, which are no layers of a chain.
        """
        first = [] if self.input is None else [self.input.as_embedding()]
        if self.crf is not None:
            raise InputError("TaggerNetwork: a conditional random field cannot be carried to other libraries")
        return SequentialNetwork([*first, *self.recurrent, self.output])
