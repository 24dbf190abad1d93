"""Scores of forecasts by their formulas, written out, and at values that are known."""

import math

import numpy as np
import pytest

from gatewise.errors import InputError
from gatewise.training.forecast_scores import coverage, crps, interval, mase, score_paths, score_point, smape

RANDOM = np.random.default_rng(0)


def test_mase():
    training = np.array([[1.0], [3.0], [2.0], [6.0]])  # one step: 2, 1, 4; two steps: 1, 3
    values, forecast = np.array([[[5.0], [7.0]]]), np.array([[[4.0], [10.0]]])
    assert mase(values, forecast, training, None) == pytest.approx(2 / (7 / 3))
    assert mase(values, forecast, training, 2) == pytest.approx(2 / 2)
    with pytest.raises(InputError, match=r"^mase: expected a training series of more than 4 steps, one season, got 4$"):
        mase(values, forecast, training, 4)
    with pytest.raises(
        InputError, match=r"^mase: target 0 of the training series repeats itself exactly after 1 steps"
    ):
        mase(values, forecast, np.ones((4, 1)), None)


def test_smape():
    assert smape(np.array([[100.0, 0.0]]), np.array([[50.0, 0.0]])) == pytest.approx([200 / 3, 0])


def test_crps_of_a_gaussian():
    """sigma (w (2 Phi(w) - 1) + 2 phi(w) - 1 / sqrt(pi)), w = (y - mu) / sigma (Gneiting, Raftery 2007)."""
    values = np.array([[[0.0, 3.0]]])
    paths = 1 + 2 * RANDOM.standard_normal((20_000, 1, 1, 2))
    w = (values - 1) / 2
    phi = np.exp(-(w**2) / 2) / math.sqrt(2 * math.pi)
    below = np.vectorize(lambda x: (1 + math.erf(x / math.sqrt(2))) / 2)(w)
    np.testing.assert_allclose(
        crps(values, paths), 2 * (w * (2 * below - 1) + 2 * phi - 1 / math.sqrt(math.pi)), atol=0.03
    )


def test_crps_over_all_pairs():
    values, paths = RANDOM.standard_normal((3, 2, 2)), RANDOM.standard_normal((5, 3, 2, 2))
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    spread = np.mean([np.abs(paths[i] - paths[j]) for i, j in pairs], axis=0)
    np.testing.assert_allclose(crps(values, paths), np.abs(paths - values).mean(0) - spread / 2)


def test_intervals_that_are_honest():
    values, paths = RANDOM.standard_normal((2000, 1, 1)), RANDOM.standard_normal((200, 2000, 1, 1))
    assert coverage(values, paths, 0.8) == pytest.approx([0.8], abs=0.03)
    low, high = interval(paths, 0.5)
    assert ((paths >= low) & (paths <= high)).mean() == pytest.approx(0.5, abs=0.02)


def test_all_together():
    values, paths = RANDOM.standard_normal((4, 3, 2)), RANDOM.standard_normal((9, 4, 3, 2))
    training = RANDOM.standard_normal((30, 2))
    scores = score_paths(values, paths, training, 5, 0.9)
    point = score_point(values, np.median(paths, axis=0), training, 5)
    assert (scores.mse, scores.mae, scores.mase, scores.smape) == (point.mse, point.mae, point.mase, point.smape)
    assert scores.mse == pytest.approx(((values - np.median(paths, 0)) ** 2).mean())
    assert scores.crps == pytest.approx(crps(values, paths).mean())
    assert scores.level == 0.9
    assert point.crps is None
