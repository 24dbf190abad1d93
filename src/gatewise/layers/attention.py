"""Attention of queries over the steps of another sequence, and the pooling of a sequence by it."""

from typing import Literal

import torch
from torch import Tensor, nn

from gatewise.errors import InputError

Score = Literal["additive", "multiplicative"]
SCORES: tuple[Score, ...] = ("additive", "multiplicative")


class Attention(nn.Module):
    """What each query finds in the keys: a mean of them, weighted by how well they fit.

    additive: score(q, k) = v . tanh(W q + U k), of size `size` (Bahdanau, Cho, Bengio, "Neural Machine Translation by
        Jointly Learning to Align and Translate", 2015, appendix A.1.2).
    multiplicative: score(q, k) = q . W k (Luong, Pham, Manning, "Effective Approaches to Attention-based Neural Machine
        Translation", 2015, section 3.1, "general").
    """

    def __init__(
        self, query_size: int, key_size: int, score: Score = "multiplicative", size: int | None = None
    ) -> None:
        super().__init__()
        if score not in SCORES:
            raise InputError(f"Attention: unknown score {score!r}; expected one of {', '.join(SCORES)}")
        self.score = score
        size = query_size if score == "multiplicative" or size is None else size
        self.key = nn.Linear(key_size, size, bias=False)
        if score == "additive":
            self.query = nn.Linear(query_size, size)
            self.v = nn.Linear(size, 1, bias=False)

    def project(self, keys: Tensor) -> Tensor:
        """Of the keys (S, B, K) what every query needs of them, (S, B, size): computed once for a sequence."""
        return self.key(keys)

    def forward(
        self, queries: Tensor, keys: Tensor, lengths: Tensor | None = None, projected: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The contexts (T, B, K) of the queries, and the weights (T, B, S), which sum to 1 over S.

        queries (T, B, Q); keys (S, B, K); lengths (B,) integer, at least 1: keys of each row, all S if None;
        projected (S, B, size): `project(keys)`.
        """
        projected = self.project(keys) if projected is None else projected
        if self.score == "multiplicative":
            scores = torch.einsum("tbd,sbd->bts", queries, projected)
        else:
            sums = self.query(queries).unsqueeze(1) + projected.unsqueeze(0)  # (T, S, B, size)
            scores = self.v(torch.tanh(sums)).squeeze(-1).permute(2, 0, 1)
        if lengths is not None:
            beyond = torch.arange(len(keys), device=keys.device) >= lengths.to(keys.device).unsqueeze(1)  # (B, S)
            scores = scores.masked_fill(beyond.unsqueeze(1), -torch.inf)
        weights = scores.softmax(-1)  # (B, T, S)
        contexts = torch.einsum("bts,sbk->tbk", weights, keys)
        return contexts, weights.transpose(0, 1)


class AttentionPooling(nn.Module):
    """One vector for each row: the mean of its steps, weighted by a learned look at each.

    score(k) = v . tanh(U k) (Yang, Yang, Dyer, He, Smola, Hovy, "Hierarchical Attention Networks for Document
    Classification", 2016, equations 5 to 7).
    """

    def __init__(self, input_size: int, size: int | None = None) -> None:
        super().__init__()
        size = size or input_size
        self.key = nn.Linear(input_size, size)
        self.v = nn.Linear(size, 1, bias=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The vectors (B, F) of x (T, B, F), and the weights (T, B), which sum to 1 over T.

        lengths (B,) integer, at least 1: steps of each row, all T if None.
        """
        scores = self.v(torch.tanh(self.key(x))).squeeze(-1)
        if lengths is not None:
            beyond = torch.arange(len(x), device=x.device).unsqueeze(1) >= lengths.to(x.device)
            scores = scores.masked_fill(beyond, -torch.inf)
        weights = scores.softmax(0)
        return (weights.unsqueeze(-1) * x).sum(0), weights
