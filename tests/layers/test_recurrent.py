"""gw.GRU, gw.LSTM and gw.RNN against those of torch.nn, whose place they take, and against the reference in float64."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from kinds import ALL, REGULARISED, TORCHS
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import gatewise as gw
from gatewise.errors import BackendError, GatewiseError, InputError, ShapeError

T, B, I, H = 6, 4, 5, 7  # noqa: E741
every_kind = pytest.mark.parametrize("kind", TORCHS)
all_of_ours = pytest.mark.parametrize("kind", ALL)
every_class = pytest.mark.parametrize("name", ["GRU", "LSTM", "RNN"])
every_form = pytest.mark.parametrize("form", ["batch", "single", "packed", "packed-unsorted"])
both_directions = pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def relative_error(value: Tensor, exact: Tensor) -> float:
    difference = (value.double() - exact.double()).abs().max()
    return (difference / exact.double().abs().max().clamp(min=1e-30)).item()


def ours(kind: str, **arguments: Any) -> Any:
    name, own, *_ = ALL[kind]
    torch.manual_seed(0)
    return getattr(gw, name)(I, H, **arguments, **own)


def pair(kind: str, **arguments: Any) -> tuple[Any, Any]:
    """torch's layer and ours with the same parameters, made from the same seed."""
    name, own, *_ = TORCHS[kind]
    torch.manual_seed(0)
    return getattr(nn, name)(I, H, **arguments, **own), ours(kind, **arguments)


def first_states(layer: Any, batch: int = B) -> Any:
    random = torch.Generator().manual_seed(3)
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    h0 = torch.randn(count, batch, layer.proj_size or H, generator=random)
    return (h0, torch.randn(count, batch, H, generator=random)) if layer.mode == "LSTM" else h0


def mapped(function: Any, hx: Any) -> Any:
    return tuple(map(function, hx)) if isinstance(hx, tuple) else function(hx)


def inputs(layer: Any, form: str) -> tuple[Any, Any]:
    """Random input in one of the forms that a layer takes, and first states for it."""
    x, hx = torch.randn(T, B, I, generator=torch.Generator().manual_seed(1)), first_states(layer)
    if form == "single":
        return x[:, 0], mapped(lambda state: state[:, 0], hx)
    if form == "batch":
        return (x.transpose(0, 1) if layer.batch_first else x), hx
    lengths = [T, T, 3, 2] if form == "packed" else [2, T, 1, T]
    return pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=form == "packed"), hx


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, PackedSequence):
        return [value.data]
    return [value] if isinstance(value, Tensor) else [tensor for part in value for tensor in tensors_of(part)]


def outcome(layer: nn.Module, input: Any, hx: Any) -> dict[str, Tensor]:
    """Output, last states and the gradient of every input and parameter, by name."""
    packed = isinstance(input, PackedSequence)
    x = (input.data if packed else input).detach().clone().requires_grad_()
    first = None if hx is None else mapped(lambda state: state.detach().clone().requires_grad_(), hx)
    layer.zero_grad()
    outputs = tensors_of(layer(input._replace(data=x) if packed else x, first))
    random = torch.Generator().manual_seed(2)
    torch.autograd.backward(outputs, [torch.randn(out.shape, generator=random).to(out.dtype) for out in outputs])
    gradients = {"input": x.grad}
    gradients |= {f"state {i}": state.grad for i, state in enumerate(tensors_of(() if first is None else first))}
    gradients |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    results = dict(zip(("output", "hn", "cn"), outputs, strict=False))
    return results | {f"gradient of {name}": g for name, g in gradients.items() if g is not None}


def assert_equal(outcome: dict[str, Tensor], expected: dict[str, Tensor], limit: float = 1e-5) -> None:
    assert {name: outcome[name].shape for name in outcome} == {name: expected[name].shape for name in expected}
    errors = {name: relative_error(outcome[name], expected[name]) for name in outcome}
    assert not {name: error for name, error in errors.items() if not error <= limit}


# Values


