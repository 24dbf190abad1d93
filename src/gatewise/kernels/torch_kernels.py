"""torch's own kernels over one layer in one direction: on CUDA cuDNN's, elsewhere those that torch has there.

They know neither the GRU with reset="before" nor resets nor gates. Lengths reach them as packed sequences.
"""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gatewise.kernels import packing
from gatewise.kernels.reference import recomputed

# cuDNN compacts the weights of one layer in one direction at each call, which lie beside those of the others; nobody
# who reads the warning can help it.
warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk", module=__name__)

CELLS: dict[str, Any] = {
    "gru_after": torch._VF.gru,
    "lstm": torch._VF.lstm,
    "rnn_tanh": torch._VF.rnn_tanh,
    "rnn_relu": torch._VF.rnn_relu,
}


def recurrent(
    cell: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    *,
    reverse: bool = False,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    checkpoint_every: int | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A cell over a whole sequence: y (T, B, R) and the last states; as `gatewise.kernels.reference.recurrent`.

    batch_sizes (T,): rows at each step of x (sum of lengths, I), which is then packed.
    """
    if lengths is not None:
        return _padded(cell, x, states, weights, reverse, lengths, checkpoint_every)
    if not reverse:
        return _forward(cell, x, states, weights, batch_sizes, checkpoint_every)
    if batch_sizes is None:
        y, last = _forward(cell, x.flip(0), states, weights, None, checkpoint_every)
        return y.flip(0), last
    turned = packing.backwards(batch_sizes).to(x.device)
    y, last = _forward(cell, x.index_select(0, turned), states, weights, batch_sizes, checkpoint_every)
    return y.index_select(0, turned), last


def _forward(cell, x, states, weights, batch_sizes, checkpoint_every) -> tuple[Tensor, tuple[Tensor, ...]]:
    given = [weight for weight in weights if weight is not None]
    kernel, bias, training = CELLS[cell], weights[2] is not None, torch.is_grad_enabled()

    def run(x: Tensor, sizes: Tensor | None, *states: Tensor) -> tuple[Tensor, ...]:
        first = [state.unsqueeze(0).contiguous() for state in states]  # cuDNN takes no expanded ones
        begun: Any = first if len(first) > 1 else first[0]
        how = (bias, 1, 0.0, training, False)
        with _autocast_off(x):
            y, *last = kernel(x, begun, given, *how, False) if sizes is None else kernel(x, sizes, begun, given, *how)
        return y, *(state[0] for state in last)

    if checkpoint_every is None:
        y, *last = run(x, batch_sizes, *states)
        return y, tuple(last)
    outputs, now = [], tuple(states)
    if batch_sizes is None:
        stretches = [(part, None) for part in x.split(checkpoint_every)]
    else:
        sizes = batch_sizes.split(checkpoint_every)
        stretches = zip(x.split([int(part.sum()) for part in sizes]), sizes, strict=True)
    for part, sizes in stretches:
        rows = len(now[0]) if sizes is None else int(sizes[0])
        y, *new = recomputed(run, part, sizes, *(state[:rows] for state in now))
        outputs.append(y)
        now = tuple(torch.cat([s, old[rows:]]) for s, old in zip(new, now, strict=True))  # those that have ended wait
    return torch.cat(outputs), now


def _autocast_off(x: Tensor) -> AbstractContextManager[Any]:
    """Autocast has been seen to, and on CUDA these kernels would compute in float16 whatever dtype it asks for."""
    enabled = torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(x.device.type)
    return torch.autocast(x.device.type, enabled=False) if enabled else nullcontext()


def _padded(cell, x, states, weights, reverse, lengths, checkpoint_every) -> tuple[Tensor, tuple[Tensor, ...]]:
    """As recurrent, for rows of these lengths (B,) in any order: packed, run and spread again."""
    steps, batch, _ = x.shape
    lengths, order = lengths.cpu().sort(descending=True, stable=True)
    lengths = lengths[: int(lengths.count_nonzero())]
    size, shape = states[0].shape[1], (steps * batch,)
    if len(lengths) == 0:
        return x.new_zeros(steps, batch, size), tuple(state.clone() for state in states)
    rows = order[: len(lengths)].to(x.device)
    batch_sizes = packing.batch_sizes_of(lengths)
    step, row = packing.steps_and_rows(batch_sizes)
    places = (step * batch + order[row]).to(x.device)
    packed = x.flatten(0, 1).index_select(0, places)
    first = [state.index_select(0, rows) for state in states]
    y, last = recurrent(
        cell, packed, first, weights, reverse=reverse, batch_sizes=batch_sizes, checkpoint_every=checkpoint_every
    )
    y = y.new_zeros(*shape, size).index_copy(0, places, y).unflatten(0, (steps, batch))
    return y, tuple(state.index_copy(0, rows, s) for state, s in zip(states, last, strict=True))
