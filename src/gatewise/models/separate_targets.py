"""A forecaster of several targets, each from its own history: one network for all of them, row by row.

What other targets have been tells a network of some size much by chance, and with little data that costs more than
what they do tell of each other (Han, Ye, Zhan, "The Capacity and Robustness Trade-off: Revisiting the Channel
Independent Strategy for Multivariate Time Series Forecasting", 2023).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from gatewise.models.forecaster import ForecasterNetwork, JointForecaster, Window


class SeparateTargets(ForecasterNetwork):
    """K targets (B, K) as B * K rows of one; a row is told which target it is, by K static numbers.

    one: a forecaster of one target and K static numbers more.
    """

    def __init__(self, one: JointForecaster, targets: int) -> None:
        super().__init__()
        self.one = one
        self.targets = targets

    def loss(self, window: Window, future: Tensor) -> Tensor:
        """The mean cost of the values that came, (N, B, K)."""
        return self.one.loss(self._rows(window), _column(future))

    def paths(self, window: Window, count: int) -> Tensor:
        """`count` drawn futures (count, N, B, K), each target's by itself, by torch's random generator."""
        return self._joined(self.one.paths(self._rows(window), count))

    def quantiles(self, window: Window, levels: Tensor, draws: int) -> Tensor:
        """Those of the distributions, (Q, N, B, K)."""
        return self._joined(self.one.quantiles(self._rows(window), levels, draws))

    def activations(self, window: Window) -> Iterator[tuple[str, Tensor]]:
        """The name and the output (steps, B, K, ...) of each layer in the order of computation."""
        for name, output in self.one.activations(self._rows(window)):
            apart = output.unflatten(1, (-1, self.targets))
            yield name, apart if name in ("encoder", "decoder", "layer") else apart.squeeze(3)

    def _rows(self, window: Window) -> Window:
        batch = window.history.shape[1]
        which = torch.eye(self.targets, dtype=window.static.dtype, device=window.static.device)
        return Window(
            _column(window.history),
            window.covariates.repeat_interleave(self.targets, 1),
            torch.cat([window.static.repeat_interleave(self.targets, 0), which.repeat(batch, 1)], 1),
        )

    def _joined(self, values: Tensor) -> Tensor:
        """(..., B * K, 1) as (..., B, K)."""
        return values.squeeze(-1).unflatten(-1, (-1, self.targets))


def _column(values: Tensor) -> Tensor:
    """(..., B, K) as (..., B * K, 1)."""
    return values.flatten(-2).unsqueeze(-1)
