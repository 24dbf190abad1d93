"""A whole ONNX model as a chain of layers: its graph is followed from the input to the output.

Nothing is run: shapes are computed with sizes of time and rows that are assumed, and what the data are after each node
is known from the axes that they have. Inputs for lengths and first states are given numbers that occur nowhere else,
by which they are known again where a layer reads them.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from gatewise.errors import InputError
from gatewise.interchange.onnx_constants import Call, fold, is_folded, place
from gatewise.interchange.onnx_file import OnnxFile
from gatewise.interchange.onnx_operators import OPERATORS
from gatewise.interchange.onnx_recurrent import as_tensor, is_recurrent, parameter_dtype
from gatewise.interchange.onnx_trial import OtherOrder, Trial
from gatewise.interchange.onnx_values import Chain, Ends, Link, Steps
from gatewise.models.sequential import SequentialNetwork, build

if TYPE_CHECKING:
    import onnx

_FREE = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113)
_LARGEST = 1_000_000  # numbers that are assumed for an input


def read_chain(file: OnnxFile) -> SequentialNetwork:
    """The network that the model in a file is. Raises InputError."""
    left = file.budget.left
    for time_first in (True, False):
        file.budget.left = left
        try:
            return _network(_Reading(file, time_first).follow(), file)
        except OtherOrder:
            continue
    raise InputError(f"{file.path}: its recurrent layers disagree on which axis of the data is time")


class _Reading:
    """The values in a graph, by name, under one assumption of which axis of the input is time."""

    def __init__(self, file: OnnxFile, time_first: bool) -> None:
        self.file, self.graph, self.time_first = file, file.model.graph, time_first
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.values: dict[str, Any] = {}
        self.needed = self._needed()
        inputs = {value.name: value for value in self.graph.input if not self._is_constant(value)}
        self.trial = self._assume(inputs, self._data_input(inputs))

    def _is_constant(self, value: "onnx.ValueInfoProto") -> bool:
        """Whether an input of the graph has a value in the file that is meant to stay: its sizes are all fixed."""
        return value.name in self.initializers and None not in (_sizes(value) or [])

    def _needed(self) -> set[str]:
        needed = {value.name for value in self.graph.output}
        for node in reversed(self.graph.node):
            if needed.intersection(node.output):
                needed.update(name for name in node.input if name)
        return needed

    def _data_input(self, inputs: "dict[str, onnx.ValueInfoProto]") -> "onnx.ValueInfoProto":
        """The input whose steps the first recurrent node reads."""
        first = next((node for node in self.graph.node if is_recurrent(node)), None)
        if first is None:
            raise InputError(
                f"{self.file.path}: there is no GRU, LSTM or RNN node in its graph; an exporter may have written the "
                "steps one by one, as torch's does with torch.nn.RNN unless it is called with dynamo=False"
            )
        reached = set(first.input[:1])
        for node in reversed(self.graph.node):
            if reached.intersection(node.output) and node.op_type != "Shape":
                reached.update(node.input[:1] if is_recurrent(node) else node.input)
        found = sorted(reached.intersection(inputs))
        if len(found) != 1:
            told = ", ".join(name[:80] for name in found[:5]) or "none"
            raise InputError(f"{self.file.path}: expected the recurrent layers to read one input, got {told}")
        return inputs[found[0]]

    def _assume(self, inputs: "dict[str, onnx.ValueInfoProto]", x: "onnx.ValueInfoProto") -> Trial:
        """Sizes of time and rows, and what each input is taken to be."""
        where = f"{self.file.path}: input {x.name[:80]!r}"
        sizes, tokens = _sizes(x), x.type.tensor_type.elem_type in (6, 7)
        if sizes is None or len(sizes) != (2 if tokens else 3):
            raise InputError(f"{where}: expected whole numbers (T, B) or features (T, B, F), got {_told(sizes)}")
        used = {size for tensor in self.graph.initializer for size in tensor.dims} | {size for size in sizes if size}
        free = iter([prime for prime in _FREE if all(size % prime for size in used)] or _FREE)
        first, second = (next(free, 11) if size is None else size for size in sizes[:2])
        steps, rows = (first, second) if self.time_first else (second, first)
        if not 1 <= steps * rows <= _LARGEST:
            raise InputError(f"{where}: expected sizes that can be computed with, got {_told(sizes)}")
        axes = [(("T", steps),), (("B", rows),)]
        axes = axes if self.time_first else axes[::-1]
        if not tokens:
            axes.append((("F", self._features(x, sizes[2])),))
        self.values[x.name] = Steps(tuple(axes), tokens=tokens)
        trial = Trial(self.file, steps, rows, np.full(rows, steps, np.int64))
        others = [value for name, value in inputs.items() if name != x.name and name in self.needed]
        for value in others:
            self._assume_other(trial, value)
        return trial

    def _features(self, x: "onnx.ValueInfoProto", size: int | None) -> int:
        """The features of a step; where the input does not tell, as many as the first weights read."""
        if size is None:
            first = next(node for node in self.graph.node if is_recurrent(node) or node.op_type in ("MatMul", "Gemm"))
            weights = self.initializers.get(first.input[1]) if len(first.input) > 1 else None
            size = (weights.dims[-1] if is_recurrent(first) else weights.dims[0]) if weights and weights.dims else None
        if size is None or not 1 <= size <= _LARGEST:
            raise InputError(f"{self.file.path}: input {x.name[:80]!r}: expected a known number of features")
        return size

    def _assume_other(self, trial: Trial, value: "onnx.ValueInfoProto") -> None:
        """An input for lengths, (B,) whole numbers, or for first states, (L, B, H)."""
        sizes, kind = _sizes(value), value.type.tensor_type.elem_type
        where = f"{self.file.path}: input {value.name[:80]!r}"
        if kind in (6, 7) and sizes is not None and len(sizes) == 1:
            if any(len(known) == 1 for name, known in self._shapes() if name != value.name):
                raise InputError(f"{where}: expected one input for the lengths of rows, got several")
            lengths = np.arange(trial.rows) % (trial.steps + 1)
            trial.lengths = lengths.astype(np.int64)
            self.values[value.name] = lengths.astype(np.int32 if kind == 6 else np.int64)
        elif kind in (1, 10, 11) and sizes is not None and len(sizes) == 3:
            shape = [trial.rows if size is None and axis < 2 else size for axis, size in enumerate(sizes)]
            known = [size for size in shape if size is not None]
            if len(known) < 3 or None in sizes[2:] or not 1 <= int(np.prod(known, dtype=np.float64)) <= _LARGEST:
                raise InputError(f"{where}: expected first states (L, B, H) of known L and H, got {_told(sizes)}")
            start = 1 + sum(state.size for state in trial.states.values())
            numbers = np.arange(start, start + int(np.prod(known)), dtype=np.float64).reshape(known)
            trial.states[value.name] = self.values[value.name] = numbers
        else:
            raise InputError(
                f"{where}: expected only inputs of data, lengths (B,) and first states (L, B, H), got {_told(sizes)}"
            )

    def _shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        return [(name, value.shape) for name, value in self.values.items() if isinstance(value, np.ndarray)]

    def follow(self) -> Chain:
        """The layers from the input to the output. Raises InputError, OtherOrder."""
        for tensor in self.graph.initializer:
            if tensor.name in self.needed and tensor.name not in self.values:
                self.values[tensor.name] = self.file.initializer(tensor)
        for index, node in enumerate(self.graph.node):
            if self.needed.intersection(node.output):
                self._compute(node, f"{self.file.path}: {place(node, index)}")
        if len(self.trial.ways) > 1:
            raise InputError(f"{self.file.path}: some of its layers read rows to their lengths and others all steps")
        return self._output()

    def _compute(self, node: "onnx.NodeProto", where: str) -> None:
        missing = next((name for name in node.input if name and name not in self.values), None)
        if missing is not None:
            raise InputError(f"{where}: nothing before it gives its input {missing[:80]!r}")
        inputs = [self.values[name] if name else None for name in node.input]
        if all(value is None or isinstance(value, np.ndarray) for value in inputs):
            if not is_folded(node):
                raise InputError(f"{where}: is no operator that is computed from constants")
            results = fold(self.file, node, inputs, where)
        else:
            handler = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            if handler is None:
                raise InputError(f"{where}: this operator is in no chain of layers; known are {', '.join(OPERATORS)}")
            results = handler(self.trial, Call(self.file, node, inputs, where))
            results = results if isinstance(results, list) else [results]
        self.values.update((name, value) for name, value in zip(node.output, results, strict=False) if name)

    def _output(self) -> Chain:
        """The chain that gives the output; last states may be outputs, too."""
        found: dict[str, Steps] = {}
        ends: dict[str, Ends] = {}
        for value in self.graph.output:
            given = self.values.get(value.name)
            if isinstance(given, Ends):
                ends[value.name] = given
            elif isinstance(given, Steps):
                found[value.name] = given
            else:
                raise InputError(f"{self.file.path}: output {value.name[:80]!r}: expected the data, got a constant")
        if not found:
            found = {name: pooled for name, given in ends.items() if (pooled := given.pooled()) is not None}
        if len(found) != 1:
            told = ", ".join(name[:80] for name in list(found)[:5]) or "last states only"
            raise InputError(f"{self.file.path}: expected one output beside last states, got {told}")
        ((name, y),) = found.items()
        pooled = any(link.table["kind"] == "pooling" for link in y.chain)
        names = ["F" if each == "DF" else each for each in y.names()]
        allowed = [["B"]] if pooled else [["T", "B"], ["B", "T"]]
        features = y.shape[-1] if names and names[-1] == "F" else 1
        fits = [each for each in names if each != "F"] in allowed and (names[-1:] == ["F"] or features == 1)
        if y.pending or not y.chain or not fits:
            raise InputError(
                f"{self.file.path}: output {name[:80]!r}: expected what the layers give, (T, B, F) or pooled (B, F), "
                f"got axes ({', '.join(y.names())})"
            )
        return y.chain


def _sizes(value: "onnx.ValueInfoProto") -> list[int | None] | None:
    """The sizes of an input; None where a size is free, or the number of axes is not told."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]


