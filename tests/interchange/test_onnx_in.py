"""ONNX in: weights come back bit for bit, torch's exports give torch's outputs, and what is unknown is named."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import gatewise as gw
from gatewise.errors import InputError
from gatewise.interchange import onnx_in
from gatewise.interchange.onnx_out import to_onnx
from gatewise.layers.backwards import Backwards
from gatewise.models.sequential import build

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


@st.composite
def networks(draw) -> list[dict[str, Any]]:
    """Tables of networks of which every part can be left out."""
    sizes = st.integers(1, 5)
    width, tables = draw(sizes), []
    first = draw(st.sampled_from(["", "embedding", "one-hot"]))
    if first:
        vocabulary = draw(st.integers(1, 9))
        tables = [{"kind": first, "vocabulary_size": vocabulary, **({"size": width} if first == "embedding" else {})}]
        width = width if first == "embedding" else vocabulary
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["gru", "lstm", "rnn"]))
        special = {"gru": {"reset": ["after", "before"]}, "rnn": {"nonlinearity": ["tanh", "relu"]}}.get(kind, {})
        hidden, both = draw(sizes), draw(st.booleans())
        options = {"bias": draw(st.booleans()), "bidirectional": both, "num_layers": draw(st.integers(1, 3))}
        options |= {name: draw(st.sampled_from(values)) for name, values in special.items()}
        tables.append({"kind": kind, "input_size": width, "hidden_size": hidden, **options})
        width = hidden * (2 if both else 1)
    if draw(st.booleans()):
        tables.append({"kind": "activation", "function": draw(st.sampled_from(["sigmoid", "tanh", "softmax"]))})
    if draw(st.booleans()):
        tables.append({"kind": "pooling", "pooling": draw(st.sampled_from(["last", "mean", "max"]))})
    if draw(st.booleans()):
        tables.append({"kind": "linear", "input_size": width, "output_size": draw(sizes), "bias": draw(st.booleans())})
    return tables


@given(networks(), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_goes_out_comes_back_bit_for_bit(tmp_path, tables, defaults):
    network = build(tables)
    path = tmp_path / "model.onnx"
    onnx.save(to_onnx(network, defaults=defaults), path)
    again = onnx_in.network(path)
    assert again.describe() == network.describe()
    assert not again.training
    for (name, theirs), (_, ours) in zip(again.state_dict().items(), network.state_dict().items(), strict=True):
        assert torch.equal(theirs, ours), name


def test_layers_of_which_only_the_states_tell_where_one_stack_ends(tmp_path):
    alike = {"kind": "gru", "input_size": 4, "hidden_size": 4}
    tables = [{**alike, "num_layers": 2}, alike, {**alike, "num_layers": 3}]
    onnx.save(to_onnx(build(tables)), tmp_path / "model.onnx")
    described = onnx_in.network(tmp_path / "model.onnx").describe()
    assert [layer["num_layers"] for layer in described] == [2, 1, 3]


class Model(nn.Module):
    """What people export: an embedding, a recurrent layer, and a head that they wrote in one of several ways."""

    def __init__(self, kind: str, head: str, layers: int, bidirectional: bool, batch_first: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.rnn = getattr(nn, kind)(5, 6, layers, bidirectional=bidirectional, batch_first=batch_first)
        self.output = nn.Linear(12 if bidirectional else 6, 3)
        self.head = head

    def forward(self, tokens, state=None):
        y, last = self.rnn(self.embedding(tokens), state)
        h = last[0] if isinstance(last, tuple) else last
        time = 1 if self.rnn.batch_first else 0
        match self.head:
            case "steps":
                return torch.log_softmax(self.output(y), -1), last
            case "last step":
                return self.output(y[:, -1] if time else y[-1])
            case "last state":
                return torch.sigmoid(self.output(torch.cat([h[-2], h[-1]], 1) if self.rnn.bidirectional else h[-1]))
            case "last states side by side":
                return self.output(h.transpose(0, 1).reshape(h.shape[1], -1))
            case "mean":
                return self.output(y.mean(time)), last
            case "max":
                return self.output(y.amax(time)).relu()
        raise AssertionError(self.head)


EXPORTS = [
    ("GRU", "steps", 2, False, True),
    ("GRU", "last step", 1, False, True),
    ("GRU", "last states side by side", 1, True, True),
    ("GRU", "max", 2, True, False),
    ("LSTM", "last state", 2, True, True),
    ("LSTM", "steps", 1, True, False),
    ("LSTM", "mean", 1, False, True),
    ("RNN", "mean", 1, True, False),
    ("RNN", "last state", 2, False, True),
]


def exported(model: nn.Module, inputs: tuple, path: Path, *, dynamo: bool, free: bool) -> None:
    """Written by torch's exporter."""
    axes: dict[str, Any] = {"dynamic_axes": {"x": {0: "first", 1: "second"}}} if free else {}
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch's newer exporter needs onnxscript, of the extra `test`")
        dims = dict.fromkeys((0, 1), torch.export.Dim.AUTO)
        axes = {"dynamic_shapes": (dims, *(None for _ in inputs[1:]))} if free else {}
        axes["verbose"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs, path, dynamo=dynamo, input_names=["x"], **axes)


