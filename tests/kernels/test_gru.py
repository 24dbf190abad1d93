"""ops.gru by the native kernel: output, last state and every gradient, by name, against the reference in float64."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gatewise.errors import BackendError, InputError, ShapeError
from gatewise.kernels import ops, reference

NAMES = ("x", "h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
SHAPES = [  # T, B, I, H
    (1, 1, 1, 1),
    (1, 1, 64, 256),
    (1, 3, 5, 7),
    (1, 32, 28, 64),
    (2, 1, 3, 16),
    (5, 3, 1, 1),
    (4, 8, 9, 31),
    (7, 70, 12, 48),
    (10, 131, 3, 5),
    (6, 4, 33, 100),
    (9, 5, 1, 20),
    (63, 3, 17, 33),
    (200, 1, 8, 8),
    (50, 1, 40, 129),
    (12, 16, 64, 128),
    (35, 32, 28, 256),
    (3, 2, 20, 1024),
    (2, 33, 300, 512),
]
SMALL = (7, 5, 6, 19)

native = pytest.mark.skipif(not ops.native_status().available, reason=str(ops.native_status().reason))
both_placements = pytest.mark.parametrize("reset", ops.RESETS)
one_and_two_threads = pytest.mark.parametrize("threads", [1, 2], ids=["1-thread", "2-threads"], indirect=True)

Loss = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def shape_id(shape: tuple[int, int, int, int]) -> str:
    return "T{}-B{}-I{}-H{}".format(*shape)


def arguments(shape: tuple[int, int, int, int], bias: bool = True) -> dict[str, Any]:
    """gru's tensors, random and in float32; every gate has its own weights."""
    steps, batch_size, input_size, hidden_size = shape
    random = torch.Generator().manual_seed(sum(shape))

    def uniform(limit: float, *size: int) -> Tensor:
        return (2 * torch.rand(size, generator=random) - 1) * limit

    rows, limit = 3 * hidden_size, 2 / max(hidden_size, 1) ** 0.5
    return {
        "x": uniform(1, steps, batch_size, input_size),
        "h0": uniform(1, batch_size, hidden_size),
        "weight_ih": uniform(limit, rows, input_size),
        "weight_hh": uniform(limit, rows, hidden_size),
        "bias_ih": uniform(1, rows) if bias else None,
        "bias_hh": uniform(1, rows) if bias else None,
    }


def operands(tensors: Iterable[Any], reset: str, *, reverse: bool, save: bool) -> tuple[Any, ...]:
    """What the operator gatewise::recurrent takes, from gru's tensors."""
    x, h0, *weights = tensors
    return (x, h0, None, *weights, None, None, f"gru_{reset}", reverse, False, save, 0)


def as_leaves(tensors: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Copies that collect gradients."""
    return {name: None if t is None else t.to(dtype, copy=True).requires_grad_() for name, t in tensors.items()}


def weighted(y: Tensor, hn: Tensor) -> Tensor:
    """A loss in which every element of y and hn has its own weight."""
    u, v = (torch.linspace(-1, 1, tensor.numel(), dtype=tensor.dtype).view_as(tensor) for tensor in (y, hn))
    return (y * u).sum() + (hn * v).sum()


def outcome(
    backend: str,
    tensors: dict[str, Any],
    reset: str,
    *,
    loss: Loss = weighted,
    views: dict[str, Callable[[Tensor], Tensor]] | None = None,
    reverse: bool = False,
) -> dict[str, Tensor]:
    """y, hn and the gradients of the tensors, by name: in float32, but in float64 for the reference.

    views: what gru is given instead of a tensor, computed from it.
    """
    dtype = torch.float64 if backend == "reference" else torch.float32
    leaves = as_leaves(tensors, dtype)
    given = [view(leaf) if (view := (views or {}).get(name)) else leaf for name, leaf in leaves.items()]
    y, hn = ops.gru(*given, reset=reset, backend=backend, reverse=reverse)
    loss(y, hn).backward()
    gradients = {f"gradient of {name}": leaf.grad for name, leaf in leaves.items() if leaf is not None}
    return {"y": y.detach(), "hn": hn.detach()} | {name: g for name, g in gradients.items() if g is not None}


def assert_equal(outcome: dict[str, Tensor], exact: dict[str, Tensor], limit: float = 1e-5) -> None:
    """Every tensor is there and within the limit of the exact one, relative to that one's largest element."""
    assert outcome.keys() == exact.keys()
    errors = {}
    for name, value in outcome.items():
        assert value.shape == exact[name].shape, name
        if value.numel() > 0:
            largest = exact[name].abs().max().clamp(min=1e-30)
            errors[name] = ((value.double() - exact[name].double()).abs().max() / largest).item()
    assert not {name: error for name, error in errors.items() if not error <= limit}


def assert_native(tensors: dict[str, Any], reset: str, **how: Any) -> None:
    assert_equal(outcome("native", tensors, reset, **how), outcome("reference", tensors, reset, **how))


@native
@one_and_two_threads
@both_placements
@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
def test_native(shape, reset, threads):
    assert_native(arguments(shape), reset)


@native
@one_and_two_threads
@both_placements
@pytest.mark.parametrize("hidden_size", [15, 16, 17, 31, 32, 33, 47, 48, 49, 65])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 8, 9, 17])
def test_around_the_tile(batch_size, hidden_size, reset, threads):
    """Sizes one below, at and one above the vector widths and tiles of the kernels."""
    assert_native(arguments((3, batch_size, 5, hidden_size)), reset)


