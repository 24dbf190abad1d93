"""How sure a metric is: the bootstrap's interval, from the examples drawn again and again with replacement.

Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: the percentile interval.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A metric on the examples there are, and between what it lies with a probability of LEVEL on others like them."""

    value: float
    low: float
    high: float


def intervals(
    statistics: Callable[[np.ndarray], Mapping[str, float]], examples: int, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """The interval of each metric, by its name.

    statistics: the metrics of the examples at some positions, an array of any length with repetitions, by name.
    examples: how many there are, at least 1. seed: of the draws; the same seed, the same intervals.
    """
    values = statistics(np.arange(examples))
    random = np.random.default_rng(seed)
    drawn = [statistics(random.integers(examples, size=examples)) for _ in range(draws)]
    found = {}
    for name, value in values.items():
        low, high = np.quantile([metrics[name] for metrics in drawn], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found[name] = Interval(float(value), float(low), float(high))
    return found
