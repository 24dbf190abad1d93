"""What int8 rounds, and what comes of it.

Each row of a weight matrix is kept as whole numbers up to 127 times a scale of its own. What a matrix multiplies is
rounded, too, anew in each step, with a step size that is fixed beforehand by its range: for what an activation or a
gated cell bounds, that bound; for an embedding its largest weight; for the rest `HEADROOM` times the largest value
that it took in the calibration. It is rounded to as many levels as a sum in 32 bits allows, which are 32767 for up to
516 inputs: the weights' rounding is what counts. Everything else, states and gates among it, stays in float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.interchange.parity import state_names
from gatewise.kernels import reference
from gatewise.kernels.regularisation import Regularisation
from gatewise.layers.gru import GRU
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.layers.rnn import RNN
from gatewise.models.embeddings import OneHot
from gatewise.models.sequential import Pooling, SequentialNetwork

MOST_WEIGHT = 127
HEADROOM = 4  # costs two of the fifteen bits; new data lie beyond the calibration's
Ranges = dict[str, float]
Read = Callable[[str, Tensor], Tensor]  # what a matrix reads of its input, by the input's name


def most_level(columns: int) -> int:
    """The largest whole number of an input of a matrix with so many columns: no sum of products leaves 32 bits."""
    return min(32767, (2**31 - 1) // (MOST_WEIGHT * columns))


def row_scales(weight: np.ndarray) -> np.ndarray:
    """The scale (rows,) float32 of each row."""
    return (np.abs(weight).max(axis=1) / MOST_WEIGHT).astype(np.float32)


def whole_numbers(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The weight over its rows' scales, (rows, columns) int8."""
    divisors = np.where(scales > 0, scales, 1).astype(np.float64)[:, None]
    return np.clip(np.rint(weight / divisors), -MOST_WEIGHT, MOST_WEIGHT).astype(np.int8)


def with_rounded_weights(network: SequentialNetwork) -> SequentialNetwork:
    """A reference of the network, in float64, whose matrices are those that int8 holds; biases in float32."""
    rounded = network.reference().cpu()
    with torch.no_grad():
        for parameter in rounded.parameters():
            weight = parameter.numpy()
            if weight.ndim == 2:
                scales = row_scales(weight)
                weight = whole_numbers(weight, scales) * scales.astype(np.float64)[:, None]
            else:
                weight = weight.astype(np.float32).astype(np.float64)
            parameter.copy_(torch.from_numpy(weight))
    return rounded


def layer_name(network: SequentialNetwork, index: int) -> str:
    """What a layer is called in C: its kind and its place."""
    return f"{network.describe()[index]['kind'].replace('-', '_')}_{index}"


def suffixes(layer: RecurrentLayer) -> list[str]:
    """How its layers and directions are called: l0, l0_reverse, l1, ..."""
    ends = ("", "_reverse") if layer.bidirectional else ("",)
    return [f"l{number}{end}" for number in range(layer.num_layers) for end in ends]


def cell_of(layer: RecurrentLayer) -> str:
    """The name of its cell, as the reference has it."""
    match layer:
        case GRU():
            return f"gru_{layer.reset}"
        case RNN():
            return f"rnn_{layer.nonlinearity}"
    return "lstm"


@dataclass(frozen=True, eq=False)
class _Reading(Regularisation):
    """Has the recurrent weights read what `read_h` makes of the state."""

    read_h: Callable[[Tensor], Tensor] = lambda h: h

    def read(self, h: Tensor) -> Tensor:
        return self.read_h(h)


