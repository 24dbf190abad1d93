"""Small examples of every kind."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gatewise.data.examples import Examples


@pytest.fixture(scope="session")
def made() -> Callable[..., Examples]:
    """Examples whose places are the rows of `source`."""

    def make(
        inputs: list[Any],
        targets: list[Any] | None = None,
        input_kind: Any = "text",
        target_kind: Any = "label",
        source: str = "made.csv",
        **others: Any,
    ) -> Examples:
        places = [f"{source}: row {row}" for row in range(1, len(inputs) + 1)]
        kind = "none" if targets is None else target_kind
        return Examples(source, input_kind, inputs, kind, targets, places, **others)

    return make


@pytest.fixture(scope="session")
def numbered(made: Callable[..., Examples]) -> Callable[..., Examples]:
    """Examples of different texts with the given labels."""
    return lambda labels, **others: made([f"text {i}" for i in range(len(labels))], labels, **others)


@pytest.fixture(scope="session")
def arrays() -> Callable[..., list[np.ndarray]]:
    """Random arrays (T_i, F) float32 of the given lengths."""

    def make(*lengths: int, features: int = 2) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        return [random.standard_normal((length, features), dtype=np.float32) for length in lengths]

    return make
