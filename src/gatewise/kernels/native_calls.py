"""Calls of the native kernels: tensors as addresses, strides and sizes, and memory for what comes out.

Importing this module fails with ImportError where the package was installed without a compiler.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import BackendError
from gatewise.kernels import _native
from gatewise.kernels.regularisation import Regularisation

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


_CACHED_FLOATS = 2**19


def most_steps_again(cell, h0) -> int:
    """Steps between checkpoints whose gates stay in the second caches of two cores.

    Of an LSTM (T=100, B=64, H=128), training takes 1.4 times as long with 100 steps, 1.3 with these. At least 8, so
    that the checkpoints are small beside y.
    """
    return max(8, _CACHED_FLOATS // (h0.shape[0] * _native.saved_size(CELLS[cell], int(h0.shape[1]))))


def rows_contiguous(tensor: Tensor) -> Tensor:
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


def saved_gates(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Memory for the gates of every step: from the pool if it is more than the C library keeps at hand."""
    floats = math.prod(size)
    return x.new_empty(size, dtype=torch.float32) if floats < _POOLED_FLOATS else _native.buffer(floats).view(size)


def release_memory() -> None:
    """Give back what the kernels keep for the next call: this thread's workspace, unused buffers, packed weights."""
    _native.release_memory()


def _widened(*tensors: Tensor | None) -> Any:
    return [None if tensor is None else tensor.to(torch.float32) for tensor in tensors]


def _serves_bfloat16(cell: str, lengths, resets, every: int, regularisation) -> bool:
    plain = lengths is None and resets is None and every == 0 and regularisation is None
    return plain and _native.computes_bfloat16(CELLS[cell])


def _steps(x: Tensor, lengths: Tensor | None, packed: bool) -> int:
    """T: of packed rows the largest length."""
    return int(lengths.max()) if packed and lengths is not None else x.shape[0]


_NO_ROWS = (0, False, False, 0, 0, 0)
_NO_SEQUENCE = (0, 0, 0)


def _rows(lengths: Tensor | None, resets: Tensor | None, reverse: bool, packed: bool) -> tuple[int | bool, ...]:
    """What the kernel is told about rows of different lengths."""
    if lengths is None and resets is None:
        return _NO_ROWS
    if resets is None:
        return _address(lengths), packed, reverse, 0, 0, 0
    return _address(lengths), packed, reverse, *_sequence(resets, False, packed)


