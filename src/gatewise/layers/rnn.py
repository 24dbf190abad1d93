"""RNN and RNNCell: stand-ins for torch.nn.RNN and torch.nn.RNNCell.

The equations are in `gatewise.kernels.reference`; `gatewise.kernels.ops.rnn` runs one layer in one direction of them
over a whole sequence. `gatewise.layers.recurrent` stacks such runs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import InputError
from gatewise.kernels import ops
from gatewise.layers.cell import RecurrentCell
from gatewise.layers.options import check_choice
from gatewise.layers.recurrent import RecurrentLayer

_MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}
_NONLINEARITIES = {mode: nonlinearity for nonlinearity, mode in _MODES.items()}
_CELLS = {mode: f"rnn_{nonlinearity}" for mode, nonlinearity in _NONLINEARITIES.items()}


class RNN(RecurrentLayer):
    """Layers of plain RNN over whole sequences: arguments, parameters, initial values, outputs, errors of torch.nn.RNN.

    nonlinearity: "tanh" or "relu".
    backend: "auto", or the one to insist on: "native", "torch", "reference".
    learn_initial_state: the first state where hx is None is a parameter, h0 (L*D, H), zeros at the start.
    weight_dropout: probability of each recurrent weight to be dropped for a call in training, the same one at every
        step (Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", 2017, section 2).
    recurrent_dropout: probability of each unit of h to be hidden from the recurrent weights in training: one mask for
        all steps of a row, in each layer and direction (Gal, Ghahramani, "A Theoretically Grounded Application of
        Dropout in Recurrent Neural Networks", 2016). The output, and the way of the state past the weights, keep it.
    zoneout: probability of each unit to keep its value in a step of training; otherwise each step takes the mean
        of both (Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017).
    layer_norm: normalise W_ih x and W_hh h each by itself before they are added, over all H rows, in the form that
        Ba, Kiros, Hinton, "Layer Normalization", 2016, supplementary material, gives for LSTM and GRU; for this cell
        they normalise the sum. Gains norm_ih_l0, norm_hh_l0 (H,), ones at the start; the shifts are bias_ih_l0 and
        bias_hh_l0.
    """

    _rank_words = "D tensor instead"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        learn_initial_state: bool = False,
        weight_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        if nonlinearity not in _MODES:
            raise InputError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        sizes = (input_size, hidden_size, num_layers)
        mode = _MODES[nonlinearity]
        super().__init__(mode, *sizes, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity
        self._add_options(backend, learn_initial_state, weight_dropout, recurrent_dropout, zoneout, layer_norm)

    def _run(self, x: Tensor, states: tuple[Tensor, ...], weights: Sequence[Any], **how: Any) -> tuple[Any, ...]:
        nonlinearity = _NONLINEARITIES[self.mode]  # which is what torch's layer computes by
        return ops.rnn(x, *states, *weights, nonlinearity=nonlinearity, backend=self.backend, **how)

    def _plain_cell(self) -> str | None:
        return _CELLS.get(self.mode)


class RNNCell(RecurrentCell):
    """One step of a plain RNN: arguments, parameters, initial values, outputs and errors of torch.nn.RNNCell.

    nonlinearity, backend: as in RNN.
    """

    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=1, device=device, dtype=dtype)
        self.nonlinearity = check_choice("RNNCell", "nonlinearity", nonlinearity, ops.NONLINEARITIES)
        self.backend = check_choice("RNNCell", "backend", backend, ops.BACKENDS)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The state after one step (B, H).

        input (B, I) float: input, or (I,) for a single row. hx (B, H) float: state, zeros if None; (H,) for a single
        row. The result takes the input's form. Raises ShapeError.
        """
        return self._step(input, hx, ops.rnn, nonlinearity=self.nonlinearity)
