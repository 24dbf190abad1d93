"""A linear-chain conditional random field: whole sequences of labels, scored by each label and each pair of neighbours.

Lafferty, McCallum, Pereira, "Conditional Random Fields", 2001; as the output layer of a recurrent network, Huang, Xu,
Yu, "Bidirectional LSTM-CRF Models for Sequence Tagging", 2015.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

FORBIDDEN = -1e4  # the score of what cannot be: finite, so that a row all of whose paths are forbidden has gradients


class ConditionalRandomField(nn.Module):
    """score(y) = start[y_1] + sum of emissions[t, y_t] + sum of transitions[y_t, y_t+1] + end[y_T].

    classes (C). forbidden: pairs of neighbours (from, to) that cannot be, -1 as `from` is the start, as `to` the end.
    """

    mask: Tensor

    def __init__(self, classes: int, forbidden: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__()
        self.classes = classes
        self.transitions = nn.Parameter(torch.zeros(classes, classes))
        self.start = nn.Parameter(torch.zeros(classes))
        self.end = nn.Parameter(torch.zeros(classes))
        mask = torch.zeros(classes + 1, classes + 1)  # the last row is the start, the last column the end
        for before, after in forbidden:
            mask[before, after] = FORBIDDEN
        self.register_buffer("mask", mask, persistent=False)

    def _scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """transitions (C, C), start (C,) and end (C,), with what cannot be."""
        inner = self.mask[:-1, :-1], self.mask[-1, :-1], self.mask[:-1, -1]
        return self.transitions + inner[0], self.start + inner[1], self.end + inner[2]

    def log_likelihood(self, emissions: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """ln p(targets) of each row, (B,).

        emissions (T, B, C) float: the score of each label at each step; targets (T, B) int64, read up to each length;
        lengths (B,) integer, from 1 to T.
        """
        return self._path_score(emissions, targets, lengths) - self._log_partition(emissions, lengths)

    def _path_score(self, emissions: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        transitions, start, end = self._scores()
        valid = _valid(emissions, lengths)
        targets = torch.where(valid, targets, 0)
        each = emissions.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        pairs = transitions[targets[:-1], targets[1:]]
        last = targets.gather(0, (lengths - 1).unsqueeze(0)).squeeze(0)
        return (each * valid).sum(0) + (pairs * valid[1:]).sum(0) + start[targets[0]] + end[last]

    def _log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """ln of the sum of exp(score) over all sequences of labels, (B,): the forward algorithm."""
        transitions, start, end = self._scores()
        valid = _valid(emissions, lengths).unsqueeze(-1)
        alpha = start + emissions[0]  # (B, C)
        for t in range(1, len(emissions)):
            new = torch.logsumexp(alpha.unsqueeze(-1) + transitions, 1) + emissions[t]
            alpha = torch.where(valid[t], new, alpha)
        return torch.logsumexp(alpha + end, -1)

    @torch.no_grad()
    def decode(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """The likeliest labels (T, B) int64, by the Viterbi algorithm; what is beyond a row's length is 0."""
        transitions, start, end = self._scores()
        valid = _valid(emissions, lengths)
        best = start + emissions[0]  # (B, C)
        pointers = []
        for t in range(1, len(emissions)):
            score, before = (best.unsqueeze(-1) + transitions).max(1)  # (B, C)
            # Past its end a row stays as it was, each label its own predecessor.
            same = torch.arange(self.classes, device=emissions.device).expand_as(before)
            pointers.append(torch.where(valid[t].unsqueeze(-1), before, same))
            best = torch.where(valid[t].unsqueeze(-1), score + emissions[t], best)
        labels = [(best + end).argmax(-1)]
        for before in reversed(pointers):
            labels.append(before.gather(1, labels[-1].unsqueeze(1)).squeeze(1))
        return torch.where(valid, torch.stack(labels[::-1]), 0)


def _valid(emissions: Tensor, lengths: Tensor) -> Tensor:
    """(T, B) bool: the steps that a row has."""
    return torch.arange(len(emissions), device=emissions.device).unsqueeze(1) < lengths.to(emissions.device)


def forbidden_in_bio(labels: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs of neighbours that BIO labels cannot have: I-X after anything but B-X and I-X; -1 is start and end."""
    pairs = []
    for after, label in enumerate(labels):
        if not label.startswith("I-"):
            continue
        may_precede = {f"B-{label[2:]}", label}
        pairs += [(before, after) for before, other in enumerate(labels) if other not in may_precede]
        pairs.append((-1, after))
    return pairs