@pytest.mark.parametrize("free", [True, False], ids=["free", "frozen"])
@pytest.mark.parametrize(
    "export", EXPORTS, ids=lambda e: f"{e[0]}-{e[1]}-L{e[2]}-D{2 if e[3] else 1}".replace(" ", "-")
)
def test_exports_of_torch(export, free, tmp_path):
    check_export(export, free, tmp_path / "model.onnx", dynamo=False)


@pytest.mark.parametrize("export", [EXPORTS[0], EXPORTS[4]], ids=lambda export: export[0])
def test_exports_of_torchs_newer_exporter(export, tmp_path):
    check_export(export, True, tmp_path / "model.onnx", dynamo=True)


def check_export(export: Any, free: bool, path: Path, *, dynamo: bool) -> None:
    torch.manual_seed(0)
    model = Model(*export).eval()
    tokens = torch.randint(11, (4, 3))
    exported(model, (tokens,), path, dynamo=dynamo, free=free)
    network = onnx_in.network(path)
    expected = model(tokens)
    expected = expected[0] if isinstance(expected, tuple) else expected
    y, _ = network(tokens.T if model.rnn.batch_first else tokens)
    y = y.transpose(0, 1) if model.rnn.batch_first and not network.pools else y
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)
    recurrent = network.recurrent_layers[0]
    assert recurrent.num_layers == model.rnn.num_layers
    theirs = model.rnn.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in recurrent.state_dict().items())
    other = torch.randint(11, (9, 2))  # sizes that the file knows nothing of
    assert network(other)[0].isfinite().all()


