"""The networks of a forecaster: what was, what is known of the time to come, and a distribution for each step of it.

Notation: T steps of history, N steps ahead (the horizon), B rows, K targets, F known covariates (those of the calendar
among them), S static ones. Everything is time first; what belongs to a row alone is (B, ...).

Values are scaled within each row, by its own history, so that one network serves series of any size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

import torch
from torch import Tensor, nn

from gatewise.errors import InputError
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.layers.state import map_state
from gatewise.models.distributions import HEADS, Likelihood, quantiles_of

MakeLayer = Callable[..., RecurrentLayer]
SMALLEST_SPREAD = 1e-6
SEASONS = 3


@dataclass(frozen=True)
class Window:
    """What a forecast is made from.

    history (T, B, K): the values; covariates (T + N, B, F): what is known, of the past and of the time to come;
    static (B, S): of each row. F and S may be 0.
    """

    history: Tensor
    covariates: Tensor
    static: Tensor

    @property
    def horizon(self) -> int:
        """N: steps ahead."""
        return len(self.covariates) - len(self.history)


@dataclass(frozen=True)
class Scaling:
    """Of each row and target what is taken away from its values, and by what the rest is divided: (B, K) each."""

    centre: Tensor
    spread: Tensor

    def scaled(self, values: Tensor) -> Tensor:
        """Values (..., B, K), scaled."""
        return (values - self.centre) / self.spread

    def restored(self, values: Tensor) -> Tensor:
        """Scaled values (..., B, K) as they were."""
        return values * self.spread + self.centre


def scaling_of(history: Tensor, likelihood: Likelihood) -> Scaling:
    """Mean and standard deviation of each row's history (T, B, K); of counts 0, and their mean, at least 1."""
    if likelihood == "negative-binomial":
        mean = history.mean(0)
        return Scaling(torch.zeros_like(mean), mean.clamp(min=1.0))
    centre = history.mean(0)
    spread = (history - centre).square().mean(0).sqrt()
    return Scaling(centre, torch.where(spread > SMALLEST_SPREAD, spread, 1.0))  # a constant row stays one


def seasonal_naive(history: Tensor, horizon: int, season: int | None) -> Tensor:
    """The value of one season before, (N, B, K), again and again; without a season, the last one."""
    season = season or 1
    last = history[-season:]
    repeated = torch.arange(horizon, device=history.device) % len(last)
    return last[repeated]


class Base(nn.Module):
    """The forecast that a network improves on: for each step ahead a weighted sum of what one would copy.

    These are the values of the last seasons at the same place in the season, up to SEASONS of them, the last value, and
    the line through the history; without a season, the last value and the line. It begins as the seasonal naive
    forecast, and learns to take a mean over seasons, to follow a trend, or to fall back to the mean, which is 0.
    """

    def __init__(self, targets: int, season: int | None) -> None:
        super().__init__()
        self.season = season
        count = SEASONS + 1 if season else 1
        weights = torch.zeros(targets, count)
        weights[:, 0] = 1
        self.weights = nn.Parameter(weights)

    def lags(self, history: Tensor, horizon: int) -> Tensor:
        """What one would copy, (N, B, K, count), of a scaled history (T, B, K)."""
        steps = len(history)
        found = []
        if self.season:
            for back in range(SEASONS):
                earlier = history[: steps - back * self.season]
                enough = len(earlier) >= self.season
                found.append(seasonal_naive(earlier, horizon, self.season) if enough else found[-1])
        found.append(history[-1:].expand(horizon, *history.shape[1:]))
        return torch.stack(found, -1)

    def forward(self, lags: Tensor) -> Tensor:
        """The base (N, B, K), scaled."""
        return (lags * self.weights).sum(-1)