ARGUMENTS = {
    "plain": {},
    "no-bias-batch-first-both-ways": {"bias": False, "batch_first": True, "bidirectional": True},
    "L3-no-bias": {"num_layers": 3, "bias": False},
    "L3-batch-first-both-ways": {"num_layers": 3, "batch_first": True, "bidirectional": True},
}


@pytest.mark.parametrize("first", ["hx", "zeros"])
@every_form
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@every_kind
def test_every_argument_equals_torchs(kind, arguments, form, first):
    theirs, mine = pair(kind, **arguments)
    input, hx = inputs(theirs, form)
    if first == "zeros":
        hx = None
    assert_equal(outcome(mine, input, hx), outcome(theirs, input, hx))


@every_form
@pytest.mark.parametrize("arguments", [{}, {"bias": False, "num_layers": 2, "bidirectional": True}], ids=str)
@all_of_ours
def test_equals_the_reference_in_float64(kind, arguments, form):
    layer, exact = ours(kind, **arguments), ours(kind, backend="reference", **arguments).double()
    exact.load_state_dict(layer.state_dict())
    input, hx = inputs(layer, form)
    wide = PackedSequence(input.data.double(), *input[1:]) if isinstance(input, PackedSequence) else input.double()
    assert_equal(outcome(layer, input, hx), outcome(exact, wide, mapped(Tensor.double, hx)))


@every_form
@every_kind
def test_backends_agree(kind, form):
    layers = [
        ours(kind, num_layers=2, bidirectional=True, backend=b, dtype=torch.float64) for b in ("torch", "reference")
    ]
    input, hx = inputs(layers[0], form)
    input = PackedSequence(input.data.double(), *input[1:]) if isinstance(input, PackedSequence) else input.double()
    first, second = (outcome(layer, input, mapped(Tensor.double, hx)) for layer in layers)
    assert_equal(first, second, limit=1e-12)


@both_directions
@all_of_ours
def test_a_packed_row_equals_the_row_alone(kind, bidirectional):
    layer = ours(kind, num_layers=2, bidirectional=bidirectional)
    rows = [torch.randn(length, I) for length in (3, 1, 8, 3, 5)]
    output, last = layer(pack_sequence(rows, enforce_sorted=False))
    for row, (input, y) in enumerate(zip(rows, nn.utils.rnn.unpack_sequence(output), strict=True)):
        alone, last_alone = layer(input)
        torch.testing.assert_close(y, alone)
        torch.testing.assert_close(mapped(lambda state, row=row: state[:, row], last), last_alone)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@both_directions
