"""How good translations are: BLEU and chrF by sacrebleu, with bootstrap intervals; perplexity of the references."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from gatewise.training.bootstrap import DRAWS, Interval
from gatewise.training.evaluation import perplexity

SHOWN = 20  # translations
LOOKS = 4  # pictures of attention


@dataclass(frozen=True)
class Translated:
    """A translation of one sentence.

    text: what was written; log_probability: ln of its probability; pieces, source_pieces: what each token says;
    attention (pieces, source_pieces): where each token looked.
    """

    text: str
    log_probability: float
    pieces: list[str]
    source_pieces: list[str]
    attention: np.ndarray


@dataclass(frozen=True)
class Look:
    """Where the tokens of a translation looked: weights, rows of what was written, columns of the source."""

    written: list[str]
    source: list[str]
    weights: list[list[float]]


@dataclass(frozen=True)
class Translation:
    """A sentence, its reference, what was written, and how near that comes: sentence chrF, from 0 to 100."""

    place: str
    source: str
    reference: str
    written: str
    chrf: float


@dataclass(frozen=True)
class TranslatorEvaluation:
    """How good a translator is on some sentences.

    metrics: by name, with intervals. bleu: of the corpus, from 0 to 100 (Papineni et al. 2002; sacrebleu, whose
        signature is `signature`); chrf: F-score of characters, from 0 to 100 (Popović 2015); loss_nats, perplexity:
        per token of the references.
    baseline: the same scores of the sentences themselves, untranslated.
    worst, middle: translations by their sentence chrF. looks: of some of the middle ones.
    """

    examples: int
    metrics: dict[str, Interval]
    baseline: dict[str, float]
    signature: str
    worst: list[Translation]
    middle: list[Translation]
    looks: list[Look]

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def evaluate_translations(
    translated: Sequence[Translated],
    references: Sequence[str],
    sources: Sequence[str],
    places: Sequence[str],
    loss: float,
) -> TranslatorEvaluation:
    """The evaluation of translations, one for each of N sentences. loss: mean per token of the references, in nats."""
    written = [each.text for each in translated]
    bleu, chrf = _Bleu(), _Chrf()
    metrics: dict[str, Interval] = {}
    for name, metric in (("bleu", bleu), ("chrf", chrf)):
        score: Any = metric.corpus_score(written, [references], n_bootstrap=DRAWS if len(written) > 1 else 1)
        around = (score._mean, score._ci) if len(written) > 1 else (score.score, 0.0)
        # sacrebleu gives the interval as its middle and half its width, so that few sentences would leave the scale.
        low, high = max(0.0, around[0] - around[1]), min(100.0, around[0] + around[1])
        metrics[name] = Interval(float(score.score), float(low), float(high))
    metrics["loss_nats"] = Interval(loss, loss, loss)
    metrics["perplexity"] = Interval(perplexity(loss), perplexity(loss), perplexity(loss))
    near = np.array([chrf.sentence_score(said, [true]).score for said, true in zip(written, references, strict=True)])
    order = np.argsort(near, kind="stable")

    def shown(rows: np.ndarray) -> list[Translation]:
        return [Translation(places[r], sources[r], references[r], written[r], float(near[r])) for r in map(int, rows)]

    middle = len(order) // 2
    return TranslatorEvaluation(
        len(written),
        metrics,
        {
            "bleu": BLEU().corpus_score(sources, [references]).score,
            "chrf": CHRF().corpus_score(sources, [references]).score,
        },
        str(bleu.get_signature()),
        shown(order[:SHOWN]),
        shown(order[middle : middle + SHOWN // 2]),
        [_look(translated[row]) for row in order[middle : middle + LOOKS].tolist() if translated[row].pieces],
    )


class _Bleu(BLEU):
    """BLEU whose bootstrap knows one kind of number: float32 from counts does not mix with the 0.0 of a draw that has
    no match."""

    def _compute_score_from_stats(self, stats: Any) -> Any:
        return super()._compute_score_from_stats(_floats(stats))


class _Chrf(CHRF):
    """chrF, likewise."""

    def _compute_score_from_stats(self, stats: Any) -> Any:
        return super()._compute_score_from_stats(_floats(stats))


def _floats(counts: Any) -> Any:
    return [float(count) for count in counts]


def _look(translated: Translated) -> Look:
    weights = [[round(float(weight), 4) for weight in row] for row in translated.attention]
    return Look(translated.pieces, translated.source_pieces, weights)
