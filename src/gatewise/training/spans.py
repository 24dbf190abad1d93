"""Spans in BIO labels, and how many of them were found: the measure of the CoNLL-2000 and CoNLL-2003 tasks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Span = tuple[str, int, int]  # type, first step, step after the last


def spans(labels: Sequence[str]) -> list[Span]:
    """The spans of a sequence of BIO labels.

    As in the CoNLL tasks' own scoring, I-X that follows neither B-X nor I-X begins a span, too.
    """
    found: list[Span] = []
    kind, begin = None, 0
    for step, label in enumerate([*labels, "O"]):
        mark, _, type_ = label.partition("-")
        goes_on = mark == "I" and type_ == kind
        if kind is not None and not goes_on:
            found.append((kind, begin, step))
            kind = None
        if mark in ("B", "I") and not goes_on:
            kind, begin = type_, step
    return found


@dataclass(frozen=True)
class SpanScores:
    """How many of the true spans were found, type and both ends alike, and how many of those found are true.

    support: true spans; predicted: those found; correct: both.
    """

    support: int
    predicted: int
    correct: int

    @property
    def precision(self) -> float:
        """Part of the spans found that are true; 0 if none was found."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Part of the true spans that were found; 0 if there are none."""
        return self.correct / self.support if self.support else 0.0

    @property
    def f1(self) -> float:
        """2 * correct / (support + predicted), the harmonic mean of precision and recall; 0 if there are no spans."""
        both = self.support + self.predicted
        return 2 * self.correct / both if both else 0.0

    def __add__(self, other: "SpanScores") -> "SpanScores":
        return SpanScores(self.support + other.support, self.predicted + other.predicted, self.correct + other.correct)


NO_SPANS = SpanScores(0, 0, 0)


def score_spans(true: Sequence[str], predicted: Sequence[str]) -> dict[str, SpanScores]:
    """The scores of one sequence for each type that stands in it."""
    here, found = set(spans(true)), set(spans(predicted))
    scores = {}
    for type_ in sorted({span[0] for span in here | found}):
        ours, theirs = ({span for span in some if span[0] == type_} for some in (here, found))
        scores[type_] = SpanScores(len(ours), len(theirs), len(ours & theirs))
    return scores


def summed(each: Iterable[dict[str, SpanScores]]) -> dict[str, SpanScores]:
    """The scores of many sequences together for each type, and for all of them as ""."""
    total: dict[str, SpanScores] = {"": NO_SPANS}
    for scores in each:
        for type_, score in scores.items():
            total[type_] = total.get(type_, NO_SPANS) + score
            total[""] += score
    return total
