"""ONNX files with something wrong in them: small good ones, and what can be done to them, from a random generator.

`originals()` gives good files by name, `mutated(name, data, random)` one with a mutation, or several.
"""

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.random import Generator
from onnx import TensorProto, helper, numpy_helper

from gatewise.interchange.onnx_out import to_onnx
from gatewise.models.sequential import build

NUMBERS = [-(2**63), -1, 0, 1, 2, 3, 7, 255, 2**16, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1]
WORDS = ["", "x", "GRU", "LSTM", "Loop", "Expand", "Tile", "Where", "Relu", "com.evil", "../../etc/passwd", "é" * 3000]
OPERATORS = ["GRU", "LSTM", "RNN", "Identity", "Concat", "Expand", "ConstantOfShape", "Reshape", "Gather", "Conv", "If"]


def originals() -> dict[str, bytes]:
    """Models of ours, of torch's exporter, and one with a recurrent node in a branch."""
    chain = [
        {"kind": "embedding", "vocabulary_size": 7, "size": 3},
        {"kind": "gru", "input_size": 3, "hidden_size": 4, "num_layers": 2, "bidirectional": True},
        {"kind": "pooling", "pooling": "last"},
        {"kind": "linear", "input_size": 8, "output_size": 2},
    ]
    series = [
        {"kind": "lstm", "input_size": 3, "hidden_size": 2},
        {"kind": "rnn", "input_size": 2, "hidden_size": 3, "bias": False},
        {"kind": "pooling", "pooling": "mean"},
        {"kind": "activation", "function": "softmax"},
    ]
    models = {"ours": to_onnx(build(chain)), "series": to_onnx(build(series), defaults=False), "branch": branch()}
    return {name: model.SerializeToString() for name, model in models.items()} | {"torch": of_torch()}


