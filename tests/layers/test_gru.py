"""gw.GRU against torch.nn.GRU, whose place it takes, and against the reference in float64."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import gatewise as gw
from gatewise.errors import BackendError, GatewiseError, InputError, ShapeError
from gatewise.kernels import ops

T, B, I, H = 6, 4, 5, 7  # noqa: E741


def relative_error(value: Tensor, exact: Tensor) -> float:
    difference = (value.double() - exact.double()).abs().max()
    return (difference / exact.double().abs().max().clamp(min=1e-30)).item()


def pair(*sizes: Any, **arguments: Any) -> tuple[nn.GRU, gw.GRU]:
    """torch's layer and ours with the same parameters, made from the same seed."""
    torch.manual_seed(0)
    theirs = nn.GRU(*sizes, **arguments)
    torch.manual_seed(0)
    return theirs, gw.GRU(*sizes, **arguments)


def inputs(layer: nn.GRU, form: str) -> tuple[Tensor | PackedSequence, Tensor]:
    """Random input in one of the forms that a layer takes, and first states for it."""
    random = torch.Generator().manual_seed(1)
    states = layer.num_layers * (2 if layer.bidirectional else 1)
    x = torch.randn(T, B, I, generator=random)
    hx = torch.randn(states, B, H, generator=random)
    if form == "single":
        return x[:, 0], hx[:, 0]
    if form == "batch":
        return (x.transpose(0, 1) if layer.batch_first else x), hx
    lengths = [T, T, 3, 2] if form == "packed" else [2, T, 1, T]
    return pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=form == "packed"), hx


def outcome(layer: nn.Module, input: Tensor | PackedSequence, hx: Tensor | None) -> dict[str, Tensor]:
    """Output, last states and the gradient of every input and parameter, by name."""
    packed = isinstance(input, PackedSequence)
    x = (input.data if packed else input).detach().clone().requires_grad_()
    first = None if hx is None else hx.detach().clone().requires_grad_()
    layer.zero_grad()
    output, hn = layer(input._replace(data=x) if packed else x, first)
    y = output.data if packed else output
    random = torch.Generator().manual_seed(2)
    torch.autograd.backward([y, hn], [torch.randn(out.shape, generator=random).to(out.dtype) for out in (y, hn)])
    gradients = {"input": x.grad, "hx": None if first is None else first.grad}
    gradients |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {"output": y, "hn": hn} | {f"gradient of {name}": g for name, g in gradients.items() if g is not None}


def assert_equal(outcome: dict[str, Tensor], expected: dict[str, Tensor], limit: float = 1e-5) -> None:
    assert outcome.keys() == expected.keys()
    assert {name: outcome[name].shape for name in outcome} == {name: expected[name].shape for name in expected}
    errors = {name: relative_error(outcome[name], expected[name]) for name in outcome}
    assert not {name: error for name, error in errors.items() if not error <= limit}