class ForecasterNetwork(nn.Module):
    """What a forecaster's network can be asked."""

    def loss(self, window: Window, future: Tensor) -> Tensor:
        """The mean cost of the values that came, (N, B, K)."""
        raise NotImplementedError

    def paths(self, window: Window, count: int) -> Tensor:
        """`count` drawn futures (count, N, B, K), by torch's random generator."""
        raise NotImplementedError

    def quantiles(self, window: Window, levels: Tensor, draws: int) -> Tensor:
        """The values below which the parts `levels` (Q,) of what may come lie, (Q, N, B, K).

        draws: from so many drawn futures, where there is no formula.
        """
        return quantiles_of(self.paths(window, draws), levels)

    def activations(self, window: Window) -> Iterator[tuple[str, Tensor]]:
        """The name and the output (steps, B, ...) of each layer in the order of computation; the last is the head's."""
        raise NotImplementedError

    def as_sequential(self) -> NoReturn:
        """Raises InputError: what a forecaster reads beside its history has no place in a chain of layers."""
        raise InputError(f"{type(self).__name__}: a forecaster cannot be carried to other libraries")


class JointForecaster(ForecasterNetwork):
    """What both ways of forecasting share: sizes, the distribution's head; all targets are read and forecast at once.

    make_layer: a recurrent layer of the family, such as gatewise.GRU or a partial of it.
    season: steps after which a series repeats itself, None if it does not.
    """

    def __init__(
        self,
        targets: int,
        covariates: int,
        static: int,
        *,
        make_layer: MakeLayer,
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
        likelihood: Likelihood = "student-t",
        season: int | None = None,
    ) -> None:
        super().__init__()
        self.likelihood: Likelihood = likelihood
        self.season = season
        self.dropout = nn.Dropout(dropout)
        self.head = HEADS[likelihood](hidden_size, targets)
        between = dropout if num_layers > 1 else 0.0
        for name, size in self._layers(targets, covariates + static).items():
            self.add_module(name, make_layer(size, hidden_size, num_layers, dropout=between))

    def _layers(self, targets: int, known: int) -> dict[str, int]:
        """The names of the recurrent layers, and the sizes of their inputs."""
        raise NotImplementedError


class DirectForecaster(JointForecaster):
    """All steps ahead at once: an encoder over the history, a decoder over what is known of the time to come.

    The decoder reads no forecast of its own, but the seasonal naive one, which the head's distribution is centred on:
    so errors do not pile up from step to step (Wen, Torkkola, Narayanaswamy, Madeka, "A Multi-Horizon Quantile
    Recurrent Forecaster", 2017).
    """

    encoder: RecurrentLayer
    decoder: RecurrentLayer

    def _layers(self, targets: int, known: int) -> dict[str, int]:
        self.base = Base(targets, self.season)
        return {"encoder": targets + known, "decoder": targets * self.base.weights.shape[1] + known}

    def activations(self, window: Window) -> Iterator[tuple[str, Tensor]]:
        """The name and the output (steps, B, ...) of each layer in the order of computation."""
        history = scaling_of(window.history, self.likelihood).scaled(window.history)
        yield "scaled history", history
        past, ahead = window.covariates.split([len(history), window.horizon])
        y, state = self.encoder(_joined(self.dropout(history), past, window.static))
        yield "encoder", y
        lags = self.base.lags(history, window.horizon)
        y, _ = self.decoder(_joined(lags.flatten(-2), ahead, window.static), state)
        yield "decoder", y
        yield "head", self.head(self.dropout(y), self.base(lags))

    def _distributions(self, window: Window) -> Tensor:
        """Of the distributions of all steps ahead, (N, B, K, P)."""
        *_, (_, parameters) = self.activations(window)
        return parameters

    def loss(self, window: Window, future: Tensor) -> Tensor:
        """The mean cost of the values that came, (N, B, K)."""
        scaling = scaling_of(window.history, self.likelihood)
        parameters = self._distributions(window)
        return self.head.loss(parameters, scaling.scaled(future), scaling.spread).mean()

    @torch.no_grad()
    def paths(self, window: Window, count: int) -> Tensor:
        """`count` drawn futures (count, N, B, K), each step by itself, by torch's random generator."""
        scaling = scaling_of(window.history, self.likelihood)
        parameters = self._distributions(window)
        return scaling.restored(self.head.draw(parameters, scaling.spread, count))

    @torch.no_grad()
    def quantiles(self, window: Window, levels: Tensor, draws: int) -> Tensor:
        """Those of the distributions, (Q, N, B, K); draws: from so many of them where there is no formula."""
        scaling = scaling_of(window.history, self.likelihood)
        parameters = self._distributions(window)
        return scaling.restored(self.head.quantiles(parameters, scaling.spread, levels, draws))


