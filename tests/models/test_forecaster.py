"""The forecasters' networks: scaling, what is known of the future, and draws that follow what was learned."""

import copy
import pickle
from functools import partial

import pytest
import torch

import gatewise as gw
from gatewise.models.forecaster import (
    NETWORKS,
    DirectForecaster,
    RecurrentForecaster,
    Window,
    scaling_of,
    seasonal_naive,
)
from gatewise.models.separate_targets import SeparateTargets

T, N, B, K, F, S = 9, 4, 3, 2, 3, 1
KINDS = [(mode, season, apart) for mode in NETWORKS for season in (None, 4) for apart in (False, True)]


def _window(seed: int = 1) -> tuple[Window, torch.Tensor]:
    torch.manual_seed(seed)
    return Window(torch.randn(T, B, K), torch.randn(T + N, B, F), torch.randn(B, S)), torch.randn(N, B, K)


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}{'-apart' * kind[2]}")
def network(request):
    mode, season, apart = request.param
    torch.manual_seed(0)
    options = {"make_layer": gw.GRU, "hidden_size": 6, "num_layers": 2, "dropout": 0.2, "season": season}
    sizes = (1, F, S + K) if apart else (K, F, S)
    network = NETWORKS[mode](*sizes, likelihood="gaussian", **options).eval()
    torch.nn.init.normal_(network.head.linear.weight, std=0.5)
    return SeparateTargets(network, K) if apart else network


def test_forecasts_follow_the_scale_of_a_series(network):
    window, _ = _window()
    scale, shift = torch.tensor([10.0, 0.5]), torch.tensor([-3.0, 100.0])
    torch.manual_seed(5)
    paths = network.paths(window, 7)
    assert paths.shape == (7, N, B, K)
    torch.manual_seed(5)
    other = network.paths(Window(window.history * scale + shift, window.covariates, window.static), 7)
    torch.testing.assert_close(other, paths * scale + shift, rtol=1e-3, atol=1e-3)


def test_quantiles_are_those_of_the_futures(network):
    window, _ = _window()
    levels = torch.tensor([0.1, 0.5, 0.9])
    torch.manual_seed(5)
    paths = network.paths(window, 1000)
    quantiles = network.quantiles(window, levels, 1000)
    assert quantiles.shape == (3, N, B, K)
    assert ((quantiles - paths.quantile(levels, 0)).abs() < 0.3 * paths.std(0)).all()


def test_a_row_alone_has_the_same_loss(network):
    window, future = _window()
    rows = [
        network.loss(
            Window(window.history[:, b : b + 1], window.covariates[:, b : b + 1], window.static[b : b + 1]),
            future[:, b : b + 1],
        )
        for b in range(B)
    ]
    torch.testing.assert_close(torch.stack(rows).mean(), network.loss(window, future))


def test_what_is_known_of_the_future_counts_and_what_is_not_does_not(network):
    window, future = _window()
    torch.manual_seed(5)
    paths = network.paths(window, 3)
    changed = window.covariates.clone()
    changed[T + 2 :] += 1
    torch.manual_seed(5)
    other = network.paths(Window(window.history, changed, window.static), 3)
    torch.testing.assert_close(other[:, :2], paths[:, :2])
    assert not torch.allclose(other[:, 2:], paths[:, 2:])
    assert network.loss(window, future) != network.loss(window, future + 1)


def test_copies(network):
    window, future = _window()
    expected = network.loss(window, future)
    torch.testing.assert_close(copy.deepcopy(network).loss(window, future), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(network)).loss(window, future), expected)


