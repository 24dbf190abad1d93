"""The commands on a classifier: train, evaluate, predict, init, run as `main([...])` in this process."""

import csv
import io
import json
import random
import sys
import tomllib
from pathlib import Path

import pytest

from gatewise.cli.main import main
from gatewise.config import ClassifierJob, validate
from gatewise.run_folder import RunFolder

SMALL = ["--model.hidden-size=8", "--model.embedding-size=4", "--training.epochs=2", "--training.threads=1"]


@pytest.fixture(scope="module")
def train_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "train.csv"
    rows = []
    for _ in range(60):
        label = draw.choice(["food", "sky"])
        words = {"food": ["bread", "soup"], "sky": ["rain", "sun"]}[label]
        rows.append(f"{' '.join(draw.choices([*words, 'the', 'of'], k=5))} {words[0]},{label}")
    path.write_text("\n".join(["text,label", *rows, ""]))
    return path


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewise.gates.report.write_report", lambda run: run)


@pytest.fixture(scope="module")
def run(train_csv: Path) -> Path:
    """The folder of a small run. No test may change it."""
    out = train_csv.parent / "run"
    assert main(["train", "classifier", str(train_csv), "--out", str(out), *SMALL]) == 0
    return out


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out.splitlines()


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 2) -> str:
    assert main([str(argument) for argument in arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removeprefix("gatewise: ").rstrip("\n")


def test_train_shows_choices_validations_and_how_good_it_is(train_csv, tmp_path, capsys):
    lines = lines_of(capsys, "train", "classifier", train_csv, "--out", tmp_path / "run", *SMALL)
    assert lines[0] == (
        f'{train_csv}: took the text from column "text" and the label from column "label", of text, label'
    )
    assert "dropout 0.5: 54 examples of 6 words" in lines
    assert any(line.startswith("step 8  epoch 2  validation: loss ") and ", accuracy " in line for line in lines)
    start = lines.index("validation, 6 examples")
    assert lines[start + 1].split() == ["value", "95%", "interval", "baseline"]
    assert [line.partition("  ")[0].strip() for line in lines[start + 2 : start + 6]] == [
        *("accuracy", "macro F1", "loss", "calibration error")
    ]
    assert lines[-1].split() == ["predict", "gatewise", "predict", str(tmp_path / "run"), "DATA"]


def test_train_json(train_csv, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["train", "classifier", str(train_csv), "--test", str(train_csv), "--out", str(out), "--json", *SMALL]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert list(found["evaluations"]) == ["validation", "test"]
    assert found["evaluations"]["test"]["examples"] == 60
    assert found["evaluations"] == json.loads(RunFolder(out).evaluation.read_text())
    assert {"choices", "split", "step", "steps", "examples_per_second", "seconds", "run", "report"} <= set(found)
    assert "validation: loss" in printed.err


def test_resume_needs_no_examples(train_csv, tmp_path, capsys):
    out = tmp_path / "run"
    lines_of(capsys, "train", "classifier", train_csv, "--out", out, "--training.max-steps=3", *SMALL)
    lines = lines_of(capsys, "train", "classifier", "--out", out, "--resume", "--training.max-steps=6")
    assert "going on from step 3 of 6" in lines
    assert read_steps(out) == 6


def read_steps(out: Path) -> int:
    return RunFolder(out).read_metrics()[-1]["step"]


def test_dry_run(train_csv, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = lines_of(capsys, "train", "classifier", train_csv, "--dry-run", *SMALL)
    rows = dict(line.split(maxsplit=1) for line in lines)
    assert list(rows) == ["examples", "choices", "parameters", "memory", "steps", "time"]
    assert (rows["examples"], rows["steps"]) == ("60", "8")
    found = json.loads("\n".join(lines_of(capsys, "train", "classifier", train_csv, "--dry-run", "--json", *SMALL)))
    assert {"parameters", "examples", "steps", "memory_bytes", "seconds_estimated", "choices"} == set(found)
    assert list(tmp_path.iterdir()) == []


def test_evaluate(run, train_csv, capsys):
    found = json.loads("\n".join(lines_of(capsys, "evaluate", run, train_csv, "--json")))
    assert found["examples"] == 60
    lines = lines_of(capsys, "evaluate", run, train_csv)
    accuracy = next(line for line in lines if line.startswith("accuracy"))
    assert f"{found['metrics']['accuracy']['value']:.1%}" in accuracy
    assert f"{found['baseline']['accuracy']:.1%}" in accuracy


def test_predict_lines_with_tabs(run, train_csv, capsys):
    lines = lines_of(capsys, "predict", run, train_csv)
    assert lines[0].split("\t") == [
        *("place", "text", "label", "probability", "probabilities food", "probabilities sky")
    ]
    first = lines[1].split("\t")
    assert first[0] == f"{train_csv}: row 1"
    assert first[2] in ("food", "sky")
    assert float(first[3]) == max(float(first[4]), float(first[5])) > 0.5
    assert len(lines) == 61


def test_predict_json_from_standard_input(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"rain and sun\n\nsoup, bread\n")))
    first, second = map(json.loads, lines_of(capsys, "predict", run, "-", "--json"))
    assert first["text"] == "rain and sun"
    assert first["label"] == max(first["probabilities"], key=first["probabilities"].get)
    assert sum(second["probabilities"].values()) == pytest.approx(1)


def test_predict_to_a_file(run, train_csv, tmp_path, capsys):
    for suffix in (".csv", ".jsonl", ".tsv"):
        assert lines_of(capsys, "predict", run, train_csv, "--out", tmp_path / f"out{suffix}") == []
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    objects = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == [found["label"] for found in objects]
    assert len(rows) == 60
    assert len((tmp_path / "out.tsv").read_text().splitlines()) == 61
    message = refused(capsys, "predict", run, train_csv, "--out", tmp_path / "out.xls")
    assert message == "--out: expected a name that ends with .jsonl, .csv, .tsv, got out.xls"


def test_init_documents_every_key(capsys):
    assert main(["init", "classifier"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert validate(ClassifierJob, printed, source="printed") == ClassifierJob()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "train classifier --out r",
            "the examples are missing: name their file, as in gatewise train classifier train.csv",
        ),
        ("train classifier x.csv", "--out is missing: name a folder for the run, for example --out runs/first"),
        ("train classifier x.csv --out r", "x.csv: no such file"),
        (
            "train classifier x.csv --out r --model.hidden-size none",
            '--model.hidden-size: expected a whole number >= 1 or auto, got "none"',
        ),
        (
            "train classifier x.csv --out r --model.poolin max",
            "unknown option --model.poolin; did you mean --model.pooling?",
        ),
    ],
)
def test_wrong_arguments(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, *arguments.split()) == message
    assert list(tmp_path.iterdir()) == []


def test_what_the_data_lack(run, tmp_path, capsys):
    bad = tmp_path / "bad.csv"
    bad.write_text("text,kind,note\nrain today,sky,x\n")
    message = refused(capsys, "train", "classifier", bad, "--out", tmp_path / "run", "--data.label-column", "labl")
    assert message == f'{bad}: no column "labl"; its columns are text, kind, note'
    bad.write_bytes(b"text,label\ncaf\xe9,sky\n")
    assert refused(capsys, "predict", run, bad).startswith(f"{bad}: not UTF-8: byte 0xe9 in line 2; ")
    assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_predict_says_so(tmp_path, capsys):
    from gatewise.models.sequential import build
    from gatewise.training.network import Network

    layers = [{"kind": "gru", "input_size": 2, "hidden_size": 3}]
    Network(build(layers)).save(tmp_path / "run")
    message = refused(capsys, "evaluate", tmp_path / "run", "x.csv")
    expected = "gatewise evaluate has nothing for a Network; gatewise.load(run).predict(...) computes its outputs"
    assert message == f"{tmp_path / 'run'}: {expected}"