class RecurrentForecaster(JointForecaster):
    """Step after step, each from the value before: the state is carried on into the time to come.

    A step reads the value before and the one a season before, which the head's distribution is centred on (without a
    season, on the value before), and what is known. Futures are drawn by feeding each draw back (Salinas, Flunkert,
    Gasthaus, Januschowski, "DeepAR: Probabilistic Forecasting with Autoregressive Recurrent Networks", 2020).
    """

    layer: RecurrentLayer

    def _layers(self, targets: int, known: int) -> dict[str, int]:
        return {"layer": 2 * targets + known}

    @property
    def _lag(self) -> int:
        return self.season or 1

    def _inputs(self, values: Tensor, covariates: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
        """What the steps from `lag` on read, and their bases; values (T', B, K), scaled; covariates of all T' + 1.

        The step after the last value is among them.
        """
        before, season_before = values[self._lag - 1 :], values[: len(values) - self._lag + 1]
        return _joined(before, season_before, covariates[self._lag : len(values) + 1], static), season_before

    def activations(self, window: Window) -> Iterator[tuple[str, Tensor]]:
        """The name and the output (steps, B, ...) of each layer in the order of computation, over the history."""
        history = scaling_of(window.history, self.likelihood).scaled(window.history)
        yield "scaled history", history
        inputs, base = self._inputs(history, window.covariates, window.static)
        y, _ = self.layer(inputs)
        yield "layer", y
        yield "head", self.head(self.dropout(y), base)

    def loss(self, window: Window, future: Tensor) -> Tensor:
        """The mean cost of the values that came, (N, B, K), each given those before it.

        In training mode of all values that have a season before them, those of the history among them.
        """
        scaling = scaling_of(window.history, self.likelihood)
        values = scaling.scaled(torch.cat([window.history, future]))
        inputs, base = self._inputs(values[:-1], window.covariates, window.static)
        y, _ = self.layer(inputs)
        parameters = self.head(self.dropout(y), base)
        cost = self.head.loss(parameters, values[self._lag :], scaling.spread)
        return (cost if self.training else cost[-len(future) :]).mean()

    @torch.no_grad()
    def paths(self, window: Window, count: int) -> Tensor:
        """`count` drawn futures (count, N, B, K), by torch's random generator."""
        scaling = scaling_of(window.history, self.likelihood)
        history = scaling.scaled(window.history)
        steps, batch = history.shape[:2]
        inputs, base = self._inputs(history, window.covariates, window.static)
        y, state = self.layer(inputs)
        parameters = self.head(self.dropout(y[-1]), base[-1])
        # From here on there are `count` rows for each row, side by side.
        state = map_state(state, lambda s: s.repeat(1, count, 1))
        static, spread = window.static.repeat(count, 1), scaling.spread.repeat(count, 1)
        values = [*history[-self._lag :].repeat(1, count, 1)]
        parameters = parameters.repeat(count, 1, 1)
        for ahead in range(window.horizon):
            values.append(self.head.draw(parameters, spread, 1)[0])
            if ahead + 1 < window.horizon:
                covariates = window.covariates[steps + ahead + 1].repeat(count, 1)
                x = _joined(values[-1], values[-self._lag], covariates, static)
                y, state = self.layer(x.unsqueeze(0), state)
                parameters = self.head(self.dropout(y[0]), values[-self._lag])
        drawn = torch.stack(values[-window.horizon :]).unflatten(1, (count, batch))  # (N, count, B, K)
        return scaling.restored(drawn.transpose(0, 1))


def _joined(*parts: Tensor) -> Tensor:
    """The parts side by side; what has no steps, (B, ...), at every step of the first."""
    steps = parts[0].shape[:-1]
    return torch.cat([part.expand(*steps, part.shape[-1]) for part in parts], -1)


NETWORKS: dict[Literal["direct", "recurrent"], type[JointForecaster]] = {
    "direct": DirectForecaster,
    "recurrent": RecurrentForecaster,
}
