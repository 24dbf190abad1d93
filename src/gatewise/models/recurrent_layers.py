"""The recurrent layers by the name of their cell."""

from gatewise.config import Backend, Cell, Reset
from gatewise.layers.gru import GRU
from gatewise.layers.lstm import LSTM
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.layers.rnn import RNN


def recurrent_layers(
    cell: Cell,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    weight_dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    reset: Reset = "after",
    backend: Backend = "auto",
) -> RecurrentLayer:
    """A `gatewise.GRU`, `LSTM` or `RNN`. dropout: between its layers; reset: of a GRU."""
    between = dropout if num_layers > 1 else 0.0
    sizes = (input_size, hidden_size, num_layers)
    if cell == "gru":
        return GRU(
            *sizes,
            dropout=between,
            bidirectional=bidirectional,
            reset=reset,
            backend=backend,
            weight_dropout=weight_dropout,
            recurrent_dropout=recurrent_dropout,
        )
    kind = LSTM if cell == "lstm" else RNN
    return kind(
        *sizes,
        dropout=between,
        bidirectional=bidirectional,
        backend=backend,
        weight_dropout=weight_dropout,
        recurrent_dropout=recurrent_dropout,
    )
