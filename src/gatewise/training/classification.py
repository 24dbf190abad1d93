"""How good a classification is: of one label an example, or of several. N examples, K classes, NumPy arrays.

The formulas are few lines each; the tests hold them against scikit-learn's.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gatewise.training.bootstrap import Interval, intervals

BINS = 10
MOST_WRONG = 20
SMALLEST = 1e-12  # a probability below that costs no more


@dataclass(frozen=True)
class LabelScores:
    """How well one label is found: of those that it was given to, those that have it; and the other way round."""

    label: str
    precision: float
    recall: float
    f1: float
    examples: int
    predicted: int


@dataclass(frozen=True)
class Bin:
    """Predictions of like probability: their mean probability, and the part of them that was right."""

    probability: float
    right: float
    predictions: int


@dataclass(frozen=True)
class Mistake:
    """An example that was classified wrongly; probability: of what was predicted. text: "" where it is no text."""

    place: str
    text: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class ClassifierEvaluation:
    """How good a classifier is on some examples.

    metrics: by name, with intervals. accuracy: part of the examples whose label (all of whose labels) is right;
        macro_f1: the mean of the labels' F1; micro_f1: F1 of all labels together, only of several labels an example;
        loss_nats: mean -ln of the probability of what is true; calibration_error: mean distance of a probability from
        the part of such predictions that is right (Guo et al., "On Calibration of Modern Neural Networks", 2017, ECE).
    baseline: the same metrics, but for the last two, of whoever always says the label most frequent in training.
    confusion (K, K): examples of each label (rows) by what was predicted (columns); None of several labels an example.
    calibration: predictions by their probability. mistakes: those with the highest probability, the worst first.
    """

    examples: int
    metrics: dict[str, Interval]
    baseline: dict[str, float]
    labels: list[LabelScores]
    confusion: list[list[int]] | None
    calibration: list[Bin]
    mistakes: list[Mistake]

    @property
    def accuracy(self) -> float:
        """Part of the examples that are classified rightly."""
        return self.metrics["accuracy"].value

    @property
    def macro_f1(self) -> float:
        """Mean of the labels' F1."""
        return self.metrics["macro_f1"].value

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often each class (row) was taken for each (column): (K, K) int64. truth, predicted (N,) int."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def f1_scores(right: np.ndarray, examples: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """F1 of each class, 0 where it is neither true nor predicted: (K,). All of what is given: (K,) counts."""
    sums = examples + predicted
    return np.divide(2 * right, sums, out=np.zeros(len(sums)), where=sums > 0)


def macro_f1(right: np.ndarray, examples: np.ndarray, predicted: np.ndarray) -> float:
    """The mean F1 over the classes that are true or predicted anywhere."""
    there = examples + predicted > 0
    return float(f1_scores(right, examples, predicted)[there].mean()) if there.any() else 0.0


def reliability(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Predictions in bins of equal width; an empty one is left out. probability (M,) of each, right (M,) bool."""
    where = np.minimum((probability * bins).astype(np.int64), bins - 1)
    found = []
    for number in range(bins):
        inside = where == number
        if inside.any():
            found.append(Bin(float(probability[inside].mean()), float(right[inside].mean()), int(inside.sum())))
    return found


