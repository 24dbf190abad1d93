"""ops.gru and the layers in bfloat16, and under autocast: against the reference in float64 on the same numbers."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gatewise as gw
from gatewise.errors import BackendError
from gatewise.kernels import ops, reference

NAMES = ("x", "h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
SHAPES = [  # T, B, I, H
    (1, 1, 1, 1),
    (1, 1, 64, 256),
    (1, 3, 5, 7),
    (1, 40, 28, 64),
    (2, 1, 3, 16),
    (5, 3, 1, 1),
    (4, 8, 9, 31),
    (7, 70, 12, 48),
    (10, 131, 3, 5),
    (6, 4, 33, 100),
    (9, 17, 65, 33),
    (200, 1, 8, 8),
    (50, 1, 40, 129),
    (12, 16, 64, 128),
    (35, 32, 28, 256),
    (3, 2, 20, 1024),
    (2, 33, 300, 512),
]
SMALL = (7, 5, 6, 19)
FORWARD, GRADIENT = 5e-3, 2e-2  # of the largest element

pytestmark = pytest.mark.skipif(not ops.native_status().available, reason=str(ops.native_status().reason))
both_placements = pytest.mark.parametrize("reset", ops.RESETS)
one_and_two_threads = pytest.mark.parametrize("threads", [1, 2], ids=["1-thread", "2-threads"], indirect=True)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def shape_id(shape: tuple[int, int, int, int]) -> str:
    return "T{}-B{}-I{}-H{}".format(*shape)


def operands(tensors: Iterable[Any], reset: str, *, reverse: bool, save: bool) -> tuple[Any, ...]:
    """What the operator gatewise::recurrent takes, from gru's tensors."""
    x, h0, *weights = tensors
    return (x, h0, None, *weights, None, None, f"gru_{reset}", reverse, False, save, 0)


def arguments(shape: tuple[int, int, int, int], bias: bool = True) -> dict[str, Any]:
    """gru's tensors, random and in bfloat16; every gate has its own weights."""
    steps, batch_size, input_size, hidden_size = shape
    random = torch.Generator().manual_seed(sum(shape))

    def uniform(limit: float, *size: int) -> Tensor:
        return ((2 * torch.rand(size, generator=random) - 1) * limit).bfloat16()

    rows, limit = 3 * hidden_size, hidden_size**-0.5
    return {
        "x": uniform(1, steps, batch_size, input_size),
        "h0": uniform(1, batch_size, hidden_size),
        "weight_ih": uniform(limit, rows, input_size),
        "weight_hh": uniform(limit, rows, hidden_size),
        "bias_ih": uniform(1, rows) if bias else None,
        "bias_hh": uniform(1, rows) if bias else None,
    }


def outcome(
    backend: str,
    tensors: dict[str, Any],
    reset: str,
    *,
    views: dict[str, Callable[[Tensor], Tensor]] | None = None,
    reverse: bool = False,
    wanted: tuple[str, ...] = NAMES,
) -> dict[str, Tensor]:
    """y, hn and the gradients of the tensors, by name: as they are given, but in float64 for the reference."""
    dtype = torch.float64 if backend == "reference" else None
    leaves: dict[str, Any] = {
        name: None if t is None else t.to(dtype or t.dtype, copy=True).requires_grad_(name in wanted)
        for name, t in tensors.items()
    }
    given = [view(leaf) if (view := (views or {}).get(name)) else leaf for name, leaf in leaves.items()]
    y, hn = ops.gru(*given, reset=reset, backend=backend, reverse=reverse)
    random = torch.Generator().manual_seed(1)
    dy, dhn = (torch.randn(state.shape, generator=random).bfloat16().to(state.dtype) for state in (y, hn))
    torch.autograd.backward([y, hn], [dy, dhn])
    gradients = {f"gradient of {name}": leaf.grad for name, leaf in leaves.items() if leaf is not None}
    return {"y": y.detach(), "hn": hn.detach()} | {name: g for name, g in gradients.items() if g is not None}


def assert_close(outcome: dict[str, Tensor], exact: dict[str, Tensor], dtype: torch.dtype = torch.bfloat16) -> None:
    """Every tensor is there, of the dtype, and within its limit, relative to the exact one's largest element."""
    assert outcome.keys() == exact.keys()
    errors = {}
    for name, value in outcome.items():
        assert value.shape == exact[name].shape, name
        assert value.dtype == dtype, name
        largest = exact[name].abs().max().clamp(min=1e-30)
        error = ((value.double() - exact[name].double()).abs().max() / largest).item()
        if not error <= (GRADIENT if name.startswith("gradient") else FORWARD):
            errors[name] = error
    assert not errors