@pytest.mark.parametrize("p", [0.4, 1.0])
@every_class
def test_the_same_seed_drops_the_same_values(name, p, bidirectional, packed):
    kind = "RNN-tanh" if name == "RNN" else name
    theirs, mine = pair(kind, num_layers=3, dropout=p, batch_first=True, bidirectional=bidirectional)
    input, hx = inputs(theirs, "packed-unsorted" if packed else "batch")
    torch.manual_seed(3)
    expected = outcome(theirs, input, hx)
    torch.manual_seed(3)
    assert_equal(outcome(mine, input, hx), expected)
    assert relative_error(outcome(mine, input, hx)["output"], expected["output"]) > 0.01 or p == 1

    theirs.eval()
    mine.eval()
    generator_state = torch.get_rng_state()
    assert_equal(outcome(mine, input, hx), outcome(theirs, input, hx))
    assert torch.equal(torch.get_rng_state(), generator_state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@all_of_ours
def test_other_dtypes(kind, dtype):
    layer = ours(kind, num_layers=2, bidirectional=True)
    x, hx = inputs(layer, "batch")
    expected = tensors_of(layer(x, hx))
    result = tensors_of(copy.deepcopy(layer).to(dtype)(x.to(dtype), mapped(lambda state: state.to(dtype), hx)))
    for value, exact in zip(result, expected, strict=True):
        assert value.dtype == dtype
        assert relative_error(value, exact) < (1e-6 if dtype == torch.float64 else 0.05)


@all_of_ours
def test_autocast(kind):
    layer = ours(kind, num_layers=2, bidirectional=True)
    x, hx = inputs(layer, "batch")
    expected = tensors_of(layer(x, hx))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = tensors_of(layer(x, hx))
        packed = tensors_of(layer(pack_sequence([x[:, 0], x[:3, 1]])))
    for value, exact in zip(found, expected, strict=True):
        assert value.dtype == torch.bfloat16
        assert relative_error(value, exact) < 0.05
    assert {tensor.dtype for tensor in packed} == {torch.bfloat16}
    torch.stack([value.float().sum() for value in found]).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


@every_kind
def test_no_rows_give_no_rows(kind):
    theirs, mine = pair(kind, num_layers=2, bidirectional=True)
    results, expected = (tensors_of(layer(torch.empty(T, 0, I))) for layer in (mine, theirs))
    assert [result.shape for result in results] == [result.shape for result in expected]


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@all_of_ours
def test_the_last_state_is_not_a_view_of_the_output(kind, batch_first):
    layer = ours(kind, batch_first=batch_first)
    with torch.no_grad():
        output, last = layer(torch.randn(T, B, I))
        kept = output.clone()
        for state in tensors_of(last):
            state.zero_()
    assert torch.equal(output, kept)


# Parameters


@every_kind
def test_parameters_are_torchs(kind):
    for arguments in ({}, {"num_layers": 3, "bidirectional": True}, {"bias": False, "dtype": torch.float64}):
        theirs, mine = pair(kind, **arguments)
        assert list(mine.state_dict()) == list(theirs.state_dict())
        for name, parameter in theirs.named_parameters():
            assert torch.equal(mine.get_parameter(name), parameter)
            assert mine.get_parameter(name).dtype == parameter.dtype
        for own, its in zip(mine.all_weights, theirs.all_weights, strict=True):
            assert [weight.shape for weight in own] == [weight.shape for weight in its]


@every_kind
def test_a_state_dict_goes_both_ways(kind):
    theirs, mine = pair(kind, num_layers=2, bidirectional=True)
    theirs.reset_parameters()
    input, hx = inputs(theirs, "batch")
    mine.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(mine(input, hx), theirs(input, hx))
    mine.reset_parameters()
    theirs.load_state_dict(mine.state_dict())
    torch.testing.assert_close(mine(input, hx), theirs(input, hx))


@all_of_ours
def test_weights_may_be_exchanged_at_any_time(kind):
    layer, other = ours(kind, num_layers=2), ours(kind, num_layers=2)
    other.reset_parameters()
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


@every_kind
def test_parametrized_weights(kind):
    theirs, mine = pair(kind, num_layers=2)
    for layer in (theirs, mine):
        layer(torch.zeros(T, B, I))
        parametrize.register_parametrization(layer, "weight_hh_l0", Half())
        parametrizations.weight_norm(layer, "weight_ih_l1")
    input, hx = inputs(theirs, "batch")
    assert_equal(outcome(mine, input, hx), outcome(theirs, input, hx))
    assert_equal(outcome(copy.deepcopy(mine), input, hx), outcome(mine, input, hx), limit=0)
    with torch.no_grad():
        mine.get_parameter("parametrizations.weight_hh_l0.original").mul_(2)
    assert relative_error(outcome(mine, input, hx)["output"], outcome(theirs, input, hx)["output"]) > 0.001
    mine.double()
    assert mine(input.double())[0].dtype == torch.float64


@all_of_ours
def test_frozen_weights_have_no_gradient(kind):
    layer = ours(kind, num_layers=2)
    layer.weight_ih_l0.requires_grad_(False)
    result = outcome(layer, torch.randn(T, B, I), None)
    assert "gradient of weight_ih_l0" not in result
    assert "gradient of weight_ih_l1" in result


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@all_of_ours
def test_copies_are_independent(kind, duplicate):
    options: dict[str, Any] = {"backend": "reference", "learn_initial_state": True}
    options |= {"weight_dropout": 0.5} if kind in REGULARISED else {}
    layer = ours(kind, num_layers=2, bidirectional=True, **options).eval()
    x = torch.randn(T, B, I)
    expected = layer(x)
    twin = duplicate(layer)
    assert {name: getattr(twin, name) for name in options} == options
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    torch.testing.assert_close(twin(x), expected, rtol=0, atol=0)


@all_of_ours
def test_flatten_parameters_changes_nothing(kind):
    layer, x = ours(kind, num_layers=2), torch.randn(T, B, I)
    expected = layer(x)
    layer.flatten_parameters()
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


# Derivatives, transforms, devices


@pytest.mark.parametrize("form", ["batch", "packed-unsorted"])
@all_of_ours
def test_second_derivatives(kind, form):
    name, own, *_ = ALL[kind]
    layer = getattr(gw, name)(2, 3, 1, bidirectional=True, dtype=torch.float64, **{**own, **_small(own)})
    x = torch.randn(3, 2, 2, dtype=torch.float64)
    weights = list(layer.named_parameters())

    def run(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        given = pack_padded_sequence(x, [1, 3], enforce_sorted=False) if form != "batch" else x
        swapped = dict(zip((name for name, _ in weights), values, strict=True))
        return tuple(tensors_of(torch.func.functional_call(layer, swapped, (given,))))

    leaves = (x.requires_grad_(), *(p.detach().requires_grad_() for _, p in weights))
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


def _small(own: dict[str, Any]) -> dict[str, Any]:
    return {"proj_size": 2} if "proj_size" in own else {}


@all_of_ours
def test_second_derivatives_in_float32(kind):
    """A gradient penalty, through whatever backend "auto" chooses, against float64."""

    def penalty(layer: Any, x: Tensor) -> list[Tensor]:
        layer.zero_grad()
        (slope,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        return [p.grad for p in layer.parameters() if p.grad is not None]

    layer, x = ours(kind), torch.randn(T, B, I)
    found = penalty(layer, x.clone().requires_grad_())
    exact = penalty(ours(kind, backend="reference").double(), x.double().requires_grad_())
    for value, expected in zip(found, exact, strict=True):
        assert relative_error(value, expected) < 1e-5


@pytest.mark.parametrize("arguments", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}], ids=str)
@all_of_ours
def test_torch_compile_takes_the_layer_whole(kind, arguments):
    torch.compiler.reset()
    layer, x = ours(kind, **arguments), torch.randn(3, 4, I)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@every_kind
def test_on_the_meta_device(kind, backend):
    layer = ours(kind, num_layers=2, bidirectional=True, backend=backend)
    x = torch.empty(T, B, I)
    shapes = [tensor.shape for tensor in tensors_of(layer(x))]
    results = tensors_of(layer.to("meta")(x.to("meta")))
    assert [result.shape for result in results] == shapes
    assert {result.device.type for result in results} == {"meta"}


# Mistakes


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
WRONG_PROJECTIONS = [{"proj_size": 7}, {"proj_size": 8}, {"proj_size": -1}, {"proj_size": "1"}]


def spelt(wrong: Any) -> str:
    return "-".join(f"{k}={v!r}" for k, v in wrong.items()) if isinstance(wrong, dict) else wrong


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *((name, wrong) for name in ("GRU", "LSTM", "RNN") for wrong in WRONG_ARGUMENTS),
        *(("LSTM", wrong) for wrong in WRONG_PROJECTIONS),
        ("RNN", {"nonlinearity": "sigmoid"}),
        ("RNN", {"nonlinearity": None}),
    ],
    ids=spelt,
)
def test_wrong_arguments(name, wrong):
    arguments = {"input_size": I, "hidden_size": H} | wrong
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        getattr(nn, name)(**arguments)
    with pytest.raises(theirs.type) as mine:
        getattr(gw, name)(**arguments)
    assert str(mine.value) == str(theirs.value)


