"""The native kernel as operators of torch: `gatewise::gru` and its backward, `gatewise::gru_backward`.

They take float32, or bfloat16 throughout: then the state and all sums are float32, and what comes out is rounded. With
shapes for tracing and a gradient, so that torch.compile, torch.export and torch.func see one operator for a whole
sequence; where none of these follow, the same functions are called without the dispatcher, which takes 30 us of a step
that takes 10. Importing this module fails with ImportError where the package was installed without a compiler.
"""

import math
import os
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import BackendError, InputError
from gatewise.kernels import _native, reference

_POOLED_FLOATS = 2**20  # 4 MB; the way through DLPack costs about 10 us

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


def gru(
    x: Tensor,
    h0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: str,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """As `gatewise.kernels.ops.gru`, for tensors that it has checked; keeps the gates only if a gradient is wanted."""
    inputs = (x, h0, weight_ih, weight_hh, bias_ih, bias_hh)
    save = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
    kernel: Any = _Gru.apply if save else _gru
    y, hn, _ = (torch.ops.gatewise.gru.default if _followed(inputs) else kernel)(*inputs, reset, reverse, save)
    return y, hn


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


_library = torch.library.Library("gatewise", "DEF")
_library.define(
    "gru(Tensor x, Tensor h0, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, str reset, "
    "bool reverse, bool save) -> (Tensor y, Tensor hn, Tensor saved)"
)
_library.define(
    "gru_backward(Tensor x, Tensor h0, Tensor weight_ih, Tensor weight_hh, Tensor y, Tensor saved, Tensor? dy, "
    "Tensor? dhn, str reset, bool reverse, bool[] wanted) -> Tensor[]"
)


def _rows_contiguous(tensor: Tensor) -> Tensor:
    """The tensor itself if its last axis is contiguous, else a copy of which it is."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _sequence(tensor: Tensor | None, reverse: bool) -> tuple[int, int, int]:
    """Address of the step (T, B, ...) that comes first in time, and the strides of time and batch."""
    if tensor is None:
        return 0, 0, 0
    step, row = tensor.stride(0), tensor.stride(1)
    if reverse:
        return tensor.data_ptr() + (tensor.shape[0] - 1) * step * tensor.element_size(), -step, row
    return tensor.data_ptr(), step, row


def _row_size(hidden_size: int, reset: str) -> int:
    """Floats that one step of one row saves for the backward sweep."""
    return _native.saved_size(1, 1, 1, int(hidden_size), reset == "before")


def _saved_gates(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Memory for the gates of every step: from the pool if it is more than the C library keeps at hand."""
    floats = math.prod(size)
    return x.new_empty(size, dtype=torch.float32) if floats < _POOLED_FLOATS else _native.buffer(floats).view(size)


def release_memory() -> None:
    """Give back what the kernels keep for the next call: this thread's workspace, unused buffers, packed weights."""
    _native.release_memory()


def _widened(*tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.to(torch.float32) for tensor in tensors]


def _gru(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reset, reverse, save):
    narrow = x.dtype == torch.bfloat16
    if narrow and not _native.computes_bfloat16():
        wide = _widened(x, h0, weight_ih, weight_hh, bias_ih, bias_hh)
        y, hn, saved = _gru(*wide, reset=reset, reverse=reverse, save=save)
        return y.bfloat16(), hn.bfloat16(), saved
    x, h0 = _rows_contiguous(x), _rows_contiguous(h0)
    weight_ih, weight_hh = weight_ih.contiguous(), weight_hh.contiguous()
    biases = [] if bias_ih is None else [bias_ih.contiguous(), bias_hh.contiguous()]
    steps, batch, input_size = x.shape
    hidden_size = h0.shape[1]
    y = x.new_empty(steps, batch, hidden_size)
    hn = x.new_empty(batch, hidden_size)
    saved = _saved_gates(x, (steps, batch, _row_size(hidden_size, reset)) if save else (0,))
    forward = _native.gru_forward_bfloat16 if narrow else _native.gru_forward
    forward(
        *(steps, batch, input_size, hidden_size, reset == "before"),
        *(weight_ih.data_ptr(), weight_hh.data_ptr()),
        *((bias.data_ptr() for bias in biases) if biases else (0, 0)),
        *_sequence(x, reverse),
        *(h0.data_ptr(), h0.stride(0)),
        *_sequence(y, reverse),
        *(hn.data_ptr(), saved.data_ptr() if save else 0, most_threads()),
    )
    return y, hn, saved


def _gru_fake(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reset, reverse, save):
    steps, batch, hidden_size = x.shape[0], x.shape[1], h0.shape[1]
    saved = (steps, batch, _row_size(hidden_size, reset)) if save else (0,)
    y, hn = x.new_empty(steps, batch, hidden_size), x.new_empty(batch, hidden_size)
    return y, hn, x.new_empty(saved, dtype=torch.float32)


def _gradient_shapes(x, h0, weight_ih, weight_hh, wanted):
    """Shapes of the gradients of gru's six tensors; (0,) for one that is not wanted."""
    rows = weight_ih.shape[0]
    shapes = (x.shape, h0.shape, weight_ih.shape, weight_hh.shape, (rows,), (rows,))
    return [shape if want else (0,) for shape, want in zip(shapes, wanted, strict=True)]


def _gru_backward(x, h0, weight_ih, weight_hh, y, saved, dy, dhn, reset, reverse, wanted):
    narrow = x.dtype == torch.bfloat16
    if narrow and not _native.computes_bfloat16():
        x, h0, weight_ih, weight_hh, y, dy, dhn = _widened(x, h0, weight_ih, weight_hh, y, dy, dhn)
        gradients = _gru_backward(x, h0, weight_ih, weight_hh, y, saved, dy, dhn, reset, reverse, wanted)
        return [gradient.bfloat16() for gradient in gradients]
    x, h0 = _rows_contiguous(x), _rows_contiguous(h0)
    weight_ih, weight_hh = weight_ih.contiguous(), weight_hh.contiguous()
    dy = None if dy is None else _rows_contiguous(dy)
    dhn = None if dhn is None else _rows_contiguous(dhn)
    gradients = [x.new_empty(shape) for shape in _gradient_shapes(x, h0, weight_ih, weight_hh, wanted)]
    dx, *others = gradients
    backward = _native.gru_backward_bfloat16 if narrow else _native.gru_backward
    backward(
        *(x.shape[0], x.shape[1], x.shape[2], h0.shape[1], reset == "before"),
        *(weight_ih.data_ptr(), weight_hh.data_ptr()),
        *_sequence(x, reverse),
        *(h0.data_ptr(), h0.stride(0)),
        *_sequence(y, reverse),
        saved.data_ptr(),
        *_sequence(dy, reverse),
        *((0, 0) if dhn is None else (dhn.data_ptr(), dhn.stride(0))),
        *(_sequence(dx, reverse) if wanted[0] else (0, 0, 0)),
        *(tensor.data_ptr() if want else 0 for tensor, want in zip(others, wanted[1:], strict=True)),
        most_threads(),
    )
    return gradients


def _gru_backward_fake(x, h0, weight_ih, weight_hh, y, saved, dy, dhn, reset, reverse, wanted):
    return [x.new_empty(shape) for shape in _gradient_shapes(x, h0, weight_ih, weight_hh, wanted)]


def _save_for_backward(ctx, inputs, output) -> None:
    *tensors, ctx.reset, ctx.reverse, save = inputs
    if not save:
        raise InputError("gatewise::gru: a gradient is wanted, but save=False kept nothing for it; pass save=True")
    y, _, saved = output
    ctx.save_for_backward(*tensors, y, saved)
    ctx.mark_non_differentiable(saved)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, *grads: Any) -> Any:
    """Gradients of the six tensors; with create_graph=True through the reference, which can be derived again."""
    dy, dhn, _ = grads
    *inputs, y, saved = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:6])
    if dy is None and dhn is None:
        return (None,) * 9
    if torch.is_grad_enabled():
        # As tensors of their own: where one is computed from another, that path is the caller's to follow, not ours.
        inputs: list[Any] = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        states = reference.gru(*_widened(*inputs), reset=ctx.reset, reverse=ctx.reverse)
        outputs, grads = zip(
            *((out, d.to(out.dtype)) for out, d in zip(states, (dy, dhn), strict=True) if d is not None), strict=True
        )
        sources = [tensor for tensor, want in zip(inputs, wanted, strict=True) if want]
        found = iter(torch.autograd.grad(outputs, sources, grads, create_graph=True, allow_unused=True))
        gradients = [next(found) if want else None for want in wanted]
    else:
        run: Any = torch.ops.gatewise.gru_backward.default if _followed((*inputs, dy, dhn)) else _gru_backward
        gradients = run(*inputs[:4], y, saved, dy, dhn, ctx.reset, ctx.reverse, wanted)
    return *(gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)), None, None, None


class _Gru(torch.autograd.Function):
    """The operator gatewise::gru as autograd sees it, called without the dispatcher."""

    @staticmethod
    def forward(ctx, *inputs):
        # With a setup_context of its own, apply() takes 28 us more.
        output = _gru(*inputs)
        _save_for_backward(ctx, inputs, output)
        return output

    backward = staticmethod(_gradients)


_library.impl("gru", _gru, "CPU")
_library.impl("gru_backward", _gru_backward, "CPU")
torch.library.register_fake("gatewise::gru", _gru_fake, lib=_library)
torch.library.register_fake("gatewise::gru_backward", _gru_backward_fake, lib=_library)
torch.library.register_autograd("gatewise::gru", _gradients, setup_context=_save_for_backward, lib=_library)