def _contiguous(*tensors: Tensor | None) -> Any:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def forward(
    x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets, cell, reverse, packed, save, every,
    regularisation=None,
):  # fmt: skip
    """y, hn, cn and what the backward sweep needs; None for the last two where there is nothing.

    lengths (B,) int64 contiguous, and resets, are on the CPU; every: steps between checkpoints, 0 for none.
    """
    narrow = x.dtype == torch.bfloat16
    if narrow and not _serves_bfloat16(cell, lengths, resets, every, regularisation):
        wide = _widened(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
        how = {"cell": cell, "reverse": reverse, "packed": packed, "save": save, "every": every}
        more = None if regularisation is None else regularisation.widened()
        y, hn, cn, saved = forward(*wide, lengths=lengths, resets=resets, regularisation=more, **how)
        return y.bfloat16(), hn.bfloat16(), None if cn is None else cn.bfloat16(), saved
    shape = (*x.shape[:-1], h0.shape[1])
    y = x.new_empty(shape) if lengths is None or packed else x.new_zeros(shape)  # padding is not written
    how = {"cell": cell, "reverse": reverse, "packed": packed, "save": save, "every": every}
    tensors = (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets)
    arguments, results, _held = forward_call(*tensors, y, **how, regularisation=regularisation)
    if regularisation is not None:
        extension, _held_too = _extension(regularisation, _backwards(reverse, lengths, resets), packed)
        _native.extended_forward(extension, *arguments)
    else:
        (_native.forward_bfloat16 if narrow else _native.forward)(*arguments)
    return y, *results


def forward_call(
    x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets, y, cell, reverse, packed, save, every,
    regularisation=None, weight_hr=None,
):  # fmt: skip
    """What the kernel's forward is called with; what it fills beside y: hn, cn, saved; and what must live until then.

    y (T, B, H), of an LSTM with weight_hr (R, H) (T, B, R): where the states go, zeros where padding is; its rows may
    lie apart.
    """
    x, h0, c0 = rows_contiguous(x), rows_contiguous(h0), None if c0 is None else rows_contiguous(c0)
    weight_ih, weight_hh, bias_ih, bias_hh = _contiguous(weight_ih, weight_hh, bias_ih, bias_hh)
    weight_hr = None if weight_hr is None else weight_hr.contiguous()
    batch, hidden_size = (h0 if c0 is None else c0).shape
    hn = x.new_empty(h0.shape)
    cn = None if c0 is None else x.new_empty(c0.shape)
    saved = None
    if save:
        saved = saved_gates(x, saved_shape(x, h0, c0, cell, saved_width(cell, hidden_size, regularisation), every))
    kept = _address(saved)
    backwards = _backwards(reverse, lengths, resets)
    arguments = (
        *(CELLS[cell], _steps(x, lengths, packed), batch, x.shape[-1], hidden_size, h0.shape[1]),
        *(weight_ih.data_ptr(), _address(weight_hh), _address(bias_ih), _address(bias_hh), _address(weight_hr)),
        *_sequence(x, backwards, packed),
        *(*_state(h0), *_state(c0)),
        *_sequence(y, backwards, packed),
        *(hn.data_ptr(), _address(cn)),
        *((0, kept, every) if every and save else (kept, 0, 0)),
        *_rows(lengths, resets, reverse, packed),
        most_threads(),
    )
    return arguments, (hn, cn, saved), (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)


def _backwards(reverse: bool, lengths: Tensor | None, resets: Tensor | None) -> bool:
    """Whether time runs backwards by its stride; where rows differ, the kernel turns each by itself."""
    return reverse and lengths is None and resets is None


def _extension(regularisation: Regularisation, backwards: bool, packed: bool, gradients=(None,) * 4):
    """A regularisation as the kernels take it, with memory for the gradients of its gains; and what it points at."""
    held = []

    def hold(tensor: Tensor | None, contiguous: Callable[[Tensor], Tensor]) -> Tensor | None:
        if tensor is not None:
            tensor = contiguous(tensor)
            held.append(tensor)
        return tensor

    def kept(k: Tensor | float | None) -> tuple[int | float, ...]:
        if isinstance(k, Tensor):
            k = rows_contiguous(k)
            held.append(k)
            return *_sequence(k, backwards, packed), 0.0
        return *_NO_SEQUENCE, float(k or 0)

    extension = _native.extension(
        *_state(hold(regularisation.dropout, rows_contiguous)),
        *(*kept(regularisation.zoneout_h), *kept(regularisation.zoneout_c)),
        *(_address(hold(gain, Tensor.contiguous)) for gain in regularisation.gains().values()),
        *(_address(gradient) for gradient in gradients),
    )
    return extension, held


def slots(cell: str) -> int:
    """Slots of H numbers, padded, that a plain cell saves of a step; those of its gates are the last ones."""
    return _native.slots(CELLS[cell])


def saved_width(cell: str, hidden_size: int, regularisation: Regularisation | None) -> int:
    """Floats of a row that a forward sweep saves of a step."""
    if regularisation is None or regularisation.norm_ih is None:
        return _native.saved_size(CELLS[cell], hidden_size)
    return _native.normalised_saved_size(CELLS[cell], hidden_size)


def saved_width_of_panels(cell: str, count, regularisation: Regularisation | None):
    """The same of as many hidden units as so many panels hold, which may be a compiler's symbol."""
    of_one, of_two = (saved_width(cell, size, regularisation) for size in (1, lanes() + 1))
    return of_one + (count - 1) * (of_two - of_one)


def saved_shape(x, h0, c0, cell, width, every):
    """Shape of what a forward sweep keeps: of each step a row of that width, or checkpoints of the second state."""
    if every == 0:
        return (*x.shape[:-1], width)
    if c0 is None:
        return (0,)
    return ((x.shape[0] + every - 1) // every, c0.shape[0], panels(c0.shape[1]) * lanes())


def lanes() -> int:
    """Floats of a vector: slots of H floats are padded to whole ones."""
    return _native.saved_size(0, 1) // _native.slots(0)


def panels(hidden_size):
    """Vectors that hold the hidden units."""
    width = lanes()
    return (hidden_size + width - 1) // width


def new_gradients(x, h0, c0, weight_ih, weight_hh, wanted):
    """Memory for the gradients of the seven tensors, and of the gains; None for one that is not wanted."""
    rows, hidden_size = weight_ih.shape[0], h0.shape[1]
    second = h0 if c0 is None else c0
    shapes = (x.shape, h0.shape, second.shape, weight_ih.shape, (rows, hidden_size), (rows,), (rows,))
    shapes = (*shapes, (rows,), (rows,), (hidden_size,), (hidden_size,))
    return [x.new_empty(shape) if want else None for shape, want in zip(shapes, wanted, strict=False)]


def backward(
    x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets, y, saved, dy, dhn, dcn, cell, reverse, packed,
    every, wanted, regularisation=None,
):  # fmt: skip
    """The gradients of the seven tensors, and of the gains; None for one that is not wanted."""
    narrow = x.dtype == torch.bfloat16
    if narrow and not _serves_bfloat16(cell, lengths, resets, every, regularisation):
        wide = _widened(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
        y, saved, dy, dhn, dcn = _widened(y, saved, dy, dhn, dcn)
        how = {"cell": cell, "reverse": reverse, "packed": packed, "every": every, "wanted": wanted}
        tensors = {"lengths": lengths, "resets": resets, "y": y, "saved": saved, "dy": dy, "dhn": dhn, "dcn": dcn}
        more = None if regularisation is None else regularisation.widened()
        gradients = backward(*wide, **tensors, **how, regularisation=more)
        gains = () if regularisation is None else regularisation.gains().values()
        dtypes = [torch.bfloat16] * 7 + [gain if gain is None else gain.dtype for gain in gains]
        return [gradient if gradient is None else gradient.to(d) for gradient, d in zip(gradients, dtypes, strict=True)]
    tensors = (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets, y, saved, dy, dhn, dcn)
    how = {"cell": cell, "reverse": reverse, "packed": packed, "every": every, "wanted": wanted}
    arguments, gradients, _held = backward_call(*tensors, **how)
    if regularisation is not None:
        dgains = gradients[7:] or (None,) * 4
        extension, _held_too = _extension(regularisation, _backwards(reverse, lengths, resets), packed, dgains)
        _native.extended_backward(extension, *arguments)
    else:
        (_native.backward_bfloat16 if narrow else _native.backward)(*arguments)
    return gradients


def backward_call(
    x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, resets, y, saved, dy, dhn, dcn, cell, reverse, packed,
    every, wanted, weight_hr=None,
):  # fmt: skip
    """What the kernel's backward is called with, the gradients that it fills, and what must live until then.

    weight_hr (R, H) of an LSTM with a projection, whose gradient is then the last one.
    """
    x, h0, c0 = rows_contiguous(x), rows_contiguous(h0), None if c0 is None else rows_contiguous(c0)
    weight_ih, weight_hh = _contiguous(weight_ih, weight_hh)
    bias_ih, bias_hh = _contiguous(bias_ih, bias_hh) if every else (None, None)
    dy = None if dy is None else rows_contiguous(dy)
    dhn = None if dhn is None else rows_contiguous(dhn)
    dcn = None if dcn is None else rows_contiguous(dcn)
    gradients = new_gradients(x, h0, c0, weight_ih, weight_hh, wanted[:7] if weight_hr is not None else wanted)
    dx, dh0, dc0, dweight_ih, dweight_hh, dbias_ih, dbias_hh, *_ = gradients
    dweight_hr = None
    if weight_hr is not None:
        weight_hr = weight_hr.contiguous()
        dweight_hr = torch.empty_like(weight_hr) if wanted[7] else None
        gradients.append(dweight_hr)
    if dx is not None and lengths is not None and not packed:
        dx.zero_()  # padding is not written
    batch, hidden_size = (h0 if c0 is None else c0).shape
    backwards = _backwards(reverse, lengths, resets)
    arguments = (
        *(CELLS[cell], _steps(x, lengths, packed), batch, x.shape[-1], hidden_size, h0.shape[1]),
        *(weight_ih.data_ptr(), _address(weight_hh), _address(bias_ih), _address(bias_hh), _address(weight_hr)),
        *_sequence(x, backwards, packed),
        *(*_state(h0), *_state(c0)),
        *_sequence(y, backwards, packed),
        *((0, saved.data_ptr(), every) if every else (saved.data_ptr(), 0, 0)),
        *(_NO_SEQUENCE if dy is None else _sequence(dy, backwards, packed)),
        *(*_state(dhn), *_state(dcn)),
        *(_NO_SEQUENCE if dx is None else _sequence(dx, backwards, packed)),
        *(_address(dh0), _address(dc0), _address(dweight_ih), _address(dweight_hh)),
        *(_address(dbias_ih), _address(dbias_hh), _address(dweight_hr)),
        *_rows(lengths, resets, reverse, packed),
        most_threads(),
    )
    return arguments, gradients, (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, dy, dhn, dcn)
