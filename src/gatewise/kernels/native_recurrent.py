"""The native kernels as operators of torch: `gatewise::recurrent` and its backward, `gatewise::recurrent_backward`.

They take float32, or bfloat16 throughout: then the state and all sums are float32, and what comes out is rounded. With
shapes for tracing and a gradient, so that torch.compile, torch.export and torch.func see one operator for a whole
sequence; where none of these follow, the same functions are called without the dispatcher, which takes 30 us of a step
that takes 10. Importing this module fails with ImportError where the package was installed without a compiler.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import BackendError, InputError
from gatewise.kernels import _native, packing, reference, transforms

_POOLED_FLOATS = 2**20  # 4 MB; the way through DLPack costs about 10 us

CELLS = {name: number for number, name in enumerate(_native.cells)}

INSTRUCTION_SETS = ("amx", "avx512", "avx2", "portable")


def _force_instruction_set(name: str) -> None:
    """Use the kernels for one instruction set rather than the best: every code path can be tested on one machine."""
    if name not in INSTRUCTION_SETS:
        raise BackendError(f"GATEWISE_ISA={name} is unknown; expected one of {', '.join(INSTRUCTION_SETS)}")
    if not _native.use_instruction_set(name):
        raise BackendError(
            f"GATEWISE_ISA={name} cannot serve: this processor or this build lacks it; unset GATEWISE_ISA"
        )


if os.environ.get("GATEWISE_ISA"):
    _force_instruction_set(os.environ["GATEWISE_ISA"])

_forked = False


def _remember_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_fork)


def most_threads() -> int:
    """Threads for a call: torch's own number, but one in a forked process, to which OpenMP's threads do not follow."""
    return 1 if _forked else torch.get_num_threads()


OPENMP = _native.openmp


def instruction_set() -> str:
    """Name of the instruction set whose kernels are in use; "amx" is that for bfloat16."""
    return _native.instruction_set()


def float32_instruction_set() -> str:
    """Name of the instruction set whose kernels serve float32."""
    return _native.float32_instruction_set()


def recurrent(
    cell: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    *,
    reverse: bool = False,
    lengths: Tensor | None = None,
    packed: bool = False,
    resets: Tensor | None = None,
    return_gates: bool = False,
    checkpoint_every: int | None = None,
) -> tuple[Tensor, tuple[Tensor, ...], reference.Gates | None]:
    """As `gatewise.kernels.reference.recurrent`, for tensors that were checked; keeps gates only if they are wanted.

    lengths (B,) int64 and resets are on the CPU. checkpoint_every: for the backward sweep only y is kept, and of an
    LSTM c at every so many steps, or more often.
    """
    h0, c0 = states if len(states) == 2 else (states[0], None)
    tensors = (x, h0, c0, *weights[:4])
    derived = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    run: Any = _Recurrent.apply if derived else _forward
    if _followed(tensors):
        run = torch.ops.gatewise.recurrent.default
    every = 0 if checkpoint_every is None or return_gates else checkpoint_every
    if every and c0 is not None and not torch.compiler.is_compiling():  # a compiler's sizes may be symbols
        every = min(every, _most_steps_again(cell, h0))
    # Whether a transform of torch.func wants a gradient is not always seen at the tensors.
    save = derived or return_gates or (torch.is_grad_enabled() and torch._C._are_functorch_transforms_active())
    y, hn, cn, saved = run(*tensors, lengths, resets, cell, reverse, packed, save, every)
    last = (hn,) if c0 is None else (hn, cn)
    return y, last, _gates(cell, y, saved, reverse, lengths, packed) if return_gates else None


_CACHED_FLOATS = 2**19


def _most_steps_again(cell, h0) -> int:
    """Steps between checkpoints whose gates stay in the second caches of two cores.

    Of an LSTM (T=100, B=64, H=128), training takes 1.4 times as long with 100 steps, 1.3 with these. At least 8, so
    that the checkpoints are small beside y.
    """
    return max(8, _CACHED_FLOATS // (h0.shape[0] * _native.saved_size(CELLS[cell], int(h0.shape[1]))))


_OWN_TYPES = (Tensor, torch.nn.Parameter, type(None))


def _followed(tensors) -> bool:
    """Whether someone follows operators: a compiler or tracer, a transform of torch.func, a mode, a tensor subclass."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_tracing()
        or any(type(tensor) not in _OWN_TYPES for tensor in tensors)
    )


