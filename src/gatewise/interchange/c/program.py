"""A network as a C program: its constants, the fields of its state, and the statements that compute a step."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from gatewise.interchange.c.arrays import Array
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.models.embeddings import OneHot
from gatewise.models.sequential import Pooling, describe

ACTIVATIONS = {
    nn.Sigmoid: "sigmoid_of_all",
    nn.Tanh: "tanh_of_all",
    nn.ReLU: "relu_of_all",
    nn.Softmax: "softmax",
    nn.LogSoftmax: "log_softmax",
}


@dataclass(frozen=True)
class Field:
    """A part of the state. name: in the proof, `state_0_h`; None for what is no state of a recurrent layer."""

    declaration: str
    meaning: str
    numbers: int  # of four bytes
    name: str | None = None
    shape: tuple[int, int] = (0, 0)  # (L*D, H)

    @property
    def identifier(self) -> str:
        """Its name in C."""
        return self.declaration.split()[-1].partition("[")[0]


@dataclass
class Stage:
    """A layer, or None for none, with the activations after it; index: its place in the network."""

    index: int
    layer: nn.Module | None
    activations: list[nn.Module] = field(default_factory=list)


@dataclass
class Program:
    """All that the templates print of a network. Sizes are in numbers unless they say bytes."""

    reads_tokens: bool
    pools: bool
    sequence: bool  # whether it reads whole sequences only
    input_size: int
    output_size: int
    arrays: list[Array] = field(default_factory=list)
    declarations: list[str] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    uses: dict[str, bool] = field(default_factory=dict)
    advance: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    run: list[str] = field(default_factory=list)
    pools_max: bool = False
    pooled_size: int = 0
    most_columns: int = 0
    most_gru_units: int = 0
    scratch_floats: int = 0  # of a whole sequence, for each of its steps
    working_bytes: int = 0  # that a step has on the stack, as far as they are arrays
    macs_per_step: int = 0
    macs_per_answer: int = 0  # of what follows the pooling
    weight_bytes: int = 0
    weight_bytes_float32: int = 0

    @property
    def state_bytes(self) -> int:
        """The size of the state."""
        return 4 * sum(part.numbers for part in self.fields)

    @property
    def input_type(self) -> str:
        """The type of a step's input, or of what it consists of."""
        return "int32_t " if self.reads_tokens else "const float "


def stages_of(layers: Sequence[nn.Module]) -> list[Stage]:
    """The layers, without dropout, each with the activations after it."""
    stages: list[Stage] = []
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Dropout):
            continue
        if type(layer) not in ACTIVATIONS:
            stages.append(Stage(index, layer))
        elif not stages or isinstance(stages[-1].layer, Pooling):
            stages.append(Stage(index, None, [layer]))
        else:
            stages[-1].activations.append(layer)
    return stages


def width_of(layer: nn.Module) -> int:
    """Size of what a layer gives at each step."""
    match layer:
        case RecurrentLayer():
            return layer.hidden_size * (2 if layer.bidirectional else 1)
        case nn.Linear():
            return layer.out_features
        case nn.Embedding():
            return layer.embedding_dim
        case OneHot():
            return layer.vocabulary_size
    raise AssertionError(describe(layer))
