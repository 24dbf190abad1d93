"""Spans and their scores against seqeval, and by hand."""

import random

import pytest

from gatewise.training.spans import SpanScores, score_spans, spans, summed

LABELS = ["O", "B-x", "I-x", "B-y", "I-y"]


def test_spans():
    assert spans(["B-x", "I-x", "O", "B-x", "B-x", "I-y"]) == [("x", 0, 2), ("x", 3, 4), ("x", 4, 5), ("y", 5, 6)]
    assert spans(["I-x", "I-x", "O"]) == [("x", 0, 2)]
    assert spans(["O"]) == []
    assert spans(["B-a-b", "I-a-b"]) == [("a-b", 0, 2)]


def test_against_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    draw = random.Random(0)
    true = [[draw.choice(LABELS) for _ in range(draw.randint(1, 12))] for _ in range(200)]
    predicted = [[label if draw.random() < 0.7 else draw.choice(LABELS) for label in row] for row in true]
    scores = summed(score_spans(*pair) for pair in zip(true, predicted, strict=True))
    assert scores[""].f1 == pytest.approx(seqeval.f1_score(true, predicted))
    assert scores[""].precision == pytest.approx(seqeval.precision_score(true, predicted))
    assert scores[""].recall == pytest.approx(seqeval.recall_score(true, predicted))
    report = seqeval.classification_report(true, predicted, output_dict=True)
    for type_ in "xy":
        assert scores[type_].f1 == pytest.approx(report[type_]["f1-score"])
        assert scores[type_].support == report[type_]["support"]


def test_nothing_there():
    assert summed([score_spans(["O"], ["O"])])[""] == SpanScores(0, 0, 0)
    assert SpanScores(0, 0, 0).f1 == SpanScores(2, 0, 0).precision == SpanScores(0, 2, 0).recall == 0