def _told(sizes: list[int | None] | None) -> str:
    """Sizes as an error says them."""
    if sizes is None:
        return "no shape"
    return f"({', '.join('?' if size is None else str(size) for size in sizes[:8])})"


def _network(chain: Chain, file: OnnxFile) -> SequentialNetwork:
    """The layers with their weights; recurrent ones that make one stack become one layer."""
    tables: list[dict[str, Any]] = []
    tensors: dict[str, np.ndarray] = {}
    last: Link | None = None
    for link in chain:
        stacked = last is not None and _is_next(last, link)
        if not stacked:
            tables.append(dict(link.table))
        else:
            tables[-1]["num_layers"] = tables[-1].get("num_layers", 1) + 1
        level = tables[-1].get("num_layers", 1) - 1
        for name, tensor in link.tensors.items():
            tensors[f"layers.{len(tables) - 1}.{name.replace('_l0', f'_l{level}')}"] = tensor
        last = link
    network = build(tables, source=str(file.path)).to(parameter_dtype(list(tensors.values())))
    network.load_state_dict({name: as_tensor(tensor) for name, tensor in tensors.items()})
    return network.eval()


def _is_next(below: Link, link: Link) -> bool:
    """Whether two links are layers of one stack: alike, and with their first states from one input, in order."""
    if below.recurrent is None or link.recurrent is None or link.recurrent.kind != below.recurrent.kind:
        return False
    alike = {**link.recurrent.sizes, "input_size": 0} == {**below.recurrent.sizes, "input_size": 0}
    after = tuple((name, row + below.recurrent.directions) for name, row in below.first_states)
    return alike and link.first_states == after
