"""The state of a recurrent layer, h or (h, c), as one thing."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def map_state(state: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The function of h, or of h and c."""
    return tuple(map(function, state)) if isinstance(state, tuple) else function(state)
