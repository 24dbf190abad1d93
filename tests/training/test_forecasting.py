"""A backtest against scores computed by hand, with a network that says what it is told to."""

from typing import Any

import numpy as np
import pytest
import torch

from gatewise.data.series_arrays import series_of
from gatewise.data.series_encoding import SeriesEncoding
from gatewise.data.series_splits import forecast_origins
from gatewise.training.bootstrap import Interval
from gatewise.training.forecasting import ForecastEvaluation, Rolling, verdict

RANDOM = np.random.default_rng(0)
CONTEXT, HORIZON, SEASON, START = 6, 3, 3, 20
VALUES = RANDOM.standard_normal((40, 2)) * [1, 100] + [0, 500]


class Said(torch.nn.Module):
    """Says the last value plus `shift`, scaled, and anything from `spread` below to `spread` above it alike."""

    def __init__(self, shift: float, spread: float = 0.3) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.shift, self.spread = shift, spread

    def quantiles(self, window, levels, draws):
        said = self.spread * (2 * levels - 1).view(-1, 1, 1, 1)
        return window.history[-1:].expand(window.horizon, -1, -1) + self.shift + said


def _evaluate(network: Any, values: np.ndarray = VALUES, **others) -> ForecastEvaluation:
    table = series_of(values)
    encoding = SeriesEncoding.fit(table, [START])
    origins = forecast_origins(np.array([START]), np.array([len(values)]), context=CONTEXT, horizon=HORIZON)
    settings = {"season": SEASON, "naive_errors": np.array([[2.0, 50.0]]), **others}
    return Rolling(network, encoding, encoding.encode(table), origins, CONTEXT, HORIZON, **settings).evaluate(
        ["a note"]
    )


def test_every_score_by_hand():
    found = _evaluate(Said(0.5))
    scale = VALUES[:START].std(0)
    origins = range(START, len(VALUES) - HORIZON + 1)
    assert found.windows == len(origins) == 18
    actual = np.array([VALUES[t : t + HORIZON] for t in origins])
    naive = np.array([VALUES[t - 1 : t].repeat(HORIZON, 0) for t in origins])
    seasonal = np.array([VALUES[t - SEASON : t - SEASON + HORIZON] for t in origins])
    said = naive + 0.5 * scale
    for forecast, metrics in (
        (said, {name: each.value for name, each in found.metrics.items()}),
        (naive, found.baselines["naive"]),
        (seasonal, found.baselines["seasonal naive"]),
    ):
        error = np.abs(actual - forecast)
        assert metrics["mae"] == pytest.approx((error / scale).mean(), rel=1e-4)
        assert metrics["mse"] == pytest.approx(((error / scale) ** 2).mean(), rel=1e-4)
        assert metrics["mase"] == pytest.approx((error / [2, 50]).mean(), rel=1e-4)
        expected = (200 * error / (np.abs(actual) + np.abs(forecast))).mean()
        assert metrics["smape"] == pytest.approx(expected, rel=1e-4)
    inside = np.abs(actual - said) <= 0.8 * 0.3 * scale
    assert found.metrics["coverage"].value == pytest.approx(inside.mean())
    away = np.abs(actual - said) / scale  # of a uniform distribution of half width s: its CRPS, within and beyond
    uniform = np.where(away < 0.3, away**2 / 0.6 + 0.05, away - 0.1)
    assert found.metrics["crps"].value == pytest.approx(uniform.mean(), rel=1e-3)
    assert found.baselines["naive"]["crps"] == found.baselines["naive"]["mae"]
    better = min(found.baselines, key=lambda name: found.baselines[name]["mae"])
    assert found.better_baseline == better
    assert found.metrics["skill"].value == pytest.approx(
        1 - found.metrics["mae"].value / found.baselines[better]["mae"]
    )
    for k, target in enumerate(found.targets):
        error = np.abs(actual - said)[..., k]
        assert target.mae == pytest.approx(error.mean(), rel=1e-4)
        assert target.rmse == pytest.approx((error**2).mean() ** 0.5, rel=1e-4)
        assert target.naive_mae == pytest.approx(np.abs(actual - naive)[..., k].mean())
        assert target.seasonal_naive_mae == pytest.approx(np.abs(actual - seasonal)[..., k].mean())
    assert found.by_step["model"] == pytest.approx((np.abs(actual - said) / scale).mean((0, 2)).tolist(), rel=1e-4)
    assert (found.size, found.notes) == ("18 forecasts of 3 steps", ["a note"])


def test_intervals_are_over_stretches_that_do_not_overlap():
    found = _evaluate(Said(0.0))
    assert all(each.low <= each.value <= each.high for each in found.metrics.values())
    assert found.metrics["mae"].low < found.metrics["mae"].high
    few = _evaluate(Said(0.0), VALUES[:31])
    assert few.windows == 9  # in 4 stretches of 3 steps
    assert all(each.low == each.value == each.high for each in few.metrics.values())


def test_pictures_go_from_the_best_window_to_the_worst():
    found = _evaluate(Said(0.0))
    ranks = [picture.rank for picture in found.pictures]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0
    assert {picture.target for picture in found.pictures} == {"y1", "y2"}
    for picture in found.pictures:
        assert len(picture.times) == len(picture.history) + HORIZON
        first = int(picture.times[len(picture.history)])
        k = ["y1", "y2"].index(picture.target)
        assert picture.actual == VALUES[first : first + HORIZON, k].tolist()
        assert picture.history[-1] == VALUES[first - 1, k]
        assert picture.lower[0] < picture.point[0] < picture.upper[0]


def test_a_series_that_repeats_itself_has_no_mase():
    found = _evaluate(Said(0.1), naive_errors=np.array([[np.nan, np.nan]]))
    assert "mase" not in found.metrics
    assert "mase" not in found.baselines["naive"]
    assert found.targets[0].mase is None
    assert found.verdict.startswith("The model does NOT beat the better naive forecast")


def test_without_a_season():
    found = _evaluate(Said(0.1), season=None)
    assert list(found.baselines) == ["naive"]
    assert found.targets[0].seasonal_naive_mae is None


@pytest.mark.parametrize(
    ("skill", "sentence"),
    [
        (
            Interval(0.25, 0.1, 0.4),
            "The model beats the better naive forecast, the seasonal naive one: its mean error is 25% smaller, "
            "MASE 0.750 against 1.000.",
        ),
        (
            Interval(0.05, -0.1, 0.2),
            "The model is better than the seasonal naive forecast by no more than chance: its mean error is 5% "
            "smaller, MASE 0.750 against 1.000, but between -10% and 20% on other windows of the kind.",
        ),
        (
            Interval(-0.001, -0.001, 0.0),
            "The model does NOT beat the better naive forecast, the seasonal naive one: its mean error is the same, "
            "MASE 0.750 against 1.000. Do without it, or train it on more.",
        ),
        (
            Interval(-0.1, -0.2, 0.1),
            "The model does NOT beat the better naive forecast, the seasonal naive one: its mean error is 10% larger, "
            "MASE 0.750 against 1.000. Do without it, or train it on more.",
        ),
    ],
)
def test_verdicts(skill, sentence):
    metrics = {"skill": skill, "mase": Interval(0.75, 0.7, 0.8)}
    assert verdict(metrics, {"mase": 1.0, "mae": 1.0}, "seasonal naive") == sentence
