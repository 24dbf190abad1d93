"""LSTM and LSTMCell: stand-ins for torch.nn.LSTM and torch.nn.LSTMCell.

The equations are in `gatewise.kernels.reference`; `gatewise.kernels.ops.lstm` runs one layer in one direction of them
over a whole sequence. `gatewise.layers.recurrent` stacks such runs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import ShapeError
from gatewise.kernels import ops
from gatewise.layers.cell import RecurrentCell
from gatewise.layers.options import check_choice
from gatewise.layers.recurrent import Norm, RecurrentLayer, States


class LSTM(RecurrentLayer):
    """Layers of LSTM over whole sequences: arguments, parameters, initial values, outputs and errors of torch.nn.LSTM.

    backend: "auto", or the one to insist on: "native", "torch", "reference".
    learn_initial_state: the first states where hx is None are parameters, h0 (L*D, H), or (L*D, R) with a projection,
        and c0 (L*D, H), zeros at the start.
    weight_dropout: probability of each recurrent weight to be dropped for a call in training, the same one at every
        step (Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", 2017, section 2).
    recurrent_dropout: probability of each unit of h to be hidden from the recurrent weights in training: one mask for
        all steps of a row, in each layer and direction (Gal, Ghahramani, "A Theoretically Grounded Application of
        Dropout in Recurrent Neural Networks", 2016). The output, and the way of the state past the weights, keep it.
    zoneout: probability of each unit of h, with a projection of what it gives, and of c to keep its value in a step of
        training, or two of them, for h and for c; otherwise each step takes the mean of both (Krueger et al.,
        "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017). As there, h comes from the c that
        was not zoned out.
    layer_norm: normalise W_i x and W_h h each by itself before they are added, over all 4H rows, and c before its tanh
        (Ba, Kiros, Hinton, "Layer Normalization", 2016, supplementary material). Gains norm_ih_l0, norm_hh_l0 (4H,) and
        norm_c_l0 (H,), ones at the start; the shifts are bias_ih_l0, bias_hh_l0 and norm_c_bias_l0 (H,), zeros at the
        start.
    """

    c0: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        learn_initial_state: bool = False,
        weight_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | Sequence[float] = 0.0,
        layer_norm: bool = False,
    ) -> None:
        sizes = (input_size, hidden_size, num_layers)
        super().__init__(
            "LSTM", *sizes, bias, batch_first, dropout, bidirectional, proj_size, device=device, dtype=dtype
        )
        self._add_options(backend, learn_initial_state, weight_dropout, recurrent_dropout, zoneout, layer_norm)

    def _run(self, x: Tensor, states: tuple[Tensor, ...], weights: Sequence[Any], **how: Any) -> tuple[Any, ...]:
        return ops.lstm(x, *states, *weights, backend=self.backend, **how)

    def _plain_cell(self) -> str | None:
        return None if self.proj_size else "lstm"

    def _state_sizes(self) -> tuple[int, ...]:
        return (self.proj_size or self.hidden_size, self.hidden_size)

    def _norm_sizes(self) -> dict[Norm, int]:
        cell: dict[Norm, int] = {"norm_c": self.hidden_size}
        if self.bias:
            cell["norm_c_bias"] = self.hidden_size
        return super()._norm_sizes() | cell

    def _check_ranks(self, hx: Any, rank: int) -> None:
        h0, c0 = _pair("LSTM", hx)
        if h0.dim() != rank or c0.dim() != rank:
            form = "batched" if rank == 3 else "unbatched"
            raise ShapeError(
                f"For {form} {rank}-D input, hx and cx should also be {rank}-D but got "
                f"({h0.dim()}-D, {c0.dim()}-D) tensors"
            )

    def _with_rows(self, hx: Any) -> Any:
        return hx[0].unsqueeze(1), hx[1].unsqueeze(1)

    def _split(self, hx: Any, batch_size: int) -> States:
        hx, count = _pair("LSTM", hx), len(self._all_weights)
        for i, (state, size) in enumerate(zip(hx, self._state_sizes(), strict=True)):
            if state.shape != (count, batch_size, size):
                raise ShapeError(f"Expected hidden[{i}] size {(count, batch_size, size)}, got {list(state.shape)}")
        return list(zip(*(state.unbind() for state in hx), strict=True))

    def _joined(self, last: States) -> Any:
        return torch.stack([h for h, _ in last]), torch.stack([c for _, c in last])


class LSTMCell(RecurrentCell):
    """One step of an LSTM: arguments, parameters, initial values, outputs and errors of torch.nn.LSTMCell.

    backend: as in LSTM.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype)
        self.backend = check_choice("LSTMCell", "backend", backend, ops.BACKENDS)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The state and the cell after one step, (B, H) each.

        input (B, I) float: input, or (I,) for a single row. hx: state and cell, (B, H) each, zeros if None; (H,) for a
        single row. The results take the input's form. Raises ShapeError.
        """
        rank = self._checked(input)
        if hx is None:
            h = c = input.new_zeros((*input.shape[:-1], self.hidden_size))
        else:
            h, c = _pair("LSTMCell", hx)
            self._check_state(input, "hx[0]", h)
            self._check_state(input, "hx[1]", c, 1)
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if rank == 1:
            input, h, c = input.unsqueeze(0), h.unsqueeze(0), c.unsqueeze(0)
        _, h, c = ops.lstm(input.unsqueeze(0), h, c, *weights, backend=self.backend)
        return (h, c) if rank == 2 else (h.squeeze(0), c.squeeze(0))


def _pair(layer: str, hx: Any) -> tuple[Tensor, Tensor]:
    """State and cell; ShapeError unless hx is these two."""
    if len(hx) != 2:
        got = f"a tensor {tuple(hx.shape)}" if isinstance(hx, Tensor) else f"{len(hx)} of them"
        raise ShapeError(f"{layer}: expected hx to be two tensors (h0, c0), got {got}")
    return hx[0], hx[1]
