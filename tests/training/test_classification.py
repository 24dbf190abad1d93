"""classification: every formula against scikit-learn's, and what an evaluation says."""

import json
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from gatewise.training.classification import (
    calibration_error,
    confusion_matrix,
    evaluate_label_sets,
    evaluate_labels,
    reliability,
)

metrics: Any = sklearn.metrics  # its annotations refuse what its documentation allows
LABELS = ["a", "b", "c", "d"]


def random_probabilities(examples: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) that are right more often than not, and the truth (N,)."""
    random = np.random.default_rng(seed)
    truth = random.integers(classes - 1, size=examples)  # the last class never occurs
    logits = random.normal(size=(examples, classes))
    logits[np.arange(examples), truth] += 1.5
    odds = np.exp(logits)
    return odds / odds.sum(1, keepdims=True), truth


@pytest.fixture
def places() -> list[str]:
    return [f"file: row {row}" for row in range(1, 301)]


def test_one_label_an_example(places):
    probabilities, truth = random_probabilities(300, 4)
    predicted = probabilities.argmax(1)
    found = evaluate_labels(probabilities, truth, LABELS, [50, 200, 40, 10], places, None)
    expected = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "macro_f1": metrics.f1_score(truth, predicted, average="macro"),
        "loss_nats": metrics.log_loss(truth, probabilities, labels=range(4)),
    }
    for name, value in expected.items():
        assert found.metrics[name].value == pytest.approx(value), name
        assert found.metrics[name].low < value < found.metrics[name].high, name
    assert found.accuracy == expected["accuracy"]
    assert found.macro_f1 == pytest.approx(expected["macro_f1"])
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(truth, predicted, labels=range(4)))
    rows = metrics.precision_recall_fscore_support(truth, predicted, labels=range(4), zero_division=0)
    for scores, precision, recall, f1, examples in zip(found.labels, *rows, strict=True):
        assert (scores.precision, scores.recall) == pytest.approx((precision, recall)), scores.label
        assert (scores.f1, scores.examples) == pytest.approx((f1, examples)), scores.label
    always_b = np.full_like(truth, 1)
    assert found.baseline["accuracy"] == pytest.approx(metrics.accuracy_score(truth, always_b))
    assert found.baseline["macro_f1"] == pytest.approx(metrics.f1_score(truth, always_b, average="macro"))
    assert json.loads(json.dumps(found.to_json()))["labels"][3]["label"] == "d"


def test_several_labels_an_example(places):
    random = np.random.default_rng(1)
    truth = random.random((300, 4)) < [0.6, 0.3, 0.1, 0.0]
    probabilities = np.clip(0.6 * truth + random.random((300, 4)) * 0.5, 0, 1)
    predicted = probabilities > 0.5
    found = evaluate_label_sets(probabilities, truth, LABELS, [180, 90, 30, 0], places, None)
    assert found.metrics["accuracy"].value == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert found.metrics["micro_f1"].value == pytest.approx(metrics.f1_score(truth, predicted, average="micro"))
    there = (truth | predicted).any(0)
    per_label = metrics.f1_score(truth, predicted, average=None, zero_division=0)
    assert found.metrics["macro_f1"].value == pytest.approx(per_label[there].mean())
    assert [scores.f1 for scores in found.labels] == pytest.approx(list(per_label))
    assert found.confusion is None
    always_a = np.tile([True, False, False, False], (300, 1))
    assert found.baseline["accuracy"] == pytest.approx(metrics.accuracy_score(truth, always_a))
    assert found.baseline["micro_f1"] == pytest.approx(metrics.f1_score(truth, always_a, average="micro"))


def test_confusion_matrix_of_classes_that_do_not_occur():
    truth, predicted = np.array([0, 0, 2]), np.array([0, 2, 2])
    assert confusion_matrix(truth, predicted, 4).tolist() == [[1, 0, 1, 0], [0] * 4, [0, 0, 1, 0], [0] * 4]


def test_calibration():
    """Ten predictions with 0.75, of which six are right, and ten with 0.95, of which all are."""
    probability = np.array([0.75] * 10 + [0.95] * 10)
    right = np.array([True] * 6 + [False] * 4 + [True] * 10)
    assert calibration_error(probability, right) == pytest.approx((0.15 + 0.05) / 2)
    bins = reliability(probability, right)
    assert [(bin.probability, bin.right, bin.predictions) for bin in bins] == [
        (pytest.approx(0.75), 0.6, 10),
        (pytest.approx(0.95), 1.0, 10),
    ]


def test_a_probability_of_one_lies_in_the_last_bin():
    assert [bin.predictions for bin in reliability(np.array([1.0, 0.99]), np.array([True, True]))] == [2]


def test_the_mistakes_are_the_surest_wrong_ones(places):
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    found = evaluate_labels(probabilities, np.array([0, 0, 0, 1]), ["no", "yes"], [3, 1], places, list("wxyz"))
    assert [(m.place, m.text, m.label, m.predicted, m.probability) for m in found.mistakes] == [
        ("file: row 2", "x", "no", "yes", 0.8),
        ("file: row 3", "y", "no", "yes", 0.7),
        ("file: row 4", "z", "yes", "no", 0.6),
    ]


def test_the_mistakes_of_several_labels(places):
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.7]])
    truth = np.array([[True, False], [True, True], [False, False]])
    found = evaluate_label_sets(probabilities, truth, ["no", "yes"], [3, 1], places, None)
    assert [(m.place, m.text, m.label, m.predicted, m.probability) for m in found.mistakes] == [
        ("file: row 2", "", "no, yes", "yes", 0.8),
        ("file: row 3", "", "", "no, yes", 0.7),
    ]


def test_a_label_that_is_neither_true_nor_predicted_does_not_count(places):
    found = evaluate_labels(np.array([[0.9, 0.1, 0.0]]), np.array([0]), ["a", "b", "c"], [1, 1, 1], places, None)
    assert found.macro_f1 == 1.0
    assert found.mistakes == []
