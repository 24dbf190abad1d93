"""The heads against densities of SciPy where it is here, else of torch; their draws against their own cumulants."""

import math

import pytest
import torch

from gatewise.models.distributions import HEADS, QUANTILES, pinball, quantiles_of, student_quantiles

H, K = 5, 2
SPREAD = torch.tensor([[2.0, 30.0], [7.0, 1.0], [11.0, 4.0]])


def _parameters(likelihood):
    torch.manual_seed(0)
    head = HEADS[likelihood](H, K)
    torch.nn.init.normal_(head.linear.weight, std=0.3)
    return head, head(torch.randn(4, 3, H), torch.rand(4, 3, K)).detach()


@pytest.mark.parametrize("likelihood", HEADS)
def test_a_head_begins_with_its_base(likelihood):
    head, base = HEADS[likelihood](H, K), torch.randn(4, 3, K)
    parameters = head(torch.randn(4, 3, H), base)
    assert parameters.shape == (4, 3, K, head.outputs)
    torch.testing.assert_close(parameters[..., 0], base)


def test_gaussian():
    head, parameters = _parameters("gaussian")
    values = torch.randn(4, 3, K)
    location, scale = parameters[..., 0], torch.log1p(parameters[..., 1].exp()) + 1e-4
    expected = 0.5 * ((values - location) / scale) ** 2 + scale.log() + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(head.loss(parameters, values, SPREAD), expected)


def test_student_t():
    head, parameters = _parameters("student-t")
    values = torch.randn(4, 3, K).double()
    location, scale, freedom = parameters.double().unbind(-1)
    scale, v = torch.log1p(scale.exp()) + 1e-4, 2 + torch.log1p(freedom.exp())
    t = (values - location) / scale
    log_density = (
        torch.lgamma((v + 1) / 2)
        - torch.lgamma(v / 2)
        - 0.5 * (v * math.pi).log()
        - scale.log()
        - (v + 1) / 2 * torch.log1p(t**2 / v)
    )
    torch.testing.assert_close(head.loss(parameters.double(), values, SPREAD), -log_density)


def test_counts():
    head, parameters = _parameters("negative-binomial")
    counts = torch.randint(20, (4, 3, K)).float()
    location, dispersion = parameters.unbind(-1)
    mean = SPREAD * (torch.log1p(location.exp()) + 1e-4)
    alpha = torch.log1p(dispersion.exp()) / SPREAD.clamp(min=1).sqrt() + 1e-4
    n, p = 1 / alpha, 1 / (1 + alpha * mean)
    expected = -(
        torch.lgamma(counts + n) - torch.lgamma(n) - torch.lgamma(counts + 1) + n * p.log() + counts * (1 - p).log()
    )
    torch.testing.assert_close(head.loss(parameters, counts / SPREAD, SPREAD), expected, rtol=1e-4, atol=1e-4)
    draws = head.draw(parameters, SPREAD, 4000) * SPREAD
    torch.testing.assert_close(draws, draws.round(), rtol=0, atol=1e-3)
    deviation = (mean + alpha * mean**2).sqrt()
    assert ((draws.mean(0) - mean).abs() < 5 * deviation / 4000**0.5).all()


def test_quantiles_cost_what_the_pinball_says():
    head, parameters = _parameters("quantiles")
    values = torch.randn(4, 3, K)
    expected = torch.zeros(4, 3, K)
    for i, p in enumerate(QUANTILES):
        above = values - parameters[..., i]
        expected += 2 / len(QUANTILES) * torch.where(above > 0, p * above, (p - 1) * above)
    torch.testing.assert_close(head.loss(parameters, values, SPREAD), expected)
    assert pinball(torch.tensor([1.0, 3.0]), torch.tensor([2.0]), (0.1, 0.9)).tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("likelihood", ["gaussian", "student-t", "quantiles"])
def test_draws_lie_below_each_quantile_as_often_as_it_says(likelihood):
    head, parameters = _parameters(likelihood)
    draws = head.draw(parameters, SPREAD, 4000)
    if likelihood == "quantiles":
        rising = parameters.sort(-1).values
        for i, p in enumerate(QUANTILES[1:-1], 1):
            below = (draws < rising[..., i]).float().mean(0)
            assert (below - p).abs().max() < 0.05
        assert (draws >= rising[..., 0]).all()
        assert (draws <= rising[..., -1]).all()
    else:
        assert ((draws < parameters[..., 0]).float().mean(0) - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("likelihood", HEADS)
def test_quantiles_are_those_of_the_draws(likelihood):
    head, parameters = _parameters(likelihood)
    levels = torch.tensor([0.05, 0.1, 0.5, 0.75, 0.95])
    torch.manual_seed(1)
    expected = quantiles_of(head.draw(parameters, SPREAD, 20_000), levels)
    found = head.quantiles(parameters, SPREAD, levels, 20_000)
    assert found.shape == (5, 4, 3, K)
    assert (found.diff(dim=0) >= 0).all()
    deviation = head.draw(parameters, SPREAD, 1000).std(0)
    assert ((found - expected).abs() < 0.12 * deviation + 1 / SPREAD * (likelihood == "negative-binomial")).all()


@pytest.mark.parametrize("freedom", [2.0, 2.5, 3.0, 5.0, 30.0, 1e6])
def test_quantiles_of_student_s_t(freedom):
    """Against the integral of the density, and, at 2 degrees of freedom, the formula that there is."""
    levels = torch.tensor([0.01, 0.1, 0.3, 0.5, 0.75, 0.9, 0.995])
    found = student_quantiles(torch.tensor([[freedom]]), levels).double().flatten()
    torch.testing.assert_close(found[3].item(), 0.0)
    if freedom == 2:
        p = levels.double()
        torch.testing.assert_close(found, (2 * p - 1) / (2 * p * (1 - p)).sqrt(), rtol=2e-3, atol=1e-6)
    v = torch.tensor(freedom).double()
    height = (torch.lgamma((v + 1) / 2) - torch.lgamma(v / 2)).exp() / (v * math.pi).sqrt()
    for level, value in zip(levels.tolist(), found.tolist(), strict=True):
        t = torch.linspace(0, value, 20_001).double()
        below = 0.5 + torch.trapezoid(height * (1 + t**2 / v) ** (-(v + 1) / 2), t).item()
        assert below == pytest.approx(level, rel=1e-4 if freedom > 2 else 2e-3, abs=2e-5)


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.93, 1])
def test_quantiles_of_draws(part):
    drawn = torch.randn(7, 2, 3)
    torch.testing.assert_close(quantiles_of(drawn, torch.tensor([part, 0.5]))[0], drawn.quantile(part, 0))
    assert (quantiles_of(drawn[:1], torch.tensor([part])) == drawn[:1]).all()