def test_apart_a_target_depends_on_its_own_past_alone_and_on_which_it_is(network):
    window, _ = _window()
    levels = torch.tensor([0.2, 0.5])
    said = network.quantiles(window, levels, 50)
    other = window.history.clone()
    other[:, :, 1] += torch.randn(T, B)
    torch.manual_seed(0)
    changed = network.quantiles(Window(other, window.covariates, window.static), levels, 50)
    if not isinstance(network, SeparateTargets):
        assert not torch.allclose(changed[..., 0], said[..., 0])
        return
    if isinstance(network.one, DirectForecaster):  # a recurrent one draws
        torch.testing.assert_close(changed[..., 0], said[..., 0])
        turned = network.quantiles(Window(window.history.flip(2), window.covariates, window.static), levels, 50)
        assert not torch.allclose(turned.flip(3), said)
    assert not torch.allclose(changed[..., 1], said[..., 1])
    shapes = {name: output.shape for name, output in network.activations(window)}
    assert shapes["scaled history"] == (T, B, K)
    assert shapes["head"][1:] == (B, K, 2)


@pytest.mark.parametrize("mode", NETWORKS)
@pytest.mark.parametrize("make_layer", [gw.LSTM, partial(gw.GRU, reset="before")])
def test_it_learns_what_no_naive_forecast_knows(mode, make_layer):
    """x' = -0.9 x: the draws of a trained network follow it."""
    torch.manual_seed(0)
    network = NETWORKS[mode](1, 0, 0, make_layer=make_layer, hidden_size=16, likelihood="gaussian")
    optimizer = torch.optim.Adam(network.parameters(), 0.02)

    def series(batch):
        start = torch.randn(1, batch, 1)
        values = start * (-0.9) ** torch.arange(T + N).view(-1, 1, 1)
        return Window(values[:T], torch.zeros(T + N, batch, 0), torch.zeros(batch, 0)), values[T:]

    for _ in range(150):
        loss = network.loss(*series(32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    window, future = series(20)
    network.eval()
    forecast = network.paths(window, 50).median(0).values
    naive = seasonal_naive(window.history, N, None)
    assert (forecast - future).abs().mean() < 0.3 * (naive - future).abs().mean()


def test_the_futures_of_a_recurrent_forecaster_are_its_own_one_step_forecasts():
    """With next to no noise, a path is what feeding each forecast back gives."""
    torch.manual_seed(0)
    network = RecurrentForecaster(K, F, S, make_layer=gw.GRU, hidden_size=6, likelihood="gaussian", season=2).eval()
    torch.nn.init.normal_(network.head.linear.weight, std=0.5)
    with torch.no_grad():
        network.head.linear.weight[1::2] = 0
        network.head.linear.bias[1::2] = -30  # the scale
    window, _ = _window()
    paths = network.paths(window, 2)
    torch.testing.assert_close(paths[0], paths[1], rtol=0, atol=0.02)
    scaling = scaling_of(window.history, "gaussian")
    values = scaling.scaled(window.history)
    for ahead in range(N):
        static = window.static
        steps = len(values)
        before, lag = values[1:], values[: steps - 1]
        known = torch.cat([window.covariates[2 : steps + 1], static.expand(steps - 1, B, S)], -1)
        y, _ = network.layer(torch.cat([before, lag, known], -1))
        values = torch.cat([values, network.head(y[-1:], lag[-1:])[..., 0].detach()])
        torch.testing.assert_close(scaling.restored(values[-1]), paths[0, ahead], rtol=0, atol=0.02)


def test_seasonal_naive():
    history = torch.arange(5.0).view(5, 1, 1)
    assert seasonal_naive(history, 4, 3).flatten().tolist() == [2, 3, 4, 2]
    assert seasonal_naive(history, 3, None).flatten().tolist() == [4, 4, 4]


def test_scaling():
    history = torch.tensor([[1.0, 5.0], [3.0, 5.0]]).unsqueeze(1)
    scaling = scaling_of(history, "gaussian")
    assert scaling.centre.tolist() == [[2, 5]]
    assert scaling.spread.tolist() == [[1, 1]]
    counts = scaling_of(history / 10, "negative-binomial")
    assert counts.centre.tolist() == [[0, 0]]
    assert counts.spread.tolist() == [[1, 1]]
    torch.testing.assert_close(scaling.restored(scaling.scaled(history)), history)
