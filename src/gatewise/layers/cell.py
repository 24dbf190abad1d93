"""What all recurrent cells share: the forms of input and state, the checks."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.modules.rnn import RNNCellBase

from gatewise.errors import ShapeError
from gatewise.layers.options import shown


class RecurrentCell(RNNCellBase):
    """One step of a cell."""

    backend: str = "auto"
    _options: ClassVar[tuple[str, ...]] = ("backend",)
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def _step(self, input: Tensor, hx: Tensor | None, op: Callable[..., tuple[Any, ...]], **how: Any) -> Tensor:
        """The state after one step of a cell that has no other."""
        rank = self._checked(input)
        if hx is None:
            hx = input.new_zeros((*input.shape[:-1], self.hidden_size))
        else:
            self._check_state(input, "hidden", hx)
        if rank == 1:
            input, hx = input.unsqueeze(0), hx.unsqueeze(0)
        _, hn = op(input.unsqueeze(0), hx, *self._weights(), backend=self.backend, **how)
        return hn if rank == 2 else hn.squeeze(0)

    def _weights(self) -> tuple[Any, ...]:
        """The weights and biases as the op takes them."""
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _checked(self, input: Tensor) -> int:
        """The input's rank; ShapeError, in torch's words, if the input is wrong."""
        rank = input.dim()
        if rank not in (1, 2):
            raise ShapeError(f"{type(self).__name__}: Expected input to be 1D or 2D, got {rank}D instead")
        if input.size(-1) != self.input_size:
            raise ShapeError(f"input has inconsistent input_size: got {input.size(-1)} expected {self.input_size}")
        return rank

    def _check_state(self, input: Tensor, name: str, state: Tensor, number: int = 0) -> None:
        """Raise ShapeError, in torch's words, unless the state fits the input."""
        if state.shape == (*input.shape[:-1], self.hidden_size):
            return
        if state.dim() not in (1, 2):
            cell = type(self).__name__
            raise ShapeError(f"{cell}: Expected {name} to be 1D or 2D, got {state.dim()}D instead")
        if state.dim() == input.dim() == 2 and len(state) != len(input):
            raise ShapeError(f"Input batch size {len(input)} doesn't match hidden{number} batch size {len(state)}")
        if state.dim() == input.dim():
            got = state.size(-1)
            raise ShapeError(f"hidden{number} has inconsistent hidden_size: got {got}, expected {self.hidden_size}")
        expected = (*input.shape[:-1], self.hidden_size)
        raise ShapeError(f"{type(self).__name__}: Expected hidden size {expected}, got {tuple(state.shape)}")

    def extra_repr(self) -> str:
        """The arguments that repr shows: torch's, then those of ours that are not the default."""
        return f"{super().extra_repr()}{shown(self, self._options)}"
