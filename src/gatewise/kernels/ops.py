"""gru(): a whole sequence through the recurrence, by the backend that serves it best."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import BackendError, InputError, ShapeError
from gatewise.kernels import reference

try:
    from gatewise.kernels import native_gru
except ImportError as error:
    native_gru = None
    _why_not = f"it is not part of this installation ({error}); reinstall gatewise where there is a C++17 compiler"
else:
    _why_not = None

BACKENDS = ("auto", "native", "torch", "reference")
RESETS = ("after", "before")
NATIVE_DTYPES = (torch.float32, torch.bfloat16)
AUTOCAST_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class NativeStatus:
    """Whether the native kernel can serve here, with which instructions, and if not, why not.

    instruction_set: "amx" (for bfloat16, and AVX-512 for float32), "avx512", "avx2" or "portable".
    """

    available: bool
    instruction_set: str | None
    openmp: bool
    reason: str | None


def native_status() -> NativeStatus:
    """What the native kernel of this installation can do on this machine."""
    if native_gru is None:
        return NativeStatus(False, None, False, _why_not)
    return NativeStatus(True, native_gru.instruction_set(), native_gru.OPENMP, None)


def release_memory() -> None:
    """Give back what the native kernel keeps for the next call: workspaces, buffers of gates, packed weights.

    What it keeps is bounded: a workspace for each calling thread, as large as its largest call needed, and at most
    512 MB of buffers and 128 MB of packed weights. Of the workspaces, that of the calling thread is given back.
    """
    if native_gru is not None:
        native_gru.release_memory()


def gru(
    x: Tensor,
    h0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    *,
    reset: str = "after",
    backend: str = "auto",
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The states of a whole sequence: y (T, B, H), and the last one: hn (B, H).

    The equations are those of `gatewise.kernels.reference.gru_step`. In bfloat16 the native backend keeps the state and
    all sums in float32. Under `torch.autocast("cpu")` all tensors are first brought to autocast's dtype, and so are the
    results; gradients arrive in the dtype of what was given.

    Args:
        x (T, B, I): inputs.
        h0 (B, H): first state.
        weight_ih (3H, I), weight_hh (3H, H): the rows of the gates r, z, n, one below the other.
        bias_ih (3H,), bias_hh (3H,): likewise; or both None.
        reset: "after" or "before": where the reset gate meets the recurrent product of the candidate.
        backend: "native" (float32 and bfloat16 on the CPU), "torch" (reset="after" only), "reference" (anything), or
            "auto": native where it can serve, else torch where it can, else reference.
        reverse: run from the last step to the first; y stays in the order of x, hn is the state after step 0.

    Raises:
        ShapeError: a tensor's rank, size, dtype or device does not fit the others.
        BackendError: the backend that was asked for cannot serve.
        InputError: reset or backend is unknown.
    """
    if reset not in RESETS:
        raise InputError(f"gru: unknown reset {reset!r}; expected one of {', '.join(RESETS)}")
    if torch.is_autocast_enabled("cpu") and x.device.type == "cpu":
        x, h0, weight_ih, weight_hh, bias_ih, bias_hh = map(_autocast, (x, h0, weight_ih, weight_hh, bias_ih, bias_hh))
    _check(x, h0, weight_ih, weight_hh, bias_ih, bias_hh)
    backend = _choose(backend, reset, x, h0)
    if backend == "native":
        assert native_gru is not None  # _choose saw to it
        return native_gru.gru(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reset, reverse)
    if backend == "reference":
        return reference.gru(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reset, reverse)
    weights = [weight_ih, weight_hh] if bias_ih is None else [weight_ih, weight_hh, bias_ih, bias_hh]
    y, hn = torch._VF.gru(
        x.flip(0) if reverse else x, h0.unsqueeze(0), weights, bias_ih is not None, 1, 0.0, False, False, False
    )
    return (y.flip(0) if reverse else y), hn[0]


def _autocast(tensor: Any) -> Any:
    """The tensor in the dtype of torch.autocast("cpu"), which leaves float64 and what is on another device alone."""
    if tensor is None or tensor.dtype not in AUTOCAST_DTYPES or tensor.device.type != "cpu":
        return tensor
    return tensor.to(torch.get_autocast_dtype("cpu"))


def _check(
    x: Tensor, h0: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor | None, bias_hh: Tensor | None
) -> None:
    """Raise ShapeError unless all tensors fit together."""
    if x.dim() != 3 or h0.dim() != 2:
        raise ShapeError(f"gru: expected x (T, B, I) and h0 (B, H), got {tuple(x.shape)} and {tuple(h0.shape)}")
    if (bias_ih is None) != (bias_hh is None):
        raise ShapeError("gru: expected both bias_ih and bias_hh or neither, got one of them")
    steps, batch, input_size = x.shape
    hidden_size = h0.shape[1]
    if steps == 0:
        raise ShapeError(f"gru: expected at least one step in x (T, B, I), got {tuple(x.shape)}")
    rows, dtype, device = 3 * hidden_size, x.dtype, x.device
    for name, tensor, shape in (
        ("h0", h0, (batch, hidden_size)),
        ("weight_ih", weight_ih, (rows, input_size)),
        ("weight_hh", weight_hh, (rows, hidden_size)),
        ("bias_ih", bias_ih, (rows,)),
        ("bias_hh", bias_hh, (rows,)),
    ):
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ShapeError(
                f"gru: expected {name} {shape} for x {tuple(x.shape)} and h0 {tuple(h0.shape)}, "
                f"got {tuple(tensor.shape)}"
            )
        if tensor.dtype != dtype or tensor.device != device:
            raise ShapeError(
                f"gru: expected {name} to be {dtype} on {device} like x, got {tensor.dtype} on {tensor.device}"
            )


def _choose(backend: str, reset: str, x: Tensor, h0: Tensor) -> str:
    """The backend that serves the call; BackendError if the one that was asked for cannot."""
    has_work = x.shape[1] > 0 and x.shape[2] > 0 and h0.shape[1] > 0
    suits_native = has_work and x.dtype in NATIVE_DTYPES and x.device.type == "cpu"
    if backend == "auto":
        if suits_native and native_gru is not None:
            return "native"
        return "torch" if reset == "after" else "reference"
    if backend == "native":
        if native_gru is None:
            raise BackendError(f"gru: backend 'native' cannot serve: {_why_not}")
        if not suits_native:
            raise BackendError(
                f"gru: backend 'native' computes float32 and bfloat16 on the CPU, of sizes that are not 0, but x "
                f"is {x.dtype} {tuple(x.shape)} on {x.device} and h0 {tuple(h0.shape)}; use backend='auto'"
            )
    elif backend == "torch":
        if reset == "before":
            raise BackendError("gru: backend 'torch' has no reset='before'; use backend='auto'")
    elif backend != "reference":
        raise InputError(f"gru: unknown backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    return backend
