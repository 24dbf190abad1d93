"""GRU and GRUCell: stand-ins for torch.nn.GRU and torch.nn.GRUCell, with a choice of reset placement and backend.

The equations are in `gatewise.kernels.reference`; `gatewise.kernels.ops.gru` runs one layer in one direction of them
over a whole sequence. `gatewise.layers.recurrent` stacks such runs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.kernels import ops
from gatewise.layers.cell import RecurrentCell
from gatewise.layers.options import check_choice
from gatewise.layers.recurrent import RecurrentLayer

_CELLS = {reset: f"gru_{reset}" for reset in ops.RESETS}


class GRU(RecurrentLayer):
    """Layers of GRU over whole sequences: arguments, parameters, initial values, outputs and errors of torch.nn.GRU.

    reset: where the reset gate acts: "after" the recurrent product, as in torch and cuDNN, or "before" it, as in the
        paper and the tutorials. Two functions of the same parameters: weights trained for one are wrong for the other.
    backend: "auto", or the one to insist on: "native", "torch", "reference".
    learn_initial_state: the first state where hx is None is a parameter, h0 (L*D, H), zeros at the start.
    weight_dropout: probability of each recurrent weight to be dropped for a call in training, the same one at every
        step (Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", 2017, section 2).
    recurrent_dropout: probability of each unit of h to be hidden from the recurrent weights in training: one mask for
        all steps of a row, in each layer and direction (Gal, Ghahramani, "A Theoretically Grounded Application of
        Dropout in Recurrent Neural Networks", 2016). The output, and the way of the state past the weights, keep it.
    zoneout: probability of each unit to keep its value in a step of training; otherwise each step takes the mean
        of both (Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017).
    layer_norm: normalise W_i x and W_h h each by itself before they are added, over the rows of r and z together and
        over those of n (Ba, Kiros, Hinton, "Layer Normalization", 2016, supplementary material). Gains norm_ih_l0,
        norm_hh_l0 (3H,), ones at the start; the shifts are bias_ih_l0 and bias_hh_l0.
    """

    reset: str = "after"
    _options = ("reset", *RecurrentLayer._options)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        reset: str = "after",
        backend: str = "auto",
        learn_initial_state: bool = False,
        weight_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        sizes = (input_size, hidden_size, num_layers)
        super().__init__("GRU", *sizes, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype)
        self.reset = check_choice("GRU", "reset", reset, ops.RESETS)
        self._add_options(backend, learn_initial_state, weight_dropout, recurrent_dropout, zoneout, layer_norm)

    def _run(self, x: Tensor, states: tuple[Tensor, ...], weights: Sequence[Any], **how: Any) -> tuple[Any, ...]:
        return ops.gru(x, *states, *weights, reset=self.reset, backend=self.backend, **how)

    def _plain_cell(self) -> str | None:
        return _CELLS.get(self.reset)


class GRUCell(RecurrentCell):
    """One step of a GRU: arguments, parameters, initial values, outputs and errors of torch.nn.GRUCell.

    reset, backend: as in GRU.
    """

    reset: str = "after"
    _options = ("reset", "backend")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        reset: str = "after",
        backend: str = "auto",
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)
        self.reset = check_choice("GRUCell", "reset", reset, ops.RESETS)
        self.backend = check_choice("GRUCell", "backend", backend, ops.BACKENDS)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The state after one step (B, H).

        input (B, I) float: input, or (I,) for a single row. hx (B, H) float: state, zeros if None; (H,) for a single
        row. The result takes the input's form. Raises ShapeError.
        """
        return self._step(input, hx, ops.gru, reset=self.reset)
