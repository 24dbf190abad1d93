"""The native kernels as operators of torch: `gatewise::recurrent` and its backward, `gatewise::recurrent_backward`.

They take float32, or bfloat16 throughout: then the state and all sums are float32, and what comes out is rounded. With
shapes for tracing and a gradient, so that torch.compile, torch.export and torch.func see one operator for a whole
sequence; where none of these follow, the same functions are called without the dispatcher, which takes 30 us of a step
that takes 10. `native_extended` has their sisters for what is regularised. Importing this module fails with ImportError
where the package was installed without a compiler.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import InputError
from gatewise.kernels import native_calls, packing, reference, transforms
from gatewise.kernels.native_calls import backward, forward


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
    run: Any = _Recurrent.apply if derived else forward
    if followed(tensors):
        run = torch.ops.gatewise.recurrent.default
    every = steps_between_checkpoints(cell, h0, c0, checkpoint_every, return_gates)
    # Whether a transform of torch.func wants a gradient is not always seen at the tensors.
    save = derived or return_gates or (torch.is_grad_enabled() and torch._C._are_functorch_transforms_active())
    y, hn, cn, saved = run(*tensors, lengths, resets, cell, reverse, packed, save, every)
    last = (hn,) if c0 is None else (hn, cn)
    return y, last, gates_of(cell, y, saved, reverse, lengths, packed) if return_gates else None


def steps_between_checkpoints(cell, h0, c0, checkpoint_every, return_gates) -> int:
    """The steps from one checkpoint to the next, which are fewer than was asked for where that is faster; 0: none."""
    every = 0 if checkpoint_every is None or return_gates else checkpoint_every
    if every and c0 is not None and not torch.compiler.is_compiling():  # a compiler's sizes may be symbols
        every = min(every, native_calls.most_steps_again(cell, h0))
    return every


_OWN_TYPES = (Tensor, torch.nn.Parameter, type(None))


def followed(tensors) -> bool:
    """Whether someone follows operators: a compiler or tracer, a transform of torch.func, a mode, a tensor subclass."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_tracing()
        or any(type(tensor) not in _OWN_TYPES for tensor in tensors)
    )


_TENSORS = (
    "Tensor x, Tensor h0, Tensor? c0, Tensor weight_ih, Tensor? weight_hh, Tensor? bias_ih, Tensor? bias_hh, "
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


def _forward_operator(*arguments):
    """forward, for the dispatcher, which knows no None among results."""
    arguments = [*arguments]
    x, lengths, packed = arguments[0], arguments[7], arguments[11]
    arguments[7] = checked_lengths("recurrent", x, lengths, packed)
    y, hn, cn, saved = forward(*arguments)
    cn = x.new_empty(0) if cn is None else cn
    return y, hn, cn, x.new_empty(0, dtype=torch.float32) if saved is None else saved


def checked_lengths(operator, x, lengths, packed) -> Tensor | None:
    """The lengths, contiguous; InputError where they do not fit x.

    A transform, or a graph, may have hidden them from the checks, and the kernel trusts them.
    """
    if lengths is not None and not packed and len(lengths) > 0:
        least, most = (int(length) for length in lengths.aminmax())
        if least < 0 or most > len(x):
            steps = f"0 to {len(x)}, the number of steps of x"
            raise InputError(f"gatewise::{operator}: expected lengths from {steps}, got {least} to {most}")
    return None if lengths is None else lengths.contiguous()


def _forward_fake(x, h0, c0, *others):
    *_, cell, _, _, save, every = others
    return fake_results(x, h0, c0, cell, save, every, None)


def fake_results(x, h0, c0, cell, save, every, regularisation) -> tuple[Tensor, ...]:
    """What a forward operator gives, without values."""
    width = native_calls.saved_width_of_panels(cell, native_calls.panels(h0.shape[1]), regularisation)
    saved = native_calls.saved_shape(x, h0, c0, cell, width, every) if save else (0,)
    return (
        x.new_empty(*x.shape[:-1], h0.shape[1]),
        x.new_empty(h0.shape),
        x.new_empty(0 if c0 is None else c0.shape),
        x.new_empty(saved, dtype=torch.float32),
    )


def _backward_operator(*arguments):
    """backward, for the dispatcher, under which tensors may come in any layout."""
    arguments = [*arguments]
    for place in (7, 9, 10):  # lengths, y, saved
        arguments[place] = None if arguments[place] is None else arguments[place].contiguous()
    return [arguments[0].new_empty(0) if gradient is None else gradient for gradient in backward(*arguments)]


def _backward_fake(x, h0, c0, weight_ih, weight_hh, *others):
    gradients = native_calls.new_gradients(x, h0, c0, weight_ih, weight_hh, others[-1])
    return [x.new_empty(0) if gradient is None else gradient for gradient in gradients]


def _save_for_backward(ctx, inputs, output) -> None:
    *tensors, ctx.cell, ctx.reverse, ctx.packed, save, ctx.every = inputs
    keep_for_backward(ctx, "recurrent", tensors, output, save)


def keep_for_backward(ctx, operator, tensors, output, save) -> None:
    """What a forward operator leaves to the backward: the tensors that it was given, y and saved. Raises InputError."""
    if not save:
        raise InputError(
            f"gatewise::{operator}: a gradient is wanted, but save=False kept nothing for it; pass save=True"
        )
    y, _, cn, saved = output
    ctx.save_for_backward(*tensors, y, saved)
    ctx.mark_non_differentiable(*([saved] if tensors[2] is not None or cn is None else [cn, saved]))
    ctx.set_materialize_grads(False)


_UNDERIVED = (None,) * 7  # lengths, resets, cell, reverse, packed, save, every


def gradients(ctx: Any, *grads: Any) -> Any:
    """Gradients of the seven tensors."""
    dy, dhn, dcn, _ = grads
    *inputs, lengths, resets, y, saved = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:7])
    if dy is None and dhn is None and dcn is None:
        return (None,) * 7 + _UNDERIVED
    # With create_graph=True the operator is needed, which can be derived, by the reference.
    derivable = torch.is_grad_enabled() or followed((*inputs, dy, dhn, dcn))
    run: Any = torch.ops.gatewise.recurrent_backward.default if derivable else backward
    gradients = run(
        *inputs, lengths, resets, y, saved, dy, dhn, dcn, ctx.cell, ctx.reverse, ctx.packed, ctx.every, wanted
    )
    return *(gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)), *_UNDERIVED


def direct(run, save_for_backward, gradients) -> type[torch.autograd.Function]:
    """An operator as autograd sees it, called without the dispatcher."""

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            # With a setup_context of its own, apply() takes 28 us more.
            output = run(*inputs)
            save_for_backward(ctx, inputs, output)
            return output

        backward = staticmethod(gradients)

    return Direct


_Recurrent = direct(forward, _save_for_backward, gradients)


def gates_of(cell, y, saved, reverse, lengths, packed, hidden_size=None) -> reference.Gates:
    """The gates by name, each as y is, from what the forward sweep saved: rows in the order of the sweep.

    hidden_size: H, where it is not the size of y's states.
    """
    names = reference.CELLS[cell].gates  # of the last slots that are saved
    slots = saved.detach().unflatten(-1, (native_calls.slots(cell), -1))[..., : hidden_size or y.shape[-1]].to(y.dtype)
    slots = _in_order_of_time(slots, reverse, lengths, packed).unbind(-2)
    gates = {name: gate.contiguous() for name, gate in zip(names, slots[len(slots) - len(names) :], strict=True)}
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
transforms.register(_library, _save_for_backward, gradients)
