"""bootstrap: intervals that are as wide as theory says, the same for the same seed."""

import numpy as np
import pytest

from gatewise.training.bootstrap import intervals


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    found = intervals(lambda rows: {"mean": values[rows].mean()}, len(values))["mean"]
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_the_seed_decides():
    values = np.arange(20.0)
    first, same, other = (
        intervals(lambda rows: {"mean": values[rows].mean()}, 20, draws=50, seed=seed) for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other


def test_what_never_changes_has_no_width():
    found = intervals(lambda rows: {"one": 1.0, "count": float(len(rows))}, 7, draws=10)
    assert (found["one"].low, found["one"].high) == (1.0, 1.0)
    assert (found["count"].value, found["count"].low, found["count"].high) == (7.0, 7.0, 7.0)
