"""What a forecaster says of a value that is to come: a distribution, or quantiles.

Values are scaled: of each row and target the centre is taken away and the rest divided by the spread. Each head adds
what it makes of a state to a base, the forecast that it is to improve on.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, NegativeBinomial, Normal, StudentT
from torch.nn.functional import softplus

Likelihood = Literal["gaussian", "student-t", "negative-binomial", "quantiles"]
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
SMALLEST = 1e-4  # of a scale or a dispersion, so that a likelihood stays finite


class Head(nn.Module):
    """From a state (..., H) to the parameters of each target's distribution, (..., K, P)."""

    outputs: int  # P

    def __init__(self, hidden_size: int, targets: int) -> None:
        super().__init__()
        self.targets = targets
        self.linear = nn.Linear(hidden_size, targets * self.outputs)
        nn.init.zeros_(self.linear.weight)  # so that it begins with the base
        nn.init.zeros_(self.linear.bias)

    def forward(self, state: Tensor, base: Tensor) -> Tensor:
        """The parameters (..., K, P), for a base (..., K), scaled."""
        raw = self.linear(state).unflatten(-1, (self.targets, self.outputs))
        return self._placed(raw, base)

    def _placed(self, raw: Tensor, base: Tensor) -> Tensor:
        location, *rest = raw.unbind(-1)
        return torch.stack([base + location, *rest], -1)

    def loss(self, parameters: Tensor, values: Tensor, spread: Tensor) -> Tensor:
        """What each value costs, (..., K): -ln of its density, scaled, in nats.

        values (..., K), scaled; spread (B, K): by what they were divided, which only counts need.
        """
        return -self._distribution(parameters, spread).log_prob(self._unit(values, spread))

    def draw(self, parameters: Tensor, spread: Tensor, count: int) -> Tensor:
        """`count` values (count, ..., K) drawn from each distribution, scaled; by torch's random generator."""
        return self._scaled(self._distribution(parameters, spread).sample((count,)), spread)

    def _distribution(self, parameters: Tensor, spread: Tensor) -> Distribution:
        raise NotImplementedError

    def _unit(self, values: Tensor, spread: Tensor) -> Tensor:
        """Scaled values in the unit of the distribution."""
        return values

    def _scaled(self, values: Tensor, spread: Tensor) -> Tensor:
        return values


class Gaussian(Head):
    """Normal: location and scale."""

    outputs = 2

    def _distribution(self, parameters: Tensor, spread: Tensor) -> Distribution:
        location, scale = parameters.unbind(-1)
        return Normal(location, softplus(scale) + SMALLEST)


class HeavyTails(Head):
    """Student's t: location, scale, and degrees of freedom above 2, so that there is a variance."""

    outputs = 3

    def _distribution(self, parameters: Tensor, spread: Tensor) -> Distribution:
        location, scale, freedom = parameters.unbind(-1)
        return StudentT(2 + softplus(freedom), location, softplus(scale) + SMALLEST)


class Counts(Head):
    """Negative binomial of counts, with mean spread * softplus(m) and variance mean + dispersion * mean ** 2.

    Counts have the centre 0 (Salinas, Flunkert, Gasthaus, Januschowski, "DeepAR", 2020, section 3.1).
    """

    outputs = 2

    def _distribution(self, parameters: Tensor, spread: Tensor) -> Distribution:
        location, dispersion = parameters.unbind(-1)
        mean = spread * (softplus(location) + SMALLEST)
        count = 1 / (softplus(dispersion) / spread.clamp(min=1).sqrt() + SMALLEST)
        return NegativeBinomial(count, logits=mean.log() - count.log(), validate_args=False)

    def _unit(self, values: Tensor, spread: Tensor) -> Tensor:
        return (values * spread).round()

    def _scaled(self, values: Tensor, spread: Tensor) -> Tensor:
        return values / spread


class Quantiles(Head):
    """The values below which given parts of what comes will lie (Koenker, Bassett, "Regression Quantiles", 1978)."""

    outputs = len(QUANTILES)
    levels: Tensor

    def __init__(self, hidden_size: int, targets: int) -> None:
        super().__init__(hidden_size, targets)
        self.register_buffer("levels", torch.tensor(QUANTILES), persistent=False)

    def _placed(self, raw: Tensor, base: Tensor) -> Tensor:
        return base.unsqueeze(-1) + raw

    def loss(self, parameters: Tensor, values: Tensor, spread: Tensor) -> Tensor:
        """Twice the mean pinball loss over the quantiles, (..., K): an estimate of the CRPS, scaled."""
        return 2 * pinball(parameters, values.unsqueeze(-1), self.levels).mean(-1)

    def draw(self, parameters: Tensor, spread: Tensor, count: int) -> Tensor:
        """`count` values (count, ..., K) drawn from between the quantiles, linearly; beyond the outer ones none is."""
        rising = parameters.sort(-1).values  # quantiles that cross are put in order (Chernozhukov et al. 2010)
        rising = rising.expand(count, *rising.shape)
        level = torch.rand(rising.shape[:-1], device=rising.device).unsqueeze(-1)
        level = level.clamp(float(self.levels[0]), float(self.levels[-1]))
        above = torch.searchsorted(self.levels, level).clamp(1, len(self.levels) - 1)
        low, high = self.levels[above - 1], self.levels[above]
        part = (level - low) / (high - low)
        return torch.lerp(rising.gather(-1, above - 1), rising.gather(-1, above), part).squeeze(-1)


HEADS: dict[Likelihood, type[Head]] = {
    "gaussian": Gaussian,
    "student-t": HeavyTails,
    "negative-binomial": Counts,
    "quantiles": Quantiles,
}


def pinball(quantiles: Tensor, values: Tensor, levels: Tensor | Sequence[float]) -> Tensor:
    """max(p (y - q), (p - 1) (y - q)) of quantiles (..., Q), values (..., 1) and levels p (Q,)."""
    levels = torch.as_tensor(levels, dtype=quantiles.dtype, device=quantiles.device)
    above = values - quantiles
    return torch.maximum(levels * above, (levels - 1) * above)
