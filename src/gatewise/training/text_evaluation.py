"""How good a language model is on the text that was kept for validation: how sure that is, and what surprised it."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from gatewise.data.batches import EvaluationWindows
from gatewise.data.tokenizers import Tokenizer
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.training.bootstrap import Interval, intervals
from gatewise.training.evaluation import text_metrics, token_losses
from gatewise.training.token_pairs import TokenPairs

BLOCK = 200  # tokens that are drawn together, for neighbours are alike
MOST_BLOCKS = 10_000
PASSAGE = 40  # tokens
PASSAGES = 8


@dataclass(frozen=True)
class Passage:
    """A part of the text that the model predicted badly.

    before: the text that it had just read. tokens: what came, and nats: what each of them cost.
    """

    before: str
    tokens: list[str]
    nats: list[float]


@dataclass(frozen=True)
class TextEvaluation:
    """How good a language model is on so many tokens of a text.

    metrics: loss_nats, perplexity and bits_per_char, with intervals over blocks of the text (Künsch, "The jackknife and
        the bootstrap for general stationary observations", 1989).
    baseline: the same for whoever knows of each token only the one before it, see `TokenPairs`.
    surprises: the passages that cost most, from the costliest on.
    """

    examples: int
    metrics: dict[str, Interval]
    baseline: dict[str, float]
    surprises: list[Passage]

    @property
    def size(self) -> str:
        """How much was predicted, in words."""
        return f"{self.examples:,} tokens"

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def evaluate_text(
    network: LanguageModelNetwork,
    windows: EvaluationWindows,
    pairs: TokenPairs,
    tokenizer: Tokenizer,
    characters_per_token: float,
) -> TextEvaluation:
    """The evaluation of the network on the windows of a text."""
    lanes = torch.cat(list(token_losses(network, windows))).t().cpu().numpy()
    costs = lanes.ravel().astype(np.float64)
    block = max(BLOCK, -(-len(costs) // MOST_BLOCKS))
    starts = np.arange(0, len(costs), block)
    sums, sizes = np.add.reduceat(costs, starts), np.diff(starts, append=len(costs))

    def statistics(blocks: np.ndarray) -> dict[str, float]:
        return text_metrics(sums[blocks].sum() / sizes[blocks].sum(), characters_per_token)

    return TextEvaluation(
        len(costs),
        intervals(statistics, len(starts)),
        text_metrics(_mean_of_pairs(pairs, windows), characters_per_token),
        _surprises(lanes, windows, tokenizer),
    )


def _mean_of_pairs(pairs: TokenPairs, windows: EvaluationWindows) -> float:
    lanes = (windows.lane(row).numpy() for row in range(windows.batch_size))
    return math.fsum(float(pairs.losses(lane[:-1], lane[1:]).sum()) for lane in lanes) / windows.targets


def _surprises(costs: np.ndarray, windows: EvaluationWindows, tokenizer: Tokenizer) -> list[Passage]:
    """The costliest of the passages that lie end to end in each lane, but the first, which is read unprepared.

    costs (B, T): of each lane's targets.
    """
    rows, steps = costs.shape
    starts = np.arange(PASSAGE, steps - PASSAGE + 1, PASSAGE)
    if not len(starts):
        return []
    means = costs[:, PASSAGE : PASSAGE + PASSAGE * len(starts)].reshape(rows, len(starts), PASSAGE).mean(2)
    found = []
    for place in np.argsort(-means, axis=None, kind="stable")[:PASSAGES]:
        row, start = place // len(starts), starts[place % len(starts)]
        read = windows.lane(int(row))[: start + 1 + PASSAGE][-2 * PASSAGE :].tolist()
        stream = tokenizer.decode_stream()
        before = "".join(map(stream.push, read[:PASSAGE]))
        tokens = [stream.push(token) for token in read[PASSAGE:]]
        tokens[-1] += stream.finish()
        found.append(Passage(before, tokens, [round(float(cost), 2) for cost in costs[row, start : start + PASSAGE]]))
    return found
