"""Backwards: a layer that reads each row from its own end to its start."""

from typing import Any

import torch
from torch import Tensor, nn

from gatewise.errors import InputError
from gatewise.layers.recurrent import RecurrentLayer


class Backwards(nn.Module):
    """A layer of one direction, run over each row from its last step to its first one.

        backwards = Backwards(gw.GRU(28, 256))
        y, hn = backwards(torch.randn(35, 4, 28), lengths=torch.tensor([35, 1, 7, 20]))

    It gives what the second direction of a bidirectional layer gives: y at a step has read the steps from there to the
    row's end, and hn is the state after the first step. Raises InputError for a bidirectional layer or batch_first.
    """

    def __init__(self, layer: RecurrentLayer) -> None:
        super().__init__()
        if layer.bidirectional or layer.batch_first or layer.num_layers > 1:
            raise InputError("Backwards: expected a layer of one direction, not stacked and without batch_first")
        self.layer = layer

    def forward(self, input: Tensor, hx: Any = None, *, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """The states (T, B, H), and the last ones (1, B, H), of an LSTM (hn, cn).

        input (T, B, I) float; hx: first states, as the layer takes them; lengths (B,) integer: steps of each row.
        Raises ShapeError.
        """
        if lengths is None:
            y, hn = self.layer(input.flip(0), hx)
            return y.flip(0), hn
        steps = torch.arange(input.shape[0], device=input.device).unsqueeze(1)
        place = torch.where(steps < lengths.to(input.device), lengths.to(input.device) - 1 - steps, steps).unsqueeze(-1)
        y, hn = self.layer(input.gather(0, place.expand_as(input)), hx, lengths=lengths)
        return y.gather(0, place.expand_as(y)), hn