@every_class
def test_missing_and_unknown_arguments(name):
    layer = getattr(gw, name)
    with pytest.raises(TypeError, match=rf"{name}\.__init__\(\) missing 1 required positional argument: 'hidden_size'"):
        layer(I)
    with pytest.raises(TypeError, match=rf"{name}\.__init__\(\) got an unexpected keyword argument 'layers'"):
        layer(I, H, layers=2)
    if name != "LSTM":
        with pytest.raises(TypeError, match=rf"{name}\.__init__\(\) got an unexpected keyword argument 'proj_size'"):
            layer(I, H, proj_size=2)


@every_class
def test_wrong_options(name):
    layer = getattr(gw, name)
    for wrong, message in (
        ({"backend": "cudnn"}, "unknown backend 'cudnn'; expected one of auto, native, torch, reference"),
        ({"learn_initial_state": 1}, "expected learn_initial_state to be True or False, got int"),
        *(
            (
                {"weight_dropout": p},
                "expected weight_dropout to be a number from 0 to 1, the probability of a recurrent weight to be "
                f"dropped, got {p!r}",
            )
            for p in (1.5, -0.1, True, "much", None)
        ),
    ):
        with pytest.raises(InputError) as error:
            layer(I, H, **wrong)
        assert str(error.value) == f"{name}: {message}"