@torch.no_grad()
def layer_outputs(
    network: SequentialNetwork, inputs: dict[str, np.ndarray], read: Read = lambda name, x: x
) -> tuple[list[Tensor], list[Tensor]]:
    """The output of each layer of a reference in float64, and the last states, each (L*D, B, H).

    read: is given what each matrix multiplies, and gives what it multiplies instead.
    """
    x = torch.from_numpy(inputs["x"])
    x = x if network.reads_tokens else x.double()
    outputs, last, directions = [], [], 1
    names = iter(state_names(network))
    for index, layer in enumerate(network.layers):
        name = layer_name(network, index)
        if isinstance(layer, RecurrentLayer):
            x, hn = _recurrent(layer, x, [inputs.get(state) for state in next(names)], read, name)
            last += hn
            directions = 2 if layer.bidirectional else 1
        elif isinstance(layer, nn.Linear):
            x = layer(read(f"{name}.x", x))
        elif isinstance(layer, Pooling):
            x = layer(x, None, directions)
        else:
            x = layer(x)
        outputs.append(x)
    return outputs, last


def _recurrent(
    layer: RecurrentLayer, x: Tensor, given: Sequence[np.ndarray | None], read: Read, name: str
) -> tuple[Tensor, list[Tensor]]:
    shape = (len(suffixes(layer)), x.shape[1], layer.hidden_size)
    first = [x.new_zeros(shape) if state is None else torch.from_numpy(state).double() for state in given]
    last, sides = [], []
    for number, suffix in enumerate(suffixes(layer)):
        weights: list[Any] = list(layer.all_weights[number])
        y, states, _ = reference.recurrent(
            cell_of(layer),
            read(f"{name}_{suffix}.x", x),
            [state[number] for state in first],
            weights if layer.bias else [*weights, None, None],
            reverse=suffix.endswith("reverse"),
            regularisation=_Reading(read_h=lambda h, key=f"{name}_{suffix}.h": read(key, h)),
        )
        sides.append(y)
        last.append(states)
        if suffix.endswith("reverse") or not layer.bidirectional:
            x, sides = torch.cat(sides, -1), []
    return x, [torch.stack(parts) for parts in zip(*last, strict=True)]


def calibrated(network: SequentialNetwork, inputs: np.ndarray) -> Ranges:
    """Of what each matrix of a reference in float64 multiplies the range, by name; from inputs (T, B) or (T, B, F)."""
    observed: Ranges = {}

    def observe(name: str, x: Tensor) -> Tensor:
        observed[name] = max(observed.get(name, 0.0), float(x.abs().max()))
        return x

    layer_outputs(network, {"x": inputs}, observe)
    bounds = _bounds(network)
    least = {name: 1.0 for name in observed if name.endswith(".h")}  # first states may be given
    return {
        name: bounds.get(name) or max(HEADROOM * largest, least.get(name, 0.0)) or 1.0
        for name, largest in observed.items()
    }


def _bounds(network: SequentialNetwork) -> Ranges:
    """The ranges that need no calibration."""
    bounds: Ranges = {}
    bound = None  # of what the layer before gives
    for index, layer in enumerate(network.layers):
        name = layer_name(network, index)
        if isinstance(layer, RecurrentLayer):
            own = None if cell_of(layer) == "rnn_relu" else 1.0
            per_layer = 2 if layer.bidirectional else 1
            for number, suffix in enumerate(suffixes(layer)):
                bounds |= {f"{name}_{suffix}.x": (bound if number < per_layer else own) or 0.0}
                bounds |= {f"{name}_{suffix}.h": own or 0.0}
            bound = own
        elif isinstance(layer, nn.Linear):
            bounds[f"{name}.x"] = bound or 0.0
            bound = None
        elif isinstance(layer, nn.Embedding):
            bound = float(layer.weight.detach().abs().max())
        elif isinstance(layer, OneHot | nn.Sigmoid | nn.Tanh | nn.Softmax):
            bound = 1.0
        elif isinstance(layer, nn.LogSoftmax):
            bound = None
    return bounds


def rounding(ranges: Ranges) -> Read:
    """What matrices with these ranges read: their inputs, rounded as C does it."""

    def read(name: str, x: Tensor) -> Tensor:
        limit = most_level(x.shape[-1])
        step = float(np.float32(ranges[name] / limit))
        levels = (x / step).clamp(-limit, limit)
        return torch.trunc(levels + torch.copysign(torch.tensor(0.5, dtype=x.dtype), levels)) * step

    return read
