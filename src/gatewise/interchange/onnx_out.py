"""Networks to ONNX files, with the operators GRU, LSTM and RNN and free sizes of time and rows, each file proved.

Needs the package onnx (extra `onnx`), which is imported when a network is exported. What the file takes and gives is
named as in `gatewise.interchange.parity`.

Of operator set 14, the last one that changed the recurrent operators before 22, which only added bfloat16: every
runtime since 2021 reads it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import gatewise
from gatewise.errors import ExportError, InputError
from gatewise.interchange.artifact import new_folder
from gatewise.interchange.onnx_file import SIZE, require_onnx
from gatewise.interchange.onnx_recurrent import node_attributes, node_weights, operator
from gatewise.interchange.parity import Arrays, Case, Parity, check, compare, golden_cases, state_names, write_proof
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.models.embeddings import OneHot
from gatewise.models.sequential import ACTIVATIONS, Pooling, SequentialNetwork
from gatewise.run_folder import RunFolder

if TYPE_CHECKING:
    import onnx

OPSET = 14
IR_VERSION = 7  # the first that knows this operator set
TOLERANCE = 1e-5
# (T, B) of the cases that are compared; no more, for the reference computes them step by step in float64.
WHOLE = [(1, 1), (1, 7), (13, 1), (200, 1)]
OF_LENGTHS = [(13, 7), (200, 7)]  # where half of the rows have fewer steps
FROM_ZERO = [(13, 7)]  # without lengths and first states
GOLDEN = 16 * 2**20  # bytes of the cases that are kept in golden.npz; models of many tokens have large outputs


def export_onnx(
    network: SequentialNetwork,
    folder: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
    defaults: bool = True,
) -> Parity:
    """Write a network to a new folder as model.onnx, and beside it how near ONNX Runtime comes to the reference.

        parity = export_onnx(model.network.as_sequential(), "shipped", metadata=run_metadata("runs/book"))
        session = onnxruntime.InferenceSession("shipped/model.onnx")
        y, state = session.run(["y", "new_state_0_h"], {"x": tokens})  # tokens (T, B) int64
        y, state = session.run(["y", "new_state_0_h"], {"x": more_tokens, "state_0_h": state})

    metadata: texts that are put into the file, such as `run_metadata` gives; the version of gatewise and the layers
    are there in any case. overwrite, defaults: see `new_folder` and `to_onnx`.

    The folder holds model.onnx, golden.npz, parity.json and parity.md; after an error nothing of it is left. Without
    onnxruntime the verdict is "not run". Raises ExportError if the file does not give what the network gives, or would
    be larger than 2 GiB; InputError if something is in the way; BackendError if onnx is not installed.
    """
    onnx = require_onnx("export_onnx")
    with new_folder(Path(folder), overwrite=overwrite) as target:
        model = to_onnx(network, metadata=metadata, defaults=defaults)
        if model.ByteSize() > SIZE:
            raise ExportError(f"export_onnx: the model takes {model.ByteSize():,} bytes; an ONNX file at most 2 GiB")
        onnx.checker.check_model(model, full_check=True)
        data = model.SerializeToString(deterministic=True)
        (target / "model.onnx").write_bytes(data)
        cases = golden_cases(network, shapes=WHOLE) + golden_cases(network, shapes=OF_LENGTHS, lengths=True)
        cases += golden_cases(network, shapes=FROM_ZERO, states=False) if defaults else []
        run, runtime = _session(data, defaults)
        versions = {"onnx": onnx.__version__, "operator set": str(OPSET)}
        parity = compare("onnx", cases, run, tolerance=TOLERANCE, runtime=runtime, versions=versions)
        check(parity)
        write_proof(target, parity, _small(cases))
    return parity


def run_metadata(run: str | Path) -> dict[str, str]:
    """What a file should tell of the run that it was exported from: task, config (TOML), tokenizer (JSON).

        export_onnx(network, "shipped", metadata=run_metadata("runs/book"))

    The tokenizer is there if the run has one. Raises RunError.
    """
    folder = RunFolder(run)
    metadata = {"task": folder.check_existing(), "config": folder.config.read_text(encoding="utf-8")}
    if folder.tokenizer.exists():
        metadata["tokenizer"] = folder.tokenizer.read_text(encoding="utf-8")
    return metadata


def to_onnx(
    network: SequentialNetwork, *, metadata: Mapping[str, str] | None = None, defaults: bool = True
) -> "onnx.ModelProto":
    """The model of a network, with weights in float32 and without dropout.

        onnx.save(to_onnx(network), "model.onnx")

    It takes x and, if anything in it reads time, lengths (B,) int64, -1 for all steps, and the first states; see
    `gatewise.interchange.parity` for names and shapes.

    defaults: whether lengths and first states may be left out, and are then all steps and zeros. False makes them
    inputs like x, for runtimes that take a default for a constant, such as those for the browser and for Java.

    Raises InputError for metadata that are not texts; BackendError if onnx is not installed.
    """
    require_onnx("to_onnx")
    metadata = dict(metadata or {})
    for name, text in metadata.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise InputError(f"to_onnx: expected metadata of texts, got {text!r} for {name!r}")
    told = {"gatewise": gatewise.__version__, "layers": json.dumps(network.describe())}
    return _Writer(network, defaults).model(told | metadata)


class _Writer:
    """The graph of a network, written layer by layer."""

    def __init__(self, network: SequentialNetwork, defaults: bool) -> None:
        import onnx

        self.onnx, self.network, self.defaults = onnx, network, defaults
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.written: dict[int, str] = {}  # parameters, for those that several layers share
        self.constants: set[str] = set()
        self.directions = 1

    def model(self, metadata: Mapping[str, str]) -> "onnx.ModelProto":
        """The whole model."""
        helper, network = self.onnx.helper, self.network
        if network.reads_tokens:
            self._input("x", self.onnx.TensorProto.INT64, ["T", "B"])
        else:
            self._input("x", self.onnx.TensorProto.FLOAT, ["T", "B", network.input_size])
        if network.recurrent_layers or network.pools:
            self._write_lengths()
        y, states = "x", iter(state_names(network))
        for index, layer in enumerate(network.layers):
            if isinstance(layer, RecurrentLayer):
                y = self._write_recurrent(y, layer, f"layers.{index}", next(states))
                self.directions = 2 if layer.bidirectional else 1
            else:
                y = self._write_layer(y, layer, f"layers.{index}")
        self._add("Identity", [y], "y")
        shape = ["B", None] if network.pools else ["T", "B", None]
        self.outputs.insert(0, helper.make_tensor_value_info("y", self.onnx.TensorProto.FLOAT, shape))
        graph = helper.make_graph(self.nodes, "gatewise", self.inputs, self.outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name, model.producer_version = "gatewise", gatewise.__version__
        helper.set_model_props(model, dict(metadata))
        return model

    def _add(self, kind: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Any] | None = None) -> str:
        """A node of one output, which gives it its name; the output."""
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], output, **(attributes or {})))
        return output

    def _input(self, name: str, kind: int, shape: Sequence[str | int], default: np.ndarray | None = None) -> None:
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))
        if default is not None and self.defaults:
            self._initializer(name, default)

    def _initializer(self, name: str, values: np.ndarray) -> str:
        self.initializers.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _constant(self, *values: float) -> str:
        """A constant (n,), of whole numbers or of floating point ones."""
        array = np.array(values, np.int64 if all(isinstance(value, int) for value in values) else np.float32)
        name = f"constant {', '.join(map(str, values))}"
        if name not in self.constants:
            self.constants.add(name)
            self._initializer(name, array)
        return name

    def _parameter(self, parameter: torch.Tensor, name: str) -> str:
        """A parameter as it is, for other layers that share it."""
        self.written[id(parameter)] = name
        return self._initializer(name, parameter.detach().float().cpu().numpy())

    def _write_lengths(self) -> None:
        """lengths, as the graph uses them: `lengths all` (B,) int64, the number of steps in place of -1."""
        self._input("lengths", self.onnx.TensorProto.INT64, ["B"], np.array([-1]))
        shape = self._add("Shape", ["x"], "x shape")
        steps = self._add("Gather", [shape, self._constant(0)], "steps")
        rows = self._add("Gather", [shape, self._constant(1)], "rows")
        lengths = self._add("Expand", ["lengths", rows], "lengths of rows") if self.defaults else "lengths"
        unset = self._add("Equal", [lengths, self._constant(-1)], "lengths unset")
        self._add("Where", [unset, steps, lengths], "lengths all")
        if self.network.recurrent_layers:  # the last state of such a row is its first one; ONNX Runtime gives zeros
            none = self._add("Equal", ["lengths all", self._constant(0)], "lengths of none")
            self._add("Unsqueeze", [none, self._constant(1)], "rows without steps")

    def _write_recurrent(self, x: str, layer: RecurrentLayer, name: str, states: Sequence[str]) -> str:
        """A node for each layer of the stack; first states in, last states out."""
        kind, directions = operator(layer), 2 if layer.bidirectional else 1
        lengths = self._add("Cast", ["lengths all"], f"{name} lengths", {"to": self.onnx.TensorProto.INT32})
        first = [self._write_first_state(state, layer) for state in states]
        last: list[list[str]] = [[] for _ in states]
        for level in range(layer.num_layers):
            node = f"{name}.l{level}"
            weights = {key: self._initializer(f"{node}.{key}", w) for key, w in node_weights(layer, level).items()}
            given = [state[level] for state in first]
            outputs = [f"{node} Y", *(f"{node} Y_{part}" for part in "hc"[: len(states)])]
            inputs = [x, weights["W"], weights["R"], weights.get("B", ""), lengths, *given]
            self.nodes.append(self.onnx.helper.make_node(kind, inputs, outputs, node, **node_attributes(layer)))
            for part, output in zip(last, outputs[1:], strict=True):
                part.append(output)
            if directions == 2:
                swapped = self._add("Transpose", [outputs[0]], f"{node} rows first", {"perm": [0, 2, 1, 3]})
                shape = self._constant(0, 0, 2 * layer.hidden_size)
                x = self._add("Reshape", [swapped, shape], f"{node} output")
            else:
                x = self._add("Squeeze", [outputs[0], self._constant(1)], f"{node} output")
        for state, parts in zip(states, last, strict=True):
            whole = self._add("Concat", parts, f"{name} last {state}", {"axis": 0})
            kept = f"{state} of rows" if self.defaults else state
            self._add("Where", ["rows without steps", kept, whole], f"new_{state}")
            self.outputs.append(self._state_info(f"new_{state}", layer))
        return x

    def _state_info(self, name: str, layer: RecurrentLayer) -> "onnx.ValueInfoProto":
        shape = [layer.num_layers * (2 if layer.bidirectional else 1), "B", layer.hidden_size]
        return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)

    def _write_first_state(self, name: str, layer: RecurrentLayer) -> list[str]:
        """The first state of each layer of the stack."""
        directions = 2 if layer.bidirectional else 1
        count = layer.num_layers * directions
        shape = [count, "B", layer.hidden_size]
        self._input(name, self.onnx.TensorProto.FLOAT, shape, np.zeros((count, 1, layer.hidden_size), np.float32))
        state = name
        if self.defaults:
            whole = self._add("Concat", [self._constant(1), "rows", self._constant(1)], f"{name} shape", {"axis": 0})
            state = self._add("Expand", [name, whole], f"{name} of rows")
        if layer.num_layers == 1:
            return [state]
        parts = [f"{name}.l{level}" for level in range(layer.num_layers)]
        sizes = self._constant(*[directions] * layer.num_layers)
        self.nodes.append(self.onnx.helper.make_node("Split", [state, sizes], parts, f"{name} split", axis=0))
        return parts

    def _write_layer(self, x: str, layer: nn.Module, name: str) -> str:
        match layer:
            case nn.Embedding():
                return self._add("Gather", [self._parameter(layer.weight, f"{name}.weight"), x], f"{name} output")
            case OneHot():
                values = [x, self._constant(layer.vocabulary_size), self._constant(0.0, 1.0)]
                return self._add("OneHot", values, f"{name} output", {"axis": -1})
            case nn.Linear():
                self.directions = 1
                return self._write_linear(x, layer, name)
            case Pooling():
                return {"last": self._write_last, "mean": self._write_mean, "max": self._write_max}[layer.pooling](
                    x, name
                )
            case nn.Dropout():
                return x
        kind = next(kind for kind in ACTIVATIONS.values() if type(layer) is kind)
        activation = "Relu" if kind is nn.ReLU else kind.__name__
        attributes = {"axis": -1} if isinstance(layer, nn.Softmax | nn.LogSoftmax) else {}
        return self._add(activation, [x], f"{name} output", attributes)

    def _write_linear(self, x: str, layer: nn.Linear, name: str) -> str:
        if id(layer.weight) in self.written:  # of an embedding, too: kept once
            weight = self._add("Transpose", [self.written[id(layer.weight)]], f"{name}.weight", {"perm": [1, 0]})
        else:
            weight = self._initializer(f"{name}.weight", layer.weight.detach().float().cpu().numpy().T)
        y = self._add("MatMul", [x, weight], f"{name} product")
        if layer.bias is None:
            return y
        bias = self._initializer(f"{name}.bias", layer.bias.detach().float().cpu().numpy())
        return self._add("Add", [y, bias], f"{name} output")

    def _write_last(self, x: str, name: str) -> str:
        """What each direction ends with: the last step of each row and, of the backward half, the first step."""
        forward = x
        if self.directions == 2:
            forward, backward = f"{name} forward", f"{name} backward"
            self.nodes.append(self.onnx.helper.make_node("Split", [x], [forward, backward], f"{name} split", axis=-1))
        rows_first = self._add("Transpose", [forward], f"{name} rows first", {"perm": [1, 0, 2]})
        index = self._add("Sub", ["lengths all", self._constant(1)], f"{name} index")
        index = self._add("Unsqueeze", [index, self._constant(1)], f"{name} indices")
        last = self._add("GatherND", [rows_first, index], f"{name} last step", {"batch_dims": 1})
        if self.directions == 1:
            return last
        start = self._add("Gather", [backward, self._constant(0)], f"{name} first steps", {"axis": 0})
        start = self._add("Squeeze", [start, self._constant(0)], f"{name} first step")
        return self._add("Concat", [last, start], f"{name} output", {"axis": -1})

    def _write_filled(self, x: str, name: str, fill: float) -> str:
        """x with `fill` in the steps past a row's length."""
        first, one = (self._initializer(f"{name} {n}", np.array(n)) for n in (0, 1))
        steps = self._add("Squeeze", ["steps", self._constant(0)], f"{name} steps")
        places = self._add("Range", [first, steps, one], f"{name} places")
        places = self._add("Unsqueeze", [places, self._constant(1)], f"{name} places of rows")
        valid = self._add("Less", [places, "lengths all"], f"{name} valid steps")
        valid = self._add("Unsqueeze", [valid, self._constant(2)], f"{name} valid")
        return self._add("Where", [valid, x, self._constant(fill)], f"{name} filled")

    def _write_max(self, x: str, name: str) -> str:
        filled = self._write_filled(x, name, -np.inf)
        return self._add("ReduceMax", [filled], f"{name} output", {"axes": [0], "keepdims": 0})

    def _write_mean(self, x: str, name: str) -> str:
        filled = self._write_filled(x, name, 0.0)
        total = self._add("ReduceSum", [filled, self._constant(0)], f"{name} sum", {"keepdims": 0})
        count = self._add("Cast", ["lengths all"], f"{name} numbers", {"to": self.onnx.TensorProto.FLOAT})
        count = self._add("Unsqueeze", [count, self._constant(1)], f"{name} counts")
        return self._add("Div", [total, count], f"{name} output")


def _session(model: bytes, defaults: bool) -> tuple[Callable[[Arrays], Arrays] | None, str]:
    """What runs a model in ONNX Runtime, None where that is missing, and its name."""
    try:
        import onnxruntime
    except ImportError:
        return None, "onnxruntime"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        if not defaults and "lengths" not in inputs:
            inputs = inputs | {"lengths": np.full(inputs["x"].shape[1], -1)}
        return {name: np.asarray(y) for name, y in zip(names, session.run(None, inputs), strict=True)}

    return run, f"onnxruntime {onnxruntime.__version__}"


def _small(cases: Sequence[Case]) -> list[Case]:
    """The cases that fit into golden.npz, the small ones first; at least one."""
    sizes = {
        case.name: sum(array.nbytes for array in (*case.inputs.values(), *case.outputs.values())) for case in cases
    }
    kept: list[Case] = []
    for case in sorted(cases, key=lambda case: sizes[case.name]):
        if not kept or sum(sizes[each.name] for each in kept) + sizes[case.name] <= GOLDEN:
            kept.append(case)
    return kept
