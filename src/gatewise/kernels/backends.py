"""The choice between the implementations of one layer in one direction, and the way into each."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gatewise.errors import BackendError, InputError
from gatewise.kernels import packing, reference, scan, torch_kernels
from gatewise.kernels.regularisation import Regularisation

try:
    from gatewise.kernels import (
        native_both,
        native_calls,
        native_extended,
        native_plain,
        native_projected,
        native_recurrent,
    )
except ImportError as error:
    native_both = native_calls = native_extended = native_plain = native_projected = native_recurrent = None
    WHY_NOT_NATIVE = (
        f"it is not part of this installation ({error}); reinstall gatewise where there is a C++17 compiler"
    )
else:
    WHY_NOT_NATIVE = None

BACKENDS = ("auto", "native", "torch", "reference")
NATIVE_DTYPES = (torch.float32, torch.bfloat16)

Outcome = tuple[Tensor, tuple[Tensor, ...], reference.Gates | None]


def run(
    op: str,
    cell: str,
    backend: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    reverse: bool,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    resets: Tensor | None = None,
    return_gates: bool = False,
    checkpoint_every: int | None = None,
    regularisation: Regularisation | None = None,
) -> Outcome:
    """y, the last states and the gates, by the backend that was asked for, of arguments that were checked."""
    backend = _choose(op, backend, cell, x, states[0], weights, lengths, resets, return_gates, regularisation)
    if backend == "native":
        more = (lengths, batch_sizes, resets, return_gates, checkpoint_every, regularisation)
        return _run_natively(cell, x, states, weights, reverse, *more)
    how: dict[str, Any] = {"reverse": reverse, "lengths": lengths, "checkpoint_every": checkpoint_every}
    if backend == "torch" and cell not in scan.CELLS:
        return *torch_kernels.recurrent(cell, x, states, weights, batch_sizes=batch_sizes, **how), None
    if batch_sizes is not None:
        how |= {"packed": True, "lengths": packing.lengths_of(batch_sizes)}
    how |= {"resets": resets, "return_gates": return_gates, "regularisation": regularisation}
    recurrent = scan.recurrent if backend == "torch" else reference.recurrent
    return recurrent(cell, x, states, weights, **how)


def run_both(
    cell: str,
    x: Tensor,
    states: Sequence[Sequence[Tensor]],
    weights: Sequence[Sequence[Tensor | None]],
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    resets: Tensor | None,
    checkpoint_every: int | None,
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """y (T, B, 2H) and the last states of both directions, where suits_both holds, of arguments that were checked."""
    assert native_both is not None  # suits_both saw to it
    how = _rows(lengths, batch_sizes, resets)
    return native_both.recurrent(cell, x, states, weights, checkpoint_every=checkpoint_every, **how)


def suits_both(backend, gates, x, states, weights) -> bool:
    """Whether the native backend can run both directions of a layer at once, and faster than one after the other."""
    return (
        native_both is not None
        and native_recurrent is not None
        and backend in ("auto", "native")
        and not native_recurrent.followed((x, *states[0], *states[1], *weights[0], *weights[1]))
        and x.dtype == torch.float32
        and x.is_cpu
        and x.numel() > 0
        and _native_lacks(x, weights[0], None, False, None) is None
        and native_both.pays(gates, x.shape[:-1].numel(), x.shape[-1], *states[0][-1].shape)
    )


def _choose(
    op: str,
    backend: str,
    cell: str,
    x: Tensor,
    h0: Tensor,
    weights: Sequence[Tensor | None],
    lengths: Tensor | None,
    resets: Tensor | None,
    return_gates: bool,
    regularisation: Regularisation | None,
) -> str:
    """The backend that serves the call; BackendError if the one that was asked for cannot."""
    suits_native = x.dtype in NATIVE_DTYPES and x.is_cpu and x.numel() > 0 and h0.shape[1] > 0
    if backend in ("auto", "native"):
        lack = _native_lacks(x, weights, lengths, return_gates, regularisation)
        if suits_native and lack is None and native_recurrent is not None:
            return "native"
        if backend == "auto" and cell in scan.CELLS:
            return "torch"
        if backend == "auto":
            # Of some of its kernels torch has no rule for vmap, or for derivatives in forward mode.
            torch_can = (
                forward_ad._current_level < 0
                and not _transformed()
                and _torch_lacks(cell, lengths, resets, return_gates, regularisation) is None
            )
            return "torch" if torch_can else "reference"
        if native_recurrent is None:
            raise BackendError(f"{op}: backend 'native' cannot serve: {WHY_NOT_NATIVE}")
        if not suits_native:
            raise BackendError(
                f"{op}: backend 'native' computes float32 and bfloat16 on the CPU, of sizes that are not 0, but x "
                f"is {x.dtype} {tuple(x.shape)} on {x.device} and h0 {tuple(h0.shape)}; use backend='auto'"
            )
    elif backend == "torch":
        lack = _torch_lacks(cell, lengths, resets, return_gates, regularisation)
    elif backend == "reference":
        lack = None
    else:
        raise InputError(f"{op}: unknown backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    if lack is not None:
        raise BackendError(f"{op}: backend {backend!r} has no {lack}; use backend='auto'")
    return backend


def _native_lacks(x, weights, lengths, return_gates, regularisation) -> str | None:
    """What keeps the native backend from serving a call of a dtype that it knows; None if nothing does."""
    if regularisation is not None:
        if torch._C._are_functorch_transforms_active():
            return "regularisation under the transforms of torch.func"
        if regularisation.dropout is not None and regularisation.dropout.requires_grad:
            return "gradients of a mask"
    if forward_ad._current_level >= 0:
        return "derivatives in forward mode"
    if return_gates and lengths is not None and _transformed():
        return "gates of rows with lengths under the transforms of torch.func"
    if len(weights) > 4 and weights[4] is not None:
        return _projection_lacks(x, weights, regularisation)
    return None


def _projection_lacks(x, weights, regularisation) -> str | None:
    """What keeps the native backend from serving a projection; None if nothing does."""
    if regularisation is not None:
        return "projection together with regularisation"
    if x.dtype == torch.bfloat16:
        return "projection in bfloat16"
    if weights[4].shape[0] > weights[4].shape[1]:
        return "projection to more units than there are"
    if native_recurrent is not None and native_recurrent.followed((x, *weights)):
        return "projection under torch.compile, torch.func and other followers of operators"
    return None


def _torch_lacks(cell, lengths, resets, return_gates, regularisation) -> str | None:
    """What keeps torch's kernels, or the scan, from serving a call; None if nothing does."""
    if cell in scan.CELLS:
        return None
    if cell not in torch_kernels.CELLS:
        return "reset='before'"
    if resets is not None:
        return "resets"
    if return_gates:
        return "gates"
    if regularisation is not None:
        return "regularisation"
    # Rows are packed by their lengths, whose values must be known for that.
    unknown = lengths is not None and (lengths.is_meta or _transformed())
    return "lengths without values" if unknown else None


