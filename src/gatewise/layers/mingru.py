"""MinGRU and MinGRUCell: a GRU whose gates do not see the state, so that all steps can be computed at once.

The equations are in `gatewise.kernels.reference`; `gatewise.kernels.ops.mingru` runs one layer in one direction of them
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


class MinGRU(RecurrentLayer):
    """Layers of minGRU over whole sequences, with the forms of input and output that gatewise.GRU has.

    Feng, Tung, Ahmed, Bengio, Hajimirsadeghi, "Were RNNs All We Needed?", 2024:

        z = sigmoid(W_iz x + b_iz)
        n = W_in x + b_in                   candidate="linear"
        n = g(W_in x + b_in)                candidate="positive", with g(a) = a + 0.5 where a >= 0, else sigmoid(a)
        h' = (1 - z) * n + z * h

    z keeps the state, as in all gates here; the paper's z_t is 1 - z. "positive" is the form of its appendix B, where
    states stay positive if the first one is.

    Parameters: weight_ih_l0 (2H, I), bias_ih_l0 (2H,), the rows of z and n one below the other, likewise
    weight_ih_l0_reverse, weight_ih_l1, ..., drawn as those of a GRU. There are no recurrent weights, and nothing that
    regularises them.

    num_layers, bias, batch_first, dropout, bidirectional: as in torch.nn.GRU.
    backend: "auto", or the one to insist on: "native" (float32 and bfloat16 on the CPU), "torch" (all steps at once, by
        a scan; any dtype and device), "reference" (step by step).
    learn_initial_state: the first state where hx is None is a parameter, h0 (L*D, H), zeros at the start.
    """

    candidate: str = "linear"
    _options = ("candidate", "backend", "learn_initial_state")
    _products = 1

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
        candidate: str = "linear",
        backend: str = "auto",
        learn_initial_state: bool = False,
    ) -> None:
        sizes = (input_size, hidden_size, num_layers)
        super().__init__("RNN_TANH", *sizes, bias, batch_first, dropout, bidirectional, device="meta", dtype=dtype)
        self.mode = "MINGRU"  # which torch does not know
        self.candidate = check_choice("MinGRU", "candidate", candidate, ops.CANDIDATES)
        self._replace_weights(2, device, dtype)
        self._add_options(backend, learn_initial_state)

    def flatten_parameters(self) -> None:
        """Nothing: torch's kernels, for which its layers do this, do not serve."""

    def _run(self, x: Tensor, states: tuple[Tensor, ...], weights: Sequence[Any], **how: Any) -> tuple[Any, ...]:
        return ops.mingru(x, *states, *weights, candidate=self.candidate, backend=self.backend, **how)


class MinGRUCell(RecurrentCell):
    """One step of a minGRU: the equations and parameters of MinGRU, weight_ih (2H, I) and bias_ih (2H,).

    candidate, backend: as in MinGRU.
    """

    candidate: str = "linear"
    _options = ("candidate", "backend")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        candidate: str = "linear",
        backend: str = "auto",
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=2, device="meta", dtype=dtype)
        del self.weight_hh, self.bias_hh
        self.to_empty(device=torch.get_default_device() if device is None else device)
        self.reset_parameters()
        self.candidate = check_choice("MinGRUCell", "candidate", candidate, ops.CANDIDATES)
        self.backend = check_choice("MinGRUCell", "backend", backend, ops.BACKENDS)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The state after one step (B, H).

        input (B, I) float: input, or (I,) for a single row. hx (B, H) float: state, zeros if None; (H,) for a single
        row. The result takes the input's form. Raises ShapeError.
        """
        return self._step(input, hx, ops.mingru, candidate=self.candidate)

    def _weights(self) -> tuple[Any, ...]:
        return self.weight_ih, self.bias_ih
