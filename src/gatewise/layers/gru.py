"""GRU and GRUCell: stand-ins for torch.nn.GRU and torch.nn.GRUCell, with a choice of reset placement and backend.

The equations are in `gatewise.kernels.reference`; `gatewise.kernels.ops.gru` runs one layer in one direction of them
over a whole sequence. Here such runs are stacked.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout
from torch.nn.modules.rnn import RNNBase, RNNCellBase
from torch.nn.utils.rnn import PackedSequence

from gatewise.errors import InputError, ShapeError
from gatewise.kernels import ops
from gatewise.layers.stream import Stream, Weights


class GRU(RNNBase):
    """Layers of GRU over whole sequences: arguments, parameters, initial values, outputs and errors of torch.nn.GRU.

    reset: where the reset gate acts: "after" the recurrent product, as in torch and cuDNN, or "before" it, as in the
        paper and the tutorials. Two functions of the same parameters: weights trained for one are wrong for the other.
    backend: "auto", or the one to insist on: "native", "torch", "reference".
    """

    weight_ih_l0: Tensor

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
    ) -> None:
        _check_choice("GRU", reset, backend)
        sizes = (input_size, hidden_size, num_layers)
        super().__init__("GRU", *sizes, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype)
        self.reset = reset
        self.backend = backend

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """The top layer's state at every step (T, B, D*H), and the last state of each layer and direction (L*D, B, H).

        input (T, B, I) float: inputs; (B, T, I) if batch_first, (T, I) for a single sequence, or a PackedSequence.
        hx (L*D, B, H) float: first states, zeros if None; (L*D, H) for a single sequence.
        D is 2 if bidirectional, else 1. The output takes the input's form. Raises ShapeError.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        rank = input.dim()
        if rank not in (2, 3):
            raise ShapeError(f"GRU: Expected input to be 2D or 3D, got {rank}D instead")
        if hx is not None and hx.dim() != rank:
            form = "batched" if rank == 3 else "unbatched"
            raise ShapeError(f"For {form} {rank}-D input, hx should also be {rank}-D but got {hx.dim()}-D tensor")

        if rank == 2:
            input, hx = input.unsqueeze(1), None if hx is None else hx.unsqueeze(1)
        elif self.batch_first:
            input = input.transpose(0, 1)
        y, hn = self._stack(input, self._first_states(input, hx, input.size(1)))
        if rank == 2:
            return y.squeeze(1), hn.squeeze(1)
        return (y.transpose(0, 1) if self.batch_first else y), hn

    def _forward_packed(self, input: PackedSequence, hx: Tensor | None) -> tuple[PackedSequence, Tensor]:
        """As forward; data (sum of lengths, I) hold the steps one after another, rows sorted by falling length."""
        data, batch_sizes, sorted_indices, unsorted_indices = input
        if data.dim() != 2:
            raise ShapeError(f"input must have 2 dimensions, got {data.dim()}")
        sizes, steps = (counts.tolist() for counts in batch_sizes.unique_consecutive(return_counts=True))
        h0 = self._first_states(data, hx, sizes[0])
        if sorted_indices is not None:
            h0 = [h.index_select(0, sorted_indices) for h in h0]
        y, hn = self._stack(data, h0, list(zip(steps, sizes, strict=True)))
        if unsorted_indices is not None:
            hn = hn.index_select(1, unsorted_indices)
        return PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices), hn

    def _first_states(self, x: Tensor, hx: Tensor | None, batch_size: int) -> Sequence[Tensor]:
        """The first state (B, H) of each layer and direction; ShapeError, in torch's words, if x or hx is wrong."""
        dtype = self.weight_ih_l0.dtype
        if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            raise ShapeError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert model: model.to({x.dtype})"
            )
        if x.size(-1) != self.input_size:
            raise ShapeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.size(-1)}"
            )
        expected = (len(self._all_weights), batch_size, self.hidden_size)
        if hx is None:
            return [x.new_zeros(expected[1:])] * expected[0]
        if hx.shape != expected:
            raise ShapeError(f"Expected hidden size {expected}, got {list(hx.shape)}")
        return hx.unbind()

    def _stack(
        self, x: Tensor, h0: Sequence[Tensor], stretches: list[tuple[int, int]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The states of the top layer, and the last states (L*D, B, H); x is packed if there are stretches."""
        weights = self._weights()
        gru = partial(ops.gru, reset=self.reset, backend=self.backend)
        if stretches is not None:
            gru = partial(_packed, gru, stretches)

        last = []
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout > 0:
                x = dropout(x, self.dropout, self.training)
            outputs = []
            for reverse in (False, True) if self.bidirectional else (False,):
                y, h = gru(x, h0[len(last)], *weights[len(last)], reverse=reverse)
                outputs.append(y)
                last.append(h)
            x = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
        return x, torch.stack(last)

    def _weights(self) -> list[list[Any]]:
        """Of each layer and direction weight_ih, weight_hh, bias_ih, bias_hh.

        Read at each call, for parametrizations and functional_call exchange them.
        """
        own = self._parameters  # the way through __getattr__ takes 2 us
        weights = [[own[name] if name in own else getattr(self, name) for name in names] for names in self._all_weights]
        return weights if self.bias else [[*pair, None, None] for pair in weights]

    def stream(self, batch_size: int = 1, *, weights: Weights = "float32") -> Stream:
        """A stream that runs these layers one step a call, for inputs that arrive one by one; see Stream.

        weights: "int8" is faster and less exact. Raises InputError; BackendError where int8 cannot be had.
        """
        return Stream(self, batch_size, weights)

    def extra_repr(self) -> str:
        """The arguments that repr shows: torch's, then reset and backend where they are not the default."""
        return super().extra_repr() + _repr_of_choice(self.reset, self.backend)


class GRUCell(RNNCellBase):
    """One step of a GRU: arguments, parameters, initial values, outputs and errors of torch.nn.GRUCell.

    reset, backend: as in GRU.
    """

    bias_ih: Tensor | None
    bias_hh: Tensor | None

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
        _check_choice("GRUCell", reset, backend)
        super().__init__(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)
        self.reset = reset
        self.backend = backend

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The state after one step (B, H).

        input (B, I) float: input, or (I,) for a single row. hx (B, H) float: state, zeros if None; (H,) for a single
        row. The result takes the input's form. Raises ShapeError.
        """
        rank = input.dim()
        if rank not in (1, 2):
            raise ShapeError(f"GRUCell: Expected input to be 1D or 2D, got {rank}D instead")
        if input.size(-1) != self.input_size:
            raise ShapeError(f"input has inconsistent input_size: got {input.size(-1)} expected {self.input_size}")
        expected = (*input.shape[:-1], self.hidden_size)
        if hx is None:
            hx = input.new_zeros(expected)
        elif hx.shape != expected:
            raise ShapeError(f"GRUCell: Expected hidden size {expected}, got {tuple(hx.shape)}")

        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if rank == 1:
            input, hx = input.unsqueeze(0), hx.unsqueeze(0)
        _, hn = ops.gru(input.unsqueeze(0), hx, *weights, reset=self.reset, backend=self.backend)
        return hn if rank == 2 else hn.squeeze(0)

    def extra_repr(self) -> str:
        """The arguments that repr shows: torch's, then reset and backend where they are not the default."""
        return super().extra_repr() + _repr_of_choice(self.reset, self.backend)


def _packed(
    gru: Callable[..., tuple[Tensor, Tensor]],
    stretches: list[tuple[int, int]],
    x: Tensor,
    h: Tensor,
    *weights: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """gru over packed rows: a dense run for each stretch (steps, batch size) of x during which no row begins or ends.

    The rows beyond a stretch's batch size wait: they have ended already, or, in reverse, not begun yet.
    """
    outputs = list(x.split([steps * size for steps, size in stretches]))
    for i in reversed(range(len(stretches))) if reverse else range(len(stretches)):
        steps, size = stretches[i]
        y, last = gru(outputs[i].view(steps, size, -1), h[:size], *weights, reverse=reverse)
        outputs[i] = y.flatten(0, 1)
        h = torch.cat([last, h[size:].to(last.dtype)])  # autocast changes the dtype
    return torch.cat(outputs), h


def _check_choice(layer: str, reset: str, backend: str) -> None:
    for name, value, known in (("reset", reset, ops.RESETS), ("backend", backend, ops.BACKENDS)):
        if value not in known:
            raise InputError(f"{layer}: unknown {name} {value!r}; expected one of {', '.join(known)}")


def _repr_of_choice(reset: str, backend: str) -> str:
    return (f", reset={reset}" if reset != "after" else "") + (f", backend={backend}" if backend != "auto" else "")