def assert_native(tensors: dict[str, Any], reset: str, **how: Any) -> None:
    assert_close(outcome("native", tensors, reset, **how), outcome("reference", tensors, reset, **how))


@one_and_two_threads
@both_placements
@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
def test_native(shape, reset, threads):
    assert_native(arguments(shape), reset)


@one_and_two_threads
@both_placements
@pytest.mark.parametrize("hidden_size", [15, 16, 17, 31, 32, 33, 63, 65])
@pytest.mark.parametrize("batch_size", [1, 15, 16, 17, 31, 32, 33, 49])
def test_around_the_tile(batch_size, hidden_size, reset, threads):
    """Sizes one below, at and one above those of a tile: 16 rows, 16 columns, a depth of 32."""
    assert_native(arguments((3, batch_size, hidden_size, hidden_size)), reset)


@both_placements
@pytest.mark.parametrize("shape", [SMALL, (1, 1, 4, 5), (20, 1, 4, 40), (3, 70, 2, 64)], ids=shape_id)
def test_without_bias_and_in_reverse(shape, reset):
    assert_native(arguments(shape, bias=False), reset)
    assert_native(arguments(shape), reset, reverse=True)


def within_a_larger(tensor: Tensor) -> Tensor:
    """The same values as a part of a larger tensor that starts at an odd address; all around it lies NaN."""
    around = torch.nn.functional.pad(tensor, (3, 2) * tensor.dim(), value=torch.nan)
    return around[(slice(3, -2),) * tensor.dim()]


def every_other(tensor: Tensor) -> Tensor:
    """The same values with NaN between them, on the last axis."""
    return torch.stack([tensor, torch.full_like(tensor, torch.nan)], -1).flatten(-2)[..., ::2]


VIEWS = {
    "x-batch-first": {"x": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)},
    "x-one-row-for-all": {"x": lambda x: x[:, :1].expand_as(x)},
    "h0-one-row-for-all": {"h0": lambda h0: h0[:1].expand_as(h0)},
    "weights-transposed": {name: lambda w: w.T.contiguous().T for name in ("weight_ih", "weight_hh")},
    "all-within-a-larger": dict.fromkeys(NAMES, within_a_larger),
    "all-every-other": dict.fromkeys(NAMES, every_other),
}


@one_and_two_threads
@both_placements
@pytest.mark.parametrize("views", VIEWS.values(), ids=VIEWS)
def test_any_memory_layout(views, reset, threads):
    assert_native(arguments(SMALL), reset, views=views)
    assert_native(arguments((4, 33, 6, 40)), reset, views=views)


@both_placements
@pytest.mark.parametrize("wanted", NAMES)
def test_only_the_wanted_gradients(wanted, reset):
    assert_native(arguments(SMALL), reset, wanted=(wanted,))


@one_and_two_threads
@both_placements
def test_without_a_tape(reset, threads):
    tensors = arguments((6, 33, 9, 40))
    y, hn = ops.gru(*tensors.values(), reset=reset, backend="native")
    exact = reference.gru(*(tensor.double() for tensor in tensors.values()), reset=reset)
    assert_close({"y": y, "hn": hn}, dict(zip(("y", "hn"), exact, strict=True)))
    automatic, _ = ops.gru(*tensors.values(), reset=reset)
    assert torch.equal(automatic, y)  # "auto" is native


@both_placements
def test_the_state_is_not_rounded_between_steps(reset):
    """A state that falls by 0.3 % a step: rounded to 8 bits in each, it would stand still or fall by 0.4 %."""
    x, h0, *weights = (torch.zeros_like(tensor) for tensor in arguments((200, 3, 2, 20)).values())
    h0[:] = 1
    weights[2][20:40] = 5.8125  # bias of z
    y, _ = ops.gru(x, h0, *weights, reset=reset, backend="native")
    expected = torch.sigmoid(torch.tensor(5.8125, dtype=torch.float64)) ** torch.arange(1, 201)
    assert_close({"y": y}, {"y": expected[:, None, None].expand_as(y)})