@native
@one_and_two_threads
@both_placements
@pytest.mark.parametrize("shape", [SMALL, (1, 1, 4, 5), (20, 1, 4, 40), (3, 70, 2, 64)], ids=shape_id)
def test_without_bias(shape, reset, threads):
    assert_native(arguments(shape, bias=False), reset)


@native
@one_and_two_threads
@both_placements
@pytest.mark.parametrize("shape", [SMALL, (1, 1, 4, 5), (20, 1, 4, 40), (3, 70, 2, 64)], ids=shape_id)
def test_reverse(shape, reset, threads):
    assert_native(arguments(shape), reset, reverse=True)


@pytest.mark.parametrize(
    ("backend", "reset"), [("torch", "after"), *((b, r) for b in ("reference", "auto") for r in ops.RESETS)]
)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_other_backends(bias, reverse, backend, reset):
    tensors = arguments(SMALL, bias)
    exact = outcome("reference", tensors, reset, reverse=reverse)
    assert_equal(outcome(backend, tensors, reset, reverse=reverse), exact)


def within_a_larger(tensor: Tensor) -> Tensor:
    """The same values as a part of a larger tensor that starts at an odd address; all around it lies NaN."""
    around = torch.nn.functional.pad(tensor, (3, 2) * tensor.dim(), value=torch.nan)
    return around[(slice(3, -2),) * tensor.dim()]


def every_other(tensor: Tensor) -> Tensor:
    """The same values with NaN between them, on the last axis."""
    return torch.stack([tensor, torch.full_like(tensor, torch.nan)], -1).flatten(-2)[..., ::2]


VIEWS = {
    "x-batch-first": {"x": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)},
    "x-features-first": {"x": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0)},
    "x-one-row-for-all": {"x": lambda x: x[:, :1].expand_as(x)},
    "x-one-step-for-all": {"x": lambda x: x[:1].expand_as(x)},
    "x-one-feature-for-all": {"x": lambda x: x[..., :1].expand_as(x)},
    "h0-one-row-for-all": {"h0": lambda h0: h0[:1].expand_as(h0)},
    "h0-one-number-for-all": {"h0": lambda h0: h0[0, 0].expand_as(h0)},
    "h0-transposed": {"h0": lambda h0: h0.T.contiguous().T},
    "weights-transposed": {name: lambda w: w.T.contiguous().T for name in ("weight_ih", "weight_hh")},
    "biases-one-number-for-all": {name: lambda b: b[0].expand_as(b) for name in ("bias_ih", "bias_hh")},
    "all-within-a-larger": dict.fromkeys(NAMES, within_a_larger),
    "all-every-other": dict.fromkeys(NAMES, every_other),
}


@native
@one_and_two_threads
@both_placements
@pytest.mark.parametrize("views", VIEWS.values(), ids=VIEWS)
def test_any_memory_layout(views, reset, threads):
    assert_native(arguments(SMALL), reset, views=views)


