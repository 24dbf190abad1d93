"""gw.GRUCell, gw.LSTMCell, gw.RNNCell against those of torch.nn, whose place they take, and against the reference."""

import copy
import pickle
from typing import Any

import pytest
import torch
from kinds import ALL, TORCHS, without_projection
from torch import Tensor, nn
from torch.nn.utils import parametrize

import gatewise as gw
from gatewise.errors import BackendError, InputError, ShapeError
from gatewise.kernels import reference

B, I, H = 4, 5, 7  # noqa: E741
every_kind = pytest.mark.parametrize("kind", without_projection(TORCHS))
all_of_ours = pytest.mark.parametrize("kind", without_projection(ALL))
every_class = pytest.mark.parametrize("name", ["GRUCell", "LSTMCell", "RNNCell"])


def ours(kind: str, **arguments: Any) -> Any:
    name, own, *_ = ALL[kind]
    torch.manual_seed(0)
    return getattr(gw, name + "Cell")(I, H, **arguments, **own)


def pair(kind: str, **arguments: Any) -> tuple[Any, Any]:
    """torch's cell and ours with the same parameters, made from the same seed."""
    name, own, *_ = TORCHS[kind]
    torch.manual_seed(0)
    return getattr(nn, name + "Cell")(I, H, **arguments, **own), ours(kind, **arguments)


def state(kind: str, *rows: int, size: int = H, **how: Any) -> Any:
    """A random state of as many rows; for an LSTM state and cell."""
    one = torch.randn(*rows, size, generator=torch.Generator().manual_seed(1)).to(**how)
    return (one, one.flip(-1) / 2) if kind.startswith("LSTM") else one


def mapped(function: Any, hx: Any) -> Any:
    return tuple(map(function, hx)) if isinstance(hx, tuple) else function(hx)


def flat(hx: Any) -> tuple[Tensor, ...]:
    return hx if isinstance(hx, tuple) else (hx,)


def outcome(cell: nn.Module, input: Tensor, hx: Any) -> dict[str, Tensor]:
    """The states after two steps and the gradient of every input and parameter, by name."""
    x = input.detach().clone().requires_grad_()
    first = None if hx is None else mapped(lambda s: s.detach().clone().requires_grad_(), hx)
    cell.zero_grad()
    states = flat(cell(x, cell(x, first)))
    torch.autograd.backward(states, [torch.arange(1.0, 1 + s.numel()).to(s.dtype).view_as(s) for s in states])
    gradients = {"input": x.grad}
    gradients |= {f"hx {i}": s.grad for i, s in enumerate(() if first is None else flat(first))}
    gradients |= {name: parameter.grad for name, parameter in cell.named_parameters()}
    results = {f"state {i}": s for i, s in enumerate(states)}
    return results | {f"gradient of {name}": g for name, g in gradients.items() if g is not None}


def assert_equal(outcome: dict[str, Tensor], expected: dict[str, Tensor], limit: float = 1e-5) -> None:
    assert {name: value.shape for name, value in outcome.items()} == {name: e.shape for name, e in expected.items()}
    errors = {
        name: ((outcome[name].double() - exact.double()).abs().max() / exact.double().abs().max()).item()
        for name, exact in expected.items()
    }
    assert not {name: error for name, error in errors.items() if not error <= limit}