_TENSORS = (
    "Tensor x, Tensor h0, Tensor? c0, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, "
    "Tensor? lengths, Tensor? resets"
)
_CHOICES = "str cell, bool reverse, bool packed"
_library = torch.library.Library("gatewise", "DEF")
_library.define(
    f"recurrent({_TENSORS}, {_CHOICES}, bool save, int every) -> (Tensor y, Tensor hn, Tensor cn, Tensor saved)"
)
_library.define(
    f"recurrent_backward({_TENSORS}, Tensor y, Tensor saved, Tensor? dy, Tensor? dhn, Tensor? dcn, {_CHOICES}, "
    "int every, bool[] wanted) -> Tensor[]"
)


def _rows_contiguous(tensor: Tensor) -> Tensor:
    """The tensor itself if its last axis is contiguous, else a copy of which it is."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _sequence(tensor: Tensor, backwards: bool, packed: bool) -> tuple[int, int, int]:
    """Address of the step that the kernel calls the first, and the strides of time and batch."""
    step = tensor.stride(0)
    row = step if packed else tensor.stride(1)
    if backwards:
        return tensor.data_ptr() + (tensor.shape[0] - 1) * step * tensor.element_size(), -step, row
    return tensor.data_ptr(), step, row


def _state(tensor: Tensor | None) -> tuple[int, int]:
    """Address of a state (B, H), and the stride of the batch."""
    return (0, 0) if tensor is None else (tensor.data_ptr(), tensor.stride(0))


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _saved_gates(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Memory for the gates of every step: from the pool if it is more than the C library keeps at hand."""
    floats = math.prod(size)
    return x.new_empty(size, dtype=torch.float32) if floats < _POOLED_FLOATS else _native.buffer(floats).view(size)


def release_memory() -> None:
    """Give back what the kernels keep for the next call: this thread's workspace, unused buffers, packed weights."""
    _native.release_memory()


def _widened(*tensors: Tensor | None) -> Any:
    return [None if tensor is None else tensor.to(torch.float32) for tensor in tensors]


def _serves_bfloat16(cell: str, lengths: Tensor | None, resets: Tensor | None, every: int) -> bool:
    return lengths is None and resets is None and every == 0 and _native.computes_bfloat16(CELLS[cell])


def _steps(x: Tensor, lengths: Tensor | None, packed: bool) -> int:
    """T: of packed rows the largest length."""
    return int(lengths.max()) if packed and lengths is not None else x.shape[0]


_NO_ROWS = (0, False, False, 0, 0, 0)


def _rows(lengths: Tensor | None, resets: Tensor | None, reverse: bool, packed: bool) -> tuple[int | bool, ...]:
    """What the kernel is told about rows of different lengths."""
    if lengths is None and resets is None:
        return _NO_ROWS
    if resets is None:
        return _address(lengths), packed, reverse, 0, 0, 0
    return _address(lengths), packed, reverse, *_sequence(resets, False, packed)