@pytest.mark.parametrize("dynamo", [False, True], ids=["older", "newer"])
def test_states_that_are_inputs(dynamo, tmp_path):
    """A stack whose states are given, and are outputs."""
    model, x, state = nn.LSTM(5, 6, 2).eval(), torch.randn(4, 3, 5), torch.randn(2, 3, 6)
    exported(model, (x, (state, state + 1)), tmp_path / "model.onnx", dynamo=dynamo, free=not dynamo)
    network = onnx_in.network(tmp_path / "model.onnx")
    y, (last,) = network(x, [(state, state + 1)])
    expected, (hn, cn) = model(x, (state, state + 1))
    for ours, theirs in ((y, expected), (last[0], hn), (last[1], cn)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def node(kind: str, *inputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, ["y"], "the node", **attributes)


def model_of(nodes: list[Any], arrays: dict[str, np.ndarray], *, outputs: tuple[str, ...] = ("y",)) -> Any:
    """A model with an input x (T, B, 3)."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", 3])
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "graph", [x], out, [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weights(kind: str, directions: int = 1, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Of 3 inputs and 2 units."""
    random, rows = np.random.default_rng(0), {"GRU": 6, "LSTM": 8, "RNN": 2}[kind]
    shapes = {"W": (directions, rows, 3), "R": (directions, rows, 2), "B": (directions, 2 * rows)}
    return {name: random.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def by_onnx_runtime(model: Any, x: np.ndarray) -> list[Any]:
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is what these compare with")
    return runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x})


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
def test_nodes_become_layers(kind, direction, tmp_path):
    arrays = weights(kind, 2 if direction == "bidirectional" else 1)
    recurrent = helper.make_node(kind, ["x", "W", "R", "B"], ["y", "h"], "encoder", hidden_size=2, direction=direction)
    again = helper.make_node(kind, ["x", "W", "R"], ["unused"], hidden_size=2, direction=direction)
    model = model_of([recurrent, again], arrays, outputs=("y", "h"))
    onnx.save(model, tmp_path / "model.onnx")
    layers = onnx_in.layers(tmp_path / "model.onnx")
    assert list(layers) == ["encoder", f"{kind} (node 1 of the graph)"]
    layer, without_bias = (layers[name] for name in layers)
    assert isinstance(layer, Backwards) == (direction == "reverse")
    assert not any("bias" in name for name in without_bias.state_dict())
    x = np.random.default_rng(1).standard_normal((4, 2, 3)).astype(np.float32)
    y, h = by_onnx_runtime(model, x)
    ours, hn = layer(torch.from_numpy(x))
    hn = hn[0] if isinstance(hn, tuple) else hn
    np.testing.assert_allclose(ours.detach(), y.transpose(0, 2, 1, 3).reshape(4, 2, -1), atol=1e-6)
    np.testing.assert_allclose(hn.detach(), h, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_that_go_through_other_nodes(dtype, tmp_path):
    arrays = weights("GRU", dtype=dtype)
    kept = {"W one": arrays["W"][0], "R swapped": arrays["R"].transpose(2, 1, 0), "B all": np.pad(arrays["B"], 1)}
    z, r, n = np.split(kept.pop("W one"), 3)
    kept |= {"r": r, "zn": np.concatenate([z, n]), "axes": np.array([0]), "1": np.array([1, 1])}
    kept |= {"ends": np.array([2, -1])}
    nodes = [
        helper.make_node("Split", ["zn"], ["z", "n"], axis=0),
        helper.make_node("Concat", ["z", "r", "n"], ["W one"], axis=0),
        helper.make_node("Unsqueeze", ["W one", "axes"], ["W"]),
        helper.make_node("Transpose", ["R swapped"], ["R same"]),
        helper.make_node("Identity", ["R same"], ["R"]),
        helper.make_node("Slice", ["B all", "1", "ends"], ["B"]),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.zeros((1, 1, 2), dtype))),
        helper.make_node("GRU", ["x", "W", "R", "B", "", "zero"], ["y"], "gru", hidden_size=2, linear_before_reset=1),
    ]
    onnx.save(model_of(nodes, kept), tmp_path / "model.onnx")
    gru = onnx_in.layers(tmp_path / "model.onnx")["gru"]
    assert isinstance(gru, gw.GRU)
    assert (gru.reset, gru.learn_initial_state) == ("after", False)
    assert gru.weight_ih_l0.dtype == (torch.float64 if dtype == np.float64 else torch.float32)
    expected = np.concatenate([r, z, n]).astype(np.float64)
    np.testing.assert_array_equal(gru.weight_ih_l0.detach().double(), expected)
    z, r, n = np.split(arrays["B"][0, 6:], 3)
    np.testing.assert_array_equal(gru.state_dict()["bias_hh_l0"].double(), np.concatenate([r, z, n]).astype(np.float64))


