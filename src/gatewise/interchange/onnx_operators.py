"""What each operator of ONNX does to the data of a chain: it adds a layer, or moves axes, or is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gatewise.interchange.onnx_constants import Call, shape_slice
from gatewise.interchange.onnx_pooling import concat, divide, gather_nd, reduce_, slice_, split, taken, where
from gatewise.interchange.onnx_recurrent import Recurrent, constant_weights, read_node
from gatewise.interchange.onnx_trial import OtherOrder, Trial, Value, constant_of, refused, steps_of
from gatewise.interchange.onnx_values import Ends, Laid, Link, Steps, reshaped, squeezed, transposed, unsqueezed

ACTIVATIONS = {
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Relu": "relu",
    "Softmax": "softmax",
    "LogSoftmax": "log-softmax",
}


def recurrent(trial: Trial, call: Call) -> list[Value]:
    """Y, Y_h and Y_c of a recurrent node."""
    known = {name: value for name, value in zip(call.node.input, call.inputs, strict=True) if name}
    x = steps_of(call)
    weights = constant_weights(trial.file, call.node, known, call.where)
    node = read_node(call.node.op_type, call.attributes, weights, call.where)
    if node.backwards:
        raise refused(
            call, 'direction = "reverse" alone cannot be in a chain of layers; read the node with onnx_in.layers'
        )
    if x.names()[:2] == ["B", "T"] and x.has_features():
        raise OtherOrder
    if x.tokens or x.names()[:-1] != ["T", "B"] or not x.has_features():
        raise refused(call, f"expected X to be features (T, B, F), got axes ({', '.join(x.names())})")
    if x.shape[2] != node.sizes["input_size"]:
        raise refused(call, f"expected X with {node.sizes['input_size']} features, as W has, got {x.shape[2]}")
    lengths = None if call.optional(4) is None else constant_of(call, 4)
    if not trial.reads(lengths):
        raise refused(call, "sequence_lens are neither the lengths that the model is given nor all steps")
    first = tuple(
        source
        for position in (5, 6)
        if call.optional(position) is not None and (source := _first_state(trial, call, position, node))
    )
    link = Link({"kind": node.kind, **node.sizes}, node.tensors, node, first)
    chain = (*x.chain, link)
    hidden = node.sizes["hidden_size"]
    y = Steps(((("T", trial.steps),), (("D", node.directions),), (("B", trial.rows),), (("F", hidden),)), chain)
    ends = ((("L", node.directions),), (("B", trial.rows),), (("H", hidden),))
    parts = [tuple((chain, d, part) for d in range(node.directions)) for part in "hc"]
    return [y, *(Ends(ends, blocks) for blocks in parts)]


def _first_state(trial: Trial, call: Call, position: int, node: Recurrent) -> tuple[str, int] | None:
    """The input that first states are from, and the row of its first axis; None if they are zeros."""
    value, name = constant_of(call, position), ("initial_h", "initial_c")[position - 5]
    hidden_size = node.sizes["hidden_size"]
    if value.ndim != 3 or value.shape[::2] != (node.directions, hidden_size) or not value.size:
        raise refused(call, f"expected {name} to be ({node.directions}, B, {hidden_size}), got {value.shape}")
    trial.file.budget.spend(value.nbytes, call.where)  # for looking at it
    if not np.any(value):
        return None
    for given, numbers in trial.states.items():
        place = int(value[0, 0, 0] - numbers[0, 0, 0])  # they count on from the first one
        if 0 <= place < numbers.size:
            places = np.unravel_index(place, numbers.shape)
            for axis, whole in enumerate((numbers, numbers.transpose(1, 0, 2))):  # or rows first
                row = int(places[axis])
                if np.array_equal(whole[row : row + node.directions], value):
                    return given, row
    raise refused(call, f"{name} is neither zero nor a state that the model is given")


def _gather(trial: Trial, call: Call) -> Value:
    """An embedding, a step, or a block of last states."""
    x, axis = call.inputs[0], int(call.attributes.get("axis", 0))
    if isinstance(x, np.ndarray):
        tokens = steps_of(call, 1)
        if not tokens.tokens or tokens.chain or axis != 0 or x.ndim != 2 or x.dtype.kind != "f":
            raise refused(call, "expected to gather rows of a matrix by tokens")
        trial.file.budget.spend(x.nbytes, call.where)
        link = Link({"kind": "embedding", "vocabulary_size": len(x), "size": x.shape[1]}, {"weight": x})
        return Steps((*tokens.axes, (("F", x.shape[1]),)), (link,))
    if not isinstance(x, Laid) or not -len(x.axes) <= axis < len(x.axes):
        raise refused(call, "has no such axis")
    index = constant_of(call, 1)
    if index.size != 1 or index.dtype.kind not in "iu" or index.ndim > 1:
        raise refused(call, "gathers several steps, which no layer of a chain does")
    axis %= len(x.axes)
    number = int(index.reshape(()))
    part = taken(trial, call, x, axis, slice(number, number + 1 or None))
    return part if index.ndim else squeezed(part, [axis])


def _one_hot(trial: Trial, call: Call) -> Value:
    tokens, depth, values = steps_of(call), constant_of(call, 1), constant_of(call, 2)
    if not tokens.tokens or tokens.chain or depth.size != 1 or values.reshape(-1).tolist() != [0, 1]:
        raise refused(call, "expected vectors that are 1 at the token and 0 elsewhere")
    if int(call.attributes.get("axis", -1)) not in (-1, len(tokens.axes)):
        raise refused(call, "expected the vectors along the last axis")
    size = int(depth.reshape(()))
    if not 1 <= size < 2**31:
        raise refused(call, f"expected at least one token, got {size}")
    return Steps((*tokens.axes, (("F", size),)), (Link({"kind": "one-hot", "vocabulary_size": size}, {}),))


def _linear(trial: Trial, call: Call, x: Steps, weight: np.ndarray, bias: np.ndarray | None) -> Steps:
    """weight (O, I)."""
    if x.tokens or not x.has_features() or weight.ndim != 2 or weight.shape[1] != x.shape[-1] or not weight.size:
        raise refused(call, f"weights {weight.shape[::-1]} do not fit data of axes ({', '.join(x.names())}), {x.shape}")
    if weight.dtype.kind != "f":
        raise refused(call, f"expected weights of floating point numbers, got {weight.dtype}")
    trial.file.budget.spend(weight.nbytes, call.where)
    table = {"kind": "linear", "input_size": weight.shape[1], "output_size": len(weight), "bias": False}
    linear = x.then(Link(table, {"weight": weight}), len(weight))
    return linear if bias is None else _with_bias(call, linear, bias)


def _with_bias(call: Call, x: Steps, bias: np.ndarray) -> Steps:
    link = x.chain[-1] if x.chain else None
    if link is None or link.table["kind"] != "linear" or link.table["bias"] or not x.has_features():
        raise refused(call, "adds a constant to something else than a linear layer's product")
    if bias.size != x.shape[-1] or bias.shape[-1:] != (bias.size,) or bias.dtype.kind != "f":
        raise refused(call, f"expected a bias of {x.shape[-1]}, got {bias.shape}")
    with_bias = Link({**link.table, "bias": True}, {**link.tensors, "bias": bias.reshape(-1)})
    return replace(x, chain=(*x.chain[:-1], with_bias))


def _matmul(trial: Trial, call: Call) -> Value:
    return _linear(trial, call, steps_of(call), constant_of(call, 1).T, None)


def _gemm(trial: Trial, call: Call) -> Value:
    attributes = call.attributes
    if attributes.get("alpha", 1.0) != 1 or attributes.get("beta", 1.0) != 1 or attributes.get("transA", 0):
        raise refused(call, "expected alpha = 1, beta = 1, transA = 0, got others")
    weight = constant_of(call, 1)
    bias = None if call.optional(2) is None else constant_of(call, 2)
    return _linear(trial, call, steps_of(call), weight if attributes.get("transB", 0) else weight.T, bias)


def _add(trial: Trial, call: Call) -> Value:
    data, constant = (1, 0) if isinstance(call.inputs[0], np.ndarray) else (0, 1)
    return _with_bias(call, steps_of(call, data), constant_of(call, constant))


def _activation(trial: Trial, call: Call) -> Value:
    x, function = steps_of(call), ACTIVATIONS[call.node.op_type]
    if x.tokens:
        raise refused(call, "reads tokens; a chain begins with an embedding or one-hot vectors of them")
    if "Softmax" in call.node.op_type:
        rank = len(x.axes)
        axis = int(call.attributes.get("axis", -1 if trial.file.opset >= 13 else 1))
        if axis not in (-1, rank - 1) or not x.has_features():
            raise refused(call, f"expected axis {rank - 1}, the features, got {axis}")
    return x.then(Link({"kind": "activation", "function": function}, {}))


def _dropout(trial: Trial, call: Call) -> list[Value]:
    ratio = (
        call.attributes.get("ratio", 0.5) if call.optional(1) is None else constant_of(call, 1).reshape(-1)[:1].sum()
    )
    if call.optional(2) is not None and np.any(constant_of(call, 2)):
        raise refused(call, "drops numbers in training mode; export the model in eval mode")
    if not 0 <= ratio < 1:
        raise refused(call, f"expected a ratio from 0 to 1, got {ratio}")
    x = steps_of(call)
    if x.tokens or any(call.node.output[1:]):
        raise refused(call, "expected features in and no mask out")
    return [x.then(Link({"kind": "dropout", "probability": ratio}, {}))]


def _cast(trial: Trial, call: Call) -> Value:
    x, to = call.inputs[0], call.attributes.get("to")
    if isinstance(x, Laid) and to in ((6, 7) if isinstance(x, Steps) and x.tokens else (1, 10, 11, 16)):
        return x
    raise refused(call, "casts tokens to other numbers, or features to whole ones")


def _moved(move: Callable[[Call, Any], Laid | None]) -> Callable[[Trial, Call], Value]:
    """An operator that moves axes."""

    def follow(trial: Trial, call: Call) -> Value:
        x = call.inputs[0]
        if not isinstance(x, Laid):
            raise refused(call, "moves axes in a way that depends on the data")
        moved = move(call, x)
        if moved is None:
            raise refused(call, f"moves the axes ({', '.join(x.names())}) in a way that no chain of layers does")
        return moved

    return follow


def _reshape(call: Call, x: Laid) -> Laid | None:
    target = (
        constant_of(call, 1).reshape(-1)[:17].tolist() if "shape" not in call.attributes else call.attributes["shape"]
    )
    return reshaped(x, target, bool(call.attributes.get("allowzero", 0)))


OPERATORS: dict[str, Callable[[Trial, Call], Value]] = {
    "GRU": recurrent,
    "LSTM": recurrent,
    "RNN": recurrent,
    "Gather": _gather,
    "OneHot": _one_hot,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _add,
    **dict.fromkeys(ACTIVATIONS, _activation),
    "Dropout": _dropout,
    "ReduceMean": reduce_("mean", ""),
    "ReduceMax": reduce_("max", "filled -inf"),
    "ReduceSum": reduce_("sum", "filled 0"),
    "Div": divide,
    "Where": where,
    "GatherND": gather_nd,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Cast": _cast,
    "Identity": _moved(lambda call, x: x),
    "Transpose": _moved(lambda call, x: transposed(x, call.attributes.get("perm"))),
    "Squeeze": _moved(lambda call, x: squeezed(x, call.integers("axes", 1))),
    "Unsqueeze": _moved(lambda call, x: unsqueezed(x, call.integers("axes", 1) or [])),
    "Reshape": _moved(_reshape),
    "Shape": lambda trial, call: shape_slice(call.inputs[0].shape, call.attributes),  # type: ignore[union-attr]
}
