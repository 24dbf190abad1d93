"""The report on a classifier, from a run folder as its training leaves it."""

import json
from pathlib import Path

import pytest

from gatewise.gates.report import write_report


def interval(value: float) -> dict:
    return {"value": value, "low": value - 0.02, "high": min(1.0, value + 0.02)}


def evaluation(accuracy: float, confusion: list[list[int]] | None) -> dict:
    return {
        "examples": 100,
        "metrics": {
            "accuracy": interval(accuracy),
            "macro_f1": interval(accuracy),
            "loss_nats": interval(0.3),
            "calibration_error": interval(0.04),
        },
        "baseline": {"accuracy": 0.6, "macro_f1": 0.25},
        "labels": [
            {"label": label, "precision": 0.9, "recall": 0.8, "f1": 0.847, "examples": 50, "predicted": 45}
            for label in ("<b>food</b>", "sky")
        ],
        "confusion": confusion,
        "calibration": [
            {"probability": 0.61, "right": 0.5, "predictions": 10},
            {"probability": 0.97, "right": 0.95, "predictions": 90},
        ],
        "mistakes": [
            {"place": "x.csv: row 3", "text": "<i>rain</i>", "label": "sky", "predicted": "food", "probability": 0.99}
        ],
    }


@pytest.fixture
def run(tmp_path) -> Path:
    path = tmp_path / "demo"
    path.mkdir()
    (path / "config.toml").write_text(
        'format = 1\ntask = "classifier"\n[model]\nhidden_size = 16\n[training]\nbatch_size = 16\nepochs = 2\n'
    )
    lines = []
    for step, accuracy in ((0, 0.4), (10, 0.9), (20, 0.85)):
        common = {"step": step, "epoch": step // 10, "seconds": step / 10}
        lines.append(
            {**common, "split": "validation", "loss_nats": 1 - accuracy, "accuracy": accuracy, "macro_f1": 0.5}
        )
        if step:
            speed = {"examples_per_second": 2000.0, "learning_rate": 0.001, "gradient_norm": 1.0}
            lines.append({**common, "split": "train", "loss_nats": 0.9 - accuracy, **speed})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "environment.json").write_text(json.dumps({"data": "some/x.csv", "examples": 150}))
    part = {"source": "x.csv", "examples": 150, "lengths": {"unit": "words", "median": 5, "longest": 9}}
    split = {
        "rules": ["validation: 15 of the 165 examples, drawn at random"],
        "warnings": ["3 of 15 validation examples are in training, too"],
        "duplicates": {"training": 7},
        "label_counts": {"training": {"sky": 90, "food": 60}},
    }
    about = {"parts": {"training": part}, "split": split, "notes": [], "choices": ["hidden size 16: 150 examples"]}
    (path / "data.json").write_text(json.dumps(about))
    judged = {"validation": evaluation(0.9, [[45, 5], [3, 47]]), "test": evaluation(0.88, [[44, 6], [2, 48]])}
    (path / "evaluation.json").write_text(json.dumps(judged))
    return path


def page(run: Path) -> str:
    return " ".join(write_report(run).read_text("utf-8").split())


def test_the_page(run):
    html = page(run)
    assert "<h1>Classifier of x.csv</h1>" in html
    assert (
        "A classifier with one bidirectional GRU layer of 16 units, max pooling was trained on 150 examples for 20 "
        "steps (epoch 2) in 2 s. On the 100 examples of test it finds the label of 88.0% (95% interval 86.0% to "
        "90.0%); whoever always says the most frequent label is right in 60.0%."
    ) in html
    for heading in (
        *("How good it is", "What it takes for what", "Label by label", "Where it was most wrong"),
        *("How far to believe its probabilities", "Data", "How it learned", "Configuration", "Speed"),
    ):
        assert f">{heading}</h2>" in html
    assert html.count("<svg") == 10, "accuracy, F1 and loss wide and narrow, gradient norm, rate, speed, calibration"
    assert "3 of 15 validation examples are in training, too" in html
    assert "hidden size 16: 150 examples" in html
    assert "&lt;i&gt;rain&lt;/i&gt; <small>x.csv: row 3</small>" in html
    assert "<i>&lt;b&gt;food&lt;/b&gt;</i> taken for <i>sky</i> (6)" in html
    assert "gatewise predict demo DATA" in html
    assert 'class="best"> <th scope="row">10 (best)</th>' in html


def test_a_model_that_is_no_better_than_the_baseline_is_said_to_be_so(run):
    (run / "evaluation.json").write_text(json.dumps({"test": evaluation(0.61, [[1, 1], [1, 1]])}))
    assert "That is no more than chance: it has not learned to tell the labels apart." in page(run)


def test_a_metric_without_an_interval_shows_none(run):
    judged = evaluation(0.8, None)
    judged["metrics"]["loss_nats"] = {"value": 0.3, "low": 0.3, "high": 0.3}
    (run / "evaluation.json").write_text(json.dumps({"test": judged}))
    assert "<td>0.300 nats</td> <td>–</td>" in page(run)
    assert "<td>78.0% to 82.0%</td>" in page(run)


def test_several_labels_have_no_confusion_matrix(run):
    (run / "evaluation.json").write_text(json.dumps({"test": evaluation(0.8, None)}))
    html = page(run)
    assert "it finds all labels of 80.0%" in html
    assert "What it takes for what" not in html


def test_a_training_that_was_stopped(run):
    (run / "evaluation.json").unlink()
    html = page(run)
    assert "Its best accuracy on validation so far is 90.0%." in html
    assert "How good it is" not in html
    for name in ("metrics.jsonl", "data.json"):
        (run / name).unlink()
    assert "No step has been recorded yet." in page(run)


def test_many_labels_show_those_that_are_confused(run):
    names = [f"label {k}" for k in range(40)]
    matrix = [[10 if j == k else 0 for j in range(40)] for k in range(40)]
    matrix[37][3] = 9
    judged = evaluation(0.9, matrix)
    judged["labels"] = [{**judged["labels"][0], "label": name} for name in names]
    (run / "evaluation.json").write_text(json.dumps({"test": judged}))
    html = page(run)
    assert "of 40 labels the 20 that are confused most" in html
    assert "<i>label 37</i> taken for <i>label 3</i> (9)" in html