LOSSES: dict[str, Loss] = {
    "all-of-both": lambda y, hn: y.sum() + hn.sum(),
    "y-sum": lambda y, hn: y.sum(),
    "hn-sum": lambda y, hn: hn.sum(),
    "hn": lambda y, hn: weighted(hn[:1], hn),
    "y": lambda y, hn: weighted(y, y[-1]),
    "y-last-step": lambda y, hn: y[-1].square().sum(),
    "y-first-step": lambda y, hn: y[0].square().sum(),
    "y-every-other": lambda y, hn: weighted(y[::2, :, 1::2], hn[:, :3]),
    "y-batch-first": lambda y, hn: weighted(y.transpose(0, 1).contiguous(), hn.T.contiguous()),
    "y-mean-over-units": lambda y, hn: y.mean(-1).square().sum(),
    "y-mean-over-rows": lambda y, hn: y.mean(1).square().sum(),
    "y-mean-over-steps": lambda y, hn: y.mean(0).square().sum() + hn.mean(0).square().sum(),
    "twice": lambda y, hn: weighted(y, hn) + (y * y).sum() * hn.sum(),
}


@native
@both_placements
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_any_incoming_gradient(loss, reset):
    assert_native(arguments(SMALL), reset, loss=loss)
    assert_native(arguments(SMALL), reset, loss=loss, reverse=True)


@native
@both_placements
@pytest.mark.parametrize("wanted", [*NAMES, "all-but-weights", "weights"])
def test_only_the_wanted_gradients(wanted, reset):
    tensors = arguments(SMALL)
    exact = outcome("reference", tensors, reset)
    names = {"all-but-weights": NAMES[:2], "weights": NAMES[2:]}.get(wanted, (wanted,))
    leaves = {name: tensor.clone().requires_grad_(name in names) for name, tensor in tensors.items()}
    y, hn = ops.gru(*leaves.values(), reset=reset, backend="native")
    weighted(y, hn).backward()
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == [*names]
    gradients = {f"gradient of {name}": leaves[name].grad for name in names}
    assert_equal(gradients, {name: exact[name] for name in gradients})


@native
@one_and_two_threads
@both_placements
def test_without_a_tape(reset, threads):
    tensors = arguments(SMALL)
    exact = outcome("reference", tensors, reset)
    leaves = list(as_leaves(tensors).values())
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y, hn = ops.gru(*leaves, reset=reset, backend="native")
        assert not y.requires_grad
        assert not hn.requires_grad
        assert_equal({"y": y, "hn": hn}, {"y": exact["y"], "hn": exact["hn"]})
    leaves = [leaf.detach() for leaf in leaves]
    _, _, _, saved = torch.ops.gatewise.recurrent(*operands(leaves, reset, reverse=False, save=False))
    assert saved.numel() == 0


CHANGES = {
    "in-place": lambda weight: weight.mul_(1.5),
    "one-element": lambda weight: weight[-1, -1].add_(1),
    "through-data": lambda weight: weight.data.neg_(),
    "data-swap": lambda weight: setattr(weight, "data", weight.data.clone().add_(0.1)),
    "through-NumPy": lambda weight: np.multiply(weight.numpy(), 2, out=weight.numpy()),
    "two-units": lambda weight: weight[:2].copy_(weight[:2].flip(0).clone()),
    "two-columns": lambda weight: weight.copy_(weight.flip(1).clone()),
}


