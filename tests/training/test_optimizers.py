"""optimizers: the learning rate at each step, and that the rules are torch's own."""

import itertools
import math

import pytest
import torch

from gatewise.config import TrainingConfig
from gatewise.training.optimizers import build_optimizer, learning_rate


def rates(steps: int, **config) -> list[float]:
    config = TrainingConfig(learning_rate=2.0, **config)
    return [learning_rate(step, steps, config) for step in range(steps)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"schedule": "constant"}, [2, 2, 2, 2]),
        ({"schedule": "linear"}, [2, 1.5, 1, 0.5]),
        ({"schedule": "cosine"}, [2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5)]),
        ({"schedule": "constant", "warmup_steps": 4}, [0.5, 1, 1.5, 2]),
        ({"schedule": "linear", "warmup_steps": 2}, [1, 2, 2, 1]),
        ({"schedule": "cosine", "warmup_steps": 2}, [1, 2, 2, 1]),
        ({"schedule": "cosine", "warmup_steps": 8}, [0.25, 0.5, 0.75, 1]),
    ],
    ids=str,
)
def test_learning_rate(config, expected):
    assert rates(4, **config) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_rate_falls_and_stays_above_zero(schedule):
    falling = rates(1000, schedule=schedule)
    assert all(earlier > later > 0 for earlier, later in itertools.pairwise(falling))


@pytest.mark.parametrize(
    ("config", "peer"),
    [
        (
            {"optimizer": "adamw", "weight_decay": 0.1},
            lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
        ),
        (
            {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
            lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=0.1),
        ),
    ],
    ids=["adamw", "sgd"],
)
def test_updates_are_those_of_torch(config, peer):
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(7))]
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    optimizers = [build_optimizer(parameters, TrainingConfig(learning_rate=0.01, **config)), peer(copies)]
    for _ in range(20):
        for parameter, copy in zip(parameters, copies, strict=True):
            parameter.grad = torch.randn_like(parameter)
            copy.grad = parameter.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for parameter, copy in zip(parameters, copies, strict=True):
        torch.testing.assert_close(parameter, copy)
