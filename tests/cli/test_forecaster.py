"""The commands on a forecaster: train, evaluate, predict, init, run as `main([...])` in this process."""

import csv
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from gatewise.cli.main import main
from gatewise.config import ForecasterJob, validate
from gatewise.run_folder import RunFolder

SMALL = ["--model.horizon=7", "--model.hidden-size=8", "--training.max-steps=4", "--training.threads=1"]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    days = np.datetime64("2024-01-01") + np.arange(90)
    values = 10 + np.sin(2 * np.pi * np.arange(90) / 7) + 0.1 * np.random.default_rng(0).standard_normal(90)
    path = tmp_path_factory.mktemp("data") / "sales.csv"
    rows = [f"{day},{value:.3f}" for day, value in zip(days, values, strict=True)]
    path.write_text("\n".join(["day,sales", *rows, ""]))
    return path


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewise.gates.report.write_report", lambda run: run)


@pytest.fixture(scope="module")
def run(series: Path) -> Path:
    """The folder of a small run. No test may change it."""
    out = series.parent / "run"
    assert main(["train", "forecaster", str(series), "--data.test", "14", "--out", str(out), *SMALL]) == 0
    return out


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_train_says_what_was_decided_and_whether_it_beats_the_naive_forecast(series, tmp_path, capsys):
    lines = lines_of(capsys, "train", "forecaster", series, "--data.test=14", "--out", tmp_path / "run", *SMALL)
    assert lines[0] == f'{series}: took the times from column "day"'
    assert "context 21: three seasons" in lines
    start = lines.index("test, 8 forecasts of 7 steps")
    assert lines[start + 1].split() == ["value", "95%", "interval", "naive", "seasonal", "naive"]
    assert lines[start + 2].startswith("MASE ")
    found = json.loads(RunFolder(tmp_path / "run").evaluation.read_text())["test"]
    assert found["verdict"] in lines
    assert lines[-1].split() == ["predict", "gatewise", "predict", str(tmp_path / "run"), "DATA"]


def test_train_json_and_resume(series, tmp_path, capsys, document):
    out = tmp_path / "run"
    found = document("train", "forecaster", series, "--out", out, *SMALL)
    assert list(found["evaluations"]) == ["validation"]
    assert found["evaluations"] == json.loads(RunFolder(out).evaluation.read_text())
    assert {"choices", "split", "step", "steps", "windows_per_second", "seconds", "run", "report"} <= set(found)
    lines = lines_of(capsys, "train", "forecaster", "--out", out, "--resume", "--training.max-steps=6")
    assert "going on from step 4 of 6" in lines


def test_dry_run(series, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = lines_of(capsys, "train", "forecaster", series, "--dry-run", *SMALL)
    rows = dict(line.split(maxsplit=1) for line in lines)
    assert list(rows) == ["examples", "choices", "parameters", "memory", "steps", "time"]
    assert rows["steps"] == "4"
    assert list(tmp_path.iterdir()) == []


def test_evaluate(run, series, capsys, document):
    found = document("evaluate", run, series)
    assert found["windows"] == 8
    lines = lines_of(capsys, "evaluate", run, series)
    assert lines[-1] == found["verdict"]
    assert f"{found['metrics']['mase']['value']:.3f}" in next(line for line in lines if line.startswith("MASE"))


def test_predict(run, series, tmp_path, capsys):
    lines = lines_of(capsys, "predict", run, series)
    assert lines[0].split("\t") == [
        *("time", "target", "point", "mean", "lower", "upper"),
        *(f"quantiles {part}" for part in ("0.05", "0.25", "0.5", "0.75", "0.95")),
    ]
    assert [line.split("\t")[0] for line in lines[1:]] == [str(np.datetime64("2024-03-31") + n) for n in range(7)]
    first = json.loads(lines_of(capsys, "predict", run, series, "--json")[0])
    assert first["lower"] < first["point"] < first["upper"]
    out = tmp_path / "forecast.csv"
    assert lines_of(capsys, "predict", run, series, "--out", out) == []
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert (len(rows), rows[0]["target"]) == (7, "sales")
    assert float(rows[0]["point"]) == pytest.approx(first["point"], rel=1e-4)


def test_init_documents_every_key(capsys):
    text = "\n".join(lines_of(capsys, "init", "forecaster"))
    assert validate(ForecasterJob, tomllib.loads(text), source="printed") == ForecasterJob()
    for table in ("data", "model", "training"):
        for key in type(getattr(ForecasterJob(), table)).model_fields:
            assert f"{key} = " in text


def test_what_is_refused(series, run, tmp_path, refused):
    out = tmp_path / "new"
    assert refused("train", "forecaster", "--out", out) == (
        "the examples are missing: name their file, as in gatewise train forecaster train.csv"
    )
    assert refused("train", "forecaster", series, "--out", out, "--model.mode", "both") == (
        '--model.mode: expected one of direct, recurrent, got "both"'
    )
    assert refused("train", "forecaster", series, "--out", out, "--data.known-columns", "holiday") == (
        f'{series}: no column "holiday"; its columns are day, sales'
    )
    other = tmp_path / "other.csv"
    other.write_text(series.read_text().replace("sales", "sold"))
    assert refused("predict", run, other) == f'{other}: no column "sales"; its columns are day, sold'
    assert not out.exists()
