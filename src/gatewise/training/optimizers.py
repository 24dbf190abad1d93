"""The rules that update the parameters, and the learning rate at each step."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from gatewise.config import BaseTrainingConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: BaseTrainingConfig) -> Optimizer:
    """torch's own AdamW or SGD; its learning rate is to be set before each step."""
    parameters = list(parameters)
    # One kernel for all parameters. 256 hidden units, 2 threads: adamw 0.17 ms against 0.46, sgd with momentum 0.06
    # against 0.11, plain sgd 0.04 either way.
    fused = parameters[0].device.type in ("cpu", "cuda")
    if config.optimizer == "adamw":
        return AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    return SGD(
        parameters, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
    )


def learning_rate(step: int, steps: int, config: BaseTrainingConfig) -> float:
    """The learning rate of the step after the first `step` ones, of `steps` in all.

    It rises linearly over the warm-up, reaching its peak at the last step of it; then it stays ("constant"), or falls
    from there so that it would be zero at the step after the last one: "linear", or "cosine" (Loshchilov, Hutter 2017).

    A training that is resumed with more epochs has a larger `steps`, so from there on it has the rates that the longer
    training has: with a falling schedule the rate goes up again at that point.
    """
    warmup = config.warmup_steps
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.learning_rate
    part = (step - warmup) / max(1, steps - warmup)  # of the way from the peak to zero
    if config.schedule == "linear":
        return config.learning_rate * (1 - part)
    return config.learning_rate * (1 + math.cos(math.pi * part)) / 2
