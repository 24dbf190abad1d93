"""How a translator writes: the likeliest token each time, beam search, or draws; many sources at once."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gatewise.errors import InputError
from gatewise.layers.state import map_state
from gatewise.models.decoding import check_decoding, next_token
from gatewise.models.translator import TranslatorNetwork


@dataclass(frozen=True)
class Hypothesis:
    """What was written for one source.

    tokens: without start and end; log_probability: ln of the probability of all of them, and of the end if it came;
    score: what the search maximised; weights (tokens, S): attention at each, of the source's own steps.
    """

    tokens: list[int]
    log_probability: float
    score: float
    weights: Tensor


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6) ** alpha (Wu et al., "Google's Neural Machine Translation System", 2016, equation 14)."""
    return ((5 + length) / 6) ** alpha


@torch.inference_mode()
def sample(
    network: TranslatorNetwork,
    source: Tensor,
    lengths: Tensor,
    *,
    start: int,
    end: int,
    max_length: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    forbidden: tuple[int, ...] = (),
    seed: int = 0,
) -> list[Hypothesis]:
    """A hypothesis for each source: drawn token by token; with temperature 0 the likeliest each time, which is greedy.

    source (S, B) int64; lengths (B,); start, end: the tokens that begin and end a target; max_length: most tokens of
    one, at least 1, for nothing is no translation; forbidden: tokens that are never written. The network must be in
    eval mode. Raises InputError.
    """
    check_decoding(temperature, top_k, top_p)
    generator = Generator().manual_seed(seed)
    encoded = network.encode(source, lengths)
    batch = source.shape[1]
    read = torch.full((1, batch), start, device=source.device)
    state, written, weights = None, [], []
    total = torch.zeros(batch, dtype=torch.float64)
    running = torch.ones(batch, dtype=torch.bool)
    for step in range(max_length + 1):
        logits, state, looked = network.decode(read, encoded, state)
        now = _allowed(logits[0].float().cpu(), (start, *forbidden, *([end] if step == 0 else [])))
        drawn = next_token(now, temperature, top_k, top_p, generator)
        if step == max_length:  # what has not ended by now must end
            drawn = torch.full_like(drawn, end)
        total += torch.where(running, now.log_softmax(-1).gather(1, drawn.unsqueeze(1)).squeeze(1).double(), 0.0)
        written.append(torch.where(running, drawn, end))
        weights.append(looked[0].cpu())
        running &= drawn != end
        if not running.any():
            break
        read = drawn.unsqueeze(0).to(source.device)
    tokens, looks = torch.stack(written).T.tolist(), torch.stack(weights)
    hypotheses = []
    for b, row in enumerate(tokens):
        kept = row[: row.index(end)]
        log_probability = total[b].item()
        look = looks[: len(kept), b, : int(lengths[b])]
        hypotheses.append(Hypothesis(kept, log_probability, log_probability, look))
    return hypotheses


@torch.inference_mode()
def beam_search(
    network: TranslatorNetwork,
    source: Tensor,
    lengths: Tensor,
    *,
    start: int,
    end: int,
    max_length: int,
    beams: int = 5,
    alpha: float = 0.6,
    forbidden: tuple[int, ...] = (),
) -> list[list[Hypothesis]]:
    """Of each source the best hypotheses, at most `beams`, best first, by log-probability / length_penalty.

    alpha: 0 takes the bare log-probability, which favours short targets; a token counts with its end. The other
    arguments are those of `sample`. Raises InputError.
    """
    if beams < 1:
        raise InputError(f"beams: expected a whole number >= 1, got {beams}")
    batch, device = source.shape[1], source.device
    rows = torch.arange(batch, device=device).repeat_interleave(beams)  # of each beam its source
    encoded = network.encode(source, lengths).select(rows)
    search = _Beams(batch, beams, end, alpha, max_length, [int(length) for length in lengths])
    read, state = torch.full((1, batch * beams), start, device=device), None
    for step in range(max_length + 1):
        logits, state, weights = network.decode(read, encoded, state)
        allowed = _allowed(logits[0].float(), (start, *forbidden, *([end] if step == 0 else [])))
        logs = allowed.log_softmax(-1).cpu()
        if step == max_length:  # what has not ended by now must end
            logs = torch.full_like(logs, -torch.inf).index_copy(1, torch.tensor([end]), logs[:, end : end + 1])
        parents, tokens = search.extend(logs.view(batch, beams, -1), weights[0].cpu())
        if search.finished:
            break
        parents = parents.to(device)
        state = map_state(state, lambda s, chosen=parents: s.index_select(1, chosen))
        read = tokens.to(device).unsqueeze(0)
    return search.best()


