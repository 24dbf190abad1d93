"""The native operators under the transforms of torch.func: how they are mapped over an axis, and derived once more."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers

from gatewise.kernels import reference, scan

# Places among the arguments of both operators. Those of the backward go on: y, saved, dy, dhn, dcn, and the choices.
_WEIGHTS = slice(3, 7)
_LENGTHS, _RESETS, _Y, _SAVED = 7, 8, 9, 10
_GRADS = slice(11, 14)


def register(library: torch.library.Library, save_for_gradients: Callable, gradients: Callable) -> None:
    """Give both operators of the library their gradients, and their rules for the transforms of torch.func.

    The transforms do not take what torch.library.register_autograd makes of a gradient, but an autograd.Function with a
    setup_context, which they call as often as they are nested; below the last of them it runs the operator itself.
    """
    rules = (
        ("recurrent", save_for_gradients, gradients, _map_forward),
        ("recurrent_backward", _save_for_second_gradients, _second_gradients, _map_backward),
    )
    for name, setup_context, backward, vmap in rules:
        operator = getattr(torch.ops.gatewise, name).default
        torch.library.register_autograd(operator._name, backward, setup_context=setup_context, lib=library)
        library.impl(name, _transformed(operator, setup_context, backward, vmap), "FuncTorchDynamicLayerFrontMode")


def _transformed(operator, setup_context, backward, vmap) -> Callable:
    """The operator as the transforms call it."""

    class Transformed(torch.autograd.Function):
        @staticmethod
        def forward(*arguments):
            return tuple(operator(*arguments))

        @staticmethod
        def backward(ctx, *incoming):
            return backward(ctx, *incoming)

    Transformed.setup_context = staticmethod(setup_context)
    Transformed.vmap = staticmethod(vmap)
    as_list = len(operator._schema.returns) == 1

    def run(*arguments):
        # What is saved for a backward outlives the transform that the forward ran under.
        results = Transformed.apply(*unwrap_dead_wrappers(arguments))
        return list(results) if as_list else results

    return run


def _map_forward(info, in_dims, *arguments):
    run, count = torch.ops.gatewise.recurrent.default, info.batch_size
    lengths_of_packed = arguments[11] and in_dims[_LENGTHS] is not None
    if lengths_of_packed or _mapped(in_dims[_WEIGHTS]):
        return _one_by_one(run, in_dims, arguments, count)
    tensors = _folded(in_dims[:9], arguments[:9], count)
    return _unfolded(run(*tensors, *arguments[9:]), count)


def _map_backward(info, in_dims, *arguments):
    count, wanted = info.batch_size, arguments[-1]
    lengths_of_packed = arguments[16] and in_dims[_LENGTHS] is not None
    if lengths_of_packed or _mapped(in_dims[_WEIGHTS]) or any(wanted[_WEIGHTS]):
        # Each sample has gradients of the weights of its own, where the kernel gives sums: a loop, as slow as it is.
        return _one_by_one(_backward, in_dims, arguments, count)
    tensors = _folded(in_dims[:14], arguments[:14], count)
    return _unfolded(_backward(*tensors, *arguments[14:]), count)


def _backward(*arguments):
    """The backward operator for rows that did not lie alone, or not together, when the forward ran."""
    arguments = [*arguments]
    if arguments[_LENGTHS] is not None:
        # What is saved lies in an order that depends on the lengths of all rows that there were.
        cell, reverse, packed, every, _ = arguments[14:]
        forward = torch.ops.gatewise.recurrent.default(*arguments[:9], cell, reverse, packed, True, every)
        arguments[_Y], arguments[_SAVED] = forward[0], forward[3]
    return torch.ops.gatewise.recurrent_backward.default(*arguments)


def _mapped(dims) -> bool:
    return any(dim is not None for dim in dims)


def _one_by_one(run, in_dims, arguments, count) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """What run gives for every sample, stacked."""
    results = []
    for n in range(count):
        chosen = (
            argument.select(dim, n) if isinstance(dim, int) else argument
            for argument, dim in zip(arguments, in_dims, strict=True)
        )
        results.append(run(*chosen))
    stacked = [torch.stack(parts) for parts in zip(*results, strict=True)]
    return tuple(stacked), (0,) * len(stacked)


def _folded(in_dims, tensors, count) -> list[Any]:
    """The tensors with N times the rows: row b of sample n is row b * N + n, so that packed rows stay in order."""
    out: list[Any] = []
    for place, (tensor, dim) in enumerate(zip(tensors, in_dims, strict=True)):
        if tensor is None or 3 <= place < 7:
            out.append(tensor)
            continue
        tensor = tensor.unsqueeze(-1).expand(*tensor.shape, count) if dim is None else tensor.movedim(dim, -1)
        if place in (_LENGTHS, _RESETS):  # (..., rows, N)
            out.append(tensor.flatten(-2))
        elif tensor.dim() == 2:  # (0, N): nothing was saved
            out.append(tensor[:, 0])
        else:  # (..., rows, features, N)
            out.append(tensor.transpose(-2, -1).flatten(-3, -2))
    return out


def _unfolded(tensors, count) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """Of tensors (..., rows * N, features) the samples apart, and the axis of these; (0,) is nothing and has none."""
    dims = tuple(None if tensor.dim() == 1 else tensor.dim() - 1 for tensor in tensors)
    apart = (
        tensor if dim is None else tensor.unflatten(dim - 1, (tensor.shape[dim - 1] // count, count))
        for tensor, dim in zip(tensors, dims, strict=True)
    )
    return tuple(apart), dims


def _save_for_second_gradients(ctx, inputs, output) -> None:
    *tensors, ctx.cell, ctx.reverse, ctx.packed, _, ctx.wanted = inputs
    ctx.save_for_backward(*tensors[:_Y], *tensors[_GRADS])


def _second_gradients(ctx, *incoming: Any) -> Any:
    """Gradients of the backward operator's. y and saved have none: they are computed again from what they came from."""
    *inputs, lengths, resets, dy, dhn, dcn = unwrap_dead_wrappers(ctx.saved_tensors)
    how = {"reverse": ctx.reverse, "lengths": lengths, "packed": ctx.packed, "resets": resets}

    recurrent = scan.recurrent if ctx.cell in scan.CELLS else reference.recurrent

    def run(x, h0, c0, *weights):
        return recurrent(ctx.cell, x, (h0,) if c0 is None else (h0, c0), weights, **how)

    needs = [*ctx.needs_input_grad[:_LENGTHS], *ctx.needs_input_grad[_GRADS]]
    found = second_gradients(run, inputs, (dy, dhn, dcn), needs, ctx.wanted, incoming)
    return *found[:7], None, None, None, None, *found[7:], *(None,) * 5


