"""Which layers of ours a layer of Keras is, one function a kind: `READERS`."""

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gatewise.interchange import conventions
from gatewise.interchange.keras_config import KerasLayer
from gatewise.interchange.layouts import Arrays, to_torch

Find = Callable[[KerasLayer, str, Sequence[str]], list[np.ndarray]]
Filled = tuple[dict[str, Any], Arrays, int | None]  # table, weights, what size the part gives
FUNCTIONS = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "softmax": "softmax",
    "log_softmax": "log-softmax",
}


@dataclass
class Reading:
    """What is known of the model while its layers are read one after another.

    shape: of the input, if the file says. first: whether no layer has read it yet. steps: whether there still are steps
    (B, T, F), not one vector (B, F). masked_by: the first layer that masks steps. zeroed: whether a layer wrote zeros
    into masked steps, as Bidirectional does.
    """

    shape: Any = None
    first: bool = True
    steps: bool = True
    masked_by: str | None = None
    zeroed: bool = False


@dataclass
class Part:
    """A layer of ours that comes of one of Keras's; its weights, and the sizes that these say, are found later.

    table: as `build` takes it, without those sizes.
    """

    layer: KerasLayer
    table: dict[str, Any]

    def fill(self, find: Find, width: int | None) -> Filled:
        """The table, the weights by the names of ours, and the size of the output. width: that of the input, if known.

        Raises InputError for weights that are missing or have another shape.
        """
        return self.table, {}, width

    def check(self, role: str, array: np.ndarray, *shape: int) -> None:
        """Refuse an array of another shape."""
        if array.shape != shape:
            self.layer.refuse(f"{role}: expected an array {shape}, got {array.shape}")

    def input_size(self, kernel: np.ndarray, width: int | None) -> int:
        """Size of the input, which the kernel says for the first layer."""
        if kernel.ndim != 2 or not kernel.size:
            self.layer.refuse(f"kernel: expected an array (inputs, outputs), got {kernel.shape}")
        return kernel.shape[0] if width is None else width


@dataclass
class DensePart(Part):
    """W x + b. place: where in the layer its weights lie."""

    place: str = ""

    def fill(self, find: Find, width: int | None) -> Filled:
        """See Part."""
        roles = ["kernel", "bias"] if self.table["bias"] else ["kernel"]
        kernel, *bias = find(self.layer, self.place, roles)
        size, units = self.input_size(kernel, width), self.table["output_size"]
        self.check("kernel", kernel, size, units)
        arrays = {"weight": kernel.T}
        if bias:
            self.check("bias", bias[0], units)
            arrays["bias"] = bias[0]
        return {**self.table, "input_size": size}, arrays, units


@dataclass
class EmbeddingPart(Part):
    """A vector for each token; one-hot vectors, if it is a matrix of ones that nothing may train."""

    def fill(self, find: Find, width: int | None) -> Filled:
        """See Part."""
        (table,) = find(self.layer, "", ["embeddings"])
        count, size = self.table["vocabulary_size"], self.table["size"]
        self.check("embeddings", table, count, size)
        if count == size and self.layer.options.get("trainable") is False and _is_identity(table):
            return {"kind": "one-hot", "vocabulary_size": count}, {}, count
        return self.table, {"weight": table}, size


def _is_identity(matrix: np.ndarray) -> bool:
    return bool((matrix.diagonal() == 1).all()) and np.count_nonzero(matrix) == len(matrix)


@dataclass
class RecurrentPart(Part):
    """A GRU, LSTM or RNN. places: where the weights of each direction lie."""

    places: Sequence[str] = ("cell",)

    def fill(self, find: Find, width: int | None) -> Filled:
        """See Part."""
        kind, hidden, biased = self.table["kind"], self.table["hidden_size"], self.table["bias"]
        rows, arrays = len(conventions.GATES[kind]) * hidden, {}
        table = dict(self.table)
        roles = ["kernel", "recurrent_kernel", *(["bias"] if biased else [])]
        for place, suffix in zip(self.places, ("l0", "l0_reverse"), strict=False):
            own = dict(zip(roles, find(self.layer, place, roles), strict=True))
            width = self.input_size(own["kernel"], width)
            self.check("kernel", own["kernel"], width, rows)
            self.check("recurrent_kernel", own["recurrent_kernel"], hidden, rows)
            if kind == "gru" and "reset" not in table:  # Keras before 2.1 does not say
                if not biased:
                    self.layer.refuse("neither a bias nor reset_after: the file does not say where its reset gate acts")
                table["reset"] = "after" if own["bias"].ndim == 2 else "before"
            if biased:
                self.check("bias", own["bias"], *((2, rows) if table.get("reset") == "after" else (rows,)))
            convention = conventions.find("keras", kind, table.get("reset"))
            arrays |= {f"{name}_{suffix}": array for name, array in to_torch(own, convention).items()}
        return {**table, "input_size": width}, arrays, hidden * len(self.places)