@pytest.mark.parametrize("first", ["hx", "zeros"])
@pytest.mark.parametrize("form", ["batch", "single", "packed", "packed-unsorted"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("num_layers", [1, 3], ids=["L1", "L3"])
def test_every_argument_equals_torchs(num_layers, bias, batch_first, bidirectional, form, first):
    theirs, ours = pair(I, H, num_layers, bias, batch_first, bidirectional=bidirectional)
    input, hx = inputs(theirs, form)
    if first == "zeros":
        hx = None
    assert_equal(outcome(ours, input, hx), outcome(theirs, input, hx))


@pytest.mark.parametrize("reset", ops.RESETS)
@pytest.mark.parametrize("form", ["batch", "single", "packed", "packed-unsorted"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_both_placements_equal_the_reference_in_float64(bias, bidirectional, form, reset):
    theirs, _ = pair(I, H, 2, bias, bidirectional=bidirectional)
    ours = gw.GRU(I, H, 2, bias, bidirectional=bidirectional, reset=reset)
    exact = gw.GRU(I, H, 2, bias, bidirectional=bidirectional, reset=reset, backend="reference").double()
    ours.load_state_dict(theirs.state_dict())
    exact.load_state_dict(theirs.state_dict())
    input, hx = inputs(theirs, form)
    wide = PackedSequence(input.data.double(), *input[1:]) if isinstance(input, PackedSequence) else input.double()
    assert_equal(outcome(ours, input, hx), outcome(exact, wide, hx.double()))


@pytest.mark.parametrize("reset", ops.RESETS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
def test_a_packed_row_equals_the_row_alone(bidirectional, reset):
    layer = gw.GRU(I, H, 2, bidirectional=bidirectional, reset=reset)
    rows = [torch.randn(length, I) for length in (3, 1, 8, 3, 5)]
    output, hn = layer(pack_sequence(rows, enforce_sorted=False))
    for row, y, last in zip(rows, nn.utils.rnn.unpack_sequence(output), hn.unbind(1), strict=True):
        alone, last_alone = layer(row)
        torch.testing.assert_close(y, alone)
        torch.testing.assert_close(last, last_alone)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("p", [0.4, 1.0])
def test_the_same_seed_drops_the_same_values(p, bidirectional, packed):
    theirs, ours = pair(I, H, 3, dropout=p, batch_first=True, bidirectional=bidirectional)
    input, hx = inputs(theirs, "packed-unsorted" if packed else "batch")
    torch.manual_seed(3)
    expected = outcome(theirs, input, hx)
    torch.manual_seed(3)
    assert_equal(outcome(ours, input, hx), expected)
    assert relative_error(outcome(ours, input, hx)["output"], expected["output"]) > 0.01 or p == 1

    theirs.eval()
    ours.eval()
    generator_state = torch.get_rng_state()
    assert_equal(outcome(ours, input, hx), outcome(theirs, input, hx))
    assert torch.equal(torch.get_rng_state(), generator_state)


def test_parameters_are_torchs():
    for arguments in ({}, {"num_layers": 3, "bidirectional": True}, {"bias": False, "dtype": torch.float64}):
        theirs, ours = pair(I, H, **arguments)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        for name, parameter in theirs.named_parameters():
            assert torch.equal(ours.get_parameter(name), parameter)
            assert ours.get_parameter(name).dtype == parameter.dtype
        for mine, its in zip(ours.all_weights, theirs.all_weights, strict=True):
            assert [weight.shape for weight in mine] == [weight.shape for weight in its]


def test_a_state_dict_goes_both_ways():
    theirs, ours = nn.GRU(I, H, 2, bidirectional=True), gw.GRU(I, H, 2, bidirectional=True)
    input, hx = inputs(theirs, "batch")
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(input, hx), theirs(input, hx))
    ours.reset_parameters()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(input, hx), theirs(input, hx))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("reset", ops.RESETS)
def test_other_dtypes(reset, dtype):
    layer = gw.GRU(I, H, 2, bidirectional=True, reset=reset)
    x, hx = torch.randn(T, B, I), torch.randn(4, B, H)
    expected = layer(x, hx)
    result = copy.deepcopy(layer).to(dtype)(x.to(dtype), hx.to(dtype))
    for value, exact in zip(result, expected, strict=True):
        assert value.dtype == dtype
        assert relative_error(value, exact) < (1e-6 if dtype == torch.float64 else 0.03)


def test_no_rows_give_no_rows():
    theirs, ours = pair(I, H, 2, bidirectional=True)
    for result, expected in zip(ours(torch.empty(T, 0, I)), theirs(torch.empty(T, 0, I)), strict=True):
        assert result.shape == expected.shape


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
def test_the_last_state_is_not_a_view_of_the_output(batch_first):
    layer = gw.GRU(I, H, batch_first=batch_first)
    with torch.no_grad():
        output, hn = layer(torch.randn(T, B, I))
        kept = output.clone()
        hn.zero_()
    assert torch.equal(output, kept)


WRONG_ARGUMENTS = [
    {"dropout": 1.5},
    {"dropout": -0.1},
    {"dropout": True},
    {"dropout": "much"},
    {"dropout": None},
    {"bias": 1},
    {"batch_first": 1},
    {"num_layers": 0},
    {"num_layers": -2},
    {"num_layers": 1.5},
    {"num_layers": "2"},
    {"hidden_size": 0},
    {"hidden_size": -1},
    {"hidden_size": 2.0},
    {"hidden_size": "7"},
    {"input_size": 0},
    {"input_size": -5},
    {"input_size": 5.0},
    {"dtype": torch.int64},
    {"dtype": "float32"},
    {"device": "nowhere"},
]


@pytest.mark.parametrize("wrong", WRONG_ARGUMENTS, ids=lambda wrong: "-".join(f"{k}={v!r}" for k, v in wrong.items()))
def test_wrong_arguments(wrong):
    arguments = {"input_size": I, "hidden_size": H} | wrong
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        nn.GRU(**arguments)
    with pytest.raises(theirs.type) as ours:
        gw.GRU(**arguments)
    assert str(ours.value) == str(theirs.value)


def test_missing_and_unknown_arguments():
    with pytest.raises(TypeError, match=r"GRU\.__init__\(\) missing 1 required positional argument: 'hidden_size'"):
        gw.GRU(I)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"GRU\.__init__\(\) got an unexpected keyword argument 'layers'"):
        gw.GRU(I, H, layers=2)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"GRU\.__init__\(\) got an unexpected keyword argument 'proj_size'"):
        gw.GRU(I, H, proj_size=2)  # pyright: ignore[reportCallIssue]


def test_unknown_choices_name_the_known_ones():
    with pytest.raises(InputError) as error:
        gw.GRU(I, H, reset="befor")
    assert str(error.value) == "GRU: unknown reset 'befor'; expected one of after, before"
    with pytest.raises(InputError) as error:
        gw.GRU(I, H, backend="cudnn")
    assert str(error.value) == "GRU: unknown backend 'cudnn'; expected one of auto, native, torch, reference"


def test_dropout_in_a_single_layer_warns_as_torch_does():
    with warnings.catch_warnings(record=True) as theirs:
        warnings.simplefilter("always")
        nn.GRU(I, H, dropout=0.5)
    with warnings.catch_warnings(record=True) as ours:
        warnings.simplefilter("always")
        gw.GRU(I, H, dropout=0.5)
    assert [(w.category, str(w.message)) for w in ours] == [(w.category, str(w.message)) for w in theirs]
    assert len(ours) == 1


def packed(*lengths: int, width: int = I, sort: bool = True) -> PackedSequence:
    return pack_sequence([torch.zeros(length, width) for length in lengths], enforce_sorted=sort)


WRONG_INPUTS = {
    "input-1D": lambda layer: layer(torch.zeros(I)),
    "input-4D": lambda layer: layer(torch.zeros(1, T, B, I)),
    "input-size": lambda layer: layer(torch.zeros(T, B, I + 1)),
    "input-size-single": lambda layer: layer(torch.zeros(T, I - 1)),
    "input-size-packed": lambda layer: layer(packed(3, 2, width=I + 1)),
    "input-rank-packed": lambda layer: layer(PackedSequence(torch.zeros(3, 1, I), torch.tensor([1, 1, 1]))),
    "input-float64": lambda layer: layer(torch.zeros(T, B, I, dtype=torch.float64)),
    "input-int64": lambda layer: layer(torch.zeros(T, B, I, dtype=torch.int64)),
    "input-float64-packed": lambda layer: layer(packed(3, 2).to(torch.float64)),
    "hx-2D-of-3D": lambda layer: layer(torch.zeros(T, B, I), torch.zeros(B, H)),
    "hx-4D-of-3D": lambda layer: layer(torch.zeros(T, B, I), torch.zeros(1, 1, B, H)),
    "hx-3D-of-2D": lambda layer: layer(torch.zeros(T, I), torch.zeros(1, 1, H)),
    "hx-layers": lambda layer: layer(torch.zeros(T, B, I), torch.zeros(2, B, H)),
    "hx-batch": lambda layer: layer(torch.zeros(T, B, I), torch.zeros(1, B + 1, H)),
    "hx-size": lambda layer: layer(torch.zeros(T, B, I), torch.zeros(1, B, H + 1)),
    "hx-layers-single": lambda layer: layer(torch.zeros(T, I), torch.zeros(2, H)),
    "hx-batch-packed": lambda layer: layer(packed(3, 2), torch.zeros(1, 3, H)),
    "hx-rank-packed": lambda layer: layer(packed(3, 2), torch.zeros(2, H)),
}
WRONG_INPUTS_IN_OTHER_WORDS = {
    "no-steps": lambda layer: layer(torch.zeros(0, B, I)),
    "no-steps-single": lambda layer: layer(torch.zeros(0, I)),
    "hx-float64": lambda layer: layer(torch.zeros(T, B, I), torch.zeros(1, B, H, dtype=torch.float64)),
    "input-elsewhere": lambda layer: layer(torch.zeros(T, B, I, device="meta")),
    "hx-elsewhere": lambda layer: layer(torch.zeros(T, B, I), torch.zeros(1, B, H, device="meta")),
    "layer-elsewhere": lambda layer: layer.to("meta")(torch.zeros(T, B, I)),
    "hx-batch-packed-unsorted": lambda layer: layer(packed(2, 3, sort=False), torch.zeros(1, 1, H)),
    "input-none": lambda layer: layer(None),
    "input-list": lambda layer: layer([[0.0] * I] * T),
    "hx-list": lambda layer: layer(torch.zeros(T, I), [0.0] * H),
}


@pytest.mark.parametrize("reset", ops.RESETS)
@pytest.mark.parametrize("mistake", WRONG_INPUTS.values(), ids=WRONG_INPUTS)
def test_wrong_inputs_in_torchs_words(mistake, reset):
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        mistake(nn.GRU(I, H))
    with pytest.raises(theirs.type) as ours:
        mistake(gw.GRU(I, H, reset=reset))
    assert isinstance(ours.value, ShapeError)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("reset", ops.RESETS)
@pytest.mark.parametrize("mistake", WRONG_INPUTS_IN_OTHER_WORDS.values(), ids=WRONG_INPUTS_IN_OTHER_WORDS)
def test_wrong_inputs_of_the_same_type(mistake, reset):
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        mistake(nn.GRU(I, H))
    with pytest.raises(theirs.type):
        mistake(gw.GRU(I, H, reset=reset))


def test_first_states_of_too_many_rows_are_refused_for_unsorted_rows_too():
    """torch.nn.GRU takes the rows that the sorting happens to name and drops the others."""
    with pytest.raises(ShapeError) as error:
        gw.GRU(I, H)(packed(2, 3, sort=False), torch.zeros(1, 3, H))
    assert str(error.value) == "Expected hidden size (1, 2, 7), got [1, 3, 7]"


def test_a_backend_that_cannot_serve_is_an_error():
    with pytest.raises(BackendError):
        gw.GRU(I, H, reset="before", backend="torch")(torch.zeros(T, B, I))
    with pytest.raises(BackendError):
        gw.GRU(I, H, backend="native", dtype=torch.float64)(torch.zeros(T, B, I, dtype=torch.float64))
    assert issubclass(BackendError, (GatewiseError, RuntimeError))


def test_repr():
    arguments = {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.5, "bidirectional": True}
    theirs, ours = pair(I, H, **arguments)
    assert repr(ours) == repr(theirs)
    assert repr(gw.GRU(I, H)) == "GRU(5, 7)"
    assert repr(gw.GRU(I, H, reset="before", backend="reference")) == "GRU(5, 7, reset=before, backend=reference)"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_independent(duplicate):
    layer = gw.GRU(I, H, 2, bidirectional=True, reset="before", backend="reference")
    x = torch.randn(T, B, I)
    expected = layer(x)
    twin = duplicate(layer)
    assert (twin.reset, twin.backend) == ("before", "reference")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    torch.testing.assert_close(twin(x), expected, rtol=0, atol=0)


def test_flatten_parameters_changes_nothing():
    layer = gw.GRU(I, H, 2)
    x = torch.randn(T, B, I)
    expected = layer(x)
    layer.flatten_parameters()
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


def test_weights_may_be_exchanged_at_any_time():
    layer, other = gw.GRU(I, H, 2), gw.GRU(I, H, 2)
    x = torch.randn(T, B, I)
    expected = other(x)
    layer(x)
    as_arguments = torch.func.functional_call(layer, dict(other.named_parameters()), (x,))
    torch.testing.assert_close(as_arguments, expected, rtol=0, atol=0)
    for name, parameter in other.named_parameters():
        setattr(layer, name, parameter)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    torch.testing.assert_close(layer(x), other(x), rtol=0, atol=0)
    assert relative_error(layer(x)[0], expected[0]) > 0.01


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def test_parametrized_weights():
    theirs, ours = pair(I, H, 2)
    for layer in (theirs, ours):
        layer(torch.zeros(T, B, I))
        parametrize.register_parametrization(layer, "weight_hh_l0", Half())
        parametrizations.weight_norm(layer, "weight_ih_l1")
    input, hx = inputs(theirs, "batch")
    assert_equal(outcome(ours, input, hx), outcome(theirs, input, hx))
    assert_equal(outcome(copy.deepcopy(ours), input, hx), outcome(ours, input, hx), limit=0)
    with torch.no_grad():
        ours.get_parameter("parametrizations.weight_hh_l0.original").mul_(2)
    assert relative_error(outcome(ours, input, hx)["output"], outcome(theirs, input, hx)["output"]) > 0.001
    ours.double()
    assert ours(input.double())[0].dtype == torch.float64


def test_frozen_weights_have_no_gradient():
    layer = gw.GRU(I, H, 2)
    layer.weight_hh_l0.requires_grad_(False)
    result = outcome(layer, torch.randn(T, B, I), None)
    assert "gradient of weight_hh_l0" not in result
    assert "gradient of weight_hh_l1" in result


def test_on_the_meta_device():
    layer = gw.GRU(I, H, 2, bidirectional=True, device="meta")
    output, hn = layer(torch.empty(T, B, I, device="meta"))
    assert (output.shape, hn.shape) == ((T, B, 2 * H), (4, B, H))
    assert output.device.type == hn.device.type == "meta"


@pytest.mark.parametrize("arguments", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}], ids=str)
def test_torch_compile_takes_the_layer_whole(arguments):
    layer = gw.GRU(I, H, **arguments)
    x = torch.randn(T, B, I)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