def _biases(bias_ih: Tensor | None, bias_hh: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if bias_ih is None or bias_hh is None else (bias_ih.contiguous(), bias_hh.contiguous())


def _forward(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets, cell, reverse, packed, save, every):
    """y, hn, cn and what the backward sweep needs; None for the last two where there is nothing."""
    narrow = x.dtype == torch.bfloat16
    if narrow and not _serves_bfloat16(cell, lengths, resets, every):
        wide = _widened(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
        y, hn, cn, saved = _forward(
            *wide, lengths=lengths, resets=resets, cell=cell, reverse=reverse, packed=packed, save=save, every=every
        )
        return y.bfloat16(), hn.bfloat16(), None if cn is None else cn.bfloat16(), saved
    x, h0, c0 = _rows_contiguous(x), _rows_contiguous(h0), None if c0 is None else _rows_contiguous(c0)
    weight_ih, weight_hh = weight_ih.contiguous(), weight_hh.contiguous()
    bias_ih, bias_hh = _biases(bias_ih, bias_hh)
    number = CELLS[cell]
    batch, hidden_size = h0.shape
    shape = (*x.shape[:-1], hidden_size)
    y = x.new_empty(shape) if lengths is None or packed else x.new_zeros(shape)  # padding is not written
    hn = x.new_empty(batch, hidden_size)
    cn = None if c0 is None else x.new_empty(batch, hidden_size)
    saved = None
    if save:
        saved = _saved_gates(x, _saved_shape(x, h0, c0, number, _native.saved_size(number, hidden_size), every))
    kept = _address(saved)
    backwards = reverse and lengths is None and resets is None
    (_native.forward_bfloat16 if narrow else _native.forward)(
        *(number, _steps(x, lengths, packed), batch, x.shape[-1], hidden_size),
        *(weight_ih.data_ptr(), weight_hh.data_ptr(), _address(bias_ih), _address(bias_hh)),
        *_sequence(x, backwards, packed),
        *(*_state(h0), *_state(c0)),
        *_sequence(y, backwards, packed),
        *(hn.data_ptr(), _address(cn)),
        *((0, kept, every) if every and save else (kept, 0, 0)),
        *_rows(lengths, resets, reverse, packed),
        most_threads(),
    )
    return y, hn, cn, saved


def _saved_shape(x, h0, c0, number, width, every):
    """Shape of what a forward sweep keeps: of each step a row of the cell's slots, or checkpoints."""
    if every == 0:
        return (*x.shape[:-1], width)
    if c0 is None:
        return (0,)
    slot = width // _native.slots(number)
    return ((x.shape[0] + every - 1) // every, h0.shape[0], slot)


def _forward_operator(*arguments):
    """_forward, for the dispatcher, which knows no None among results."""
    arguments = [*arguments]
    x, lengths, packed = arguments[0], arguments[7], arguments[11]
    if lengths is not None:
        arguments[7] = lengths.contiguous()
        if not packed and len(lengths) > 0:
            # A transform, or a graph, may have hidden them from the checks, and the kernel trusts them.
            least, most = (int(length) for length in lengths.aminmax())
            if least < 0 or most > len(x):
                steps = f"0 to {len(x)}, the number of steps of x"
                raise InputError(f"gatewise::recurrent: expected lengths from {steps}, got {least} to {most}")
    y, hn, cn, saved = _forward(*arguments)
    cn = x.new_empty(0) if cn is None else cn
    return y, hn, cn, x.new_empty(0, dtype=torch.float32) if saved is None else saved


def _forward_fake(
    x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets, cell, reverse, packed, save, every
):
    hidden_size = h0.shape[1]
    width = _native.saved_size(CELLS[cell], 1) * _panels(hidden_size)
    saved = _saved_shape(x, h0, c0, CELLS[cell], width, every) if save else (0,)
    return (
        x.new_empty(*x.shape[:-1], hidden_size),
        x.new_empty(h0.shape),
        x.new_empty(0 if c0 is None else c0.shape),
        x.new_empty(saved, dtype=torch.float32),
    )


def _panels(hidden_size):
    """Vectors that hold the hidden units."""
    lanes = _native.saved_size(0, 1) // _native.slots(0)
    return (hidden_size + lanes - 1) // lanes


def _new_gradients(x, h0, c0, weight_ih, weight_hh, wanted):
    """Memory for the gradients of the seven tensors; None for one that is not wanted."""
    rows = weight_ih.shape[0]
    shapes = (x.shape, h0.shape, h0.shape, weight_ih.shape, weight_hh.shape, (rows,), (rows,))
    return [x.new_empty(shape) if want else None for shape, want in zip(shapes, wanted, strict=True)]


def _backward(
    x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets, y, saved, dy, dhn, dcn, cell, reverse, packed,
    every, wanted,
):  # fmt: skip
    """The gradients of the seven tensors; None for one that is not wanted."""
    narrow = x.dtype == torch.bfloat16
    if narrow and not _serves_bfloat16(cell, lengths, resets, every):
        wide = _widened(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
        y, saved, dy, dhn, dcn = _widened(y, saved, dy, dhn, dcn)
        how = {"cell": cell, "reverse": reverse, "packed": packed, "every": every, "wanted": wanted}
        tensors = {"lengths": lengths, "resets": resets, "y": y, "saved": saved, "dy": dy, "dhn": dhn, "dcn": dcn}
        gradients = _backward(*wide, **tensors, **how)
        return [None if gradient is None else gradient.bfloat16() for gradient in gradients]
    x, h0, c0 = _rows_contiguous(x), _rows_contiguous(h0), None if c0 is None else _rows_contiguous(c0)
    weight_ih, weight_hh = weight_ih.contiguous(), weight_hh.contiguous()
    bias_ih, bias_hh = _biases(bias_ih, bias_hh) if every else (None, None)
    dy = None if dy is None else _rows_contiguous(dy)
    dhn = None if dhn is None else _rows_contiguous(dhn)
    dcn = None if dcn is None else _rows_contiguous(dcn)
    gradients = _new_gradients(x, h0, c0, weight_ih, weight_hh, wanted)
    dx, dh0, dc0, dweight_ih, dweight_hh, dbias_ih, dbias_hh = gradients
    if dx is not None and lengths is not None and not packed:
        dx.zero_()  # padding is not written
    batch, hidden_size = h0.shape
    backwards = reverse and lengths is None and resets is None
    (_native.backward_bfloat16 if narrow else _native.backward)(
        *(CELLS[cell], _steps(x, lengths, packed), batch, x.shape[-1], hidden_size),
        *(weight_ih.data_ptr(), weight_hh.data_ptr(), _address(bias_ih), _address(bias_hh)),
        *_sequence(x, backwards, packed),
        *(*_state(h0), *_state(c0)),
        *_sequence(y, backwards, packed),
        *((0, saved.data_ptr(), every) if every else (saved.data_ptr(), 0, 0)),
        *(_NO_SEQUENCE if dy is None else _sequence(dy, backwards, packed)),
        *(*_state(dhn), *_state(dcn)),
        *(_NO_SEQUENCE if dx is None else _sequence(dx, backwards, packed)),
        *(_address(dh0), _address(dc0), _address(dweight_ih), _address(dweight_hh)),
        *(_address(dbias_ih), _address(dbias_hh)),
        *_rows(lengths, resets, reverse, packed),
        most_threads(),
    )
    return gradients


_NO_SEQUENCE = (0, 0, 0)


def _backward_operator(*arguments):
    """_backward, for the dispatcher, under which tensors may come in any layout."""
    arguments = [*arguments]
    for place in (7, 9, 10):  # lengths, y, saved
        arguments[place] = None if arguments[place] is None else arguments[place].contiguous()
    return [arguments[0].new_empty(0) if gradient is None else gradient for gradient in _backward(*arguments)]


def _backward_fake(x, h0, c0, weight_ih, weight_hh, *others):
    gradients = _new_gradients(x, h0, c0, weight_ih, weight_hh, others[-1])
    return [x.new_empty(0) if gradient is None else gradient for gradient in gradients]


def _save_for_backward(ctx, inputs, output) -> None:
    *tensors, ctx.cell, ctx.reverse, ctx.packed, save, ctx.every = inputs
    if not save:
        raise InputError(
            "gatewise::recurrent: a gradient is wanted, but save=False kept nothing for it; pass save=True"
        )
    y, _, cn, saved = output
    ctx.save_for_backward(*tensors, y, saved)
    ctx.mark_non_differentiable(*([saved] if tensors[2] is not None or cn is None else [cn, saved]))
    ctx.set_materialize_grads(False)


_UNDERIVED = (None,) * 7  # lengths, resets, cell, reverse, packed, save, every


def _gradients(ctx: Any, *grads: Any) -> Any:
    """Gradients of the seven tensors."""
    dy, dhn, dcn, _ = grads
    *inputs, lengths, resets, y, saved = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:7])
    if dy is None and dhn is None and dcn is None:
        return (None,) * 7 + _UNDERIVED
    # With create_graph=True the operator is needed, which can be derived, by the reference.
    followed = torch.is_grad_enabled() or _followed((*inputs, dy, dhn, dcn))
    run: Any = torch.ops.gatewise.recurrent_backward.default if followed else _backward
    gradients = run(
        *inputs, lengths, resets, y, saved, dy, dhn, dcn, ctx.cell, ctx.reverse, ctx.packed, ctx.every, wanted
    )
    return *(gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)), *_UNDERIVED


class _Recurrent(torch.autograd.Function):
    """The operator gatewise::recurrent as autograd sees it, called without the dispatcher."""

    @staticmethod
    def forward(ctx, *inputs):
        # With a setup_context of its own, apply() takes 28 us more.
        output = _forward(*inputs)
        _save_for_backward(ctx, inputs, output)
        return output

    backward = staticmethod(_gradients)


# Of each cell the slots that it saves, by name; hn = W_hn h + b_hn is nobody's business.
_SLOTS = {
    "gru_after": ("hn", "r", "z", "n"),
    "gru_before": ("r", "z", "n"),
    "lstm": ("i", "f", "g", "o", "c"),
    "rnn_tanh": ("h",),
    "rnn_relu": ("h",),
}


def _gates(cell, y, saved, reverse, lengths, packed) -> reference.Gates:
    """The gates by name, each as y is, from what the forward sweep saved: rows in the order of the sweep."""
    names = _SLOTS[cell]
    slots = saved.detach().unflatten(-1, (len(names), -1))[..., : y.shape[-1]].to(y.dtype)
    slots = _in_order_of_time(slots, reverse, lengths, packed)
    gates = {name: gate.contiguous() for name, gate in zip(names, slots.unbind(-2), strict=True) if name != "hn"}
    return gates | {"h": y.detach()}


def _in_order_of_time(slots: Tensor, reverse: bool, lengths: Tensor | None, packed: bool) -> Tensor:
    """Rows in the order in which a sweep has saved them, as they lie in y; zeros in the padding."""
    if lengths is None:
        return slots.flip(0) if reverse else slots
    batch_sizes = packing.batch_sizes_of(lengths)
    order = packing.backwards(batch_sizes) if reverse else torch.arange(int(lengths.sum()))
    found = slots.reshape(-1, *slots.shape[-2:])[order]
    if packed:
        return found
    sorted_rows = lengths.argsort(descending=True, stable=True)
    steps, rows = packing.steps_and_rows(batch_sizes)
    out = slots.new_zeros(slots.shape)
    out[steps, sorted_rows[rows]] = found
    return out


_library.impl("recurrent", _forward_operator, "CPU")
_library.impl("recurrent_backward", _backward_operator, "CPU")
torch.library.register_fake("gatewise::recurrent", _forward_fake, lib=_library)
torch.library.register_fake("gatewise::recurrent_backward", _backward_fake, lib=_library)
transforms.register(_library, _save_for_backward, _gradients)