def test_a_first_state_that_is_a_constant_is_learned(tmp_path):
    state = np.full((1, 5, 2), 0.5, np.float32)
    model = model_of([node("LSTM", "x", "W", "R", "B", "", "", "c", hidden_size=2)], weights("LSTM") | {"c": state})
    onnx.save(model, tmp_path / "model.onnx")
    lstm = onnx_in.layers(tmp_path / "model.onnx")["the node"]
    x = np.random.default_rng(1).standard_normal((4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(lstm(torch.from_numpy(x))[0].detach(), by_onnx_runtime(model, x)[0][:, 0], atol=1e-6)


def test_nodes_in_loops_and_branches(tmp_path):
    from onnx_mutations import branch

    onnx.save(branch(), tmp_path / "model.onnx")
    layers = onnx_in.layers(tmp_path / "model.onnx")
    assert list(layers) == ["inside"]
    assert isinstance(layers["inside"], Backwards)
    with pytest.raises(InputError, match=r"model.onnx: there is no GRU, LSTM or RNN node in its graph; "):
        onnx_in.network(tmp_path / "model.onnx")


REFUSED: dict[str, tuple[Any, dict[str, np.ndarray], str]] = {
    "clip": (node("GRU", "x", "W", "R", clip=0.5, hidden_size=2), {}, "the attribute clip = 0.5 is not supported"),
    "layout": (node("GRU", "x", "W", "R", layout=1, hidden_size=2), {}, "the attribute layout = 1 is not supported"),
    "activations": (
        node("GRU", "x", "W", "R", activations=["HardSigmoid", "Tanh"], hidden_size=2),
        {},
        r"activations: our layers have sigmoid, tanh \(of each direction\), the node has hardsigmoid, tanh",
    ),
    "alpha": (
        node("RNN", "x", "W", "R", activation_alpha=[0.5], hidden_size=2),
        {},
        "the attribute activation_alpha is not supported",
    ),
    "input_forget": (
        node("LSTM", "x", "W", "R", input_forget=1, hidden_size=2),
        {},
        "the attribute input_forget = 1 is not supported",
    ),
    "direction": (
        node("GRU", "x", "W", "R", direction="sideways", hidden_size=2),
        {},
        "expected direction to be one of forward, reverse, bidirectional, got 'sideways'",
    ),
    "hidden_size": (
        node("GRU", "x", "W", "R", hidden_size=3),
        {},
        r"hidden_size = 3 does not fit R \(1, 6, 2\), whose last axis is hidden_size",
    ),
    "peepholes": (
        node("LSTM", "x", "W", "R", "B", "", "", "", "P", hidden_size=2),
        {"P": np.zeros((1, 6), np.float32)},
        r"the input P \(peepholes\) is not supported: our LSTM has none",
    ),
    "shape": (
        node("GRU", "x", "W", "R", hidden_size=2, direction="bidirectional"),
        {},
        r"expected W to be \(2, 6, 3\), got \(1, 6, 3\)",
    ),
    "whole numbers": (
        node("GRU", "x", "W", "R", "B", hidden_size=2),
        {"B": np.zeros((1, 12), np.int64)},
        "expected B of floating point numbers, got int64",
    ),
    "no weights": (
        node("GRU", "x", "W", "x", hidden_size=2),
        {},
        "expected the weights R to be a constant, but 'x' is computed from an input",
    ),
    "a state for each row": (
        node("GRU", "x", "W", "R", "", "", "h", hidden_size=2),
        {"h": np.arange(4, dtype=np.float32).reshape(1, 2, 2)},
        "initial_h is another constant for each row, which no layer of ours has",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_our_layers_have_nothing_for_is_named(case, tmp_path):
    refused, more, message = REFUSED[case]
    onnx.save(model_of([refused], weights(refused.op_type) | more), tmp_path / "model.onnx")
    place = rf'model.onnx: {refused.op_type} "the node" \(node 0 of the graph\): '
    with pytest.raises(InputError, match=place + message):
        onnx_in.layers(tmp_path / "model.onnx")
    if case != "a state for each row":
        with pytest.raises(InputError, match=place):
            onnx_in.network(tmp_path / "model.onnx")


GRU = helper.make_node("GRU", ["x", "W", "R"], ["Y", "Y_h"], "gru", hidden_size=2)
NO_CHAIN: dict[str, tuple[list[Any], str]] = {
    "operator": (
        [GRU, helper.make_node("Erf", ["Y"], ["y"], "bend")],
        r'Erf "bend" \(node 1 of the graph\): this operator is in no chain of layers; known are GRU, LSTM, RNN, Gather',
    ),
    "domain": (
        [GRU, helper.make_node("Tanh", ["Y"], ["y"], "bend", domain="com.example")],
        r'Tanh of com.example "bend" \(node 1 of the graph\): this operator is in no chain of layers',
    ),
    "residual": (
        [GRU, helper.make_node("Add", ["Y", "Y"], ["y"], "residual")],
        r'Add "residual" \(node 1 .*: expected input 1 to be a constant; a chain of layers has no other path of data',
    ),
    "reverse": (
        [helper.make_node("GRU", ["x", "W", "R"], ["y"], "gru", hidden_size=2, direction="reverse")],
        r'GRU "gru" .*: direction = "reverse" alone cannot be in a chain of layers; read the node with onnx_in.layers',
    ),
    "scaled": (
        [GRU, helper.make_node("Add", ["Y", "axis"], ["y"])],
        "adds a constant to something else than a linear layer's product",
    ),
    "sum over time": (
        [GRU, helper.make_node("ReduceSum", ["Y", "axis"], ["y"])],
        "reduces over time in a way that is none of our poolings: last, mean, max",
    ),
    "over rows": (
        [GRU, helper.make_node("ReduceMax", ["Y"], ["y"], axes=[2])],
        "expected to reduce over time, got axis B",
    ),
    "circle": (
        [helper.make_node("Identity", ["later"], ["x2"]), GRU, helper.make_node("Add", ["Y", "x2"], ["y"])],
        r"Identity \(node 0 of the graph\): nothing before it gives its input 'later'",
    ),
    "decoder": (
        [GRU, helper.make_node("GRU", ["x", "W", "R", "", "", "Y_h"], ["y"], "decoder", hidden_size=2)],
        r'GRU "decoder" \(node 1 .*: expected input 5 to be a constant; a chain of layers has no other path of data',
    ),
    "one row": (
        [GRU, helper.make_node("Gather", ["Y", "zero"], ["y"], axis=2)],
        "takes 1 of 13 places of axis B, which no layer of a chain does",
    ),
    "four axes": (
        [GRU, helper.make_node("Identity", ["Y"], ["y"])],
        r"output 'y': expected what .* axes \(T, D, B, F\)",
    ),
}


@pytest.mark.parametrize("case", NO_CHAIN)
def test_models_that_are_no_chain(case, tmp_path):
    nodes, message = NO_CHAIN[case]
    arrays = {**weights("GRU"), "axis": np.array([0]), "zero": np.array([0])}
    onnx.save(model_of(nodes, arrays), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=message):
        onnx_in.network(tmp_path / "model.onnx")


def test_the_last_step_of_both_directions_is_no_pooling_of_ours(tmp_path):
    model = Model("GRU", "last step", 1, True, False).eval()
    exported(model, (torch.zeros(4, 3, dtype=torch.long),), tmp_path / "model.onnx", dynamo=False, free=True)
    message = "takes the last step of both directions, where the backward one has read one step only"
    with pytest.raises(InputError, match=message):
        onnx_in.network(tmp_path / "model.onnx")


def test_layers_that_disagree_about_lengths(tmp_path):
    model = to_onnx(build([{"kind": "gru", "input_size": 3, "hidden_size": 3}, {"kind": "pooling", "pooling": "mean"}]))
    next(node for node in model.graph.node if node.op_type == "GRU").input[4] = ""
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="some of its layers read rows to their lengths and others all steps"):
        onnx_in.network(tmp_path / "model.onnx")


def test_torchs_newer_exporter_writes_the_steps_of_an_rnn_one_by_one(tmp_path):
    linear = helper.make_node("MatMul", ["x", "W"], ["y"])
    onnx.save(model_of([linear], {"W": np.zeros((3, 2), np.float32)}), tmp_path / "model.onnx")
    message = (
        "no GRU, LSTM or RNN node in its graph; .* as torch's does with torch.nn.RNN unless it is called with dynamo"
    )
    with pytest.raises(InputError, match=message):
        onnx_in.network(tmp_path / "model.onnx")
