"""How good a tagging is: of one tag a step, of spans, or of numbers. NumPy arrays; N sequences, K classes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gatewise.data.ragged import Ragged
from gatewise.training.bootstrap import Interval, intervals
from gatewise.training.classification import LabelScores, confusion_matrix, f1_scores, macro_f1
from gatewise.training.spans import SpanScores, score_spans, summed

MOST_WRONG = 20
SMALLEST = 1e-6  # a probability of the baseline is at least that
MOST_CLASSES = 40  # of a confusion that a person can read


@dataclass(frozen=True)
class WrongSequence:
    """A sequence that was tagged wrongly; wrong: its steps, with what is true and what was said."""

    place: str
    words: list[str]
    wrong: list[tuple[int, str, str]]


@dataclass(frozen=True)
class TaggerEvaluation:
    """How good a tagger is on some examples, which are sequences of so many steps in all.

    metrics: by name, with intervals over the sequences. accuracy: part of the steps whose tag (or, of numbers, each of
        whose yes or no) is right; unknown_accuracy: that of words that training does not have, where there are any;
        span_f1, span_precision, span_recall: of BIO spans; macro_f1: mean of the tags' F1; loss_nats: per step, of
        numbers summed over them.
    baseline: the same for whoever says of each word the tag that it has most often in training, and of others the most
        frequent one; of numbers, for whoever says how often each is yes in training.
    labels: of each tag, or of each type of span. confusion (K, K): true tags (rows) by what was said (columns); None
        where there are too many tags, or numbers.
    """

    examples: int
    steps: int
    metrics: dict[str, Interval]
    baseline: dict[str, float]
    labels: list[LabelScores]
    confusion: list[list[int]] | None
    confusion_labels: list[str]
    mistakes: list[WrongSequence]

    @property
    def accuracy(self) -> float:
        """Part of the steps that are right."""
        return self.metrics["accuracy"].value

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def evaluate_tags(
    predicted: Ragged,
    truth: Ragged,
    baseline: Ragged,
    tags: Sequence[str],
    losses: float,
    places: Sequence[str],
    texts: Sequence[str] | None,
    *,
    unknown_words: Ragged | None = None,
    of_spans: bool = False,
    seed: int = 0,
) -> TaggerEvaluation:
    """The evaluation of one tag a step.

    predicted, truth, baseline: classes (T_i,) int64 of each sequence; -1 in truth is a tag that training does not
    have. tags: of each class its name. losses: the mean loss. places, texts: of each sequence. unknown_words (T_i,)
    bool: words that training does not have. of_spans: whether tags are BIO spans.
    """
    classes = len(tags)
    names = [*tags, "B-?" if of_spans else "?"]  # the last one stands for those that training does not have
    lengths = truth.lengths
    by_sequence = {"right": _sums(predicted.values == truth.values, truth)}
    if unknown_words is not None and unknown_words.values.any():
        by_sequence["unknown"] = _sums(unknown_words.values, truth)
        by_sequence["unknown_right"] = _sums((predicted.values == truth.values) & unknown_words.values, truth)
    span_scores, types = _span_counts(predicted, truth, names) if of_spans else (None, {})
    counts = _class_counts(predicted, truth, classes)

    def statistics(rows: np.ndarray) -> dict[str, float]:
        found = {"accuracy": float(by_sequence["right"][rows].sum() / lengths[rows].sum())}
        if span_scores is not None:
            score = SpanScores(*map(int, span_scores[rows].sum(0)))
            found |= {"span_f1": score.f1, "span_precision": score.precision, "span_recall": score.recall}
        found["macro_f1"] = macro_f1(*counts[rows].sum(0))
        if "unknown" in by_sequence:
            number = by_sequence["unknown"][rows].sum()
            found["unknown_accuracy"] = float(by_sequence["unknown_right"][rows].sum() / max(1, number))
        return found

    metrics = intervals(statistics, len(truth), seed=seed)
    metrics["loss_nats"] = Interval(losses, losses, losses)
    guess = {"accuracy": float((baseline.values == truth.values).mean())}
    if of_spans:
        guess["span_f1"] = SpanScores(*map(int, _span_counts(baseline, truth, names)[0].sum(0))).f1
    guess["macro_f1"] = macro_f1(*_class_counts(baseline, truth, classes).sum(0))
    known = truth.values >= 0
    readable = classes <= MOST_CLASSES
    return TaggerEvaluation(
        len(truth),
        int(lengths.sum()),
        metrics,
        guess,
        _of_spans(types) if of_spans else _of_tags(tags, counts.sum(0)),
        confusion_matrix(truth.values[known], predicted.values[known], classes).tolist() if readable else None,
        list(tags) if readable else [],
        _wrong(predicted, truth, names, places, texts),
    )


def evaluate_numbers(
    scores: Ragged, truth: Ragged, rates: np.ndarray, places: Sequence[str], names: Sequence[str], *, seed: int = 0
) -> TaggerEvaluation:
    """The evaluation of numbers from 0 to 1, each a yes or no.

    scores: logits (T_i, K) of each sequence; truth (T_i, K); rates (K,): how often each is yes in training; names (K,).
    """
    cost = _sums(_binary_cost(scores.values, truth.values), truth)
    said, yes = scores.values > 0, truth.values > 0.5
    right = _sums((said == yes).mean(1), truth)
    both, there, given = (_sums(each, truth) for each in (said & yes, yes, said))
    lengths = truth.lengths

    def statistics(rows: np.ndarray) -> dict[str, float]:
        steps = lengths[rows].sum()
        sums = both[rows].sum(0), there[rows].sum(0), given[rows].sum(0)
        return {
            "loss_nats": float(cost[rows].sum() / steps),
            "accuracy": float(right[rows].sum() / steps),
            "macro_f1": macro_f1(*sums),
            "micro_f1": float(2 * sums[0].sum() / max(1, sums[1].sum() + sums[2].sum())),
        }

    rates = np.clip(rates, SMALLEST, 1 - SMALLEST)
    logits = np.broadcast_to(np.log(rates / (1 - rates)), truth.values.shape)
    guess = {
        "loss_nats": float(_binary_cost(logits, truth.values).mean()),
        "accuracy": float(((logits > 0) == yes).mean()),
    }
    counts = np.stack([both.sum(0), there.sum(0), given.sum(0)])
    return TaggerEvaluation(
        len(truth),
        int(lengths.sum()),
        intervals(statistics, len(truth), seed=seed),
        guess,
        _of_tags(names, counts),
        None,
        [],
        [],
    )


def _binary_cost(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """-ln of the probability of each step's numbers, summed over them, (steps,)."""
    return (np.logaddexp(0, logits.astype(np.float64)) - truth * logits).sum(1)