def second_gradients(run, inputs, grads, needs, wanted, incoming) -> list[Any]:
    """Gradients of what a backward operator gives, in plain torch, which can be derived any number of times.

    run(*inputs): y, the last states, and more. grads: gradients of y and of the last states, each may be None; wanted:
    of which inputs the operator gives gradients; incoming: gradients of these. needs: of which inputs, and after them
    of which grads, a gradient is given here; None for the others.
    """
    if len(incoming) == 1:  # the operator gives one list, an autograd.Function many tensors
        (incoming,) = incoming
    given = [*inputs, *grads]
    asked = [want and d is not None for want, d in zip(wanted, incoming, strict=True)]

    def first(*sources: Tensor) -> tuple[Any, ...]:
        fresh = iter(sources)
        tensors = [next(fresh) if need else tensor for tensor, need in zip(given, needs, strict=True)]
        gradients = first_gradients(run, tensors[: len(inputs)], tensors[len(inputs) :])
        return tuple(gradient for gradient, ask in zip(gradients, asked, strict=True) if ask)

    _, pull, *_ = torch.func.vjp(first, *(tensor for tensor, need in zip(given, needs, strict=True) if need))
    found = iter(pull(tuple(d for d, ask in zip(incoming, asked, strict=True) if ask)))
    return [next(found) if need else None for need in needs]


def first_gradients(run, inputs, grads) -> list[Tensor | None]:
    """What a backward gives, by the reference, which can be derived."""
    places = [place for place, tensor in enumerate(inputs) if tensor is not None]

    def forward(*sources: Tensor) -> tuple[Tensor, ...]:
        wide: list[Any] = [None] * len(inputs)
        for place, source in zip(places, sources, strict=True):
            wide[place] = source.to(torch.promote_types(source.dtype, torch.float32))
        y, last, _ = run(*wide)
        results = zip((y, *last), grads, strict=False)
        return tuple(result.to(d.dtype) for result, d in results if d is not None)

    _, pull, *_ = torch.func.vjp(forward, *(inputs[place] for place in places))
    found = dict(zip(places, pull(tuple(d for d in grads if d is not None)), strict=True))
    return [found.get(place) for place in range(len(inputs))]
