"""A network as a chain of known layers: the form in which models are carried to other libraries and brought from them.

What stands in `LAYERS` has a name and sizes, and can be built from these: so a network is a list of tables, as a
configuration file holds them, and a state dict.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gatewise.config import Reset, Section, validate
from gatewise.errors import ConfigError, InputError, ShapeError
from gatewise.layers.gru import GRU
from gatewise.layers.lstm import LSTM
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.layers.rnn import RNN
from gatewise.models.embeddings import OneHot


class EmbeddingLayer(Section):
    """A vector for each token: (T, B) int64 to (T, B, size)."""

    kind: Literal["embedding"] = "embedding"
    vocabulary_size: int = Field(ge=1, description="Number of tokens.")
    size: int = Field(ge=1, description="Size of a token's vector.")


class OneHotLayer(Section):
    """A vector for each token that is 1 at its place: (T, B) int64 to (T, B, V)."""

    kind: Literal["one-hot"] = "one-hot"
    vocabulary_size: int = Field(ge=1, description="Number of tokens.")


class _Recurrent(Section):
    input_size: int = Field(ge=1, description="Size of a step's input.")
    hidden_size: int = Field(ge=1, description="Units of every layer.")
    num_layers: int = Field(default=1, ge=1, description="Layers, one on the other.")
    bias: bool = Field(default=True, description="Whether there are biases.")
    bidirectional: bool = Field(default=False, description="Read from both ends; the outputs stand side by side.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout between the layers.")


class GRULayer(_Recurrent):
    """`gatewise.GRU`: (T, B, input_size) to (T, B, D * hidden_size)."""

    kind: Literal["gru"] = "gru"
    reset: Reset = Field(default="after", description="Where the reset gate acts.")


class LSTMLayer(_Recurrent):
    """`gatewise.LSTM`: (T, B, input_size) to (T, B, D * hidden_size)."""

    kind: Literal["lstm"] = "lstm"


class RNNLayer(_Recurrent):
    """`gatewise.RNN`: (T, B, input_size) to (T, B, D * hidden_size)."""

    kind: Literal["rnn"] = "rnn"
    nonlinearity: Literal["tanh", "relu"] = Field(default="tanh", description="Of the state.")


class PoolingLayer(Section):
    """One vector for a sequence: (T, B, F) to (B, F)."""

    kind: Literal["pooling"] = "pooling"
    pooling: Literal["last", "mean", "max"] = Field(
        default="last",
        description="last: what each direction ends with; mean, max: over the row's steps, of each feature.",
    )


class LinearLayer(Section):
    """y = W x + b, of each step or of what was pooled."""

    kind: Literal["linear"] = "linear"
    input_size: int = Field(ge=1, description="Size of x.")
    output_size: int = Field(ge=1, description="Size of y.")
    bias: bool = Field(default=True, description="Whether there is b.")


class ActivationLayer(Section):
    """A function of each number, or of the last axis (softmax, log-softmax)."""

    kind: Literal["activation"] = "activation"
    function: Literal["sigmoid", "tanh", "relu", "softmax", "log-softmax"] = Field(description="Which one.")


class DropoutLayer(Section):
    """Dropout, in training only."""

    kind: Literal["dropout"] = "dropout"
    probability: float = Field(default=0.5, ge=0, lt=1, description="Of each number to be dropped.")


LAYERS: dict[str, type[Section]] = {
    str(layer.model_fields["kind"].default): layer
    for layer in (
        EmbeddingLayer,
        OneHotLayer,
        GRULayer,
        LSTMLayer,
        RNNLayer,
        PoolingLayer,
        LinearLayer,
        ActivationLayer,
        DropoutLayer,
    )
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "softmax": nn.Softmax,
    "log-softmax": nn.LogSoftmax,
}
States = list[Any]  # of each recurrent layer what it takes as hx, and gives as hn: h, or (h, c)


class Pooling(nn.Module):
    """One vector for each row of a padded batch."""

    def __init__(self, pooling: Literal["last", "mean", "max"]) -> None:
        super().__init__()
        self.pooling: Literal["last", "mean", "max"] = pooling

    def forward(self, x: Tensor, lengths: Tensor | None = None, directions: int = 1) -> Tensor:
        """The vectors (B, F) of x (T, B, F).

        lengths (B,) integer, at least 1: steps of each row, all T if None. directions: how many stand side by side in
        F; "last" takes of the second one, which reads backwards, the first step.
        """
        steps = len(x)
        if lengths is None:
            lengths = torch.full((x.shape[1],), steps, device=x.device)
        lengths = lengths.to(x.device)
        if self.pooling == "last":
            rows = torch.arange(x.shape[1], device=x.device)
            forward, *backward = x.chunk(directions, -1)
            return torch.cat([forward[lengths - 1, rows], *(half[0] for half in backward)], -1)
        valid = (torch.arange(steps, device=x.device).unsqueeze(1) < lengths).unsqueeze(-1)
        if self.pooling == "max":
            return x.masked_fill(~valid, -torch.inf).amax(0)
        return (x * valid).sum(0) / lengths.unsqueeze(-1)


class SequentialNetwork(nn.Module):
    """Layers one after another, time first; each is a module that `describe` knows.

    At most one of them pools, after the last recurrent layer. Raises InputError for another module or order.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        described = [describe(layer) for layer in layers]  # refuses what is unknown
        kinds = [layer.model_dump()["kind"] for layer in described]
        if not kinds:
            raise InputError("SequentialNetwork: expected at least one layer, got none")
        if kinds.count("pooling") > 1:
            raise InputError("SequentialNetwork: expected at most one pooling layer, got several")
        if "pooling" in kinds and any(kind in ("gru", "lstm", "rnn") for kind in kinds[kinds.index("pooling") :]):
            raise InputError(
                "SequentialNetwork: a recurrent layer cannot follow a pooling layer, which leaves no steps"
            )
        for position, kind in enumerate(kinds):
            if kind in ("embedding", "one-hot") and position > 0:
                raise InputError(f"SequentialNetwork: layers.{position}: {kind} reads tokens, so it must be the first")

    @property
    def reads_tokens(self) -> bool:
        """Whether the input is tokens (T, B) int64; otherwise it is features (T, B, F) float."""
        return isinstance(self.layers[0], nn.Embedding | OneHot)

    @property
    def pools(self) -> bool:
        """Whether the output is one vector for each row, (B, F), instead of one for each step, (T, B, F)."""
        return any(isinstance(layer, Pooling) for layer in self.layers)

    @property
    def input_size(self) -> int:
        """How many different tokens, or features of a step, the input has."""
        first = describe(self.layers[0]).model_dump()
        if self.reads_tokens:
            return first["vocabulary_size"]
        sized = (describe(layer).model_dump() for layer in self.layers)
        return next(layer["input_size"] for layer in sized if "input_size" in layer)

    @property
    def recurrent_layers(self) -> list[RecurrentLayer]:
        """The recurrent ones among the layers, in order: those that have a state."""
        return [layer for layer in self.layers if isinstance(layer, RecurrentLayer)]

    def forward(
        self, x: Tensor, states: Sequence[Any] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """The output (T, B, F), or (B, F) if it pools, and the last state of each recurrent layer.

        x (T, B) int64 tokens or (T, B, F) float features; states: of each recurrent layer hx, or None for zeros;
        lengths (B,): steps of each row, of which there is at least one if it pools.

        Raises ShapeError, InputError.
        """
        recurrent = self.recurrent_layers
        given = [None] * len(recurrent) if states is None else list(states)
        if len(given) != len(recurrent):
            raise ShapeError(
                f"SequentialNetwork: expected a state for each of {len(recurrent)} layers, got {len(given)}"
            )
        last: States = []
        directions = 1
        for layer in self.layers:
            if isinstance(layer, RecurrentLayer):
                x, hn = layer(x, given[len(last)], lengths=lengths)
                last.append(hn)
                directions = 2 if layer.bidirectional else 1
            elif isinstance(layer, Pooling):
                x = layer(x, lengths, directions)
            else:
                x = layer(x)
                if isinstance(layer, nn.Linear):  # its features are of both directions
                    directions = 1
        return x, last

    def describe(self) -> list[dict[str, Any]]:
        """The layers as tables of a configuration, from which `build` makes the like."""
        return [describe(layer).model_dump() for layer in self.layers]

    def as_sequential(self) -> "SequentialNetwork":
        """Itself, as other networks give the chain of layers that they are."""
        return self

    def reference(self) -> "SequentialNetwork":
        """A copy in float64, in eval mode, with the reference's recurrence: what artifacts are held to."""
        network = copy.deepcopy(self).double().eval()
        for layer in network.recurrent_layers:
            layer.backend = "reference"
        return network


def describe(layer: nn.Module) -> Section:
    """What a layer is, as the table from which `build` makes the like. Raises InputError if it is not a known one."""
    match layer:
        case nn.Embedding():
            return EmbeddingLayer(vocabulary_size=layer.num_embeddings, size=layer.embedding_dim)
        case OneHot():
            return OneHotLayer(vocabulary_size=layer.vocabulary_size)
        case RecurrentLayer():
            return _describe_recurrent(layer)
        case Pooling():
            return PoolingLayer(pooling=layer.pooling)
        case nn.Linear():
            return LinearLayer(
                input_size=layer.in_features, output_size=layer.out_features, bias=layer.bias is not None
            )
        case nn.Dropout():
            return DropoutLayer(probability=layer.p)
    for name, kind in ACTIVATIONS.items():
        if type(layer) is kind:
            return ActivationLayer.model_validate({"function": name})
    raise InputError(
        f"SequentialNetwork: a layer of type {type(layer).__name__} is not one that can be carried to other libraries; "
        f"known are {', '.join(LAYERS)}"
    )


def _describe_recurrent(layer: RecurrentLayer) -> Section:
    name = type(layer).__name__
    for option in ("batch_first", "learn_initial_state", "layer_norm", "zoneout", "proj_size"):
        if getattr(layer, option, None):
            raise InputError(f"SequentialNetwork: {name} with {option} cannot be carried to other libraries")
    sizes = {key: getattr(layer, key) for key in _Recurrent.model_fields}
    match layer:
        case GRU():
            return GRULayer.model_validate({**sizes, "reset": layer.reset})
        case LSTM():
            return LSTMLayer.model_validate(sizes)
        case RNN():
            return RNNLayer.model_validate({**sizes, "nonlinearity": layer.nonlinearity})
    raise InputError(f"SequentialNetwork: {name} cannot be carried to other libraries; known are GRU, LSTM, RNN")


def build(tables: Sequence[Mapping[str, Any]], *, source: str = "layers") -> SequentialNetwork:
    """The network that the tables describe, with torch's first weights, in float32.

    source: what an error names first. Raises ConfigError: an unknown kind or key, a wrong value, sizes that do not fit.
    """
    layers: list[nn.Module] = []
    width = None  # size of what the layer before gives
    for position, table in enumerate(tables):
        where = f"{source}: layers.{position}"
        kind = table.get("kind")
        if kind not in LAYERS:
            raise ConfigError(f"{where}: expected kind to be one of {', '.join(LAYERS)}, got {kind!r}")
        layer = validate(LAYERS[kind], table, source=where)
        sizes = layer.model_dump()
        if width is not None and sizes.get("input_size", width) != width:
            raise ConfigError(
                f"{where}: expected input_size = {width}, as the layer before gives, got {sizes['input_size']}"
            )
        layers.append(_build(layer))
        width = _width(layer) or width
    try:
        return SequentialNetwork(layers)
    except InputError as error:
        raise ConfigError(f"{source}: {error}") from error


def tables_as_toml(tables: Sequence[Mapping[str, Any]]) -> str:
    """Layers as a TOML file has them: a table [[layers]] for each, which `build` takes back."""
    return (
        "".join(
            "\n".join(["[[layers]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), "", ""])
            for table in tables
        ).rstrip("\n")
        + "\n"
    )


def _width(layer: Section) -> int | None:
    """Size of a layer's output; None where that is the size of its input."""
    match layer:
        case EmbeddingLayer():
            return layer.size
        case OneHotLayer():
            return layer.vocabulary_size
        case _Recurrent():
            return layer.hidden_size * (2 if layer.bidirectional else 1)
        case LinearLayer():
            return layer.output_size
    return None


def _build(layer: Section) -> nn.Module:
    match layer:
        case EmbeddingLayer():
            return nn.Embedding(layer.vocabulary_size, layer.size)
        case OneHotLayer():
            return OneHot(layer.vocabulary_size)
        case _Recurrent():
            arguments = layer.model_dump(exclude={"kind"})
            kinds: dict[type[Section], type[RecurrentLayer]] = {GRULayer: GRU, LSTMLayer: LSTM, RNNLayer: RNN}
            return kinds[type(layer)](**arguments)
        case PoolingLayer():
            return Pooling(layer.pooling)
        case LinearLayer():
            return nn.Linear(layer.input_size, layer.output_size, layer.bias)
        case ActivationLayer():
            function = ACTIVATIONS[layer.function]
            return function(dim=-1) if "softmax" in layer.function else function()
        case DropoutLayer():
            return nn.Dropout(layer.probability)
    raise AssertionError(layer)
