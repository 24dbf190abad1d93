"""Forecaster: from tables and arrays to forecasts, split by time, beside the naive forecasts; what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gatewise as gw
from gatewise.config import ForecasterData, ForecasterTraining
from gatewise.data.series_arrays import series_of
from gatewise.errors import ConfigError, DataError, InputError, RunError
from gatewise.models.distributions import HEADS
from gatewise.models.forecaster import NETWORKS
from gatewise.run_folder import RunFolder

DAYS = 120
QUICK = {"batch_size": 16, "max_steps": 3, "threads": 1}


def _values(days: int = DAYS, seed: int = 0, noise: float = 0.3) -> np.ndarray:
    """A week, a trend, noise."""
    t = np.arange(days)
    return 50 + 0.1 * t + 5 * np.sin(2 * np.pi * t / 7) + noise * np.random.default_rng(seed).standard_normal(days)


def _rows(days: int = DAYS, first: str = "2024-01-01", seed: int = 0) -> list[str]:
    dates = np.datetime64(first) + np.arange(days)
    return [f"{date},{value:.3f}" for date, value in zip(dates, _values(days, seed), strict=True)]


def _write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([*rows, ""]))
    return path


def _forecaster(data: dict | None = None, training: dict | None = None, **model) -> gw.Forecaster:
    model = {"horizon": 7, "hidden_size": 8, **model}
    return gw.Forecaster(
        **model, data=ForecasterData(**(data or {})), training=ForecasterTraining(**{**QUICK, **(training or {})})
    )


@pytest.fixture(scope="module")
def sales(tmp_path_factory) -> Path:
    return _write(tmp_path_factory.mktemp("series") / "sales.csv", "day,sales", *_rows())


@pytest.fixture(scope="module")
def run(sales) -> Path:
    """The folder of a small run. No test may change it."""
    _forecaster({"test": 14.0}).fit(sales, sales.parent / "run")
    return sales.parent / "run"


def test_what_is_decided_by_the_series(sales, recorder):
    messages = recorder()
    model = gw.Forecaster(training=ForecasterTraining(max_steps=1, threads=1)).fit(sales, observer=messages)
    assert model.choices == [
        "horizon 7: one season, at a step every 1 day",
        "validation 0.1: a tenth of each series",
        "season 7: copying the value of so many steps before errs 8% of what copying the last one errs",
        "context 21: three seasons",
        "likelihood student-t: the targets are measurements, and outliers may come",
        "calendar on: the time of the week",
        "hidden size 32: 81 windows to learn from",
        "dropout 0.1: 81 windows to learn from",
        "batch size 16: 81 windows",
        "epochs 100: 6 batches in each, 600 steps in all",
        "validate every 42: 7 epochs of 6 steps",
        "patience 5: a quarter of 15 validations, 5 at least",
    ]
    assert messages.messages[-12:] == model.choices
    assert messages.messages[:2] == [
        f'{sales}: took the times from column "day"',
        f"{sales}: forecasting sales, of the columns day, sales",
    ]
    assert model.config.model.season == 7


def test_it_learns_a_week_and_a_trend(sales):
    model = _forecaster({"test": 14.0}, {"max_steps": 300, "learning_rate": 0.01}, hidden_size=16).fit(sales)
    found = model.evaluations["test"]
    assert found.beats_naive
    assert found.metrics["mase"].value < 1.5
    assert model.result.evaluation is found
    assert model.score(sales) == found.metrics["skill"].value


@pytest.mark.parametrize("mode", NETWORKS)
@pytest.mark.parametrize("likelihood", HEADS)
def test_forecasts(mode, likelihood):
    counts = np.random.default_rng(0).poisson(_values() / 10)
    values = np.stack([counts, counts[::-1]], 1)
    model = _forecaster(mode=mode, likelihood=likelihood, cell="lstm", num_layers=2).fit(
        {"a": values, "b": values[:90]}
    )
    table = model.predict({"b": values[:60], "c": values}, level=0.5, quantiles=(0.1, 0.9), draws=50)
    assert table.columns == ["id", "time", "target", "point", "mean", "lower", "upper", "q0.1", "q0.9"]
    assert table["id"].to_list() == ["b"] * 14 + ["c"] * 14
    assert table["time"].to_list() == [60 + n // 2 for n in range(14)] + [DAYS + n // 2 for n in range(14)]
    assert table["target"].to_list() == ["y1", "y2"] * 14
    assert (table["q0.1"] <= table["lower"]).all()
    assert (table["lower"] <= table["point"]).all()
    assert (table["point"] <= table["upper"]).all()
    paths = model.predict_paths({"c": values}, draws=50)
    assert paths["c"].shape == (50, 7, 2)
    assert (paths["c"] == model.predict_paths({"c": values}, draws=50)["c"]).all()
    if likelihood == "negative-binomial":
        np.testing.assert_allclose(paths["c"], np.round(paths["c"]), atol=1e-3)
        assert (paths["c"] >= 0).all()


def test_the_horizon_of_a_forecast(sales):
    direct, recurrent = (_forecaster(mode=mode).fit(sales) for mode in ("direct", "recurrent"))
    assert len(direct.predict(sales, horizon=2)) == 2
    assert len(recurrent.predict(sales, horizon=30)) == 30
    with pytest.raises(ConfigError) as caught:
        direct.predict(sales, horizon=8)
    assert str(caught.value) == (
        "Forecaster.predict: horizon: expected 1 to 7 steps, as it was trained, got 8; train with a larger "
        "model.horizon, or model.mode = recurrent"
    )


def test_forecasts_follow_the_last_values(sales, run, tmp_path):
    """Rows are written as in the file, after its end; other values, other forecasts."""
    model = gw.load(run)
    rows = model.predict_rows(sales)
    assert [row["time"] for row in rows] == [str(np.datetime64("2024-04-30") + n) for n in range(7)]
    assert list(rows[0]) == ["time", "target", "point", "mean", "lower", "upper", "quantiles"]
    assert list(rows[0]["quantiles"]) == ["0.05", "0.25", "0.5", "0.75", "0.95"]
    other = _write(
        tmp_path / "other.csv", "day,sales", *(f"{row.split(',')[0]},{k % 7}" for k, row in enumerate(_rows()))
    )
    assert model.predict_rows(other)[0]["point"] < 20 < rows[0]["point"]


def test_known_and_static_columns(tmp_path):
    """What is known of the time to come changes the forecast; without it there is none."""
    draw = np.random.default_rng(0)
    rows = ["day,shop,sales,promotion,size,town"]
    for shop, town in ((1, "Ulm"), (2, "Jena")):
        for t in range(80):
            promotion = int(draw.integers(2))
            sales = f"{10 + 20 * promotion + draw.normal():.2f}" if t < 75 else ""
            rows.append(
                f"{np.datetime64('2024-01-01') + t},{shop},{sales},{promotion if t < 75 else 1},{shop * 10},{town}"
            )
    path = _write(tmp_path / "shops.csv", *rows)
    columns = {"id_column": "shop", "known_columns": "promotion", "static_columns": "size, town"}
    training = {"max_steps": 150, "learning_rate": 0.02}
    model = _forecaster(columns, training, horizon=5, season=None, context=10, hidden_size=16).fit(
        path, tmp_path / "run"
    )
    assert model.encoding.sizes == (1, 1 + 5, 1 + 2)
    with_promotion = model.predict(path)["point"].to_numpy()
    without = _write(tmp_path / "without.csv", *(row.replace(",,1,", ",,0,") for row in rows))
    model = gw.load(tmp_path / "run")
    assert (with_promotion > model.predict(without)["point"].to_numpy() + 10).all()
    shorter = _write(tmp_path / "shorter.csv", *(row for row in rows if ",,1," not in row))
    with pytest.raises(DataError) as caught:
        model.predict(shorter)
    assert str(caught.value) == (
        f"{shorter}, shop 1: promotion known for 0 steps to come, and a forecast of 5 needs as many; add rows with "
        "empty targets at the end"
    )


def test_the_scale_is_that_of_the_training_part(sales):
    model = _forecaster({"validation": 14.0, "test": 14.0}).fit(sales)
    values = np.array([float(row.split(",")[1]) for row in _rows()])
    assert model.encoding.scaler.mean[0] == pytest.approx(values[: DAYS - 28].mean())
    assert model.encoding.scaler.scale[0] == pytest.approx(values[: DAYS - 28].std())


def test_parts_by_time(sales, run):
    about = json.loads(RunFolder(run).data.read_text())
    assert about["split"]["steps"] == {"training": 94, "validation": 12, "test": 14}
    assert about["split"]["rules"] == [
        "validation: 12 steps of each series after those of training",
        "test: 14 steps of each series after those of validation",
    ]
    evaluation = json.loads(RunFolder(run).evaluation.read_text())
    assert list(evaluation) == ["validation", "test"]
    assert evaluation["test"]["windows"] == 8
    fixed = _forecaster({"training_steps": 60, "validation": 10.0, "test": 20.0}).fit(sales)
    assert fixed.evaluations["test"].pictures[0].times[-1] < "2024-03-31"


def test_without_anything_held_out_it_is_judged_on_the_training_part(sales):
    model = _forecaster({"validation": 0.0}).fit(sales)
    assert list(model.evaluations) == ["train"]
    assert model.result.split == "train"


def test_only_what_comes_after_the_training_is_judged(run, tmp_path):
    model = gw.load(run)
    whole = _write(tmp_path / "whole.csv", "day,sales", *_rows())
    longer = _write(tmp_path / "longer.csv", "day,sales", *_rows(DAYS + 6))
    assert model.evaluate(whole).windows == 8  # the test part
    assert model.evaluate(longer).windows == 14
    assert model.evaluate(longer, stride=7).windows == 2
    seen = _write(tmp_path / "seen.csv", "day,sales", *_rows(100))
    found = model.evaluate(seen)
    assert found.windows == 100 - 7 - 21 + 1
    assert found.notes == ["these steps were part of the training, so new ones will be forecast less well"]
    other = _write(tmp_path / "other.csv", "day,sales", *_rows(40, "2025-01-01"))
    assert model.evaluate(other).windows == 40 - 7 - 21 + 1


def test_several_targets():
    """They are forecast apart, unless the past of one tells of another, or it is asked for."""
    walk = np.random.default_rng(0).standard_normal(300).cumsum()
    leading = np.stack([walk[5:], walk[:-5]], 1)
    unlike = np.random.default_rng(1).standard_normal((300, 2)).cumsum(0)
    models = [_forecaster(horizon=5).fit(values) for values in (leading, unlike, unlike[:40])]
    models.append(_forecaster(horizon=5, targets="together").fit(unlike))
    chosen = [[choice for choice in model.choices if choice.startswith("targets")] for model in models]
    assert chosen[0][0].startswith("targets together: with the others' past a linear forecast leaves ")
    assert chosen[1][0].startswith("targets apart: with the others' past a linear forecast leaves ")
    assert chosen[2] == ["targets apart: too few windows to tell what one says of another"]
    assert chosen[3] == []
    assert [model.config.model.targets for model in models] == ["together", "apart", "apart", "together"]
    assert len(models[1].predict(unlike)) == 10


def test_it_says_so_when_it_does_not_beat_the_naive_forecast():
    walk = np.random.default_rng(4).standard_normal(150).cumsum()
    model = _forecaster({"test": 40.0}, {"max_steps": 60, "learning_rate": 0.05}, horizon=5).fit(walk)
    found = model.evaluations["test"]
    assert not found.beats_naive
    assert found.verdict.startswith(
        "The model does NOT beat the better naive forecast, the naive one: its mean error is"
    )


def test_arrays_with_times_and_saved_models(tmp_path):
    times = np.datetime64("2024-01-01T00:00") + np.arange(DAYS) * np.timedelta64(1, "h")
    table = series_of(_values(), times=times)
    model = _forecaster(season=7).fit(table)
    model.save(tmp_path / "saved")
    expected = model.predict(table)
    assert expected["time"].to_numpy()[0] == times[-1] + np.timedelta64(1, "h")
    assert gw.load(tmp_path / "saved").predict(table).equals(expected)
    with pytest.raises(InputError, match=r"^Forecaster: not trained yet; call fit\(\) first, or load a run"):
        _forecaster().predict(table)


def test_a_plan(sales):
    plan = _forecaster().plan(sales)
    assert (plan.steps, plan.examples) == (3, 81)
    assert plan.parameters > 100


def test_resumed_with_other_series(sales, tmp_path, recorder, killed):
    with pytest.raises(killed):
        _forecaster(training={"max_steps": 20, "log_every": 2}).fit(sales, tmp_path / "run", observer=recorder(at=6))
    other = _write(tmp_path / "other.csv", "day,sales", *_rows(seed=1))
    with pytest.raises(DataError) as caught:
        gw.Forecaster(horizon=7, hidden_size=8).fit(other, tmp_path / "run", resume=True)
    assert str(caught.value) == (
        f"{other}: not the series that {tmp_path / 'run'} is trained on; resume it with its own, or with none, for the "
        "run has kept them"
    )
    with pytest.raises(ConfigError, match=r"cannot be resumed with model.horizon = 5: it was started with 7"):
        gw.Forecaster(horizon=5, hidden_size=8).fit(None, tmp_path / "run", resume=True)
    assert gw.Forecaster(horizon=7, hidden_size=8).fit(None, tmp_path / "run", resume=True).result.steps == 20


@pytest.mark.parametrize(
    ("rows", "data", "message"),
    [
        (
            ["day,sales", *_rows(12)],
            {},
            "12 steps are too few for a training of at least the horizon, 14; give a longer series",
        ),
        (["day,sales", *_rows(30)], {"test": 10.0}, "test = 10 is 10 of 30 steps, shorter than the horizon, 14"),
        (["day,sales", *_rows(40)], {"target_columns": "sold"}, 'no column "sold"; its columns are day, sales'),
        (["day,sales", *_rows(9), "2024-01-09,1"], {}, "row 10: the time 2024-01-09 comes twice, first in"),
        (["day,sales", *_rows(9), "2024-01-12,1"], {}, "row 10: 2 times are missing before 2024-01-12, every 1 day"),
        (["day,sales", *_rows(9), "2024-01-10,nan"], {}, 'row 10, column "sales": empty or NaN'),
        (["day,sales", *_rows(9), "2024-01-10,inf"], {}, 'row 10, column "sales": '),
        (["day,sales", *_rows(9), "2024-01-10,many"], {}, 'row 10, column "sales": expected a number, got "many"'),
    ],
)
def test_bad_series(rows, data, message, tmp_path):
    path = _write(tmp_path / "bad.csv", *rows)
    with pytest.raises(DataError) as caught:
        _forecaster(data, horizon=14).fit(path, tmp_path / "run")
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert not (tmp_path / "run").exists()


def test_bad_settings(sales, run, tmp_path):
    cases: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
        ({"season": 7, "context": 5}, {}, "Forecaster: model: context = 5: expected at least one season, 7 steps"),
        ({"context": 5}, {}, "model.context = 5: expected at least one season, 7 steps; or model.season = none"),
        ({}, {"test": 2.5}, "Forecaster: data.test: expected a share below 1 or a whole number of steps, got 2.5"),
        ({"mode": "both"}, {}, 'Forecaster: model.mode: expected one of direct, recurrent, got "both"'),
    )
    for model, data, message in cases:
        with pytest.raises(ConfigError) as caught:
            _forecaster(data, **model).fit(sales)
        assert str(caught.value) == message
    with pytest.raises(DataError) as caught:
        _forecaster(context=102).fit(sales)
    assert str(caught.value) == (
        "every series is shorter than a window of context = 102 and horizon = 7 steps; lower them, or give longer "
        "series"
    )
    short = _write(tmp_path / "short.csv", "day,sales", *_rows(20))
    model = gw.load(run)
    with pytest.raises(DataError) as caught:
        model.predict(short)
    assert str(caught.value) == f"{short}: 20 steps are too few: the model reads 21 steps before its forecast"
    with pytest.raises(DataError) as caught:
        model.evaluate(short)
    assert str(caught.value) == (
        f"{short}: 20 steps are too few: the model reads 21 steps and forecasts 7, so a series needs 28"
    )
    with pytest.raises(RunError, match=r"a run lies here already"):
        _forecaster().fit(sales, run)
