"""The evaluation of a tagging against scikit-learn and seqeval, and at values that are known."""

import numpy as np
import pytest

from gatewise.data.ragged import Ragged
from gatewise.training.tagging import evaluate_numbers, evaluate_tags

TAGS = ["B-x", "B-y", "I-x", "I-y", "O"]


def _random(seed: int = 0) -> tuple[Ragged, Ragged]:
    random = np.random.default_rng(seed)
    truth = Ragged.of([random.integers(5, size=random.integers(1, 9)) for _ in range(60)])
    noise = random.random(len(truth.values)) < 0.3
    said = np.where(noise, random.integers(5, size=len(truth.values)), truth.values)
    return Ragged(said, truth.offsets), truth


def _evaluate(predicted, truth, **options):
    baseline = Ragged(np.full_like(truth.values, 4), truth.offsets)
    places = [f"row {row}" for row in range(len(truth))]
    texts = [" ".join("w" * length) for length in truth.lengths]
    return evaluate_tags(predicted, truth, baseline, TAGS, 0.5, places, texts, **options)


def test_against_scikit_learn_and_seqeval():
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    predicted, truth = _random()
    found = _evaluate(predicted, truth, of_spans=True)
    flat = truth.values, predicted.values
    assert found.accuracy == pytest.approx(sklearn.accuracy_score(*flat))
    assert found.metrics["macro_f1"].value == pytest.approx(sklearn.f1_score(*flat, average="macro"))
    assert found.confusion == sklearn.confusion_matrix(*flat).tolist()
    names = [[[TAGS[k] for k in row] for row in rows] for rows in (truth, predicted)]
    assert found.metrics["span_f1"].value == pytest.approx(seqeval.f1_score(*names))
    assert found.metrics["span_precision"].value == pytest.approx(seqeval.precision_score(*names))
    assert {label.label for label in found.labels} == {"x", "y"}
    low, high = found.metrics["accuracy"].low, found.metrics["accuracy"].high
    assert low < found.accuracy < high
    assert found.baseline["accuracy"] == pytest.approx((truth.values == 4).mean())


def test_tags_that_training_does_not_have_are_wrong():
    predicted, truth = Ragged.of([[4, 4], [0, 2]]), Ragged.of([[-1, 4], [0, 2]])
    found = _evaluate(predicted, truth, of_spans=True)
    assert found.accuracy == 0.75
    assert found.metrics["span_recall"].value == 0.5
    assert found.metrics["span_precision"].value == 1
    assert found.mistakes[0].wrong == [(0, "B-?", "O")]
    assert len(found.mistakes) == 1


def test_words_that_training_does_not_have():
    predicted, truth = Ragged.of([[4, 4], [0, 2]]), Ragged.of([[4, 1], [0, 2]])
    unknown = Ragged(np.array([False, True, True, False]), truth.offsets)
    assert _evaluate(predicted, truth, unknown_words=unknown).metrics["unknown_accuracy"].value == 0.5


def test_numbers():
    random = np.random.default_rng(0)
    truth = Ragged.of([random.integers(2, size=(length, 3)).astype(np.float32) for length in (4, 1, 6)])
    scores = Ragged(random.standard_normal(truth.values.shape).astype(np.float32), truth.offsets)
    rates = np.array([0.5, 0.2, 0.0])
    found = evaluate_numbers(scores, truth, rates, ["a", "b", "c"], ["p", "q", "r"])
    p = 1 / (1 + np.exp(-scores.values.astype(np.float64)))
    cost = -(truth.values * np.log(p) + (1 - truth.values) * np.log(1 - p)).sum(1).mean()
    assert found.metrics["loss_nats"].value == pytest.approx(cost)
    assert found.accuracy == pytest.approx(((p > 0.5) == (truth.values > 0.5)).mean())
    clipped = np.clip(rates, 1e-6, 1 - 1e-6)
    guess = -(truth.values * np.log(clipped) + (1 - truth.values) * np.log(1 - clipped)).sum(1).mean()
    assert found.baseline["loss_nats"] == pytest.approx(guess)
    assert [label.label for label in found.labels] == ["p", "q", "r"]
