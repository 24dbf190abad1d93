"""The recurrent layers that the tests run over, a line for each: a new one joins all tests that hold for it."""

from typing import Any, NamedTuple

from gatewise.kernels import reference


class Kind(NamedTuple):
    """A layer and its options, to which belongs a cell of the same name with "Cell" behind it."""

    layer: str  # in gatewise, and in torch, if that has it
    options: dict[str, Any]
    name: str  # of its step, in gatewise.kernels.reference
    is_torchs: bool = True  # whether torch's layer of that name computes the same

    @property
    def cell(self) -> reference.Cell:
        return reference.CELLS[self.name]


ALL = {
    "GRU": Kind("GRU", {}, "gru_after"),
    "GRU-before": Kind("GRU", {"reset": "before"}, "gru_before", is_torchs=False),
    "LSTM": Kind("LSTM", {}, "lstm"),
    "LSTM-projection": Kind("LSTM", {"proj_size": 3}, "lstm"),
    "RNN-tanh": Kind("RNN", {}, "rnn_tanh"),
    "RNN-relu": Kind("RNN", {"nonlinearity": "relu"}, "rnn_relu"),
    "MinGRU-linear": Kind("MinGRU", {}, "mingru_linear", is_torchs=False),
    "MinGRU-positive": Kind("MinGRU", {"candidate": "positive"}, "mingru_positive", is_torchs=False),
}
TORCHS = {name: kind for name, kind in ALL.items() if kind.is_torchs}
REGULARISED = {name: kind for name, kind in ALL.items() if kind.cell.has_recurrent_weights}


def without_projection(kinds: dict[str, Kind]) -> dict[str, Kind]:
    """Those whose weights are weight_ih, weight_hh and the biases."""
    return {name: kind for name, kind in kinds.items() if "proj_size" not in kind.options}