@one_and_two_threads
@both_placements
@pytest.mark.parametrize("shape", [SMALL, (40, 1, 8, 64), (12, 32, 28, 128)], ids=shape_id)
def test_repeatable_bit_for_bit(shape, reset, threads):
    first, second = (outcome("native", arguments(shape), reset) for _ in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


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


@both_placements
def test_saturated_gates(reset):
    tensors = arguments(SMALL)
    hidden_size = SMALL[3]
    tensors["bias_ih"][:hidden_size] = -1e30
    tensors["bias_ih"][hidden_size : 2 * hidden_size] = -1e4
    tensors["bias_ih"][2 * hidden_size :] = 1e30
    result = outcome("native", tensors, reset)
    assert torch.equal(result["y"], torch.ones_like(result["y"]))
    assert all(tensor.isfinite().all() for tensor in result.values())


@both_placements
def test_second_derivatives(reset):
    def gradient_penalty(backend: str) -> dict[str, Tensor]:
        tensors = arguments(SMALL).values()
        leaves = [t.to(torch.float64 if backend == "reference" else t.dtype).requires_grad_() for t in tensors]
        y, hn = ops.gru(*leaves, reset=reset, backend=backend)
        first = torch.autograd.grad(y.double().sum() + hn.double().square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(torch.stack([d.double().square().mean() for d in first]).sum(), leaves)
        return {f"gradient of {name}": gradient for name, gradient in zip(NAMES, second, strict=True)}

    assert_close(gradient_penalty("native"), gradient_penalty("reference"))


@both_placements
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_registration(bias, reset):
    tensors = arguments((3, 2, 4, 5), bias).values()
    operator = torch.ops.gatewise.recurrent.default
    torch.library.opcheck(operator, operands(tensors, reset, reverse=False, save=False))
    leaves = [None if tensor is None else tensor.requires_grad_() for tensor in tensors]
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(operator, operands(leaves, reset, reverse=True, save=True), test_utils=checks)


def test_torch_compile_sees_one_operator():
    layer = gw.GRU(6, 19, dtype=torch.bfloat16, backend="native")
    x = arguments(SMALL)["x"]
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_float16_is_not_native():
    with pytest.raises(BackendError, match=r"computes float32 and bfloat16 on the CPU.* x is torch\.float16"):
        ops.gru(*(tensor.half() for tensor in arguments(SMALL).values()), backend="native")


@both_placements
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_of_float32_parameters(dtype, reset):
    """As of weights that were rounded; the results are bfloat16, the gradients of the dtype of what was given."""
    tensors = arguments(SMALL)
    exact = outcome("reference", tensors, reset)
    given = {name: tensor.to(dtype if name in ("x", "h0") else torch.float32) for name, tensor in tensors.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = outcome("native", given, reset)
    for name, tensor in given.items():
        gradient = {f"gradient of {name}": result.pop(f"gradient of {name}")}
        assert_close(gradient, {name: exact.pop(name) for name in gradient}, tensor.dtype)
    assert_close(result, exact)


@pytest.mark.parametrize("reset", ops.RESETS)
def test_layers_under_autocast(reset):
    torch.manual_seed(0)
    layer = gw.GRU(6, 19, num_layers=2, bidirectional=True, batch_first=True, reset=reset, backend="native")
    cell = gw.GRUCell(6, 19, reset=reset, backend="native")
    x = torch.randn(5, 7, 6)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [7, 4, 4, 2, 1], batch_first=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [*layer(x), layer(packed)[0].data, layer(packed)[1], cell(x[:, 0])]
    exact = [*layer(x), layer(packed)[0].data, layer(packed)[1], cell(x[:, 0])]
    for value, expected in zip(found, exact, strict=True):
        assert value.dtype == torch.bfloat16
        assert (value - expected).abs().max() < 2e-2  # the weights are rounded, too
    torch.stack([value.float().sum() for value in found]).sum().backward()
    gradients = [parameter.grad for parameter in (*layer.parameters(), *cell.parameters())]
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in gradients)


def test_autocast_leaves_float64_alone():
    tensors = [tensor.double() for tensor in arguments(SMALL).values()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = ops.gru(*tensors)
    assert y.dtype == torch.float64


@pytest.mark.parametrize("reset", ops.RESETS)
def test_layers_of_bfloat16(reset):
    torch.manual_seed(0)
    layer = gw.GRU(6, 19, num_layers=2, bidirectional=True, reset=reset, dtype=torch.bfloat16, backend="native")
    x = torch.randn(7, 5, 6).bfloat16().requires_grad_()
    y, hn = layer(x)
    y.float().square().mean().backward()
    exact = gw.GRU(6, 19, num_layers=2, bidirectional=True, reset=reset, dtype=torch.float64, backend="reference")
    exact.load_state_dict(layer.state_dict())
    z = x.detach().double().requires_grad_()
    y_exact, hn_exact = exact(z)
    y_exact.square().mean().backward()
    found = {"y": y.detach(), "hn": hn.detach(), "gradient of x": x.grad}
    right = {"y": y_exact.detach(), "hn": hn_exact.detach(), "gradient of x": z.grad}
    for (name, parameter), other in zip(layer.named_parameters(), exact.parameters(), strict=True):
        found[f"gradient of {name}"], right[f"gradient of {name}"] = parameter.grad, other.grad
    assert_close(found, right)
