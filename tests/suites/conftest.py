"""A plugin for Keras with the torch backend: while it is in, our ops compute what Keras's recurrent layers ask for.

GRU and LSTM ask their backend for the whole sequence (keras.src.backend.gru, .lstm) and run their own loop where that
raises NotImplementedError; SimpleRNN knows only its loop, which is replaced. The loops remain for other activations
than tanh and sigmoid, and for recurrent dropout.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gatewise.kernels import ops


class Plugin:
    """Stand-ins for the functions of Keras, and how often each of our ops served them."""

    def __init__(self) -> None:
        from keras import activations
        from keras.src import backend

        self.calls: Counter[str] = Counter()
        self.activations = activations
        convert: Any = backend.convert_to_tensor  # its type is that of all backends
        self.to_tensor: Callable[[Any], Tensor] = convert
        self.zero_masked = False  # whether the layer that asks wants zeros in masked steps: its backend is not told

    def gru(
        self,
        inputs: Any,
        initial_state: Any,
        mask: Any,
        kernel: Any,
        recurrent_kernel: Any,
        bias: Any,
        activation: Callable,
        recurrent_activation: Callable,
        return_sequences: bool = False,
        go_backwards: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Keras's gates are z, r, h; its z means what ours does. bias (2, 3H) if reset_after, else (3H,)."""
        self._refuse_unless_standard(activation, recurrent_activation)

        def rows(matrix: Any) -> Tensor:
            z, r, n = self.to_tensor(matrix).chunk(3, -1)
            return torch.cat([r, z, n], -1).mT if matrix.ndim == 2 else torch.cat([r, z, n])

        biases: list[Tensor | None] = [None, None]
        if bias is not None:
            bias = self.to_tensor(bias)
            biases = [rows(row) for row in (bias.unbind() if reset_after else (bias, torch.zeros_like(bias)))]
        weights = (rows(kernel), rows(recurrent_kernel), *biases)
        options = {"reset": "after" if reset_after else "before"}
        return self._run("gru", inputs, [initial_state], weights, mask, go_backwards, return_sequences, options)

    def lstm(
        self,
        inputs: Any,
        initial_state_h: Any,
        initial_state_c: Any,
        mask: Any,
        kernel: Any,
        recurrent_kernel: Any,
        bias: Any,
        activation: Callable,
        recurrent_activation: Callable,
        return_sequences: bool = False,
        go_backwards: bool = False,
        unroll: bool = False,
        batch_first: bool = True,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Keras's gates are i, f, c, o, as ours; it has one bias."""
        self._refuse_unless_standard(activation, recurrent_activation)
        if not batch_first:
            raise NotImplementedError
        states, weights = [initial_state_h, initial_state_c], self._plain_weights(kernel, recurrent_kernel, bias)
        return self._run("lstm", inputs, states, weights, mask, go_backwards, return_sequences, {})

    def simple_rnn(
        self, layer: Any, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The loop of a SimpleRNN layer; of its dropouts, that of the inputs is Keras's."""
        cell = layer.cell
        known = {self.activations.tanh: "tanh", self.activations.relu: "relu"}
        if cell.activation not in known or (training and cell.recurrent_dropout):
            raise NotImplementedError
        if training and cell.dropout:
            sequences = sequences * cell.get_dropout_mask(sequences[:, 0]).unsqueeze(1)
        weights = self._plain_weights(cell.kernel, cell.recurrent_kernel, cell.bias)
        options = {"nonlinearity": known[cell.activation]}
        return self._run(
            "rnn", sequences, initial_state, weights, mask, layer.go_backwards, layer.return_sequences, options
        )

    def _refuse_unless_standard(self, activation: Callable, recurrent_activation: Callable) -> None:
        if activation is not self.activations.tanh or recurrent_activation is not self.activations.sigmoid:
            raise NotImplementedError

    def _plain_weights(self, kernel: Any, recurrent_kernel: Any, bias: Any) -> tuple[Tensor | None, ...]:
        biases = (None, None)
        if bias is not None:
            bias = self.to_tensor(bias)
            biases = (bias, torch.zeros_like(bias))
        return self.to_tensor(kernel).mT, self.to_tensor(recurrent_kernel).mT, *biases

    def _run(
        self,
        op: str,
        inputs: Any,
        states: Sequence[Any],
        weights: Sequence[Tensor | None],
        mask: Any,
        backwards: bool,
        return_sequences: bool,
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The last output (B, H), the outputs (B, T or 1, H) in the order in which they arose, and the last states.

        inputs (B, T, I). mask (B, T) bool, False where a step is to be skipped: each row's other steps are moved to
        its front, and are its length. A skipped step repeats the output before it, zeros before the first.
        """
        self.calls[op] += 1
        dtype = weights[0].dtype  # pyright: ignore[reportOptionalMemberAccess]
        x, *first = (self.to_tensor(tensor).to(dtype) for tensor in (inputs, *states))
        x = x.transpose(0, 1)
        if mask is None:
            y, *last = getattr(ops, op)(x, *first, *weights, reverse=backwards, **options)
            y = y.flip(0) if backwards else y
        else:
            mask = self.to_tensor(mask).bool().mT  # (T, B)
            lengths = mask.sum(0)
            front = mask.int().argsort(dim=0, descending=True, stable=True)  # (T, B): steps to take, then the others
            x = x.gather(0, front.unsqueeze(-1).expand_as(x))
            y, *last = getattr(ops, op)(x, *first, *weights, reverse=backwards, lengths=lengths, **options)
            mask = mask.flip(0) if backwards else mask
            done = mask.cumsum(0)  # (T, B): steps taken by then
            written = (lengths - done if backwards else done - 1).clamp(0, len(y) - 1)  # where y holds the last of them
            shown = mask if self.zero_masked else done > 0
            y = y.gather(0, written.unsqueeze(-1).expand_as(y)) * shown.unsqueeze(-1)
        y = y.transpose(0, 1)
        return y[:, -1], (y if return_sequences else y[:, -1:]), last


@pytest.fixture
def gatewise_in_keras(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin]:
    """Puts our ops into Keras; after the test they must have computed something."""
    from keras.src import backend, layers

    plugin = Plugin()
    monkeypatch.setattr(backend, "gru", plugin.gru)
    monkeypatch.setattr(backend, "lstm", plugin.lstm)
    plain_loop = layers.RNN.inner_loop

    def told(inner_loop: Callable) -> Callable:
        def inner_loop_of_a_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
            plugin.zero_masked = layer.zero_output_for_mask
            return inner_loop(layer, *args, **kwargs)

        return inner_loop_of_a_layer

    def simple_loop(layer: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return plugin.simple_rnn(layer, *args, **kwargs)
        except NotImplementedError:
            return plain_loop(layer, *args, **kwargs)

    for kind, inner_loop in (
        (layers.GRU, layers.GRU.inner_loop),
        (layers.LSTM, layers.LSTM.inner_loop),
        (layers.SimpleRNN, simple_loop),
    ):
        monkeypatch.setattr(kind, "inner_loop", told(inner_loop), raising=False)
    yield plugin
    assert plugin.calls, "none of our ops was called"
