"""Both directions of a layer at once, on a thread each: float32 on the CPU, where nobody follows.

Of few rows two threads share the units, and wait for each other in each step; two directions need not wait. Each gives
what it gives alone, to the last bit; the states go straight to their places side by side. Importing this module fails
with ImportError where the package was installed without a compiler.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.kernels import _native, native_calls, native_recurrent

_SMALL_WORK = 2e6  # multiply-adds of a direction, below which to wake a second thread can cost more than it saves
_MOST_WEIGHTS = 2**18  # of a direction
_SMALL_STEP = 20e3  # of a step, below which one call has one thread: native/plan.h

Outcome = tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]


def recurrent(
    cell: str,
    x: Tensor,
    states: Sequence[Sequence[Tensor]],
    weights: Sequence[Sequence[Tensor | None]],
    *,
    lengths: Tensor | None = None,
    packed: bool = False,
    resets: Tensor | None = None,
    checkpoint_every: int | None = None,
) -> Outcome:
    """y (T, B, 2H), and the last states of either direction; arguments as those of `native_recurrent.recurrent`.

    states, weights: of the direction that reads forwards, and of the one that reads backwards.
    """
    tensors = (x, *_one(states[0], weights[0]), *_one(states[1], weights[1]))
    h0, c0 = tensors[1], tensors[2]
    every = native_recurrent.steps_between_checkpoints(cell, h0, c0, checkpoint_every, False)
    derived = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    run: Any = _Both.apply if derived else _forward
    y, *lasts = run(*tensors, lengths, resets, cell, packed, derived, every)[: 1 + 2 * len(states[0])]
    return y, tuple(lasts[: len(states[0])]), tuple(lasts[len(states[0]) :])


def pays(gates: int, rows: int, inputs: int, batch: int, hidden_size: int) -> bool:
    """Whether it is faster than one direction after the other: with two threads, or where a call would use but one.

    rows: steps of all rows. On 2 quiet cores with AVX2 layers (T, B, I, H) of GRU were 1.6 times as fast, in inference
    and in training, for (256, 1, 64, 64), 1.1 and 1.2 for (100, 4, 128, 128), 1.05 and 1.02 for (35, 32, 28, 100);
    where both directions' weights are larger than the second caches nothing was gained, and (256, 1, 256, 256) trained
    at 0.9.
    """
    threads, unit = native_calls.most_threads(), gates * hidden_size
    few = threads == 2 or (threads > 2 and batch * unit * hidden_size < _SMALL_STEP)
    weights = unit * (hidden_size + inputs)
    return few and weights <= _MOST_WEIGHTS and rows * weights >= _SMALL_WORK


def _one(states: Sequence[Tensor], weights: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    return (*states, *(None,) * (2 - len(states)), *weights[:4])


def _forward(x: Tensor, *others: Any) -> tuple[Any, ...]:
    """y, of each direction the last states, and of each what is saved."""
    one, other = others[:6], others[6:12]
    lengths, resets, cell, packed, save, every = others[12:]
    size = one[0].shape[1]
    shape = (*x.shape[:-1], 2 * size)
    y = x.new_empty(shape) if lengths is None or packed else x.new_zeros(shape)  # padding is not written
    how: dict[str, Any] = {"cell": cell, "packed": packed, "save": save, "every": every}
    halves = y.split(size, -1)
    calls = [
        native_calls.forward_call(x, *tensors, lengths=lengths, resets=resets, y=half, reverse=reverse, **how)
        for tensors, half, reverse in zip((one, other), halves, (False, True), strict=True)
    ]
    _native.forward_both(calls[0][0], calls[1][0])
    (hn, cn, saved), (hn_reverse, cn_reverse, saved_reverse) = calls[0][1], calls[1][1]
    lasts = (hn, hn_reverse) if cn is None else (hn, cn, hn_reverse, cn_reverse)
    return y, *lasts, saved, saved_reverse


class _Both(torch.autograd.Function):
    """The same as autograd sees it."""

    @staticmethod
    def forward(ctx, *inputs):
        *results, saved, saved_reverse = _forward(*inputs)
        *tensors, ctx.cell, ctx.packed, _, ctx.every = inputs
        ctx.save_for_backward(*tensors, results[0], saved, saved_reverse)
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx, dy, *dlasts):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, *tensors, lengths, resets, y, saved, saved_reverse = ctx.saved_tensors
        wanted, size = ctx.needs_input_grad, y.shape[-1] // 2
        count = len(dlasts) // 2
        grads = [(d, *dlasts[i * count : (i + 1) * count], None)[:3] for i, d in enumerate(_halves(dy, size))]
        calls = [
            (x, *given, lengths, resets, half, kept, *found, ctx.cell, reverse, ctx.packed, ctx.every, want)
            for given, half, kept, found, reverse, want in zip(
                (tensors[:6], tensors[6:]),
                _halves(y, size),
                (saved, saved_reverse),
                grads,
                (False, True),
                ([wanted[0], *wanted[1:7]], [wanted[0], *wanted[7:13]]),
                strict=True,
            )
        ]
        # With create_graph=True the operators are needed, which can be derived, by the reference.
        found: Any
        if torch.is_grad_enabled() or native_recurrent.followed((x, *tensors, dy, *dlasts)):
            found = [_derivable(*call) for call in calls]
        else:
            prepared = [native_calls.backward_call(*call) for call in calls]
            _native.backward_both(prepared[0][0], prepared[1][0])
            found = [gradients for _, gradients, _ in prepared]
        dx = _sum(found[0][0], found[1][0]) if wanted[0] else None
        gradients = (d if want else None for d, want in zip((*found[0][1:], *found[1][1:]), wanted[1:13], strict=True))
        return dx, *gradients, *(None,) * 6


def _derivable(*call):
    """One direction's gradients by the operator, which can be derived."""
    if all(d is None for d in call[11:14]):
        return [None] * 7
    return torch.ops.gatewise.recurrent_backward.default(*call)


def _halves(tensor: Tensor | None, size: int) -> tuple[Tensor | None, ...]:
    return (None, None) if tensor is None else tensor.split(size, -1)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