@every_class
def test_dropout_in_a_single_layer_warns_as_torch_does(name):
    caught = []
    for home in (nn, gw):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            getattr(home, name)(I, H, dropout=0.5)
        caught.append([(warning.category, str(warning.message)) for warning in found])
    assert caught[0] == caught[1]
    assert len(caught[1]) == 1


def packed(*lengths: int, width: int = I, sort: bool = True) -> PackedSequence:
    return pack_sequence([torch.zeros(length, width) for length in lengths], enforce_sorted=sort)


def states(name: str, *shape: int, **how: Any) -> Any:
    """First states of a shape; for an LSTM h0 and c0, both."""
    return (torch.zeros(shape, **how), torch.zeros(shape, **how)) if name == "LSTM" else torch.zeros(shape, **how)


WRONG_INPUTS: dict[str, Any] = {
    "input-1D": lambda layer, _: layer(torch.zeros(I)),
    "input-4D": lambda layer, _: layer(torch.zeros(1, T, B, I)),
    "input-size": lambda layer, _: layer(torch.zeros(T, B, I + 1)),
    "input-size-single": lambda layer, _: layer(torch.zeros(T, I - 1)),
    "input-float64": lambda layer, _: layer(torch.zeros(T, B, I, dtype=torch.float64)),
    "input-int64": lambda layer, _: layer(torch.zeros(T, B, I, dtype=torch.int64)),
    "hx-2D-of-3D": lambda layer, name: layer(torch.zeros(T, B, I), states(name, B, H)),
    "hx-4D-of-3D": lambda layer, name: layer(torch.zeros(T, B, I), states(name, 1, 1, B, H)),
    "hx-3D-of-2D": lambda layer, name: layer(torch.zeros(T, I), states(name, 1, 1, H)),
    "hx-layers": lambda layer, name: layer(torch.zeros(T, B, I), states(name, 2, B, H)),
    "hx-batch": lambda layer, name: layer(torch.zeros(T, B, I), states(name, 1, B + 1, H)),
    "hx-size": lambda layer, name: layer(torch.zeros(T, B, I), states(name, 1, B, H + 1)),
    "hx-layers-single": lambda layer, name: layer(torch.zeros(T, I), states(name, 2, H)),
}
WRONG_PACKED_INPUTS: dict[str, Any] = {  # which torch.nn.LSTM lets its kernels find
    "input-size-packed": lambda layer, _: layer(packed(3, 2, width=I + 1)),
    "input-rank-packed": lambda layer, _: layer(PackedSequence(torch.zeros(3, 1, I), torch.tensor([1, 1, 1]))),
    "input-float64-packed": lambda layer, _: layer(packed(3, 2).to(torch.float64)),
    "hx-batch-packed": lambda layer, name: layer(packed(3, 2), states(name, 1, 3, H)),
    "hx-rank-packed": lambda layer, name: layer(packed(3, 2), states(name, 2, H)),
}
WRONG_INPUTS_IN_OTHER_WORDS: dict[str, Any] = {
    "no-steps": lambda layer, _: layer(torch.zeros(0, B, I)),
    "no-steps-single": lambda layer, _: layer(torch.zeros(0, I)),
    "hx-float64": lambda layer, name: layer(torch.zeros(T, B, I), states(name, 1, B, H, dtype=torch.float64)),
    "input-elsewhere": lambda layer, _: layer(torch.zeros(T, B, I, device="meta")),
    "hx-elsewhere": lambda layer, name: layer(torch.zeros(T, B, I), states(name, 1, B, H, device="meta")),
    "layer-elsewhere": lambda layer, _: layer.to("meta")(torch.zeros(T, B, I)),
    "hx-batch-packed-unsorted": lambda layer, name: layer(packed(2, 3, sort=False), states(name, 1, 1, H)),
    "input-none": lambda layer, _: layer(None),
    "input-list": lambda layer, _: layer([[0.0] * I] * T),
}
IN_TORCHS_WORDS = [(kind, wrong) for kind in ALL for wrong in WRONG_INPUTS] + [
    (kind, wrong) for kind in ALL if "LSTM" not in kind for wrong in WRONG_PACKED_INPUTS
]


