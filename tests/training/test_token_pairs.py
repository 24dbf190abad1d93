"""token pairs: the shares of what followed, of what never did, and of a token that nothing followed."""

import numpy as np
import pytest

from gatewise.training import token_pairs
from gatewise.training.token_pairs import TokenPairs

TEXT = np.array([0, 1, 0, 1, 0, 2], np.uint8)  # 0 is followed by 1 twice and by 2 once, 2 by nothing


def probabilities(pairs: TokenPairs, before: int) -> np.ndarray:
    every = np.arange(pairs.size)
    return np.exp(-pairs.losses(np.full(pairs.size, before), every))


def test_by_the_formula():
    shares = np.array([4, 3, 2, 1]) / 10
    assert probabilities(TokenPairs(TEXT, 4), 0) == pytest.approx((np.array([0, 2, 1, 0]) + 2 * shares) / 5)


@pytest.mark.parametrize("before", range(4))
def test_they_sum_to_one(before):
    assert probabilities(TokenPairs(TEXT, 4), before).sum() == pytest.approx(1)


def test_after_what_was_never_seen_the_frequency_counts():
    assert probabilities(TokenPairs(TEXT, 4), 3) == pytest.approx(np.array([4, 3, 2, 1]) / 10)


def test_of_a_long_text_the_beginning(monkeypatch):
    monkeypatch.setattr(token_pairs, "MOST_TOKENS", 4)
    expected = probabilities(TokenPairs(TEXT[:4], 4), 0)
    assert probabilities(TokenPairs(TEXT, 4), 0) == pytest.approx(expected)
