"""The native kernels for what is regularised: `gatewise::extended` and its backward, `gatewise::extended_backward`.

As `native_recurrent`, whose operators stay without these arguments, so that a plain call pays for none of them. Under
the transforms of torch.func there are no such operators; the second derivative is the reference's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.kernels import native_calls, native_recurrent, reference, transforms
from gatewise.kernels.regularisation import Regularisation


def recurrent(
    cell: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    regularisation: Regularisation,
    *,
    reverse: bool = False,
    lengths: Tensor | None = None,
    packed: bool = False,
    resets: Tensor | None = None,
    return_gates: bool = False,
    checkpoint_every: int | None = None,
) -> tuple[Tensor, tuple[Tensor, ...], reference.Gates | None]:
    """As `gatewise.kernels.native_recurrent.recurrent`, with a regularisation."""
    h0, c0 = states if len(states) == 2 else (states[0], None)
    derivable = (x, h0, c0, *weights[:4], *regularisation.gains().values())
    masks, kept = _split(regularisation)
    tensors = (*derivable, *masks, lengths, resets)
    derived = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in derivable)
    every = native_recurrent.steps_between_checkpoints(cell, h0, c0, checkpoint_every, return_gates)
    run: Any = _Extended.apply if derived else _run_forward
    if native_recurrent.followed(tensors):
        run = torch.ops.gatewise.extended.default
    save = derived or return_gates
    y, hn, cn, saved = run(*tensors, *kept, cell, reverse, packed, save, every)
    last = (hn,) if c0 is None else (hn, cn)
    if not return_gates:
        return y, last, None
    own = saved[..., : native_calls.saved_width(cell, h0.shape[1], None)]
    return y, last, native_recurrent.gates_of(cell, y, own, reverse, lengths, packed)


def _split(regularisation: Regularisation) -> tuple[tuple[Tensor | None, ...], tuple[float, float]]:
    """The masks of dropout and zoneout, and the probabilities of zoneout where there are no masks."""
    given = (regularisation.zoneout_h, regularisation.zoneout_c)
    masks = [k if isinstance(k, Tensor) else None for k in given]
    h, c = (0.0 if k is None or isinstance(k, Tensor) else float(k) for k in given)
    return (regularisation.dropout, *masks), (h, c)


def _joined(gains, masks, kept) -> Regularisation:
    """The regularisation of four gains, and of what _split gave."""
    dropout, *zoneout = masks
    h, c = (k or None if mask is None else mask for mask, k in zip(zoneout, kept, strict=True))
    return Regularisation(dropout, h, c, *gains)


_DERIVABLE = 11  # x, h0, c0, the weights and biases, the gains
_MASKS = slice(11, 14)
_LENGTHS = 14

_TENSORS = (
    "Tensor x, Tensor h0, Tensor? c0, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, "
    "Tensor? norm_ih, Tensor? norm_hh, Tensor? norm_c, Tensor? norm_c_bias, "
    "Tensor? dropout, Tensor? zoneout_h, Tensor? zoneout_c, Tensor? lengths, Tensor? resets"
)
_CHOICES = "float kept_h, float kept_c, str cell, bool reverse, bool packed"
_library = torch.library.Library("gatewise", "FRAGMENT")
_library.define(
    f"extended({_TENSORS}, {_CHOICES}, bool save, int every) -> (Tensor y, Tensor hn, Tensor cn, Tensor saved)"
)
_library.define(
    f"extended_backward({_TENSORS}, Tensor y, Tensor saved, Tensor? dy, Tensor? dhn, Tensor? dcn, {_CHOICES}, "
    "int every, bool[] wanted) -> Tensor[]"
)


def _run_forward(*arguments):
    """y, hn, cn and what the backward sweep needs; None for the last two where there is nothing."""
    *tensors, kept_h, kept_c, cell, reverse, packed, save, every = arguments
    regularisation = _joined(tensors[7:_DERIVABLE], tensors[_MASKS], (kept_h, kept_c))
    given = [*tensors[:7], *tensors[_LENGTHS:], cell, reverse, packed, save, every]
    return native_calls.forward(*given, regularisation=regularisation)


def _run_backward(*arguments):
    """The gradients of what is derivable; None for one that is not wanted."""
    *tensors, kept_h, kept_c, cell, reverse, packed, every, wanted = arguments
    regularisation = _joined(tensors[7:_DERIVABLE], tensors[_MASKS], (kept_h, kept_c))
    given = [*tensors[:7], *tensors[_LENGTHS:], cell, reverse, packed, every, wanted]
    return native_calls.backward(*given, regularisation=regularisation)


def _forward_operator(*arguments):
    """_run_forward, for the dispatcher, which knows no None among results."""
    arguments = [*arguments]
    x, lengths, packed = arguments[0], arguments[_LENGTHS], arguments[20]
    arguments[_LENGTHS] = native_recurrent.checked_lengths("extended", x, lengths, packed)
    y, hn, cn, saved = _run_forward(*arguments)
    cn = x.new_empty(0) if cn is None else cn
    return y, hn, cn, x.new_empty(0, dtype=torch.float32) if saved is None else saved


def _forward_fake(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, norm_ih, *others):
    *_, cell, _, _, save, every = others
    regularisation = None if norm_ih is None else Regularisation(norm_ih=norm_ih)
    return native_recurrent.fake_results(x, h0, c0, cell, save, every, regularisation)


def _backward_operator(*arguments):
    """_run_backward, for the dispatcher, under which tensors may come in any layout."""
    arguments = [*arguments]
    for place in (_LENGTHS, 16, 17):  # lengths, y, saved
        arguments[place] = None if arguments[place] is None else arguments[place].contiguous()
    return [arguments[0].new_empty(0) if gradient is None else gradient for gradient in _run_backward(*arguments)]


def _backward_fake(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, *others):
    gradients = native_calls.new_gradients(x, h0, c0, weight_ih, weight_hh, others[-1])
    gains = others[:4]
    kinds = [x] * 7 + [x if gain is None else gain for gain in gains]
    return [
        x.new_empty(0) if gradient is None else gradient.to(like.dtype)
        for gradient, like in zip(gradients, kinds, strict=True)
    ]


def _save_for_backward(ctx, inputs, output) -> None:
    *tensors, kept_h, kept_c, ctx.cell, ctx.reverse, ctx.packed, save, ctx.every = inputs
    ctx.kept = (kept_h, kept_c)
    native_recurrent.keep_for_backward(ctx, "extended", tensors, output, save)


def _gradients(ctx: Any, *grads: Any) -> Any:
    """Gradients of what is derivable."""
    dy, dhn, dcn, _ = grads
    *tensors, y, saved = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:_DERIVABLE])
    underived = (None,) * (len(ctx.needs_input_grad) - _DERIVABLE)
    if dy is None and dhn is None and dcn is None:
        return (None,) * _DERIVABLE + underived
    # As in native_recurrent.
    derivable = torch.is_grad_enabled() or native_recurrent.followed((*tensors, dy, dhn, dcn))
    run: Any = torch.ops.gatewise.extended_backward.default if derivable else _run_backward
    choices = (*ctx.kept, ctx.cell, ctx.reverse, ctx.packed, ctx.every, wanted)
    gradients = run(*tensors, y, saved, dy, dhn, dcn, *choices)
    return *(gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)), *underived


_Extended = native_recurrent.direct(_run_forward, _save_for_backward, _gradients)

_GRADS = slice(18, 21)  # dy, dhn, dcn of the backward operator


def _save_for_second_gradients(ctx, inputs, output) -> None:
    *tensors, kept_h, kept_c, ctx.cell, ctx.reverse, ctx.packed, _, ctx.wanted = inputs
    ctx.kept = (kept_h, kept_c)
    ctx.save_for_backward(*tensors[: _LENGTHS + 2], *tensors[_GRADS])


def _second_gradients(ctx, *incoming: Any) -> Any:
    """Gradients of the backward operator's, as in transforms."""
    *tensors, dy, dhn, dcn = ctx.saved_tensors
    lengths, resets = tensors[_LENGTHS:]
    how = {"reverse": ctx.reverse, "lengths": lengths, "packed": ctx.packed, "resets": resets}

    def run(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, *gains):
        more = _joined(gains, tensors[_MASKS], ctx.kept)
        weights = (weight_ih, weight_hh, bias_ih, bias_hh)
        return reference.recurrent(ctx.cell, x, (h0,) if c0 is None else (h0, c0), weights, regularisation=more, **how)

    needs = [*ctx.needs_input_grad[:_DERIVABLE], *ctx.needs_input_grad[_GRADS]]
    inputs = tensors[:_DERIVABLE]
    found = transforms.second_gradients(run, inputs, (dy, dhn, dcn), needs, ctx.wanted, incoming)
    between = (None,) * (_GRADS.start - _DERIVABLE)
    after = (None,) * (len(ctx.needs_input_grad) - _GRADS.stop)
    return *found[:_DERIVABLE], *between, *found[_DERIVABLE:], *after


_library.impl("extended", _forward_operator, "CPU")
_library.impl("extended_backward", _backward_operator, "CPU")
torch.library.register_fake("gatewise::extended", _forward_fake, lib=_library)
torch.library.register_fake("gatewise::extended_backward", _backward_fake, lib=_library)
torch.library.register_autograd("gatewise::extended", _gradients, setup_context=_save_for_backward, lib=_library)
torch.library.register_autograd(
    "gatewise::extended_backward", _second_gradients, setup_context=_save_for_second_gradients, lib=_library
)