def _sums(values: np.ndarray, of: Ragged) -> np.ndarray:
    """The sum of each sequence's steps, (N, ...), float64. Every sequence has a step."""
    return np.add.reduceat(values.astype(np.float64), of.offsets[:-1], axis=0)


def _class_counts(predicted: Ragged, truth: Ragged, classes: int) -> np.ndarray:
    """Of each sequence and class how often it is right, true, and said: (N, 3, K)."""
    row = np.repeat(np.arange(len(truth)), truth.lengths)

    def counted(values: np.ndarray, which: np.ndarray) -> np.ndarray:
        places = row[which] * classes + values[which]
        return np.bincount(places, minlength=len(truth) * classes).reshape(len(truth), classes)

    right = counted(truth.values, predicted.values == truth.values)
    return np.stack([right, counted(truth.values, truth.values >= 0), counted(predicted.values, row >= 0)], 1)


def _span_counts(predicted: Ragged, truth: Ragged, names: list[str]) -> tuple[np.ndarray, dict[str, SpanScores]]:
    """Of each sequence its spans: those that are true, said, and both, (N, 3); and the scores of each type."""
    each = [
        score_spans([names[k] for k in true], [names[k] for k in given])
        for true, given in zip(truth, predicted, strict=True)
    ]
    totals = [summed([scores])[""] for scores in each]
    counts = np.array([(s.support, s.predicted, s.correct) for s in totals])
    types = summed(each)
    del types[""]
    return counts, types


def _of_spans(types: dict[str, SpanScores]) -> list[LabelScores]:
    return [
        LabelScores(kind, score.precision, score.recall, score.f1, score.support, score.predicted)
        for kind, score in sorted(types.items())
    ]


def _of_tags(names: Sequence[str], counts: np.ndarray) -> list[LabelScores]:
    """counts (3, K): right, true, said."""
    right, there, given = counts
    f1 = f1_scores(right, there, given)
    precision = np.divide(right, given, out=np.zeros(len(names)), where=given > 0)
    recall = np.divide(right, there, out=np.zeros(len(names)), where=there > 0)
    return [
        LabelScores(name, float(precision[k]), float(recall[k]), float(f1[k]), int(there[k]), int(given[k]))
        for k, name in enumerate(names)
    ]


def _wrong(
    predicted: Ragged, truth: Ragged, names: list[str], places: Sequence[str], texts: Sequence[str] | None
) -> list[WrongSequence]:
    """The sequences with the most wrong steps."""
    wrong = _sums(predicted.values != truth.values, truth)
    found = []
    for row in map(int, np.argsort(-wrong, kind="stable")[:MOST_WRONG]):
        if wrong[row]:
            pairs = [(names[t], names[p]) for t, p in zip(truth[row], predicted[row], strict=True)]
            steps = [(step, true, said) for step, (true, said) in enumerate(pairs) if true != said]
            found.append(WrongSequence(places[row], [] if texts is None else texts[row].split(" "), steps))
    return found