def _input(layer: KerasLayer, reading: Reading) -> list[Part]:
    if layer.flag("sparse") or layer.flag("ragged"):
        layer.refuse("sparse or ragged inputs are not read; pad the rows and pass lengths")
    if not reading.first or reading.shape is not None:
        layer.refuse("expected one input, at the beginning")
    reading.shape = layer.options.get("batch_shape", layer.options.get("batch_input_shape"))
    return []


def _enter(layer: KerasLayer, reading: Reading) -> None:
    """What every layer but the input does: the first one says what the input is."""
    shape = layer.options.get("batch_input_shape", reading.shape)
    if reading.first and shape is not None:
        tokens = layer.kind == "Embedding"
        if not isinstance(shape, list) or len(shape) != (2 if tokens else 3):
            form = "tokens (B, T)" if tokens else "features (B, T, F)"
            layer.refuse(f"expected the input to be {form}, got the shape {reprlib.repr(shape)}")
    reading.first = False


def _embedding(layer: KerasLayer, reading: Reading) -> list[Part]:
    if not reading.first:
        layer.refuse("expected tokens to enter by the first layer; here something stands before the embedding")
    if layer.flag("mask_zero"):
        reading.masked_by = layer.name
    _enter(layer, reading)
    table = {"kind": "embedding", "vocabulary_size": layer.size("input_dim"), "size": layer.size("output_dim")}
    return [EmbeddingPart(layer, table)]


def _masking(layer: KerasLayer, reading: Reading) -> list[Part]:
    _enter(layer, reading)
    reading.masked_by = reading.masked_by or layer.name
    return []


def _gru(layer: KerasLayer, reading: Reading) -> list[Part]:
    return _recurrent(layer, layer, reading)


def _bidirectional(layer: KerasLayer, reading: Reading) -> list[Part]:
    merge = layer.options.get("merge_mode", "concat")
    if merge != "concat":
        layer.refuse(f"merge_mode {reprlib.repr(merge)} is not read; expected 'concat', outputs side by side")
    forward, backward = layer.wrapped("layer"), layer.wrapped("backward_layer")
    if forward is None or forward.kind not in CELLS:
        layer.refuse(f"expected a layer of {', '.join(CELLS)} in it, got {forward and forward.kind}")
    if forward.flag("go_backwards"):
        layer.refuse("its first layer goes backwards; expected the second one to")
    if backward is not None and (
        backward.kind != forward.kind
        or _table(backward) != _table(forward)
        or backward.flag("return_sequences") != forward.flag("return_sequences")
        or not backward.flag("go_backwards")
    ):
        layer.refuse("its two directions are not alike; expected the same layer forwards and backwards")
    parts = _recurrent(layer, forward, reading)
    reading.zeroed = reading.zeroed or reading.masked_by is not None
    return parts


def _recurrent(layer: KerasLayer, cell: KerasLayer, reading: Reading) -> list[Part]:
    """layer: which holds the weights: the cell itself, or the Bidirectional around it."""
    if not reading.steps:
        layer.refuse("reads steps, but the layers before it leave one vector a row")
    if cell is layer and layer.flag("go_backwards"):
        layer.refuse("go_backwards alone is not read; wrap it in Bidirectional, or turn the input around")
    if layer.flag("time_major") or cell.flag("time_major"):
        layer.refuse("time_major is not read; expected the batch first")
    if cell.flag("return_state") and cell is not layer:
        layer.refuse("return_state in a Bidirectional is not read")
    cell.flag("stateful")  # a state is passed and returned here, by whoever calls
    _enter(layer, reading)
    both = cell is not layer
    places = ("forward_layer/cell", "backward_layer/cell") if both else ("cell",)
    parts: list[Part] = []
    if (probability := cell.probability("dropout")) > 0:
        parts.append(Part(layer, {"kind": "dropout", "probability": probability}))
    parts.append(RecurrentPart(layer, {**_table(cell), "bidirectional": both}, places))
    if not cell.flag("return_sequences"):
        parts.append(Part(layer, {"kind": "pooling", "pooling": "last"}))
        reading.steps = False
    return parts