def of_torch() -> bytes:
    """What torch's older exporter writes."""
    file: Any = io.BytesIO()  # which the exporter takes, whatever its types say
    network = torch.nn.GRU(3, 4, num_layers=2, bidirectional=True, batch_first=True).eval()
    axes = {"x": {0: "rows", 1: "steps"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.zeros(2, 5, 3)
        torch.onnx.export(network, (x,), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return file.getvalue()


def branch() -> Any:
    """A model with a GRU in a branch, whose weights lie outside, in all ways in which numbers can lie in a file."""
    random = np.random.default_rng(0)
    w, r, b = (random.standard_normal(shape) for shape in ((1, 6, 3), (1, 6, 2), (1, 12)))
    tensors = [
        helper.make_tensor("W", TensorProto.FLOAT, w.shape, w.ravel().tolist()),
        numpy_helper.from_array(r.astype(np.float32).transpose(0, 2, 1), "R transposed"),
        helper.make_tensor("B half", TensorProto.FLOAT16, b.shape, b.ravel().astype(np.float16).tolist()),
        helper.make_tensor("yes", TensorProto.BOOL, (), [True]),
    ]
    gru = helper.make_node("GRU", ["x", "W", "R", "B"], ["y"], "inside", hidden_size=2, direction="reverse")
    other = helper.make_node("Identity", ["x"], ["z"])
    free = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    branches = [helper.make_graph([gru], "then", [], [free])]
    free = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branches.append(helper.make_graph([other], "else", [], [free]))
    nodes = [
        helper.make_node("Transpose", ["R transposed"], ["R"], perm=[0, 2, 1]),
        helper.make_node("Cast", ["B half"], ["B"], to=TensorProto.FLOAT),
        helper.make_node("If", ["yes"], ["out"], then_branch=branches[0], else_branch=branches[1]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", 3])
    graph = helper.make_graph(nodes, "branch", [x], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
    graph.initializer.extend(tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mutated(name: str, data: bytes, random: Generator) -> bytes:
    """A good file with one to three mutations: of the model first, then of the bytes."""
    structured = random.integers(4) > 0
    if structured:
        data = of_the_model(data, random)
    for _ in range(int(random.integers(0, 2)) * int(random.integers(1, 3)) if structured else 1):
        data = BYTES[int(random.integers(len(BYTES)))](data, random) if data else data
    return data


def flipped(data: bytes, random: Generator) -> bytes:
    """With some bytes changed, anywhere."""
    changed = np.frombuffer(data, np.uint8).copy()
    where = random.integers(len(changed), size=int(random.integers(1, 20)))
    changed[where] ^= random.integers(1, 256, size=len(where), dtype=np.uint8)
    return changed.tobytes()


def truncated(data: bytes, random: Generator) -> bytes:
    return data[: int(random.integers(len(data)))]


def spliced(data: bytes, random: Generator) -> bytes:
    """With a stretch that is copied to another place, over what is there or between it, or cut out."""
    size = int(random.integers(1, max(2, min(len(data), 600))))
    source, target = (int(random.integers(len(data))) for _ in range(2))
    piece = data[source : source + size]
    return [data[:target] + piece + data[target + over :] for over in (0, len(piece))][int(random.integers(2))]


def announced(data: bytes, random: Generator) -> bytes:
    """With a number in the place of another, such as a length: of one to ten bytes."""
    place, number = int(random.integers(len(data))), abs(NUMBERS[int(random.integers(len(NUMBERS)))])
    varint = bytearray()
    while number > 0x7F:
        varint.append(number & 0x7F | 0x80)
        number >>= 7
    varint.append(number)
    return data[:place] + bytes(varint) + data[place + 1 :]


BYTES: list[Callable[[bytes, Generator], bytes]] = [flipped, truncated, spliced, announced]


def of_the_model(data: bytes, random: Generator) -> bytes:
    """With another value somewhere in its messages; the same if it cannot be parsed."""
    try:
        model = onnx.load_from_string(data)
    except DecodeError:
        return data
    for _ in range(int(random.integers(1, 4))):
        kind = MODELS[int(random.integers(len(MODELS)))]
        kind(model, random)
    return model.SerializeToString()


def _pick(random: Generator, values: Any) -> Any:
    return values[int(random.integers(len(values)))] if len(values) else None


def _tensors(model: Any) -> list[Any]:
    return [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute if a.type == 4)]


def change_dims(model: Any, random: Generator) -> None:
    tensor = _pick(random, _tensors(model))
    if tensor is not None and len(tensor.dims):
        tensor.dims[int(random.integers(len(tensor.dims)))] = _pick(random, NUMBERS)


def change_type(model: Any, random: Generator) -> None:
    if (tensor := _pick(random, _tensors(model))) is not None:
        tensor.data_type = int(random.integers(0, 24))


def change_data(model: Any, random: Generator) -> None:
    if (tensor := _pick(random, _tensors(model))) is not None:
        numbers = np.array([_pick(random, NUMBERS) for _ in range(max(1, len(tensor.raw_data) // 8))])
        tensor.raw_data = numbers.astype(np.int64).tobytes()[: len(tensor.raw_data)]


def move_outside(model: Any, random: Generator) -> None:
    if (tensor := _pick(random, _tensors(model))) is not None:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=_pick(random, WORDS))
        tensor.external_data.add(key="offset", value=str(_pick(random, NUMBERS)))


def drop_tensor(model: Any, random: Generator) -> None:
    if len(model.graph.initializer):
        del model.graph.initializer[int(random.integers(len(model.graph.initializer)))]


def change_operator(model: Any, random: Generator) -> None:
    if (node := _pick(random, model.graph.node)) is not None:
        node.op_type = _pick(random, OPERATORS)


def change_input(model: Any, random: Generator) -> None:
    """Another tensor in the place of an input, maybe one that comes later, so that the graph has a circle."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)] + WORDS
    node = _pick(random, model.graph.node)
    if node is not None and len(node.input):
        node.input[int(random.integers(len(node.input)))] = _pick(random, names)


def add_input(model: Any, random: Generator) -> None:
    if (node := _pick(random, model.graph.node)) is not None:
        node.input.extend([_pick(random, [name for other in model.graph.node for name in other.output])] * 3)


def change_attribute(model: Any, random: Generator) -> None:
    attribute = _pick(random, [a for node in model.graph.node for a in node.attribute])
    if attribute is None:
        return
    what = int(random.integers(4))
    if what == 0:
        attribute.i = _pick(random, NUMBERS)
    elif what == 1:
        attribute.ints.extend([_pick(random, NUMBERS)] * 3)
    elif what == 2:
        attribute.type = int(random.integers(0, 14))
    else:
        attribute.s = _pick(random, [b"", b"\xff\xfe", b"sideways", b"bidirectional", b"reverse"])


def add_attribute(model: Any, random: Generator) -> None:
    if (node := _pick(random, model.graph.node)) is not None:
        name = _pick(random, ["clip", "layout", "activations", "axis", "axes", "perm", "hidden_size", "to", "split"])
        value = _pick(random, [1, 2**40, -5, 0.5, "Relu", ["Tanh"], [3, 1, 0], [2**62, 2**62]])
        node.attribute.append(helper.make_attribute(name, value))


def change_shape(model: Any, random: Generator) -> None:
    """Of an input or output."""
    value = _pick(random, [*model.graph.input, *model.graph.output])
    if value is not None and len(value.type.tensor_type.shape.dim):
        _pick(random, value.type.tensor_type.shape.dim).dim_value = _pick(random, NUMBERS)


def repeat_node(model: Any, random: Generator) -> None:
    if (node := _pick(random, model.graph.node)) is not None:
        for _ in range(int(random.integers(1, 30))):
            model.graph.node.add().CopyFrom(node)


def add_giant(model: Any, random: Generator) -> None:
    """A node that asks for a huge tensor, in the place of something that the graph uses."""
    node = _pick(random, model.graph.node)
    if node is None or not len(node.input):
        return
    shape = numpy_helper.from_array(np.array([_pick(random, NUMBERS), _pick(random, NUMBERS)], np.int64), "giant shape")
    model.graph.initializer.append(shape)
    place = int(random.integers(len(node.input)))
    kind = _pick(random, ["ConstantOfShape", "Expand", "Tile"])
    inputs = ["giant shape"] if kind == "ConstantOfShape" else [node.input[place], "giant shape"]
    model.graph.node.insert(0, helper.make_node(kind, inputs, ["giant"]))
    node.input[place] = "giant"


def nest(model: Any, random: Generator) -> None:
    """Graphs in one another."""
    graph = model.graph
    for _ in range(int(random.integers(1, 10))):  # thirty are as deep as protobuf goes
        outer = helper.make_graph([], "outer", [], list(graph.output))
        outer.node.append(helper.make_node("If", ["yes"], [value.name for value in graph.output], then_branch=graph))
        graph = outer
    model.graph.CopyFrom(graph)


MODELS: list[Callable[[Any, Generator], None]] = [
    change_dims,
    change_type,
    change_data,
    move_outside,
    drop_tensor,
    change_operator,
    change_input,
    add_input,
    change_attribute,
    add_attribute,
    change_shape,
    repeat_node,
    add_giant,
    nest,
]