def _transformed() -> bool:
    """Whether a transform of torch.func is at work; where torch.compile is, it sees to that itself."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _run_natively(
    cell, x, states, weights, reverse, lengths, batch_sizes, resets, return_gates, checkpoint_every, regularisation
) -> Outcome:
    assert native_recurrent is not None  # _choose saw to it
    assert native_extended is not None
    how: dict[str, Any] = {"reverse": reverse, "return_gates": return_gates, "checkpoint_every": checkpoint_every}
    how |= _rows(lengths, batch_sizes, resets)
    if regularisation is not None:
        return native_extended.recurrent(cell, x, states, weights, regularisation, **how)
    if len(weights) > 4 and weights[4] is not None:
        assert native_projected is not None
        return native_projected.recurrent(x, states, weights, **how)
    return native_recurrent.recurrent(cell, x, states, weights, **how)


def _rows(lengths: Tensor | None, batch_sizes: Tensor | None, resets: Tensor | None) -> dict[str, Any]:
    """How rows lie, as the native backend takes it; nothing where all take every step."""
    if lengths is None and batch_sizes is None and resets is None:
        return {}
    if batch_sizes is not None:
        lengths = packing.lengths_of(batch_sizes)
    lengths = None if lengths is None else lengths.cpu().contiguous()
    return {"packed": batch_sizes is not None, "lengths": lengths, "resets": None if resets is None else resets.cpu()}
