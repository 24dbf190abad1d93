"""The plain call by a short way: float32 on the CPU, with or without lengths, and nobody follows.

Of one step of one row, the checks, choices and views that any call needs take several times as long as the kernel. Here
one condition stands for all of them; where it does not hold, the usual way goes on, and says what is wrong. Importing
this module fails with ImportError where the package was installed without a compiler.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from gatewise.kernels import _native, native_calls, native_recurrent
from gatewise.kernels.reference import CELLS

_BLOCKS = {name: cell.blocks for name, cell in CELLS.items()}  # of H rows that the weights have
_STATES = {name: cell.states for name, cell in CELLS.items()}
_FLOAT32, _BYTES = torch.float32, 4
_NO_CHECKPOINTS, _NO_ROWS = (0, 0), (0, False, False, 0, 0, 0)

Weights = Sequence[Sequence[Any]]


def run(
    cell: str,
    x: Any,
    hx: Any,
    weights: Weights,
    input_size: int,
    hidden_size: int,
    batch_first: bool,
    lengths: Any = None,
) -> tuple[Tensor, Any] | None:
    """y and the last states of layers in one direction, as a layer gives them; None where the call is not plain.

    x (T, B, I), or (B, T, I) if batch_first; hx (L, B, H), of an LSTM (h0, c0), or None for zeros. weights: of each
    layer weight_ih, weight_hh, and bias_ih, bias_hh if it has them. lengths (B,): steps of each row; None for all.
    """
    if (
        type(x) is not Tensor
        or x.dtype is not _FLOAT32
        or not x.is_cpu
        or x.dim() != 3
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_any_autocast_enabled()
        or torch._C._is_tracing()
        or forward_ad._current_level >= 0
    ):
        return None
    steps, batch, inputs = x.shape
    step, row, unit = x.stride()
    if batch_first:
        steps, batch, step, row = batch, steps, row, step
    if inputs != input_size or steps == 0 or batch == 0 or unit != 1:
        return None
    if lengths is not None and not _lengths_fit(lengths, steps, batch):
        return None
    states = ()
    if hx is not None:
        states = hx if cell == "lstm" else (hx,)
        if not _states_fit(states, _STATES[cell], (len(weights), batch, hidden_size)):
            return None
    depth = inputs
    for given in weights:
        if not _weights_fit(given, _BLOCKS[cell] * hidden_size, depth, hidden_size):
            return None
        depth = hidden_size
    if torch.is_grad_enabled() and any(
        tensor.requires_grad for tensors in ((x, *states), *weights) for tensor in tensors
    ):
        return _derived(cell, x, states, weights, lengths, batch_first) if len(weights) == 1 else None
    number, plane = native_calls.CELLS[cell], batch * hidden_size
    lasts = [x.new_empty(len(weights), batch, hidden_size) for _ in range(_STATES[cell])]
    first = [state.data_ptr() for state in states] if states else [_zeros_at(hidden_size)] * len(lasts)
    last = [state.data_ptr() for state in lasts]
    y, source, apart = x, (x.data_ptr(), step, row), hidden_size if states else 0
    rows = _rows(lengths)
    for given in weights:
        y = _outputs(x, lengths, steps, batch, hidden_size)
        target = (y.data_ptr(), plane, hidden_size)
        _forward(number, (steps, batch, inputs, hidden_size), given, source, first, apart, target, last, 0, rows)
        source, inputs, _below = target, hidden_size, y  # which lives on while the next layer reads it
        last = [address + plane * _BYTES for address in last]
        if states:
            first = [address + plane * _BYTES for address in first]
    if batch_first:
        y = y.view(batch, 1, hidden_size) if steps == 1 else y.transpose(0, 1)
    return y, lasts[0] if len(lasts) == 1 else tuple(lasts)


def _states_fit(states: Any, count: int, shape: tuple[int, int, int]) -> bool:
    if type(states) is not tuple or len(states) != count:
        return False
    for state in states:
        if (
            type(state) is not Tensor
            or state.shape != shape
            or state.dtype is not _FLOAT32
            or not state.is_cpu
            or not state.is_contiguous()
        ):
            return False
    return True


def _weights_fit(weights: Sequence[Any], high: int, inputs: int, hidden_size: int) -> bool:
    for weight, shape in zip(weights, ((high, inputs), (high, hidden_size), (high,), (high,)), strict=False):
        if (
            (type(weight) is not Parameter and type(weight) is not Tensor)
            or weight.shape != shape
            or weight.dtype is not _FLOAT32
            or not weight.is_cpu
            or not weight.is_contiguous()
        ):
            return False
    return len(weights) in (2, 4)


def _lengths_fit(lengths: Any, steps: int, batch: int) -> bool:
    if (
        type(lengths) is not Tensor
        or lengths.dtype is not torch.int64
        or not lengths.is_cpu
        or lengths.shape != (batch,)
        or not lengths.is_contiguous()
    ):
        return False
    numbers = lengths.tolist()
    return min(numbers) >= 0 and max(numbers) <= steps


def _rows(lengths: Tensor | None) -> tuple[int | bool, ...]:
    """What the kernel is told about rows of different lengths."""
    return _NO_ROWS if lengths is None else (lengths.data_ptr(), False, False, 0, 0, 0)


def _outputs(x: Tensor, lengths: Tensor | None, *shape: int) -> Tensor:
    """Memory for y, whose padding the kernel does not write."""
    return x.new_empty(shape) if lengths is None else x.new_zeros(shape)


_zeros: dict[int, Tensor] = {}


def _zeros_at(size: int) -> int:
    """The address of zeros that are the first state of every row."""
    zeros = _zeros.get(size)
    if zeros is None:  # another thread may be here, too, and use what it found
        zeros = _zeros.setdefault(size, torch.zeros(size, dtype=_FLOAT32, device="cpu"))
    return zeros.data_ptr()


def _forward(number, sizes, weights, source, first, apart, target, last, saved, rows) -> None:
    """One layer. source, target: address and strides of x and y; first, last: addresses of h and c, rows `apart`."""
    h0, c0 = first if len(first) == 2 else (first[0], 0)
    hn, cn = last if len(last) == 2 else (last[0], 0)
    addresses = [weight.data_ptr() for weight in weights]
    addresses += (0, 0, 0) if len(addresses) == 2 else (0,)  # no biases, no projection
    _native.forward(
        number, *sizes, sizes[-1], *addresses, *source, h0, apart, c0, apart, *target, hn, cn, saved,
        *_NO_CHECKPOINTS, *rows, native_calls.most_threads(),
    )  # fmt: skip


class _Plain(torch.autograd.Function):
    """One layer as autograd sees it; what it saves is no result, which costs less than in native_recurrent."""

    @staticmethod
    def forward(ctx, x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, cell, lengths):
        number, (steps, batch, inputs), hidden_size = native_calls.CELLS[cell], x.shape, weight_hh.shape[1]
        y, hn = _outputs(x, lengths, steps, batch, hidden_size), x.new_empty(1, batch, hidden_size)
        lasts = [hn] if c0 is None else [hn, torch.empty_like(hn)]
        saved = native_calls.saved_gates(x, (steps, batch, _native.saved_size(number, hidden_size)))
        _forward(
            number,
            (steps, batch, inputs, hidden_size),
            [weight_ih, weight_hh] if bias_ih is None else [weight_ih, weight_hh, bias_ih, bias_hh],
            (x.data_ptr(), *x.stride()[:2]),
            [h0.data_ptr()] if c0 is None else [h0.data_ptr(), c0.data_ptr()],
            hidden_size,
            (y.data_ptr(), batch * hidden_size, hidden_size),
            [state.data_ptr() for state in lasts],
            saved.data_ptr(),
            _rows(lengths),
        )
        ctx.cell, ctx.reverse, ctx.packed, ctx.every = cell, False, False, 0
        ctx.save_for_backward(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, None, y, saved)
        ctx.set_materialize_grads(False)
        return y, *lasts

    @staticmethod
    def backward(ctx, dy, *dlasts):  # pyright: ignore[reportIncompatibleMethodOverride]
        dhn, dcn, *_ = (*(None if d is None else d.squeeze(0) for d in dlasts), None)
        return *native_recurrent.gradients(ctx, dy, dhn, dcn, None)[:7], None, None


def _derived(cell: str, x: Tensor, states: Sequence[Tensor], weights: Weights, lengths, batch_first: bool):
    """As run, of one layer, with a gradient."""
    if batch_first:
        x = x.transpose(0, 1)
    (given,) = weights
    biases = given[2:] or (None, None)
    first = [state.squeeze(0) for state in states]
    if not first:
        first = [x.new_zeros(x.shape[1], given[1].shape[1])] * _STATES[cell]
    h0, c0 = (*first, None)[:2]
    y, *lasts = _Plain.apply(x, h0, c0, *given[:2], *biases, cell, lengths)
    return y.transpose(0, 1) if batch_first else y, lasts[0] if len(lasts) == 1 else tuple(lasts)
