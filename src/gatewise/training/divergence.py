"""Where a loss that is not finite began."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def bad_parameter(network: nn.Module) -> str | None:
    """The name of the first parameter that holds an infinity or a NaN, if one does."""
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            return name
    return None


def bad_gradient(network: nn.Module) -> str | None:
    """The name of the parameter whose gradient is the first, on the way back from the loss, that is not finite."""
    for name, parameter in reversed(list(network.named_parameters())):
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return name
    return None


@torch.no_grad()
def where_it_began(network: nn.Module, activations: Iterable[tuple[str, Tensor]], state: Tensor | None) -> str:
    """The first thing that is not finite when one batch runs through the network once more, in words.

    activations: name and output (T, B, ...) of each layer, computed as they are asked for; state: what the batch
    started from, None for zeros.
    """
    if name := bad_parameter(network):
        return f"in the parameter {name}, which the step before left so"
    if state is not None and not state.isfinite().all():
        return "in the state carried from the window before"
    for name, output in activations:
        bad_steps = ~output.isfinite().flatten(1).all(1)  # (T,)
        if bad_steps.any():
            return f"in {name} at time step {int(bad_steps.byte().argmax())} of 0 to {len(output) - 1}"
    return "nowhere when the batch was run once more without dropout: the values are at the edge of their range"