@pytest.mark.parametrize(("kind", "wrong"), IN_TORCHS_WORDS)
def test_wrong_inputs_in_torchs_words(kind, wrong):
    mistake = (WRONG_INPUTS | WRONG_PACKED_INPUTS)[wrong]
    name, torchs = ALL[kind].layer, kind if kind in TORCHS else "GRU"
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        mistake(pair(torchs)[0], name)
    with pytest.raises(theirs.type) as mine:
        mistake(ours(kind), name)
    assert isinstance(mine.value, ShapeError)
    assert str(mine.value) == str(theirs.value).replace(f"{ALL[torchs].layer}: ", f"{name}: ")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *((name, wrong) for name in ("GRU", "LSTM", "RNN") for wrong in WRONG_INPUTS_IN_OTHER_WORDS),
        *(("LSTM", wrong) for wrong in WRONG_PACKED_INPUTS if wrong not in ("hx-rank-packed", "input-rank-packed")),
    ],
)
def test_wrong_inputs_of_the_same_type(name, wrong):
    mistake = (WRONG_INPUTS_IN_OTHER_WORDS | WRONG_PACKED_INPUTS)[wrong]
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        mistake(getattr(nn, name)(I, H), name)
    with pytest.raises(theirs.type):
        mistake(getattr(gw, name)(I, H), name)


def test_an_lstm_takes_two_states():
    x = torch.zeros(T, B, I)
    for hx, got in (
        (torch.zeros(1, B, H), "a tensor (1, 4, 7)"),
        ((torch.zeros(1, B, H),), "1 of them"),
    ):
        with pytest.raises(ShapeError) as error:
            gw.LSTM(I, H)(x, hx)
        assert str(error.value) == f"LSTM: expected hx to be two tensors (h0, c0), got {got}"


@every_class
def test_first_states_of_too_many_rows_are_refused_for_unsorted_rows_too(name):
    """torch takes the rows that the sorting happens to name and drops the others."""
    with pytest.raises(ShapeError) as error:
        getattr(gw, name)(I, H)(packed(2, 3, sort=False), states(name, 1, 3, H))
    what = "hidden[0]" if name == "LSTM" else "hidden"
    assert str(error.value) == f"Expected {what} size (1, 2, 7), got [1, 3, 7]"


def test_a_backend_that_cannot_serve_is_an_error():
    with pytest.raises(BackendError):
        gw.GRU(I, H, reset="before", backend="torch")(torch.zeros(T, B, I))
    for layer in (gw.GRU, gw.LSTM, gw.RNN):
        with pytest.raises(BackendError):
            layer(I, H, backend="native", dtype=torch.float64)(torch.zeros(T, B, I, dtype=torch.float64))
    assert issubclass(BackendError, (GatewiseError, RuntimeError))


@every_kind
def test_repr(kind):
    arguments = {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.5, "bidirectional": True}
    theirs, mine = pair(kind, **arguments)
    assert repr(mine) == repr(theirs)
    name, own, *_ = TORCHS[kind]
    shown = repr(getattr(nn, name)(I, H, **own)).removesuffix(")")
    options = {"backend": "reference", "learn_initial_state": True, "weight_dropout": 0.25}
    expected = f"{shown}, backend=reference, learn_initial_state=True, weight_dropout=0.25)"
    assert repr(ours(kind, **options)) == expected