@native
@pytest.mark.parametrize("name", ["weight_ih", "weight_hh"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@both_placements
def test_a_changed_weight_is_never_stale(change, name, reset):
    """Packed weights are kept from one call without a tape to the next, but not beyond a change."""
    given = arguments((9, 4, 20, 33))
    with torch.no_grad():
        for _ in range(2):
            before, _ = ops.gru(**given, reset=reset, backend="native")
        change(given[name])
        y, _ = ops.gru(**given, reset=reset, backend="native")
        fresh = {key: tensor.clone() for key, tensor in given.items()}
        expected, _ = ops.gru(**fresh, reset=reset, backend="native")
    assert torch.equal(y, expected)
    assert not torch.equal(y, before)


@native
def test_kept_weights_in_calls_at_once():
    """Several Python threads use the same weights, and one of them gives memory back."""
    from gatewise.kernels import native_calls

    given = arguments((9, 4, 20, 33))
    with torch.no_grad():
        expected, _ = ops.gru(**given, backend="native")

    def differing(thread: int) -> int:
        count = 0
        with torch.no_grad():
            for i in range(100):
                count += not torch.equal(ops.gru(**given, backend="native")[0], expected)
                if thread == 0 and i % 10 == 0:
                    native_calls.release_memory()
        return count

    with ThreadPoolExecutor(4) as executor:
        assert sum(executor.map(differing, range(4))) == 0


@native
@one_and_two_threads
@both_placements
def test_backward_again_over_a_retained_graph(reset, threads):
    leaves = list(as_leaves(arguments(SMALL)).values())
    y, hn = ops.gru(*leaves, reset=reset, backend="native")
    loss = weighted(y, hn)
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    other = torch.autograd.grad(y.sum(), leaves, retain_graph=True)
    third = torch.autograd.grad(loss, leaves)
    for name, a, b, c, different in zip(NAMES, first, second, third, other, strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c), name
        assert not torch.equal(a, different), name
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, leaves)


@native
@both_placements
def test_second_derivatives(reset):
    def gradient_penalty(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
        leaves = list(as_leaves(arguments(SMALL), dtype).values())
        y, hn = ops.gru(*leaves, reset=reset, backend=backend)
        first = torch.autograd.grad(weighted(y, hn.square()), leaves, create_graph=True)
        penalty = torch.stack([gradient.square().mean() for gradient in first]).sum()
        second = torch.autograd.grad(penalty, leaves)
        names = [f"{order} derivative by {name}" for order in ("first", "second") for name in NAMES]
        return dict(zip(names, (*first, *second), strict=True))

    assert_equal(gradient_penalty("native", torch.float32), gradient_penalty("reference", torch.float64))


@native
@both_placements
def test_second_derivatives_of_tensors_that_depend_on_each_other(reset):
    """One tensor in two places, and a first state that is computed from the input: no path may count twice."""

    def gradient_penalty(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
        x, h0, _, weight_hh, bias, _ = as_leaves(arguments((3, 2, 5, 5)), dtype).values()
        y, hn = ops.gru(x, x.mean(0) + h0, weight_hh, weight_hh, bias, bias, reset=reset, backend=backend)
        leaves = {"x": x, "h0": h0, "weight": weight_hh, "bias": bias}
        first = torch.autograd.grad(weighted(y, hn), list(leaves.values()), create_graph=True)
        second = torch.autograd.grad(torch.stack([d.square().mean() for d in first]).sum(), list(leaves.values()))
        names = [f"{order} derivative by {name}" for order in ("first", "second") for name in leaves]
        return dict(zip(names, (*first, *second), strict=True))

    assert_equal(gradient_penalty("native", torch.float32), gradient_penalty("reference", torch.float64))


@native
@one_and_two_threads
@both_placements
def test_two_graphs_at_once(reset, threads):
    """A second forward may not disturb what the first one saved, nor one backward the other's results."""
    shapes = [SMALL, (7, 5, 6, 19), (3, 40, 2, 24)]
    alone = [outcome("native", arguments(shape), reset) for shape in shapes]
    leaves = [as_leaves(arguments(shape)) for shape in shapes]
    outputs = [ops.gru(*tensors.values(), reset=reset, backend="native") for tensors in leaves]
    for y, hn in outputs:
        weighted(y, hn).backward()
    for (y, hn), tensors, expected in zip(outputs, leaves, alone, strict=True):
        gradients = {f"gradient of {name}": tensor.grad for name, tensor in tensors.items()}
        assert_equal({"y": y.detach(), "hn": hn.detach()} | gradients, expected, limit=0)


@native
@one_and_two_threads
@both_placements
@pytest.mark.parametrize("shape", [SMALL, (40, 1, 8, 64), (12, 32, 28, 128)], ids=shape_id)
def test_repeatable_bit_for_bit(shape, reset, threads):
    first, second = (outcome("native", arguments(shape), reset) for _ in range(2))
    assert_equal(first, second, limit=0)


@native
@one_and_two_threads
@both_placements
def test_inputs_and_outputs_stay_as_they_are(reset, threads):
    leaves = list(as_leaves(arguments(SMALL)).values())
    y, hn = ops.gru(*leaves, reset=reset, backend="native")
    before = [tensor.detach().clone() for tensor in (*leaves, y, hn)]
    weighted(y, hn).backward()
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((*leaves, y, hn), before, strict=True))


@native
@both_placements
@pytest.mark.parametrize("shape", [SMALL, (3, 40, 2, 24), (9, 1, 4, 64)], ids=shape_id)
def test_every_element_is_written(shape, reset):
    """In deterministic mode torch fills new memory with NaN."""
    expected = outcome("native", arguments(shape), reset)
    torch.use_deterministic_algorithms(True)
    try:
        result = outcome("native", arguments(shape), reset)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_equal(result, expected, limit=0)


@native
@both_placements
def test_inputs_that_were_changed_since_are_noticed(reset):
    leaves = list(as_leaves(arguments(SMALL)).values())
    y, hn = ops.gru(*leaves, reset=reset, backend="native")
    with torch.no_grad():
        leaves[3].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        weighted(y, hn).backward()


@native
@one_and_two_threads
@both_placements
@pytest.mark.parametrize("value", [1, 0], ids=["z=1", "z=0"])
def test_saturated_gates(value, reset, threads):
    """Activations far beyond what exp can hold are 0, 1 or -1, and their gradients 0, not NaN."""
    hidden_size = SMALL[3]
    tensors = arguments(SMALL)
    tensors["bias_ih"][hidden_size : 2 * hidden_size] = 2e4 * value - 1e4
    tensors["bias_ih"][2 * hidden_size :: 2] = 1e30
    tensors["bias_ih"][2 * hidden_size + 1 :: 2] = -1e30
    assert_native(tensors, reset)
    result = outcome("native", tensors, reset)
    signs = 1 - 2 * (torch.arange(hidden_size) % 2).float()
    expected = tensors["h0"] if value == 1 else signs
    assert torch.equal(result["y"], expected.expand(SMALL[0], SMALL[1], hidden_size))


@native
@one_and_two_threads
@both_placements
@pytest.mark.parametrize("bad", [torch.nan, torch.inf], ids=str)
def test_what_is_not_finite_stays_in_its_row_and_after_its_step(bad, reset, threads):
    tensors = arguments((6, 20, 3, 19))
    clean, _ = ops.gru(*tensors.values(), reset=reset, backend="native")
    tensors["x"][2, 5, 1] = bad
    y, hn = ops.gru(*tensors.values(), reset=reset, backend="native")
    others = torch.arange(20) != 5
    assert torch.equal(y[:, others], clean[:, others])
    assert torch.equal(y[:2], clean[:2])
    if bad != bad:
        assert y[2:, 5].isnan().all()
        assert hn[5].isnan().all()
    else:
        assert y.abs().max() <= 1


@native
@one_and_two_threads
@both_placements
def test_limits_of_the_gates(reset, threads):
    """As of the reference: all weights zero halve the state, whatever comes in; the state stays within one."""
    x, h0, *weights = arguments(SMALL).values()
    y, _ = ops.gru(x, h0, *(torch.zeros_like(weight) for weight in weights), reset=reset, backend="native")
    assert_equal({"y": y}, {"y": torch.stack([h0 / 2**t for t in range(1, SMALL[0] + 1)])}, limit=1e-6)
    y, _ = ops.gru(50 * x, h0, *weights, reset=reset, backend="native")
    assert y.abs().max() <= 1


@native
@both_placements
def test_calls_from_several_threads(reset):
    shapes = [SMALL, (30, 1, 4, 40), (5, 40, 3, 33), (1, 1, 8, 16)]
    alone = [outcome("native", arguments(shape), reset) for shape in shapes]
    with ThreadPoolExecutor(len(shapes)) as pool:
        for _ in range(5):
            results = pool.map(lambda shape: outcome("native", arguments(shape), reset), shapes)
            for result, expected in zip(results, alone, strict=True):
                assert_equal(result, expected, limit=1e-6)


@native
@both_placements
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_registration(bias, reverse, reset):
    leaves = as_leaves(arguments((3, 2, 4, 5), bias)).values()
    operator = torch.ops.gatewise.recurrent.default
    torch.library.opcheck(operator, operands(leaves, reset, reverse=reverse, save=True))
    without = [None if leaf is None else leaf.detach() for leaf in leaves]
    torch.library.opcheck(operator, operands(without, reset, reverse=reverse, save=False))


@native
def test_a_gradient_needs_what_the_forward_saves():
    leaves = as_leaves(arguments(SMALL)).values()
    with pytest.raises(InputError) as error:
        torch.ops.gatewise.recurrent(*operands(leaves, "after", reverse=False, save=False))
    assert str(error.value) == (
        "gatewise::recurrent: a gradient is wanted, but save=False kept nothing for it; pass save=True"
    )


@native
@both_placements
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_torch_compile_sees_one_operator(dynamic, reset):
    def compute(*tensors: Tensor) -> Tensor:
        return weighted(*ops.gru(*tensors, reset=reset, backend="native"))

    compiled = torch.compile(compute, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for shape in (SMALL, (3, 2, 6, 19)):
        leaves = list(as_leaves(arguments(shape)).values())
        gradients = torch.autograd.grad(compiled(*leaves), leaves)
        for gradient, expected in zip(gradients, torch.autograd.grad(compute(*leaves), leaves), strict=True):
            torch.testing.assert_close(gradient, expected)


@native
def test_native_serves_float32_and_bfloat16_on_the_cpu_only():
    tensors = arguments(SMALL).values()
    with pytest.raises(BackendError, match="backend 'native' computes float32 and bfloat16 on the CPU"):
        ops.gru(*(tensor.double() for tensor in tensors), backend="native")
    with pytest.raises(BackendError, match=r"on meta and h0 \(5, 19\); use backend='auto'"):
        ops.gru(*(tensor.to("meta") for tensor in tensors), backend="native")


@both_placements
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_auto_serves_other_dtypes(dtype, reset):
    tensors = arguments(SMALL).values()
    exact, _ = reference.gru(*(tensor.double() for tensor in tensors), reset=reset)
    y, hn = ops.gru(*(tensor.to(dtype) for tensor in tensors), reset=reset)
    assert y.dtype == hn.dtype == dtype
    assert_equal({"y": y}, {"y": exact}, limit=16 * torch.finfo(dtype).eps)


@both_placements
@pytest.mark.parametrize(
    "shape", [(3, 0, 4, 5), (3, 2, 0, 5), (3, 2, 4, 0)], ids=["no-rows", "no-features", "no-units"]
)
def test_nothing_to_compute(shape, reset):
    tensors = arguments(shape)
    result = outcome("auto", tensors, reset)
    assert result["y"].shape == (shape[0], shape[1], shape[3])
    assert_equal(result, outcome("reference", tensors, reset))


def test_unknown_choices_name_the_known_ones():
    tensors = arguments(SMALL).values()
    with pytest.raises(InputError) as error:
        ops.gru(*tensors, reset="sideways")
    assert str(error.value) == "gru: unknown reset 'sideways'; expected one of after, before"
    with pytest.raises(InputError) as error:
        ops.gru(*tensors, backend="mkl")
    assert str(error.value) == "gru: unknown backend 'mkl'; expected one of auto, native, torch, reference"
    with pytest.raises(BackendError) as error:
        ops.gru(*tensors, reset="before", backend="torch")
    assert str(error.value) == "gru: backend 'torch' has no reset='before'; use backend='auto'"


MISTAKES = {  # for T=7, B=5, I=6, H=19: what is given instead, and what the message must say of it
    "x-rank": ({"x": torch.zeros(5, 6)}, "gru: expected x (T, B, I) and h0 (B, H), got (5, 6) and (5, 19)"),
    "h0-rank": ({"h0": torch.zeros(1, 5, 19)}, "gru: expected x (T, B, I) and h0 (B, H), got (7, 5, 6) and (1, 5, 19)"),
    "no-steps": ({"x": torch.zeros(0, 5, 6)}, "gru: expected at least one step in x (T, B, I), got (0, 5, 6)"),
    "x-rows": (
        {"x": torch.zeros(7, 4, 6)},
        "gru: expected h0 (4, 19) for x (7, 4, 6) and h0 (5, 19), got (5, 19)",
    ),
    "x-features": (
        {"x": torch.zeros(7, 5, 8)},
        "gru: expected weight_ih (57, 8) for x (7, 5, 8) and h0 (5, 19), got (57, 6)",
    ),
    "weight_hh-size": (
        {"weight_hh": torch.zeros(57, 18)},
        "gru: expected weight_hh (57, 19) for x (7, 5, 6) and h0 (5, 19), got (57, 18)",
    ),
    "bias_ih-size": (
        {"bias_ih": torch.zeros(19)},
        "gru: expected bias_ih (57,) for x (7, 5, 6) and h0 (5, 19), got (19,)",
    ),
    "bias_hh-missing": ({"bias_hh": None}, "gru: expected both bias_ih and bias_hh or neither, got one of them"),
    "h0-dtype": (
        {"h0": torch.zeros(5, 19, dtype=torch.float64)},
        "gru: expected h0 to be torch.float32 on cpu like x, got torch.float64 on cpu",
    ),
    "weight_ih-device": (
        {"weight_ih": torch.zeros(57, 6, device="meta")},
        "gru: expected weight_ih to be torch.float32 on cpu like x, got torch.float32 on meta",
    ),
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@both_placements
@pytest.mark.parametrize(("wrong", "message"), MISTAKES.values(), ids=MISTAKES)
def test_tensors_that_do_not_fit(wrong, message, reset, backend):
    tensors = arguments(SMALL) | wrong
    with pytest.raises(ShapeError) as error:
        ops.gru(*tensors.values(), reset=reset, backend=backend)
    assert str(error.value) == message
