"""Models from ONNX files: the recurrent layers of any model, and whole models that are a chain of layers.

Needs the package onnx (extra `onnx`), which is imported when a file is read.
"""

from collections import ChainMap, Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gatewise.errors import InputError
from gatewise.interchange.onnx_chain import read_chain
from gatewise.interchange.onnx_constants import attributes, fold, is_folded, place
from gatewise.interchange.onnx_file import OnnxFile
from gatewise.interchange.onnx_recurrent import INPUTS, constant_weights, is_recurrent, read_node
from gatewise.layers.backwards import Backwards
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.models.sequential import SequentialNetwork

if TYPE_CHECKING:
    import onnx

_GRAPHS = 100  # of graphs in graphs, in loops and branches


def layers(path: str | Path) -> dict[str, RecurrentLayer | Backwards]:
    """A layer for each GRU, LSTM and RNN node of a model, by the node's name, in the order of computation.

        layers = onnx_in.layers("speech.onnx")
        y, hn = layers["encoder/GRU"](x)  # x (T, B, I)

    A node without a name, or with that of another one, has its place as its name: `GRU (node 3 of the graph)`. Nodes in
    loops and branches are found, too. A node with direction="reverse" becomes a `Backwards`. Initial states that
    are constants other than zero become learned ones; what the graph computes for X, sequence_lens, initial_h and
    initial_c is what the layer is to be called with.

    Raises InputError: no ONNX file, damaged or hostile; a node with an attribute or weights that our layers have
    nothing for, by its name and place; BackendError if onnx is not installed.
    """
    file = OnnxFile(path, "onnx_in.layers")
    _refuse_in_functions(file)
    found = list(_walk(file, file.model.graph, ChainMap(), "the graph", 0))
    names = Counter(node.name for node, _, _ in found)
    return {node.name if node.name and names[node.name] == 1 else where: layer for node, where, layer in found}


def network(path: str | Path) -> SequentialNetwork:
    """The network that a model is, with its weights, in eval mode: tokens or features, time first, to its output.

        network = onnx_in.network("model.onnx")
        y, states = network(tokens)  # (T, B) to (T, B, F)

    Known are the chains of an embedding or one-hot vectors, recurrent layers, linear layers, activations, dropout and
    one pooling over time (last, mean, max) that `export_onnx` writes and that torch.onnx.export makes of torch's
    layers, of either order of time and rows. Sizes of time and rows that the file has frozen are set free. Recurrent
    nodes that torch would have written for one stack become one layer with num_layers.

    Raises InputError: no ONNX file, damaged or hostile; an operator, attribute or path of data that such a chain does
    not have, by its name and place; no recurrent node; BackendError if onnx is not installed.
    """
    file = OnnxFile(path, "onnx_in.network")
    return read_chain(file)


def _refuse_in_functions(file: OnnxFile) -> None:
    for function in file.model.functions:
        for index, node in enumerate(function.node):
            if is_recurrent(node):
                raise InputError(
                    f"{file.path}: {place(node, index, f'the function {function.name[:80]!r}')}: nodes in functions "
                    "are not read; write the functions into the graph first, with onnx.inliner.inline_local_functions"
                )


Known = ChainMap[str, np.ndarray | None]
Found = tuple["onnx.NodeProto", str, RecurrentLayer | Backwards]


def _walk(file: OnnxFile, graph: "onnx.GraphProto", outer: Known, words: str, depth: int) -> Iterator[Found]:
    """The recurrent nodes of a graph and of those in it. outer: constants of the graphs around it, by name."""
    if depth > _GRAPHS:
        raise InputError(f"{file.path}: more than {_GRAPHS} graphs in one another")
    needed = _needed(graph, depth)
    known = outer.new_child({value.name: None for value in graph.input})  # they hide what is outside
    for tensor in graph.initializer:
        if tensor.name in needed:
            known[tensor.name] = file.initializer(tensor)
    for index, node in enumerate(graph.node):
        where = f"{file.path}: {place(node, index, words)}"
        if is_recurrent(node):
            yield node, place(node, index, words), _layer(file, node, known, where)
        elif is_folded(node) and needed.intersection(node.output):
            inputs = [known.get(name) for name in node.input]
            if all(value is not None or not name for name, value in zip(node.input, inputs, strict=True)):
                known.update(zip(node.output, fold(file, node, inputs, where), strict=False))
        for inner in graphs_of(node):
            inside = f"a graph in {place(node, index, words)}"
            yield from _walk(file, inner, known, inside[:300], depth + 1)


def _needed(graph: "onnx.GraphProto", depth: int) -> set[str]:
    """The names on which weights and first states of recurrent nodes depend, those in inner graphs among them."""
    needed: set[str] = set()
    for node in reversed(graph.node):
        if is_recurrent(node):
            needed.update(name for name in (*node.input[1:4], *node.input[5:7]) if name)
        elif is_folded(node) and needed.intersection(node.output):
            needed.update(name for name in node.input if name)
        if depth < _GRAPHS:
            for inner in graphs_of(node):
                needed |= _needed(inner, depth + 1)
    return needed


def graphs_of(node: "onnx.NodeProto") -> Iterator["onnx.GraphProto"]:
    """The graphs that a node holds: the body of a loop, the branches of a choice."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _layer(file: OnnxFile, node: "onnx.NodeProto", known: Known, where: str) -> RecurrentLayer | Backwards:
    weights = constant_weights(file, node, known, where)
    recurrent = read_node(node.op_type, attributes(node, where), weights, where)
    hidden_size, count = recurrent.sizes["hidden_size"], recurrent.directions
    named = dict(zip(INPUTS[5:7], node.input[5:7], strict=False))
    states = {name: known.get(tensor) for name, tensor in named.items() if tensor}
    for value in states.values():
        file.budget.spend(0 if value is None else value.nbytes, where)  # for looking at it
    if not any(value is not None and np.any(value) for value in states.values()):
        return recurrent.layer()
    learned = []
    for name in INPUTS[5:7] if node.op_type == "LSTM" else INPUTS[5:6]:
        value = states.get(name, np.zeros((count, 1, hidden_size), np.float32))
        if value is None:
            raise InputError(f"{where}: {name} is computed from an input, while the other first state is a constant")
        if value.ndim != 3 or value.shape[::2] != (count, hidden_size) or not value.shape[1]:
            raise InputError(f"{where}: expected {name} to be ({count}, B, {hidden_size}), got {value.shape}")
        if np.any(value != value[:, :1]):
            raise InputError(f"{where}: {name} is another constant for each row, which no layer of ours has")
        learned.append(value[:, 0])
    return recurrent.layer(learned)
