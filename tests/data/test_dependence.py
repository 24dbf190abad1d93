"""Whether targets tell of each other: series where they do, and where they do not."""

import numpy as np
import pytest

from gatewise.data.dependence import error_with_others

RANDOM = np.random.default_rng(0)
WALK = RANDOM.standard_normal(1000).cumsum()


def _left(series: list[np.ndarray]) -> float:
    found = error_with_others(series, 20, 5)
    assert found is not None
    return found


def test_one_target_leads_the_other():
    leading = np.stack([WALK[5:], 3 + 100 * WALK[:-5]], 1)
    assert _left([leading]) < 0.6
    assert _left([leading[:500], leading[500:]]) < 0.6


def test_targets_that_have_nothing_to_do_with_each_other():
    walks = RANDOM.standard_normal((1000, 4)).cumsum(0)
    assert 0.95 < _left([walks]) < 1.2


def test_many_targets_are_looked_at_less_far_back():
    assert _left([RANDOM.standard_normal((400, 500))]) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    "series", [[], [WALK[:, None]], [WALK[:40].reshape(20, 2)], [np.ones((200, 2))]], ids=["no", "1", "short", "still"]
)
def test_nothing_to_say(series):
    assert error_with_others(series, 10, 5) is None
