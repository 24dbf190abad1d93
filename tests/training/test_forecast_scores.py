"""Scores of forecasts by their formulas, written out, and at values that are known."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from gatewise.training.forecast_scores import crps, ends, even_levels, naive_error, smape

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
    values = np.array([[[0.0, 3.0, 9.0]]])
    quantiles = np.array([1 + 2 * NormalDist().inv_cdf(level) for level in even_levels(50)])
    w = (values - 1) / 2
    phi = np.exp(-(w**2) / 2) / math.sqrt(2 * math.pi)
    below = np.vectorize(NormalDist().cdf)(w)
    np.testing.assert_allclose(
        crps(values, np.tile(quantiles[:, None, None, None], (1, 1, 1, 3))),
        2 * (w * (2 * below - 1) + 2 * phi - 1 / math.sqrt(math.pi)),
        rtol=0.003,
    )


def test_crps_of_one_value_is_the_absolute_error():
    values, said = RANDOM.standard_normal((3, 2, 2)), RANDOM.standard_normal((3, 2, 2))
    np.testing.assert_allclose(crps(values, np.stack([said] * 4)), np.abs(values - said))


def test_levels():
    assert even_levels(4).tolist() == [0.125, 0.375, 0.625, 0.875]
    assert ends(0.8) == pytest.approx((0.1, 0.9))