CELLS = {"GRU": "gru", "LSTM": "lstm", "SimpleRNN": "rnn"}


def _table(cell: KerasLayer) -> dict[str, Any]:
    """What a recurrent layer is, but for the size of its input. Refuses what the equations here do not have."""
    table: dict[str, Any] = {
        "kind": CELLS[cell.kind],
        "hidden_size": cell.size("units"),
        "bias": cell.flag("use_bias", True),
    }
    activation = cell.function("activation", "tanh")
    known = ("tanh", "relu") if cell.kind == "SimpleRNN" else ("tanh",)
    if activation not in known:
        cell.refuse(f"activation {activation!r} is not read; expected {' or '.join(known)}")
    if cell.kind == "SimpleRNN":
        return {**table, "nonlinearity": activation}
    if (gates := cell.function("recurrent_activation", "sigmoid")) != "sigmoid":
        old = ", the default of Keras before 2.3, is another function" if gates == "hard_sigmoid" else " is not read"
        cell.refuse(
            f"recurrent_activation {gates!r}{old}: expected 'sigmoid'; build the model with that, load these weights "
            "into it, and train it for a little while"
        )
    if cell.kind == "GRU" and "reset_after" in cell.options:
        table["reset"] = "after" if cell.flag("reset_after") else "before"
    return table


def _dense(layer: KerasLayer, reading: Reading) -> list[Part]:
    return _linear(layer, layer, "", reading)


def _linear(layer: KerasLayer, dense: KerasLayer, place: str, reading: Reading) -> list[Part]:
    if dense.options.get("lora_rank") is not None:
        layer.refuse("low-rank updates (lora_rank) are not read; expected plain weights")
    _enter(layer, reading)
    table = {"kind": "linear", "output_size": dense.size("units"), "bias": dense.flag("use_bias", True)}
    return [DensePart(layer, table, place), *_function(layer, dense.function("activation"))]


def _function(layer: KerasLayer, name: str) -> list[Part]:
    if name == "linear":
        return []
    if name not in FUNCTIONS:
        layer.refuse(f"activation {name!r} is not read; known are linear, {', '.join(FUNCTIONS)}")
    return [Part(layer, {"kind": "activation", "function": FUNCTIONS[name]})]


def _activation(layer: KerasLayer, reading: Reading) -> list[Part]:
    _enter(layer, reading)
    return _function(layer, layer.function("activation"))


def _dropout(layer: KerasLayer, reading: Reading) -> list[Part]:
    _enter(layer, reading)
    return [Part(layer, {"kind": "dropout", "probability": layer.probability("rate")})]


def _time_distributed(layer: KerasLayer, reading: Reading) -> list[Part]:
    inner = layer.wrapped("layer")
    if not reading.steps:
        layer.refuse("reads steps, but the layers before it leave one vector a row")
    if inner is None or inner.kind not in ("Dense", "Activation", "Dropout"):
        layer.refuse(f"expected Dense, Activation or Dropout in it, got {inner and inner.kind}")
    if inner.kind == "Dense":
        return _linear(layer, inner, "layer", reading)
    return _activation(inner, reading) if inner.kind == "Activation" else _dropout(inner, reading)


def _pooling(layer: KerasLayer, reading: Reading) -> list[Part]:
    if not reading.steps:
        layer.refuse("pools steps, but the layers before it leave one vector a row")
    if layer.options.get("data_format", "channels_last") != "channels_last" or layer.flag("keepdims"):
        layer.refuse("expected data_format 'channels_last' and no keepdims")
    pooling = "mean" if layer.kind == "GlobalAveragePooling1D" else "max"
    if pooling == "max" and reading.zeroed:
        layer.refuse(
            "the maximum would be taken over masked steps, too, where Bidirectional writes zeros, which lengths cannot "
            "say; pool by the average, or save the model without the mask"
        )
    _enter(layer, reading)
    reading.steps = False
    return [Part(layer, {"kind": "pooling", "pooling": pooling})]


READERS: dict[str, Callable[[KerasLayer, Reading], Sequence[Part]]] = {
    "InputLayer": _input,
    "Embedding": _embedding,
    "Masking": _masking,
    "GRU": _gru,
    "LSTM": _gru,
    "SimpleRNN": _gru,
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
    "Dense": _dense,
    "Activation": _activation,
    "Dropout": _dropout,
    "SpatialDropout1D": _dropout,
    "GlobalAveragePooling1D": _pooling,
    "GlobalMaxPooling1D": _pooling,
}
