"""The cases that ONNX publishes for its operators GRU, LSTM and RNN, computed by ours, and by theirs from our files.

The cases are few and know neither lengths of their own nor linear_before_reset=1. So the same reader is also held
against onnxruntime, on random nodes with all of that.
"""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from gatewise.errors import InputError
from gatewise.interchange import onnx_in, onnx_recurrent
from gatewise.kernels import ops
from gatewise.layers.backwards import Backwards

onnx = pytest.importorskip("onnx", reason="the cases come with onnx, of the extra `test`")

OPERATORS = ("GRU", "LSTM", "RNN")
NOT_SERVED = {"test_lstm_with_peepholes": "our LSTM has no peepholes"}
# Where the blocks of our rows (GRU: r, z, n; LSTM: i, f, g, o; RNN: one) lie among ONNX's (z, r, h; i, o, f, c; one).
# z means the same: H_t = (1 - z) * h_t + z * H_(t-1).
ORDER = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1), "RNN": (0,)}

both_backends = pytest.mark.parametrize("backend", ["auto", "reference"])


def published_cases() -> list[Any]:
    node = import_module("onnx.backend.test.case.node")

    def import_ours(package: ModuleType) -> None:
        for operator in OPERATORS:
            import_module(f"{package.__name__}.{operator.lower()}")

    with mock.patch.object(node, "import_recursive", import_ours):  # computing those of all operators takes 4 s
        cases = node.collect_testcases()
    return [case for case in cases if case.model.graph.node[0].op_type in OPERATORS]


def reordered(blocks: np.ndarray, order: Sequence[int]) -> Tensor:
    """Rows (G*H, ...) of ONNX's gates in our order."""
    return torch.from_numpy(np.concatenate([np.split(blocks, len(order))[gate] for gate in order]))


def compute(node: Any, inputs: Sequence[np.ndarray], backend: str) -> dict[str, np.ndarray]:
    """Y, Y_h and, of an LSTM, Y_c of a node, by our ops.

    layout=0: X (T, B, I), initial_h (D, B, H), Y (T, D, B, H), Y_h (D, B, H); layout=1 has B first in each.
    W (D, G*H, I), R (D, G*H, H); B (D, 2*G*H): the input's biases, then the recurrent ones.
    """
    names = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    given = dict(zip([name for name, used in zip(names, node.input, strict=False) if used], inputs, strict=True))
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    hidden_size, layout = attributes.pop("hidden_size"), attributes.pop("layout", 0)
    direction = attributes.pop("direction", b"forward")
    runs = {b"forward": [False], b"reverse": [True], b"bidirectional": [False, True]}[direction]
    options: dict[str, Any] = {"backend": backend}
    if node.op_type == "GRU":
        options["reset"] = "after" if attributes.pop("linear_before_reset", 0) else "before"
    if "sequence_lens" in given:
        options["lengths"] = torch.from_numpy(given.pop("sequence_lens")).long()

    x = torch.from_numpy(given.pop("X"))
    states = {name: torch.from_numpy(given.pop(name)) for name in ("initial_h", "initial_c") if name in given}
    if layout == 1:
        x, states = x.transpose(0, 1), {name: state.transpose(0, 1) for name, state in states.items()}
    zeros = x.new_zeros(len(runs), x.shape[1], hidden_size)
    first = [states.get(name, zeros) for name in ("initial_h", "initial_c")[: 2 if node.op_type == "LSTM" else 1]]

    w, r, b = given.pop("W"), given.pop("R"), given.pop("B", None)
    unread = [*given, *attributes]
    assert not unread

    order, op = ORDER[node.op_type], getattr(ops, node.op_type.lower())
    results = []
    for d, reverse in enumerate(runs):
        biases = [None, None] if b is None else [reordered(half, order) for half in np.split(b[d], 2)]
        weights = (reordered(w[d], order), reordered(r[d], order), *biases)
        results.append(op(x, *(state[d] for state in first), *weights, reverse=reverse, **options))
    y, *last = (torch.stack(values, 1 if i == 0 else 0) for i, values in enumerate(zip(*results, strict=True)))
    if layout == 1:
        y, last = y.permute(2, 0, 1, 3), [state.transpose(0, 1) for state in last]
    return dict(zip(("Y", "Y_h", "Y_c"), (y.numpy(), *(state.numpy() for state in last)), strict=False))


CASES = published_cases()


def test_the_list_is_not_empty():
    assert {case.model.graph.node[0].op_type for case in CASES} == set(OPERATORS)
    assert set(NOT_SERVED) <= {case.name for case in CASES}


@both_backends
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_published_case(case, backend):
    if case.name in NOT_SERVED:
        pytest.skip(NOT_SERVED[case.name])
    (node,) = case.model.graph.node
    for inputs, outputs in case.data_sets:
        result = compute(node, inputs, backend)
        wanted = [name for name, used in zip(("Y", "Y_h", "Y_c"), node.output, strict=False) if used]
        for name, expected in zip(wanted, outputs, strict=True):
            assert result[name].dtype == expected.dtype
            np.testing.assert_allclose(result[name], expected, case.rtol, case.atol, err_msg=name)


WEIGHTS = ("W", "R", "B", "P")
REFUSED = {"layout": "the attribute layout = 1 is not supported", "P": "the input P .* is not supported"}