@pytest.mark.parametrize("first", ["hx", "zeros"])
@pytest.mark.parametrize("rows", [(), (1,), (B,)], ids=["single", "B1", "B4"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@every_kind
def test_every_argument_equals_torchs(kind, bias, rows, first):
    theirs, mine = pair(kind, bias=bias)
    input, hx = torch.randn(*rows, I), state(kind, *rows) if first == "hx" else None
    assert_equal(outcome(mine, input, hx), outcome(theirs, input, hx))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@all_of_ours
def test_equals_the_reference_in_float64(kind, bias):
    cell, exact = ours(kind, bias=bias), ours(kind, bias=bias, backend="reference", dtype=torch.float64)
    exact.load_state_dict(cell.state_dict())
    input, hx = torch.randn(B, I), state(kind, B)
    wide = mapped(Tensor.double, hx)
    assert_equal(outcome(cell, input, hx), outcome(exact, input.double(), wide))
    weights = [getattr(exact, name, None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    expected = reference.step(ALL[kind].name, input.double(), flat(wide), weights)
    for value, one in zip(flat(cell(input, hx)), expected, strict=True):
        torch.testing.assert_close(value.double(), one, rtol=1e-5, atol=1e-5)


@all_of_ours
def test_step_by_step_equals_the_layer(kind):
    name, own, *_ = ALL[kind]
    layer, cell = getattr(gw, name)(I, H, **own), ours(kind)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x, hx = torch.randn(9, B, I), state(kind, B)
    output, _ = layer(x, mapped(lambda s: s[None], hx))
    for x_t, expected in zip(x, output, strict=True):
        hx = cell(x_t, hx)
        torch.testing.assert_close(flat(hx)[0], expected)


@every_kind
def test_parameters_are_torchs(kind):
    for arguments in ({}, {"bias": False}, {"dtype": torch.float64}):
        theirs, mine = pair(kind, **arguments)
        assert list(mine.state_dict()) == list(theirs.state_dict())
        for name, parameter in theirs.named_parameters():
            assert torch.equal(mine.get_parameter(name), parameter)
            assert mine.get_parameter(name).dtype == parameter.dtype
        assert (mine.bias_ih is None) == (theirs.bias_ih is None)


@every_kind
def test_a_state_dict_goes_both_ways(kind):
    theirs, mine = pair(kind)
    theirs.reset_parameters()
    x = torch.randn(B, I)
    mine.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(mine(x), theirs(x))
    mine.reset_parameters()
    theirs.load_state_dict(mine.state_dict())
    torch.testing.assert_close(mine(x), theirs(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@all_of_ours
def test_other_dtypes(kind, dtype):
    cell = ours(kind)
    x, hx = torch.randn(B, I), state(kind, B)
    found = copy.deepcopy(cell).to(dtype)(x.to(dtype), mapped(lambda s: s.to(dtype), hx))
    for value, expected in zip(flat(found), flat(cell(x, hx)), strict=True):
        assert value.dtype == dtype
        limit = 1e-5 if dtype == torch.float64 else 0.05
        torch.testing.assert_close(value.float(), expected, rtol=limit, atol=limit)


@all_of_ours
def test_autocast(kind):
    cell, x = ours(kind), torch.randn(B, I)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = flat(cell(x))
    for value, expected in zip(found, flat(cell(x)), strict=True):
        assert value.dtype == torch.bfloat16
        torch.testing.assert_close(value.float(), expected, rtol=0.05, atol=0.05)


@all_of_ours
def test_second_derivatives(kind):
    name, own, *_ = ALL[kind]
    cell = getattr(gw, name + "Cell")(2, 3, dtype=torch.float64, **own)
    leaves = tuple(
        torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in (2, *[3] * len(flat(state(kind))))
    )

    def run(x: Tensor, first: Tensor, *cells: Tensor) -> tuple[Tensor, ...]:
        return flat(cell(x, (first, *cells) if cells else first))

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


@every_class
def test_no_rows_give_no_rows(name):
    results: Any = flat(getattr(gw, name)(I, H)(torch.empty(0, I)))
    assert {result.shape for result in results} == {(0, H)}


WRONG_ARGUMENTS = [
    {"hidden_size": -1},
    {"hidden_size": 2.0},
    {"input_size": 5.0},
    {"input_size": -5},
    {"dtype": torch.int64},
    {"device": "nowhere"},
]


@pytest.mark.parametrize("wrong", WRONG_ARGUMENTS, ids=lambda wrong: "-".join(f"{k}={v!r}" for k, v in wrong.items()))
@every_class
def test_wrong_arguments(name, wrong):
    arguments = {"input_size": I, "hidden_size": H} | wrong
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        getattr(nn, name)(**arguments)
    with pytest.raises(theirs.type) as mine:
        getattr(gw, name)(**arguments)
    assert str(mine.value) == str(theirs.value)


@every_class
def test_unknown_choices_name_the_known_ones(name):
    with pytest.raises(InputError) as error:
        getattr(gw, name)(I, H, backend="mkl")
    assert str(error.value) == f"{name}: unknown backend 'mkl'; expected one of auto, native, torch, reference"
    if name == "RNNCell":
        with pytest.raises(InputError) as error:
            gw.RNNCell(I, H, nonlinearity="sigmoid")
        assert str(error.value) == "RNNCell: unknown nonlinearity 'sigmoid'; expected one of tanh, relu"


WRONG_INPUTS: dict[str, Any] = {  # input, rows and size of the state
    "input-0D": (torch.zeros(()), None),
    "input-3D": (torch.zeros(1, B, I), None),
    "input-size": (torch.zeros(B, 6), None),
    "hx-4D": (torch.zeros(B, I), ((1, 1, B), H)),
    "hx-3D": (torch.zeros(B, I), ((1, B), H)),
    "hx-size": (torch.zeros(B, I), ((B,), 8)),
    "hx-rows": (torch.zeros(B, I), ((3,), H)),
    "hx-size-single": (torch.zeros(I), ((), 6)),
}
WRONG_INPUTS_IN_OTHER_WORDS: dict[str, Any] = {
    "input-size-single": (torch.zeros(4), None),
    "hx-single": (torch.zeros(B, I), ((), H)),
    "hx-2D-of-1D": (torch.zeros(I), ((2,), H)),
}


@pytest.mark.parametrize(("input", "shape"), WRONG_INPUTS.values(), ids=WRONG_INPUTS)
@every_class
def test_wrong_shapes_in_torchs_words(name, input, shape):
    hx = None if shape is None else state(name, *shape[0], size=shape[1])
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        getattr(nn, name)(I, H)(input, hx)
    with pytest.raises(theirs.type) as mine:
        getattr(gw, name)(I, H)(input, hx)
    assert isinstance(mine.value, ShapeError)
    assert str(mine.value) == str(theirs.value)


@pytest.mark.parametrize(
    ("input", "shape"), WRONG_INPUTS_IN_OTHER_WORDS.values(), ids=list(WRONG_INPUTS_IN_OTHER_WORDS)
)
@every_class
def test_wrong_shapes_of_the_same_type(name, input, shape):
    hx = None if shape is None else state(name, *shape[0], size=shape[1])
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        getattr(nn, name)(I, H)(input, hx)
    with pytest.raises(ShapeError):
        getattr(gw, name)(I, H)(input, hx)


WRONG_TENSORS = {"float64": torch.float64, "int64": torch.int64, "elsewhere": "meta"}


@pytest.mark.parametrize("where", ["input", "hx"])
@pytest.mark.parametrize("wrong", WRONG_TENSORS.values(), ids=WRONG_TENSORS)
@all_of_ours
def test_wrong_tensors(kind, wrong, where):
    input, hx = torch.zeros(B, I), None
    if where == "input":
        input = input.to(wrong)
    else:
        hx = mapped(lambda s: s.to(wrong), state(kind, B))
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        pair(kind if kind in TORCHS else "GRU")[0](input, hx)
    with pytest.raises(theirs.type):
        ours(kind)(input, hx)


@every_class
def test_what_is_no_tensor(name):
    for input in (None, [0.0] * I):
        with pytest.raises(AttributeError):
            getattr(nn, name)(I, H)(input)
        with pytest.raises(AttributeError):
            getattr(gw, name)(I, H)(input)


def test_a_backend_that_cannot_serve_is_an_error():
    with pytest.raises(BackendError):
        gw.GRUCell(I, H, reset="before", backend="torch")(torch.zeros(B, I))


@every_kind
def test_repr(kind):
    theirs, mine = pair(kind, bias=False)
    assert repr(mine) == repr(theirs)
    assert repr(ours(kind, backend="native")) == repr(pair(kind)[0]).removesuffix(")") + ", backend=native)"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda cell: pickle.loads(pickle.dumps(cell))])
@all_of_ours
def test_copies_are_independent(kind, duplicate):
    cell, x = ours(kind, backend="reference"), torch.randn(B, I)
    expected = cell(x)
    twin = duplicate(cell)
    assert twin.backend == "reference"
    with torch.no_grad():
        cell.weight_ih.zero_()
    torch.testing.assert_close(twin(x), expected, rtol=0, atol=0)


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


@every_kind
def test_parametrized_weights(kind):
    theirs, mine = pair(kind)
    for cell in (theirs, mine):
        parametrize.register_parametrization(cell, "weight_hh", Half())
    input, hx = torch.randn(B, I), state(kind, B)
    assert_equal(outcome(mine, input, hx), outcome(theirs, input, hx))
    assert_equal(outcome(copy.deepcopy(mine), input, hx), outcome(mine, input, hx))


@every_class
def test_on_the_meta_device(name):
    for value in flat(getattr(gw, name)(I, H, device="meta")(torch.empty(B, I, device="meta"))):
        assert value.shape == (B, H)
        assert value.device.type == "meta"
