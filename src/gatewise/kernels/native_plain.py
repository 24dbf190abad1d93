"""The plain call by a short way: on the CPU, with or without lengths, packed or not, and nobody follows.

It takes float32, and bfloat16 where the kernels compute in it: not with lengths.

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
from torch.nn.utils.rnn import PackedSequence

from gatewise.kernels import _native, native_calls, native_recurrent, packing
from gatewise.kernels.reference import CELLS

_BLOCKS = {name: cell.blocks for name, cell in CELLS.items()}  # of H rows that the weights have
_STATES = {name: cell.states for name, cell in CELLS.items()}
_FLOAT32, _BFLOAT16 = torch.float32, torch.bfloat16
_NO_CHECKPOINTS, _NO_ROWS = (0, 0), (0, False, False, 0, 0, 0)

Weights = Sequence[Sequence[Any]]


# The rows of a batch: T, B, how many floats lie from one step of x to the next and from one row to the next, the
# lengths if not all take all steps, and whether they are packed, as in a PackedSequence, which has no way from step to
# step.
_Rows = tuple[int, int, tuple[int, int], Tensor | None, bool]


def run(
    cell: str, x: Any, hx: Any, weights: Weights, input_size: int, hidden_size: int, batch_first: bool, lengths: Any
) -> tuple[Any, Any] | None:
    """y and the last states of layers in one direction, as a layer gives them; None where the call is not plain.

    x (T, B, I), or (B, T, I) if batch_first, or a PackedSequence; hx (L, B, H), of an LSTM (h0, c0), or None for zeros.
    weights: of each layer weight_ih, weight_hh, and bias_ih, bias_hh if it has them. lengths (B,): steps of each row;
    None for all.
    """
    sequence = None
    if type(x) is PackedSequence and lengths is None:
        sequence, batch_first, x = x, False, x.data
    if (
        type(x) is not Tensor
        or not (x.dtype is _FLOAT32 or (lengths is None and sequence is None and _is_bfloat16(cell, x)))
        or not x.is_cpu
        or x.dim() != (3 if sequence is None else 2)
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_any_autocast_enabled()
        or torch._C._is_tracing()
        or forward_ad._current_level >= 0
    ):
        return None
    if sequence is not None:
        rows = _packed_rows(x, sequence.batch_sizes, input_size)
    else:
        rows = _rows_of(x, lengths, input_size, batch_first)
    if rows is None:
        return None
    steps, batch, *_ = rows
    states = ()
    if hx is not None:
        states = hx if cell == "lstm" else (hx,)
        if not _states_fit(states, x.dtype, _STATES[cell], (len(weights), batch, hidden_size)):
            return None
    depth = input_size
    for given in weights:
        if not _weights_fit(given, x.dtype, _BLOCKS[cell] * hidden_size, depth, hidden_size):
            return None
        depth = hidden_size
    derived = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensors in ((x, *states), *weights) for tensor in tensors
    )
    if derived and len(weights) > 1:
        return None
    if sequence is not None and sequence.sorted_indices is not None:
        states = tuple(state.index_select(1, sequence.sorted_indices) for state in states)
    if derived and batch_first:
        x = x.transpose(0, 1)
    run = _derived if derived else _computed
    y, lasts = run(cell, x, states, weights, rows, hidden_size)
    if sequence is not None:
        if sequence.unsorted_indices is not None:
            lasts = [last.index_select(1, sequence.unsorted_indices) for last in lasts]
        y = PackedSequence(y, *sequence[1:])
    elif batch_first:
        y = y.view(batch, 1, hidden_size) if steps == 1 else y.transpose(0, 1)
    return y, lasts[0] if len(lasts) == 1 else tuple(lasts)


def _is_bfloat16(cell: str, x: Tensor) -> bool:
    """Whether x is, and the kernels compute in it."""
    return x.dtype is _BFLOAT16 and _native.computes_bfloat16(native_calls.CELLS[cell])


def _rows_of(x: Tensor, lengths: Any, input_size: int, batch_first: bool) -> _Rows | None:
    """The rows of x (T, B, I) or (B, T, I); None if they are not plain."""
    steps, batch, inputs = x.shape
    step, row, unit = x.stride()
    if batch_first:
        steps, batch, step, row = batch, steps, row, step
    if inputs != input_size or steps == 0 or batch == 0 or unit != 1:
        return None
    if lengths is not None and not _lengths_fit(lengths, steps, batch):
        return None
    return steps, batch, (step, row), lengths, False


def _packed_rows(x: Tensor, batch_sizes: Any, input_size: int) -> _Rows | None:
    """The rows of packed x (sum of lengths, I); None if they are not plain, or these cannot be their batch sizes."""
    total, inputs = x.shape
    row, unit = x.stride()
    if inputs != input_size or total == 0 or unit != 1:
        return None
    if type(batch_sizes) is not Tensor or batch_sizes.dtype is not torch.int64 or not batch_sizes.is_cpu:
        return None
    sizes = batch_sizes.numpy()
    if sizes.ndim != 1 or sizes[-1] < 1 or (sizes[1:] > sizes[:-1]).any() or sizes.sum() != total:
        return None
    return len(sizes), int(sizes[0]), (row, row), packing.lengths_of(batch_sizes), True


def _computed(cell: str, x: Tensor, states: Sequence[Tensor], weights: Weights, rows: _Rows, hidden_size: int):
    """y and the last states, without a gradient."""
    _, batch, apart, _, _ = rows
    plane, inputs = batch * hidden_size * x.itemsize, x.shape[-1]  # plane: bytes of a layer's state
    lasts = [x.new_empty(len(weights), batch, hidden_size) for _ in range(_STATES[cell])]
    first = [state.data_ptr() for state in states] if states else [_zeros_at(hidden_size)] * len(lasts)
    last = [state.data_ptr() for state in lasts]
    y, source, first_apart = x, (x.data_ptr(), *apart), hidden_size if states else 0
    for given in weights:
        y, target = _outputs(x, rows, hidden_size)
        _forward(x.dtype, cell, rows, inputs, hidden_size, given, source, first, first_apart, target, last, 0)
        source, inputs, _below = target, hidden_size, y  # which lives on while the next layer reads it
        last = [address + plane for address in last]
        if states:
            first = [address + plane for address in first]
    return y, lasts


def _states_fit(states: Any, dtype: torch.dtype, count: int, shape: tuple[int, int, int]) -> bool:
    if type(states) is not tuple or len(states) != count:
        return False
    for state in states:
        if (
            type(state) is not Tensor
            or state.shape != shape
            or state.dtype is not dtype
            or not state.is_cpu
            or not state.is_contiguous()
        ):
            return False
    return True


def _weights_fit(weights: Sequence[Any], dtype: torch.dtype, high: int, inputs: int, hidden_size: int) -> bool:
    for weight, shape in zip(weights, ((high, inputs), (high, hidden_size), (high,), (high,)), strict=False):
        if (
            (type(weight) is not Parameter and type(weight) is not Tensor)
            or weight.shape != shape
            or weight.dtype is not dtype
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


def _outputs(x: Tensor, rows: _Rows, hidden_size: int) -> tuple[Tensor, tuple[int, int, int]]:
    """Memory for y, its address and strides of time and batch; zeros in padding, which the kernel does not write."""
    steps, batch, _, lengths, packed = rows
    if packed:
        y = x.new_empty(x.shape[0], hidden_size)
        return y, (y.data_ptr(), hidden_size, hidden_size)
    shape = (steps, batch, hidden_size)
    y = x.new_empty(shape) if lengths is None else x.new_zeros(shape)
    return y, (y.data_ptr(), batch * hidden_size, hidden_size)


_zeros: dict[int, Tensor] = {}


def _zeros_at(size: int) -> int:
    """The address of zeros, of either dtype, that are the first state of every row."""
    zeros = _zeros.get(size)
    if zeros is None:  # another thread may be here, too, and use what it found
        zeros = _zeros.setdefault(size, torch.zeros(size, dtype=_FLOAT32, device="cpu"))
    return zeros.data_ptr()


def _forward(dtype, cell, rows: _Rows, inputs, hidden_size, weights, source, first, apart, target, last, saved) -> None:
    """One layer. source, target: address and strides of x and y; first, last: addresses of h and c.

    apart: floats from a row of the first states to the next.
    """
    steps, batch, _, lengths, packed = rows
    h0, c0 = first if len(first) == 2 else (first[0], 0)
    hn, cn = last if len(last) == 2 else (last[0], 0)
    addresses = [weight.data_ptr() for weight in weights]
    addresses += (0, 0, 0) if len(addresses) == 2 else (0,)  # no biases, no projection
    of_rows = _NO_ROWS if lengths is None else (lengths.data_ptr(), packed, False, 0, 0, 0)
    (_native.forward if dtype is _FLOAT32 else _native.forward_bfloat16)(
        native_calls.CELLS[cell], steps, batch, inputs, hidden_size, hidden_size, *addresses, *source,
        h0, apart, c0, apart, *target, hn, cn, saved, *_NO_CHECKPOINTS, *of_rows, native_calls.most_threads(),
    )  # fmt: skip


class _Plain(torch.autograd.Function):
    """One layer as autograd sees it; what it saves is no result, which costs less than in native_recurrent."""

    @staticmethod
    def forward(ctx, x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, cell, rows):
        hidden_size = weight_hh.shape[1]
        _, batch, apart, lengths, packed = rows
        y, target = _outputs(x, rows, hidden_size)
        hn = x.new_empty(1, batch, hidden_size)
        lasts = [hn] if c0 is None else [hn, torch.empty_like(hn)]
        saved_size = _native.saved_size(native_calls.CELLS[cell], hidden_size)
        saved = native_calls.saved_gates(x, (*x.shape[:-1], saved_size))
        _forward(
            x.dtype,
            cell,
            rows,
            x.shape[-1],
            hidden_size,
            [weight_ih, weight_hh] if bias_ih is None else [weight_ih, weight_hh, bias_ih, bias_hh],
            (x.data_ptr(), *apart),
            [h0.data_ptr()] if c0 is None else [h0.data_ptr(), c0.data_ptr()],
            hidden_size,
            target,
            [state.data_ptr() for state in lasts],
            saved.data_ptr(),
        )
        ctx.cell, ctx.reverse, ctx.packed, ctx.every = cell, False, packed, 0
        ctx.save_for_backward(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, None, y, saved)
        ctx.set_materialize_grads(False)
        return y, *lasts

    @staticmethod
    def backward(ctx, dy, *dlasts):  # pyright: ignore[reportIncompatibleMethodOverride]
        dhn, dcn, *_ = (*(None if d is None else d.squeeze(0) for d in dlasts), None)
        return *native_recurrent.gradients(ctx, dy, dhn, dcn, None)[:7], None, None


def _derived(cell: str, x: Tensor, states: Sequence[Tensor], weights: Weights, rows: _Rows, hidden_size: int):
    """As _computed, of one layer, with a gradient."""
    (given,) = weights
    biases = given[2:] or (None, None)
    first = [state.squeeze(0) for state in states]
    if not first:
        first = [x.new_zeros(rows[1], hidden_size)] * _STATES[cell]
    h0, c0 = (*first, None)[:2]
    y, *lasts = _Plain.apply(x, h0, c0, *given[:2], *biases, cell, rows)
    return y, lasts