def calibration_error(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error: mean |probability - part that is right| over the predictions, by bins."""
    where = np.minimum((probability * bins).astype(np.int64), bins - 1)
    excess = np.bincount(where, weights=right - probability, minlength=bins)
    return float(np.abs(excess).sum() / len(probability))


def evaluate_labels(
    probabilities: np.ndarray,
    truth: np.ndarray,
    labels: Sequence[str],
    counts: Sequence[int],
    places: Sequence[str],
    texts: Sequence[str] | None,
    *,
    seed: int = 0,
) -> ClassifierEvaluation:
    """The evaluation of one label an example.

    probabilities (N, K); truth (N,) int: the class of each example; labels, counts: of each class its name, and how
    often training has it; places, texts: of each example, for the mistakes; texts None where it is none.
    """
    classes = len(labels)
    predicted: np.ndarray = probabilities.argmax(1)
    right = predicted == truth
    probability = probabilities.max(1)
    cost = -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], SMALLEST))

    def statistics(rows: np.ndarray) -> dict[str, float]:
        matrix = confusion_matrix(truth[rows], predicted[rows], classes)
        return {
            "accuracy": float(right[rows].mean()),
            "macro_f1": macro_f1(matrix.diagonal(), matrix.sum(1), matrix.sum(0)),
            "loss_nats": float(cost[rows].mean()),
            "calibration_error": calibration_error(probability[rows], right[rows]),
        }

    matrix = confusion_matrix(truth, predicted, classes)
    guess = confusion_matrix(truth, np.full_like(truth, int(np.argmax(counts))), classes)
    return ClassifierEvaluation(
        len(truth),
        intervals(statistics, len(truth), seed=seed),
        {
            "accuracy": float(guess.diagonal().sum() / len(truth)),
            "macro_f1": macro_f1(guess.diagonal(), guess.sum(1), guess.sum(0)),
        },
        _by_label(labels, matrix.diagonal(), matrix.sum(1), matrix.sum(0)),
        matrix.tolist(),
        reliability(probability, right),
        _mistakes(
            np.where(right, -1.0, probability),
            lambda row: (labels[int(truth[row])], labels[int(predicted[row])]),
            places,
            texts,
        ),
    )


def evaluate_label_sets(
    probabilities: np.ndarray,
    truth: np.ndarray,
    labels: Sequence[str],
    counts: Sequence[int],
    places: Sequence[str],
    texts: Sequence[str] | None,
    *,
    seed: int = 0,
) -> ClassifierEvaluation:
    """The evaluation of several labels an example; one is predicted where its probability is above a half.

    probabilities (N, K); truth (N, K) bool; the rest as in `evaluate_labels`.
    """
    predicted = probabilities > 0.5
    right = predicted == truth
    of_truth = np.where(truth, probabilities, 1 - probabilities)
    cost = -np.log(np.maximum(of_truth, SMALLEST)).mean(1)
    confidence = np.maximum(probabilities, 1 - probabilities)

    def counted(rows: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return (truth[rows] & guess).sum(0), truth[rows].sum(0), guess.sum(0)

    def scores(rows: np.ndarray, guess: np.ndarray) -> dict[str, float]:
        found, there, given = counted(rows, guess)
        return {
            "accuracy": float((guess == truth[rows]).all(1).mean()),
            "macro_f1": macro_f1(found, there, given),
            "micro_f1": float(2 * found.sum() / max(1, there.sum() + given.sum())),
        }

    def statistics(rows: np.ndarray) -> dict[str, float]:
        return scores(rows, predicted[rows]) | {
            "loss_nats": float(cost[rows].mean()),
            "calibration_error": calibration_error(confidence[rows].ravel(), right[rows].ravel()),
        }

    every = np.arange(len(truth))
    frequent = np.arange(len(labels)) == int(np.argmax(counts))
    guess = np.broadcast_to(frequent, truth.shape)
    wrongness = np.where(right, 0.0, confidence).max(1)

    def names(row: int) -> tuple[str, str]:
        true, given = (", ".join(labels[k] for k in np.flatnonzero(of[row]).tolist()) for of in (truth, predicted))
        return true, given

    return ClassifierEvaluation(
        len(truth),
        intervals(statistics, len(truth), seed=seed),
        scores(every, guess),
        _by_label(labels, *counted(every, predicted)),
        None,
        reliability(confidence.ravel(), right.ravel()),
        _mistakes(np.where(wrongness > 0, wrongness, -1.0), names, places, texts),
    )


def _by_label(labels: Sequence[str], right: np.ndarray, examples: np.ndarray, given: np.ndarray) -> list[LabelScores]:
    f1 = f1_scores(right, examples, given)
    return [
        LabelScores(
            label,
            float(right[k] / given[k]) if given[k] else 0.0,
            float(right[k] / examples[k]) if examples[k] else 0.0,
            float(f1[k]),
            int(examples[k]),
            int(given[k]),
        )
        for k, label in enumerate(labels)
    ]


def _mistakes(
    wrongness: np.ndarray,
    names: Callable[[int], tuple[str, str]],
    places: Sequence[str],
    texts: Sequence[str] | None,
) -> list[Mistake]:
    """The examples of the highest wrongness; -1 is none. names: of an example what is true and what was predicted."""
    found = []
    for row in map(int, np.argsort(-wrongness, kind="stable")[:MOST_WRONG]):
        if wrongness[row] >= 0:
            true, predicted = names(row)
            text = "" if texts is None else texts[row]
            found.append(Mistake(places[row], text, true, predicted, float(wrongness[row])))
    return found
