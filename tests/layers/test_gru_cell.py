"""gw.GRUCell against torch.nn.GRUCell, whose place it takes, and against the reference in float64."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import gatewise as gw
from gatewise.errors import BackendError, InputError, ShapeError
from gatewise.kernels import ops, reference

B, I, H = 4, 5, 7  # noqa: E741


def pair(**arguments: Any) -> tuple[nn.GRUCell, gw.GRUCell]:
    """torch's cell and ours with the same parameters, made from the same seed."""
    torch.manual_seed(0)
    theirs = nn.GRUCell(I, H, **arguments)
    torch.manual_seed(0)
    return theirs, gw.GRUCell(I, H, **arguments)


def outcome(cell: nn.Module, input: Tensor, hx: Tensor | None) -> dict[str, Tensor]:
    """The state after two steps and the gradient of every input and parameter, by name."""
    x = input.detach().clone().requires_grad_()
    first = None if hx is None else hx.detach().clone().requires_grad_()
    cell.zero_grad()
    state = cell(x, cell(x, first))
    state.backward(torch.arange(1.0, 1 + state.numel()).to(state.dtype).view_as(state))
    gradients = {"input": x.grad, "hx": None if first is None else first.grad}
    gradients |= {name: parameter.grad for name, parameter in cell.named_parameters()}
    return {"state": state} | {f"gradient of {name}": g for name, g in gradients.items() if g is not None}


def assert_equal(outcome: dict[str, Tensor], expected: dict[str, Tensor], limit: float = 1e-5) -> None:
    assert {name: value.shape for name, value in outcome.items()} == {name: e.shape for name, e in expected.items()}
    errors = {
        name: ((outcome[name].double() - exact.double()).abs().max() / exact.double().abs().max()).item()
        for name, exact in expected.items()
    }
    assert not {name: error for name, error in errors.items() if not error <= limit}


