"""The report on a forecaster, from the run folder of a small training."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.config import ForecasterData, ForecasterTraining
from gatewise.data.series_arrays import series_of
from gatewise.gates.report import write_report
from gatewise.run_folder import RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    t = np.arange(90)
    values = np.stack([np.sin(2 * np.pi * t / 7), 100 + t + np.random.default_rng(0).standard_normal(90)], 1)
    times = np.datetime64("2024-01-01") + t
    series = series_of(values, times=times, target_names=["<b>wave</b>", "rise"], name="made.csv")
    run = tmp_path_factory.mktemp("runs") / "demo"
    training = ForecasterTraining(max_steps=6, batch_size=16, threads=1, log_every=2)
    gw.Forecaster(5, hidden_size=8, data=ForecasterData(test=20.0), training=training).fit(series, run)
    return run


def page(run: Path) -> str:
    return " ".join(write_report(run).read_text("utf-8").split())


def test_it_says_whether_the_model_is_better_than_naive(trained):
    html = page(trained)
    found = json.loads(RunFolder(trained).evaluation.read_text())["test"]
    assert "<h1>Forecaster of made.csv</h1>" in html
    assert f"On the test part: {found['verdict']}" in html
    assert html.count(found["verdict"]) == 2  # in the summary and above the table
    for heading in ("Against the naive forecasts", "Target by target", "Data", "How it learned", "Configuration"):
        assert f">{heading}</h2>" in html
    for title in ("<h3>Validation: 5 forecasts of 5 steps</h3>", "<h3>Test: 16 forecasts of 5 steps</h3>"):
        assert title in html
    assert '<th scope="col">Naive</th><th scope="col">Seasonal naive</th>' in html
    mase = found["metrics"]["mase"]
    assert f'<tr><th scope="row">MASE</th><td>{mase["value"]:.3f}</td>' in html
    assert "There are too few forecasts that do not overlap for an interval." in html  # of the validation


def test_names_are_escaped(trained):
    html = page(trained)
    assert "<b>wave</b>" not in html
    assert "&lt;b&gt;wave&lt;/b&gt;" in html


def test_forecasts_are_drawn_with_their_intervals(trained):
    pytest.importorskip("matplotlib")
    html = page(trained)
    pictures = re.findall(
        r'aria-label="Forecast of ([^"]*) from (\S+) on, with its interval, against what came."', html
    )
    assert len(pictures) == 6
    assert {name for name, _ in pictures} == {"&lt;b&gt;wave&lt;/b&gt;", "rise"}
    assert "0% of the windows are forecast better" in html


def test_the_data(trained):
    html = page(trained)
    for fact in ("2024-01-01T00:00:00 to 2024-03-30T00:00:00", "1 day", "nothing but the calendar"):
        assert fact in html
    assert "context 21: three seasons" in html


def test_a_model_that_is_no_better_is_said_so_in_words(trained, tmp_path):
    run = tmp_path / "worse"
    run.mkdir()
    for file in trained.iterdir():
        if file.is_file():
            (run / file.name).write_bytes(file.read_bytes())
    evaluation = json.loads(RunFolder(run).evaluation.read_text())
    evaluation["test"]["metrics"]["skill"] = {"value": -0.1, "low": -0.2, "high": 0.0}
    evaluation["test"]["verdict"] = "The model does NOT beat the better naive forecast."
    RunFolder(run).evaluation.write_text(json.dumps(evaluation))
    assert '<p class="notice">The model does NOT beat the better naive forecast.</p>' in page(run)


def test_before_anything_is_judged(trained, tmp_path):
    run = tmp_path / "young"
    run.mkdir()
    for name in ("config", "data", "environment", "model"):
        file = getattr(RunFolder(trained), name)
        (run / file.name).write_bytes(file.read_bytes())
    html = page(run)
    assert "No step has been recorded yet." in html
    assert "Against the naive forecasts" not in html
