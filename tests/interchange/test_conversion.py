"""convert: round trips are exact where nothing is folded, what is folded adds up, and what cannot be is refused."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gatewise as gw
from gatewise.errors import InputError, ShapeError
from gatewise.interchange.conventions import GATES, TABLE

KINDS = {"gru": gw.GRU, "lstm": gw.LSTM, "rnn": gw.RNN}
CASES = [(convention, form) for convention in TABLE for form in convention.forms or (None,)]


def layer_of(cell: str, form: str | None, *sizes: int, seed: int = 0, **options: Any):
    torch.manual_seed(seed)
    return KINDS[cell](*sizes, backend="reference", **form_options(cell, form), **options)


def form_options(cell: str, form: str | None) -> dict[str, Any]:
    return {"gru": {"reset": form}, "rnn": {"nonlinearity": form}, "lstm": {}}[cell]


@settings(max_examples=150, deadline=None)
@given(
    case=st.sampled_from(CASES),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)),
    bias=st.booleans(),
    bidirectional=st.booleans(),
    double=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_there_and_back(case, sizes, bias, bidirectional, double, seed):
    convention, form = case
    cell, options = convention.cell, form_options(convention.cell, form)
    layer = layer_of(cell, form, *sizes, bias=bias, bidirectional=bidirectional, seed=seed)
    folded = convention.holds("d") != set(GATES[cell])
    if bias and "n" not in convention.holds("d") and form == "after":
        for name, parameter in layer.named_parameters():
            if name.startswith("bias_hh"):
                parameter.data[2 * sizes[1] :] = 0
    if double:
        layer.double()
    weights = layer.state_dict()
    there = gw.convert(weights, "gatewise", convention.library, **options)
    back = gw.convert(there, convention.library, "gatewise", cell=cell, **options)
    assert all(tensor.dtype == (torch.float64 if double else torch.float32) for tensor in back.values())
    for name, tensor in weights.items():
        if not name.startswith("bias") or not (folded or convention.forget_offset):
            assert torch.equal(back[name], tensor), name
    other = layer_of(cell, form, *sizes, bias=bool(bias or len(back) > len(weights)), bidirectional=bidirectional)
    other.to(next(layer.parameters()).dtype).load_state_dict(back)
    x = torch.randn(3, 2, sizes[0], dtype=next(layer.parameters()).dtype)
    for one, two in zip(_flat(layer(x)), _flat(other(x)), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=0)
    again = gw.convert(back, "gatewise", convention.library, **options)
    for name, array in _leaves(there).items():
        np.testing.assert_allclose(_leaves(again)[name], array, atol=1e-6)


def _flat(results: Any) -> list[torch.Tensor]:
    return [results] if isinstance(results, torch.Tensor) else [t for result in results for t in _flat(result)]


def _leaves(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{path}{key}/") if isinstance(value, dict) else {f"{path}{key}": value}
    return leaves


def test_a_haiku_gru_becomes_a_layer_that_does_the_same():
    random = np.random.default_rng(0)
    params = {"encoder/gru": {"w_i": random.normal(size=(3, 6)), "w_h": random.normal(size=(2, 6)), "b": np.ones(6)}}
    layer = gw.GRU(3, 2, reset="before").double()
    layer.load_state_dict(gw.convert(params, source="haiku", target="gatewise"))
    w_i, w_h = params["encoder/gru"]["w_i"], params["encoder/gru"]["w_h"]
    x, h = random.normal(size=3), random.normal(size=2)
    z, r = np.split(1 / (1 + np.exp(-(x @ w_i[:, :4] + h @ w_h[:, :4] + 1))), 2)
    expected = (1 - z) * h + z * np.tanh(x @ w_i[:, 4:] + (r * h) @ w_h[:, 4:] + 1)
    y, _ = layer(torch.from_numpy(x[None]), torch.from_numpy(h[None]))
    np.testing.assert_allclose(y[0].detach().numpy(), expected, atol=1e-12)


def test_a_stack_of_torch_has_a_dictionary_a_layer_elsewhere():
    layer = torch.nn.LSTM(3, 4, 2, bidirectional=True)
    keras = gw.convert(layer.state_dict(), "torch", "keras")
    assert list(keras) == ["l0", "l0_reverse", "l1", "l1_reverse"]
    assert {name: array.shape for name, array in keras["l1"].items()} == {
        "kernel": (8, 16),
        "recurrent_kernel": (4, 16),
        "bias": (16,),
    }
    onnx = gw.convert(layer.state_dict(), "torch", "onnx")
    assert {name: array.shape for name, array in onnx["l1"].items()} == {
        "W": (2, 16, 8),
        "R": (2, 16, 4),
        "B": (2, 32),
    }
    back = gw.convert(onnx, "onnx", "torch")
    assert all(torch.equal(back[name], tensor) for name, tensor in layer.state_dict().items())


def test_several_layers_in_one_array():
    layer = torch.nn.RNN(4, 4, 3)
    parts = gw.convert(layer.state_dict(), "torch", "onednn")
    whole = {name: np.concatenate([part[name] for part in parts.values()]) for name in parts["l0"]}
    assert whole["weights_layer"].shape == (3, 1, 4, 1, 4)
    back = gw.convert(whole, "onednn", "torch")
    assert [back[name].shape for name in layer.state_dict()] == [p.shape for p in layer.state_dict().values()]
    assert torch.equal(back["weight_hh_l2"], layer.state_dict()["weight_hh_l2"])


def test_cells_of_torch_and_prefixes():
    cell = torch.nn.GRUCell(3, 2)
    converted = gw.convert(cell.state_dict(), "torch", "haste")
    np.testing.assert_array_equal(converted["kernel"][:, :2], cell.weight_ih[2:4].detach().numpy().T)
    second = torch.nn.GRU(2, 2)
    model = torch.nn.ModuleDict({"first": torch.nn.GRU(3, 2), "second": second, "out": torch.nn.Linear(2, 1)})
    found = gw.convert(model.state_dict(), "torch", "keras", prefix="second.")
    np.testing.assert_array_equal(found["recurrent_kernel"][:, 4:], second.state_dict()["weight_hh_l0"][4:].T)
    own = gw.convert({f"a.b.{name}": tensor for name, tensor in cell.state_dict().items()}, "torch", "haste")
    np.testing.assert_array_equal(own["kernel"], converted["kernel"])
    with pytest.raises(
        InputError, match=r"; unknown .*, out.weight, out.bias; of the weights of a whole model, prefix t"
    ):
        gw.convert(model.state_dict(), "torch", "keras")
    with pytest.raises(InputError, match=r"^convert: expected arrays, got none whose name begins with 'third' among f"):
        gw.convert(model.state_dict(), "torch", "keras", prefix="third")


def test_the_form_is_told_from_the_arrays_where_it_can_be():
    layer = gw.GRU(3, 2, reset="before")
    keras = gw.convert(layer.state_dict(), "gatewise", "keras", reset="before")
    assert keras["bias"].shape == (6,)
    onednn = gw.convert(keras, "keras", "onednn")  # the shape of the bias says that it is before
    assert onednn["bias"].shape == (1, 1, 3, 2)
    with pytest.raises(InputError, match="these are different functions"):
        gw.convert(keras, "keras", "torch")
    with pytest.raises(InputError, match=r"^convert: keras gru: expected bias of shape \(2, 3H\), .* got \(6,\)$"):
        gw.convert(keras, "keras", "gatewise", reset="after")
    lstm = gw.convert(gw.LSTM(3, 2).state_dict(), "gatewise", "haiku")
    assert lstm["linear"]["w"].shape == (5, 8)


@pytest.mark.parametrize(
    ("layer", "source", "target", "message"),
    [
        (gw.GRU(3, 2), "gatewise", "torch", 'gru of gatewise do not say whether its reset is "after" or "before", and '
         'torch holds only "after"; say which it is, with reset'),
        (gw.GRU(3, 2), "gatewise", "keras", 'gru of gatewise do not say whether its reset is "after" or "before", and '
         "keras holds these differently; say which it is, with reset"),
        (gw.RNN(3, 2), "torch", "haiku", 'rnn of torch do not say whether its nonlinearity is "tanh" or "relu", and '
         'haiku holds only "relu"; say which it is, with nonlinearity'),
    ],
)  # fmt: skip
def test_what_the_arrays_do_not_say_is_asked_for(layer, source, target, message):
    with pytest.raises(InputError, match=f"^convert: these arrays of a {message}$"):
        gw.convert(layer.state_dict(), source, target)
    assert gw.convert(layer.state_dict(), source, "onnx")  # holds both alike


def test_a_keras_gru_without_biases_could_be_either():
    keras = gw.convert(gw.GRU(3, 2, bias=False).state_dict(), "gatewise", "keras", reset="before")
    with pytest.raises(InputError, match=r"^convert: these arrays of a gru of keras do not say whether its reset is"):
        gw.convert(keras, "keras", "torch")
    assert gw.convert(keras, "keras", "torch", reset="after")
    assert gw.convert(keras, "keras", "gatewise")


def test_the_result_shares_no_memory():
    layer = gw.GRU(3, 2)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    for library in ("torch", "keras", "equinox"):
        for array in gw.convert(layer.state_dict(), "torch", library).values():
            array[:] = 7
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_half_precision():
    layer = gw.GRU(3, 2)
    half = gw.convert(layer.half().state_dict(), "torch", "keras")
    assert half["kernel"].dtype == np.float16
    brain = gw.convert(layer.bfloat16().state_dict(), "torch", "keras")
    assert brain["kernel"].dtype == np.float32
    assert torch.equal(torch.from_numpy(brain["kernel"][:, :2].T), layer.weight_ih_l0[2:4].float())


# What is refused


def test_a_recurrent_bias_of_n_needs_a_place():
    layer = torch.nn.GRU(3, 2)
    layer.bias_hh_l0.data = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, -0.6])
    message = (
        "convert: the GRU of flax-nnx has no recurrent bias of its gate n, and this one has (the last 2 numbers of "
        "bias_hh, as large as 0.6). The reset gate multiplies it, so it cannot be added to another bias. Conventions "
        "with a place for it: gatewise, torch, keras, onnx, onednn, flax-linen, equinox, haste; or train the model on "
        "with that bias held at zero"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        gw.convert(layer.state_dict(), "torch", "flax-nnx")


def arrays(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("weights", "source", "error", "message"),
    [
        ({}, "haiku", InputError, "expected arrays, got none"),
        ([1], "haiku", InputError, "expected a dictionary of arrays by name, got list"),
        ({"w": "a"}, "haiku", InputError, "w: expected an array of floating-point numbers, got <U1"),
        ({"w": np.zeros(2, int)}, "haiku", InputError, "w: expected an array of floating-point numbers, got int64"),
        (
            arrays(w_i=(3, 6), w_h=(2, 6)),
            "haiku",
            InputError,
            "haiku gru: expected arrays w_i, w_h, b; missing b",
        ),
        (
            arrays(w_i=(3, 6), w_h=(2, 6), b=(6,), c=(6,)),
            "haiku",
            InputError,
            "haiku gru: expected arrays w_i, w_h, b; unknown c; of the weights of a whole model, prefix takes those of "
            "one layer",
        ),
        (
            arrays(w_i=(3, 6), w_h=(3, 6), b=(6,)),
            "haiku",
            ShapeError,
            "haiku gru: expected w_h of shape (H, 3H), here (2, 6), got (3, 6)",
        ),
        (
            arrays(w_i=(3, 6), w_h=(2, 7), b=(6,)),
            "haiku",
            ShapeError,
            "haiku gru: expected w_h of shape (H, 3H), got (2, 7)",
        ),
        (
            arrays(W=(1, 6, 3), R=(6, 2)),
            "onnx",
            ShapeError,
            "onnx gru: expected R of shape (D, 3H, H), got (6, 2)",
        ),
        (
            {"linear": arrays(w=(2, 8), b=(8,))},
            "haiku",
            ShapeError,
            "haiku lstm: expected linear/w of shape (I+H, 4H), got (2, 8)",
        ),
        (
            arrays(weight_ih=(6, 3), weight_hh=(6, 2), bias=(6,)),
            "equinox",
            InputError,
            "equinox gru: expected arrays weight_ih, weight_hh, bias, bias_n; missing bias_n",
        ),
    ],
)
def test_wrong_weights_are_named(weights, source, error, message):
    with pytest.raises(error, match=f"^convert: {re.escape(message)}$"):
        gw.convert(weights, source, "gatewise")


def test_unknown_conventions():
    weights = torch.nn.GRU(3, 2).state_dict()
    with pytest.raises(
        InputError, match=r"^convert: unknown convention 'hiaku'; known are .*; did you mean \"haiku\"\?$"
    ):
        gw.convert(weights, "torch", "hiaku")
    with pytest.raises(InputError, match=r"^convert: unknown convention 'pytorch'; .*; did you mean \"torch\"\?$"):
        gw.convert(weights, "pytorch", "keras")
    with pytest.raises(InputError, match=r"^convert: haste has no rnn, only gru, lstm;"):
        gw.convert(torch.nn.RNN(3, 2).state_dict(), "torch", "haste")
    with pytest.raises(InputError, match=r"the RNN of haiku has the nonlinearity relu, this one tanh"):
        gw.convert(torch.nn.RNN(3, 2).state_dict(), "torch", "haiku", nonlinearity="tanh")
    with pytest.raises(InputError, match=r"^convert: only a gru has reset, only an rnn nonlinearity; got cell='lstm'$"):
        gw.convert(weights, "torch", "keras", cell="lstm", reset="after")
    relu = gw.convert(torch.nn.RNN(3, 2).state_dict(), "torch", "haiku", nonlinearity="relu")
    assert list(relu) == ["linear", "linear_1"]
