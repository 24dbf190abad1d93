"""What a forecaster says of a value that is to come: a distribution, or quantiles.

Values are scaled: of each row and target the centre is taken away and the rest divided by the spread. Each head adds
what it makes of a state to a base, the forecast that it is to improve on.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, NegativeBinomial, Normal
from torch.nn.functional import softplus

Likelihood = Literal["gaussian", "student-t", "negative-binomial", "quantiles"]
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
TABLED = 256  # degrees of freedom, from infinity to 2
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

    def quantiles(self, parameters: Tensor, spread: Tensor, levels: Tensor, draws: int) -> Tensor:
        """The values below which the parts `levels` (Q,) of each distribution lie, (Q, ..., K), scaled.

        draws: from so many where there is no formula for them.
        """
        return quantiles_of(self.draw(parameters, spread, draws), levels)

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

    def quantiles(self, parameters: Tensor, spread: Tensor, levels: Tensor, draws: int) -> Tensor:
        """By the inverse of the distribution function."""
        return self._distribution(parameters, spread).icdf(levels.view(-1, *[1] * (parameters.ndim - 1)))

    def _distribution(self, parameters: Tensor, spread: Tensor) -> Distribution:
        location, scale = parameters.unbind(-1)
        return Normal(location, softplus(scale) + SMALLEST, validate_args=False)


class HeavyTails(Head):
    """Student's t: location, scale, and degrees of freedom above 2, so that there is a variance."""

    outputs = 3

    def loss(self, parameters: Tensor, values: Tensor, spread: Tensor) -> Tensor:
        """-ln of the density, (..., K), in nats."""
        location, scale, freedom = self._of(parameters)
        surprise = (freedom + 1) / 2 * torch.log1p(((values - location) / scale).square() / freedom)
        width = scale.log() + 0.5 * (freedom.log() + math.log(math.pi))
        return surprise + width + torch.lgamma(freedom / 2) - torch.lgamma((freedom + 1) / 2)

    def draw(self, parameters: Tensor, spread: Tensor, count: int) -> Tensor:
        """`count` values (count, ..., K), scaled, each from two uniform numbers.

        sqrt(v (u ** (-2 / v) - 1)) cos(2 pi w) of v degrees of freedom (Bailey, "Polar Generation of Random Variates
        with the t-Distribution", 1994).
        """
        location, scale, freedom = self._of(parameters)
        uniform, angle = (torch.rand(count, *location.shape, device=location.device) for _ in range(2))
        radius = (freedom * torch.expm1(-2 / freedom * torch.log1p(-uniform))).sqrt()
        return location + scale * radius * torch.cos(2 * math.pi * angle)

    def quantiles(self, parameters: Tensor, spread: Tensor, levels: Tensor, draws: int) -> Tensor:
        """By `student_quantiles`."""
        location, scale, freedom = self._of(parameters)
        return location + scale * student_quantiles(freedom, levels)

    def _of(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        location, scale, freedom = parameters.unbind(-1)
        return location, softplus(scale) + SMALLEST, 2 + softplus(freedom)


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
        level = torch.rand(count, *parameters.shape[:-1], device=parameters.device)
        return self._between(parameters.expand(count, *parameters.shape), level)

    def quantiles(self, parameters: Tensor, spread: Tensor, levels: Tensor, draws: int) -> Tensor:
        """Between those that there are, linearly; beyond the outer ones, these."""
        shape = len(levels), *parameters.shape[:-1]
        levels = levels.view(-1, *[1] * (len(shape) - 1)).expand(shape)
        return self._between(parameters.expand(len(levels), *parameters.shape), levels)

    def _between(self, parameters: Tensor, level: Tensor) -> Tensor:
        """The values (...) at levels (...) of quantiles (..., Q)."""
        rising = parameters.sort(-1).values  # quantiles that cross are put in order (Chernozhukov et al. 2010)
        level = level.clamp(float(self.levels[0]), float(self.levels[-1])).unsqueeze(-1).contiguous()
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


def quantiles_of(drawn: Tensor, levels: Tensor) -> Tensor:
    """The values below which the parts `levels` (Q,) of some draws (count, ...) lie, (Q, ...); between two linearly."""
    rising = drawn.sort(0).values
    place = levels * (len(drawn) - 1)
    below = place.long().clamp(max=max(len(drawn) - 2, 0))
    above = (below + 1).clamp(max=len(drawn) - 1)
    part = (place - below).view(-1, *[1] * (drawn.ndim - 1))
    return torch.lerp(rising[below], rising[above], part.to(rising.dtype))


def student_quantiles(freedom: Tensor, levels: Tensor) -> Tensor:
    """The values below which the parts `levels` (Q,) of Student's t lie, (Q, ...), of degrees of freedom (...) >= 2.

    Correct to three digits at 2 degrees of freedom, to four from 3 on; read off a table, linearly in 1 / freedom.
    """
    nodes = 2 * TABLED / torch.arange(TABLED + 1, device=freedom.device).clamp(min=1e-6)
    table = _hill(nodes.to(freedom.dtype), levels.to(freedom))
    place = 2 * TABLED / freedom
    below = place.long().clamp(max=TABLED - 1)
    return torch.lerp(table[:, below], table[:, below + 1], place - below)


def _hill(v: Tensor, levels: Tensor) -> Tensor:
    """The quantiles (Q, N) of Student's t with v (N,) degrees of freedom, at least 2.

    Hill, "Algorithm 396: Student's t-Quantiles", Communications of the ACM, 1970.
    """
    level = levels.unsqueeze(-1)
    outside = 2 * torch.minimum(level, 1 - level)  # in both tails
    a = 1 / (v - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * (a * math.pi / 2).sqrt() * v
    # Far out in the tails, by the inverse of their expansion;
    y = (d * outside) ** (2 / v)
    tail = (1 / (((v + 6) / (v * y) - 0.089 * d - 0.822) * (v + 2) * 3) + 0.5 / (v + 4)) * y - 1
    tail = tail * (v + 1) / (v + 2) + 1 / y
    # nearer, by that of the normal distribution.
    x = torch.special.ndtri(outside / 2)
    c = c + torch.where(v < 5, 0.3 * (v - 4.5) * (x + 0.6), 0.0)
    c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
    x2 = x**2
    z = (((((0.4 * x2 + 6.3) * x2 + 36) * x2 + 94.5) / c - x2 - 3) / b + 1) * x
    square = torch.where(y > 0.05 + a, torch.expm1(a * z**2), tail)
    return torch.sign(level - 0.5) * (v * square).clamp(min=0).sqrt()
