"""The LSTM with a projection on the native kernels: float32 on the CPU, where nobody follows.

It has no operator of torch's: where someone follows, and once more derived, the reference computes it. Importing this
module fails with ImportError where the package was installed without a compiler.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.kernels import _native, native_calls, native_recurrent, reference, transforms

_CELL = "lstm_projected"


def recurrent(
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
    """As `native_recurrent.recurrent` for an "lstm" whose last weight is weight_hr (R, H), R at most H."""
    h0, c0 = states
    tensors = (x, h0, c0, *weights)
    derived = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    run: Any = _Projected.apply if derived else _forward
    every = native_recurrent.steps_between_checkpoints(_CELL, c0, c0, checkpoint_every, return_gates)
    y, hn, cn, saved = run(*tensors, lengths, resets, reverse, packed, derived or return_gates, every)
    gates = None
    if return_gates:
        # The slots of the states are H wide; y, which is not, is only noted as "h".
        gates = native_recurrent.gates_of("lstm", y, saved, reverse, lengths, packed, c0.shape[1])
    return y, (hn, cn), gates


def _forward(x: Tensor, h0: Tensor, *others: Any) -> tuple[Any, ...]:
    """y, hn, cn and what is saved."""
    *tensors, weight_hr, lengths, resets, reverse, packed, save, every = others
    shape = (*x.shape[:-1], h0.shape[1])
    y = x.new_empty(shape) if lengths is None or packed else x.new_zeros(shape)  # padding is not written
    how = (lengths, resets, y, _CELL, reverse, packed, save, every)
    call: Any = native_calls.forward_call
    arguments, results, _held = call(x, h0, *tensors, *how, weight_hr=weight_hr)
    _native.forward(*arguments)
    return y, *results


class _Projected(torch.autograd.Function):
    """The same as autograd sees it."""

    @staticmethod
    def forward(ctx, *inputs):
        y, hn, cn, saved = _forward(*inputs)
        *tensors, ctx.reverse, ctx.packed, _, ctx.every = inputs
        ctx.save_for_backward(*tensors, y, saved)
        ctx.mark_non_differentiable(saved)
        ctx.set_materialize_grads(False)
        return y, hn, cn, saved

    @staticmethod
    def backward(ctx, *incoming):  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, weight_hr, lengths, resets, y, saved = ctx.saved_tensors
        grads, wanted = incoming[:3], list(ctx.needs_input_grad[:8])
        if all(d is None for d in grads):
            return (None,) * 14
        if torch.is_grad_enabled() or native_recurrent.followed((*inputs, weight_hr, *grads)):
            rows = {"reverse": ctx.reverse, "lengths": lengths, "packed": ctx.packed, "resets": resets}
            return *_by_the_reference((*inputs, weight_hr), grads, wanted, rows), *(None,) * 6
        how = (_CELL, ctx.reverse, ctx.packed, ctx.every, wanted)
        call: Any = native_calls.backward_call
        arguments, gradients, _held = call(*inputs, lengths, resets, y, saved, *grads, *how, weight_hr=weight_hr)
        _native.backward(*arguments)
        return *gradients, *(None,) * 6


def _by_the_reference(inputs, grads, wanted, how) -> list[Tensor | None]:
    """The gradients of the eight tensors, which can be derived any number of times."""

    def run(x, h0, c0, *weights):
        return reference.recurrent("lstm", x, (h0, c0), weights, **how)

    found = transforms.first_gradients(run, inputs, grads)
    return [gradient if want else None for gradient, want in zip(found, wanted, strict=True)]
