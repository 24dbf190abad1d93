"""Scores of forecasts by their formulas, written out, and at values that are known."""

import math

import numpy as np
import pytest

from gatewise.training.forecast_scores import crps, interval, naive_error, quantile, smape

RANDOM = np.random.default_rng(0)


def test_the_error_of_the_naive_forecast():
    training = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0], [6.0, 5.0]])  # one step: 2, 1, 4; two steps: 1, 3
    np.testing.assert_allclose(naive_error(training, None), [7 / 3, np.nan])
    np.testing.assert_allclose(naive_error(training, 2), [2, np.nan])
    assert np.isnan(naive_error(training, 4)).all()


def test_smape():
    np.testing.assert_allclose(smape(np.array([[100.0, 0.0]]), np.array([[50.0, 0.0]])), [[200 / 3, 0]])


def test_crps_of_a_gaussian():
    """sigma (w (2 Phi(w) - 1) + 2 phi(w) - 1 / sqrt(pi)), w = (y - mu) / sigma (Gneiting, Raftery 2007)."""
    values = np.array([[[0.0, 3.0]]])
    drawn = np.sort(1 + 2 * RANDOM.standard_normal((20_000, 1, 1, 2)), 0)
    w = (values - 1) / 2
    phi = np.exp(-(w**2) / 2) / math.sqrt(2 * math.pi)
    below = np.vectorize(lambda x: (1 + math.erf(x / math.sqrt(2))) / 2)(w)
    np.testing.assert_allclose(
        crps(values, drawn), 2 * (w * (2 * below - 1) + 2 * phi - 1 / math.sqrt(math.pi)), atol=0.03
    )


def test_crps_over_all_pairs():
    values, paths = RANDOM.standard_normal((3, 2, 2)), np.sort(RANDOM.standard_normal((5, 3, 2, 2)), 0)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    spread = np.mean([np.abs(paths[i] - paths[j]) for i, j in pairs], axis=0)
    np.testing.assert_allclose(crps(values, paths), np.abs(paths - values).mean(0) - spread / 2)


def test_intervals():
    drawn = np.sort(RANDOM.standard_normal((2000, 3, 1, 1)), 0)
    low, high = interval(drawn, 0.5)
    assert ((drawn >= low) & (drawn <= high)).mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(low, -0.674, atol=0.1)
    np.testing.assert_allclose(high, 0.674, atol=0.1)


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.93, 1])
def test_quantiles_are_numpy_s(part):
    drawn = np.sort(RANDOM.standard_normal((7, 2, 1, 1)), 0)
    np.testing.assert_allclose(quantile(drawn, part), np.quantile(drawn, part, axis=0))