def as_model(node: Any, inputs: dict[str, np.ndarray]) -> Any:
    """The node as a model whose weights are in the file."""
    helper, tensors = onnx.helper, {name: array for name, array in inputs.items() if name in WEIGHTS}
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
        if name not in WEIGHTS
    ]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.output if name]
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph([node], "case", given, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def by_layer(layer: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Y, Y_h and, of an LSTM, Y_c, by a layer that was read."""
    x, lengths = torch.from_numpy(inputs["X"]), inputs.get("sequence_lens")
    first = tuple(torch.from_numpy(inputs[name]) for name in ("initial_h", "initial_c") if name in inputs)
    hx = None if not first else first[0] if len(first) == 1 else first
    with torch.no_grad():
        y, last = layer(x, hx, lengths=None if lengths is None else torch.from_numpy(lengths).long())
    directions = 2 if getattr(layer, "bidirectional", False) else 1
    y = y.reshape(*y.shape[:2], directions, -1).transpose(1, 2)
    return [y.numpy(), *(state.numpy() for state in (last if isinstance(last, tuple) else (last,)))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_published_case_as_a_file(case, tmp_path):
    """Its tensors into our layer, by the reader; and the layer's node, by the writer, through ONNX's reference."""
    from onnx.reference import ReferenceEvaluator

    (node,) = case.model.graph.node
    named = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    given = [name for name, used in zip(named, node.input, strict=False) if used]
    renamed = onnx.helper.make_node(
        node.op_type, [n if used else "" for n, used in zip(named, node.input, strict=False)], node.output
    )
    renamed.attribute.extend(node.attribute)
    for inputs, outputs in case.data_sets:
        arrays = dict(zip(given, inputs, strict=True))
        onnx.save(as_model(renamed, arrays), tmp_path / "case.onnx")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        refused = "P" if "P" in arrays else "layout" if attributes.get("layout") else None
        if refused is not None:
            with pytest.raises(InputError, match=REFUSED[refused]):
                onnx_in.layers(tmp_path / "case.onnx")
            continue
        (layer,) = onnx_in.layers(tmp_path / "case.onnx").values()
        wanted = [i for i, used in enumerate(node.output) if used]
        results = by_layer(layer, arrays)
        for i, expected in zip(wanted, outputs, strict=True):
            np.testing.assert_allclose(results[i], expected, case.rtol, case.atol)

        inner = layer.layer if isinstance(layer, Backwards) else layer
        written = onnx_recurrent.node_weights(inner, 0)
        assert all(np.array_equal(written[name], arrays[name]) for name in written)
        options = onnx_recurrent.node_attributes(inner)
        if isinstance(layer, Backwards):
            options["direction"] = "reverse"
        ours = onnx.helper.make_node(onnx_recurrent.operator(inner), renamed.input, renamed.output, **options)
        data = {name: array for name, array in arrays.items() if name not in WEIGHTS}
        theirs: Any = ReferenceEvaluator(as_model(ours, arrays)).run(None, data)
        for result, expected in zip(theirs, outputs, strict=True):
            np.testing.assert_allclose(result, expected, case.rtol, case.atol)


def random_node(kind: str, direction: str, first: bool, bias: bool) -> tuple[Any, list[np.ndarray], list[str]]:
    """A node, its inputs by position, with lengths, and their names ("" where left out)."""
    operator, _, reset = kind.partition("-")
    steps, batch, features, hidden_size, directions = 6, 4, 3, 5, 2 if direction == "bidirectional" else 1
    rows = len(ORDER[operator]) * hidden_size
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "X": (steps, batch, features),
        "W": (directions, rows, features),
        "R": (directions, rows, hidden_size),
    }
    shapes["B" if bias else ""] = (directions, 2 * rows)
    inputs: dict[str, Any] = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    inputs["sequence_lens"] = np.array([3, 6, 1, 5], np.int32)
    if first:
        for name in ("initial_h", "initial_c")[: 2 if operator == "LSTM" else 1]:
            inputs[name] = random.normal(size=(directions, batch, hidden_size)).astype(np.float32)
    options: dict[str, Any] = {"hidden_size": hidden_size, "direction": direction}
    if operator == "GRU":
        options["linear_before_reset"] = int(reset == "after")
    outputs = ["Y", "Y_h", "Y_c"] if operator == "LSTM" else ["Y", "Y_h"]
    node = onnx.helper.make_node(operator, list(inputs), outputs, **options)
    inputs.pop("", None)
    return node, list(inputs.values()), list(inputs)


@both_backends
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("first", [True, False], ids=["states", "zeros"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["GRU-after", "GRU-before", "LSTM", "RNN"])
def test_onnxruntime_computes_the_same(kind, direction, first, bias, backend):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the other implementation is onnxruntime's")
    node, inputs, names = random_node(kind, direction, first, bias)
    types = [onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype) for tensor in inputs]
    graph = onnx.helper.make_graph(
        [node],
        kind,
        [onnx.helper.make_tensor_value_info(*each) for each in zip(names, types, map(np.shape, inputs), strict=True)],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, dict(zip(names, inputs, strict=True)))
    result = compute(node, inputs, backend)
    for name, expected in zip(node.output, outputs, strict=True):
        np.testing.assert_allclose(result[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("first", [True, False], ids=["states", "zeros"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["GRU-after", "GRU-before", "LSTM", "RNN"])
def test_onnxruntime_computes_what_the_layer_read_gives(kind, direction, first, bias, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the other implementation is onnxruntime's")
    node, inputs, names = random_node(kind, direction, first, bias)
    arrays = dict(zip(names, inputs, strict=True))
    model = as_model(node, arrays)
    onnx.save(model, tmp_path / "node.onnx")
    (layer,) = onnx_in.layers(tmp_path / "node.onnx").values()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {name: array for name, array in arrays.items() if name not in WEIGHTS})
    for result, expected in zip(by_layer(layer, arrays), outputs, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