@pytest.mark.parametrize("first", ["hx", "zeros"])
@pytest.mark.parametrize("batch_size", [None, 1, B], ids=["single", "B1", "B4"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_every_argument_equals_torchs(bias, batch_size, first):
    theirs, ours = pair(bias=bias)
    rows = () if batch_size is None else (batch_size,)
    input, hx = torch.randn(*rows, I), torch.randn(*rows, H) if first == "hx" else None
    assert_equal(outcome(ours, input, hx), outcome(theirs, input, hx))


@pytest.mark.parametrize("reset", ops.RESETS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_both_placements_equal_the_reference_in_float64(bias, reset):
    cell = gw.GRUCell(I, H, bias, reset=reset)
    exact = gw.GRUCell(I, H, bias, reset=reset, backend="reference", dtype=torch.float64)
    exact.load_state_dict(cell.state_dict())
    input, hx = torch.randn(B, I), torch.randn(B, H)
    assert_equal(outcome(cell, input, hx), outcome(exact, input.double(), hx.double()))
    weights = (exact.weight_ih, exact.weight_hh, exact.bias_ih, exact.bias_hh)
    state = reference.gru_step(input.double(), hx.double(), *weights, reset=reset)
    torch.testing.assert_close(cell(input, hx).double(), state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reset", ops.RESETS)
def test_step_by_step_equals_the_layer(reset):
    layer, cell = gw.GRU(I, H, reset=reset), gw.GRUCell(I, H, reset=reset)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x, state = torch.randn(9, B, I), torch.randn(B, H)
    output, _ = layer(x, state[None])
    for x_t, expected in zip(x, output, strict=True):
        state = cell(x_t, state)
        torch.testing.assert_close(state, expected)


def test_parameters_are_torchs():
    for arguments in ({}, {"bias": False}, {"dtype": torch.float64}):
        theirs, ours = pair(**arguments)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        for name, parameter in theirs.named_parameters():
            assert torch.equal(ours.get_parameter(name), parameter)
            assert ours.get_parameter(name).dtype == parameter.dtype
        assert (ours.bias_ih is None) == (theirs.bias_ih is None)


def test_a_state_dict_goes_both_ways():
    theirs, ours = nn.GRUCell(I, H), gw.GRUCell(I, H)
    x = torch.randn(B, I)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))
    ours.reset_parameters()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("reset", ops.RESETS)
def test_other_dtypes(reset, dtype):
    cell = gw.GRUCell(I, H, reset=reset)
    x, hx = torch.randn(B, I), torch.randn(B, H)
    state = copy.deepcopy(cell).to(dtype)(x.to(dtype), hx.to(dtype))
    assert state.dtype == dtype
    torch.testing.assert_close(state.float(), cell(x, hx), rtol=0, atol=1e-5 if dtype == torch.float64 else 0.05)


def test_no_rows_give_no_rows():
    assert gw.GRUCell(I, H)(torch.empty(0, I)).shape == (0, H)


WRONG_ARGUMENTS = [
    {"hidden_size": -1},
    {"hidden_size": 2.0},
    {"input_size": 5.0},
    {"input_size": -5},
    {"dtype": torch.int64},
    {"device": "nowhere"},
]


@pytest.mark.parametrize("wrong", WRONG_ARGUMENTS, ids=lambda wrong: "-".join(f"{k}={v!r}" for k, v in wrong.items()))
def test_wrong_arguments(wrong):
    arguments = {"input_size": I, "hidden_size": H} | wrong
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        nn.GRUCell(**arguments)
    with pytest.raises(theirs.type) as ours:
        gw.GRUCell(**arguments)
    assert str(ours.value) == str(theirs.value)


def test_unknown_choices_name_the_known_ones():
    with pytest.raises(InputError) as error:
        gw.GRUCell(I, H, reset="During")
    assert str(error.value) == "GRUCell: unknown reset 'During'; expected one of after, before"
    with pytest.raises(InputError) as error:
        gw.GRUCell(I, H, backend="mkl")
    assert str(error.value) == "GRUCell: unknown backend 'mkl'; expected one of auto, native, torch, reference"


WRONG_INPUTS = {
    "input-0D": (torch.zeros(()), None, "GRUCell: Expected input to be 1D or 2D, got 0D instead"),
    "input-3D": (torch.zeros(1, B, I), None, "GRUCell: Expected input to be 1D or 2D, got 3D instead"),
    "input-size": (torch.zeros(B, 6), None, "input has inconsistent input_size: got 6 expected 5"),
    "input-size-single": (torch.zeros(4), None, "input has inconsistent input_size: got 4 expected 5"),
    "hx-0D": (torch.zeros(B, I), torch.zeros(()), "GRUCell: Expected hidden size (4, 7), got ()"),
    "hx-3D": (torch.zeros(B, I), torch.zeros(1, B, H), "GRUCell: Expected hidden size (4, 7), got (1, 4, 7)"),
    "hx-size": (torch.zeros(B, I), torch.zeros(B, 8), "GRUCell: Expected hidden size (4, 7), got (4, 8)"),
    "hx-rows": (torch.zeros(B, I), torch.zeros(3, H), "GRUCell: Expected hidden size (4, 7), got (3, 7)"),
    "hx-single": (torch.zeros(B, I), torch.zeros(H), "GRUCell: Expected hidden size (4, 7), got (7,)"),
    "hx-size-single": (torch.zeros(I), torch.zeros(6), "GRUCell: Expected hidden size (7,), got (6,)"),
    "hx-2D-of-1D": (torch.zeros(I), torch.zeros(2, H), "GRUCell: Expected hidden size (7,), got (2, 7)"),
}


@pytest.mark.parametrize(("input", "hx", "message"), WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_wrong_shapes(input, hx, message):
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        nn.GRUCell(I, H)(input, hx)
    with pytest.raises(theirs.type) as ours:
        gw.GRUCell(I, H)(input, hx)
    assert isinstance(ours.value, ShapeError)
    assert str(ours.value) == message


WRONG_TENSORS = {
    "input-float64": (torch.zeros(B, I, dtype=torch.float64), None),
    "input-int64": (torch.zeros(B, I, dtype=torch.int64), None),
    "hx-float64": (torch.zeros(B, I), torch.zeros(B, H, dtype=torch.float64)),
    "input-elsewhere": (torch.zeros(B, I, device="meta"), None),
    "hx-elsewhere": (torch.zeros(B, I), torch.zeros(B, H, device="meta")),
    "input-none": (None, None),
    "input-list": ([0.0] * I, None),
}


@pytest.mark.parametrize("reset", ops.RESETS)
@pytest.mark.parametrize(("input", "hx"), WRONG_TENSORS.values(), ids=WRONG_TENSORS)
def test_wrong_inputs_of_the_same_type(input, hx, reset):
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        nn.GRUCell(I, H)(input, hx)
    with pytest.raises(theirs.type):
        gw.GRUCell(I, H, reset=reset)(input, hx)


def test_a_backend_that_cannot_serve_is_an_error():
    with pytest.raises(BackendError):
        gw.GRUCell(I, H, reset="before", backend="torch")(torch.zeros(B, I))


def test_repr():
    theirs, ours = pair(bias=False)
    assert repr(ours) == repr(theirs)
    assert repr(gw.GRUCell(I, H)) == "GRUCell(5, 7)"
    assert repr(gw.GRUCell(I, H, reset="before", backend="native")) == "GRUCell(5, 7, reset=before, backend=native)"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda cell: pickle.loads(pickle.dumps(cell))])
def test_copies_are_independent(duplicate):
    cell = gw.GRUCell(I, H, reset="before", backend="reference")
    x = torch.randn(B, I)
    expected = cell(x)
    twin = duplicate(cell)
    assert (twin.reset, twin.backend) == ("before", "reference")
    with torch.no_grad():
        cell.weight_ih.zero_()
    assert torch.equal(twin(x), expected)


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def test_parametrized_weights():
    theirs, ours = pair()
    for cell in (theirs, ours):
        parametrize.register_parametrization(cell, "weight_hh", Half())
    input, hx = torch.randn(B, I), torch.randn(B, H)
    assert_equal(outcome(ours, input, hx), outcome(theirs, input, hx))
    assert_equal(outcome(copy.deepcopy(ours), input, hx), outcome(ours, input, hx))


def test_on_the_meta_device():
    state = gw.GRUCell(I, H, device="meta")(torch.empty(B, I, device="meta"))
    assert state.shape == (B, H)
    assert state.device.type == "meta"