class _Beams:
    """The open hypotheses of every source, and those that have ended."""

    def __init__(self, batch: int, beams: int, end: int, alpha: float, max_length: int, lengths: list[int]) -> None:
        self.batch, self.beams, self.end, self.alpha, self.lengths = batch, beams, end, alpha, lengths
        self.largest_penalty = max(length_penalty(length, alpha) for length in (1, max_length + 1))
        self.totals = torch.full((batch, beams), -torch.inf)
        self.totals[:, 0] = 0.0  # at the start all beams of a source are one
        self.tokens: list[list[list[int]]] = [[[] for _ in range(beams)] for _ in range(batch)]
        self.looks: list[list[list[Tensor]]] = [[[] for _ in range(beams)] for _ in range(batch)]
        self.ended: list[list[Hypothesis]] = [[] for _ in range(batch)]
        self.done = [False] * batch

    @property
    def finished(self) -> bool:
        return all(self.done)

    def extend(self, logs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Each beam's parent, as a row of the flat batch, and its new token, (batch * beams,).

        logs (batch, beams, V): ln p of each next token; weights (batch * beams, S): attention of this step.
        """
        sums = self.totals.unsqueeze(-1) + logs
        most = min(2 * self.beams, sums[0].numel())
        values, places = sums.flatten(1).topk(most, -1)  # so many that beams go on even if as many end
        vocabulary = logs.shape[-1]
        parents = torch.arange(self.batch * self.beams)
        tokens = torch.full((self.batch * self.beams,), self.end)
        for b in range(self.batch):
            if self.done[b]:
                continue
            old_tokens, old_looks, kept = self.tokens[b], self.looks[b], 0
            self.tokens[b], self.looks[b] = [], []
            self.totals[b] = -torch.inf
            for value, place in zip(values[b].tolist(), places[b].tolist(), strict=True):
                beam, token = divmod(place, vocabulary)
                if value == -float("inf") or kept == self.beams:
                    break
                row = b * self.beams + beam
                looks = [*old_looks[beam], weights[row, : self.lengths[b]]]
                if token == self.end:
                    self._end(b, old_tokens[beam], value, looks[:-1])
                    continue
                self.tokens[b].append([*old_tokens[beam], token])
                self.looks[b].append(looks)
                self.totals[b, kept] = value
                parents[b * self.beams + kept], tokens[b * self.beams + kept] = row, token
                kept += 1
            self.done[b] = kept == 0 or self._cannot_improve(b)
        return parents, tokens

    def _end(self, b: int, tokens: list[int], value: float, looks: list[Tensor]) -> None:
        score = value / length_penalty(len(tokens) + 1, self.alpha)
        look = torch.stack(looks) if looks else torch.zeros(0, self.lengths[b])
        self.ended[b].append(Hypothesis(tokens, value, score, look))
        self.ended[b].sort(key=lambda hypothesis: -hypothesis.score)
        del self.ended[b][self.beams :]

    def _cannot_improve(self, b: int) -> bool:
        """Whether enough have ended, and no open one would be better even if all its further tokens cost nothing."""
        if len(self.ended[b]) < self.beams:
            return False
        return self.totals[b, 0].item() / self.largest_penalty <= self.ended[b][-1].score

    def best(self) -> list[list[Hypothesis]]:
        """Of each source those that have ended, best first."""
        return self.ended


def _allowed(logits: Tensor, forbidden: tuple[int, ...]) -> Tensor:
    """The logits, with those of what must not be written at minus infinity."""
    logits = logits.clone()
    logits[:, list(forbidden)] = -torch.inf
    return logits
