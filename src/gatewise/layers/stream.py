"""Stream: recurrent layers one step at a time, as their inputs arrive."""

from collections.abc import Sequence
from contextlib import nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from gatewise.errors import BackendError, InputError, ShapeError
from gatewise.kernels import ops

if TYPE_CHECKING:
    from gatewise.layers.recurrent import RecurrentLayer

try:
    from gatewise.kernels import native_stream
except ImportError:  # ops.native_status() says why
    native_stream = None

Weights = Literal["float32", "int8"]


class Stream:
    """`h_t = stream(x_t)`: the state of a layer's top after one more step. Made by a layer's `stream`.

    The steps are those of the layer over the whole sequence, without dropout, hooks and autocast; results carry no
    gradient. `stream.state` (L, B, H), of an LSTM two of them, (h, c), holds the state of every layer: a copy to keep,
    which can be set again. `stream.reset()` begins anew. Calls from several Python threads are made one after another;
    different streams, also those of one layer, do not disturb each other.

    The layer's weights must stay as they were when the stream was opened. What torch knows of is noticed before the
    next step: another tensor in a weight's place, a new `.data`, every in-place edit. An edit behind torch's back,
    through `.data` or a NumPy view, is found by comparing a part of the weights' content in each step, another part
    each time: at the latest within 31 steps, at once where the weights take up to 32 KB, and nearly at once where a
    whole row or column of a matrix has changed. Until then a float32 stream computes with the weights as they are, for
    it reads them where the layer keeps them, and an int8 stream with those that it was opened with.

    With int8 weights each row of a matrix is kept as whole numbers up to 127 times a scale; so is the state, anew in
    each step, and the input with twice as many bits. Sums are exact, gates and state are float32. The state's error was
    at most 8e-3 (1.3e-3 in the root mean square) over 1000 steps of normal inputs, for hidden sizes from 16 to 1024 and
    weights as torch draws them; for weights three times as large 4e-2, and 7e-2 above three layers. It does not grow
    with the number of steps. An input that holds an infinity or NaN gives NaN.

    More than one thread (of torch.get_num_threads()) takes part where the work is worth it and as long as that is
    faster; results do not depend on it.

    What the native step cannot serve (an LSTM, RNN or MinGRU, another dtype or device, parametrized weights, a layer
    that insists on another backend, no kernel in this installation) is streamed by the layer's own kernels: no faster
    than the layer itself, and an edit behind torch's back goes unnoticed, but takes effect.
    """

    def __init__(self, layer: "RecurrentLayer", batch_size: int, weights: Weights):
        self._call = f"{type_before_parametrizations(layer).__name__}.stream"  # as errors name it
        _check_request(self._call, layer, batch_size, weights)
        reason = _why_not_native(layer, weights)
        if reason is not None and (weights == "int8" or (layer.backend == "native" and layer.mode == "GRU")):
            asked = "weights='int8'" if weights == "int8" else "backend='native'"
            raise BackendError(f"{self._call}: {asked} needs the native kernel, which cannot serve: {reason}")
        self._opened_by = f"layer.stream({batch_size}" + (", weights='int8')" if weights == "int8" else ")")
        self._input_shapes = [(batch_size, layer.input_size)] + [(layer.input_size,)] * (batch_size == 1)
        sizes = layer._state_sizes()
        self._output_shapes = {2: (batch_size, sizes[0]), 1: (sizes[0],)}
        self._state_shapes = [(layer.num_layers, batch_size, size) for size in sizes]
        self._dtype, self._device = layer.weight_ih_l0.dtype, layer.weight_ih_l0.device
        first = [torch.zeros(shape, dtype=self._dtype, device=self._device) for shape in self._state_shapes]
        if layer.learn_initial_state:
            for state, name in zip(first, ("h0", "c0"), strict=False):
                state += getattr(layer, name).detach().unsqueeze(1)
        self._first_state = tuple(first)
        self._fallback = None
        if reason is None:
            self._open_natively(layer, batch_size, weights)
        else:
            self._fallback = _Fallback(layer, self._first_state)
        self.reset()

    def _open_natively(self, layer: Any, batch_size: int, weights: Weights) -> None:
        assert native_stream is not None  # _why_not_native saw to it
        self._most_threads = native_stream.most_threads
        sizes = (layer.num_layers, batch_size, layer.input_size, layer.hidden_size)
        self._native = native_stream.open_stream(
            layer._parameters, _names(layer), sizes, reset=layer.reset, int8=weights == "int8"
        )

    @overload
    def __call__(self, x_t: np.ndarray) -> np.ndarray: ...

    @overload
    def __call__(self, x_t: Tensor) -> Tensor: ...

    def __call__(self, x_t: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """The top layer's state (B, H) after one step; (H,) for an input (I,).

        x_t (B, I) float: inputs, an array or a tensor in the weights' dtype, or (I,) where the batch size is 1. The
        result is of the same kind. Raises ShapeError, and InputError if a weight has changed since the stream was
        opened; the state is then as it was.
        """
        if self._fallback is not None:
            return self._step_of_fallback(self._fallback, x_t)
        if isinstance(x_t, np.ndarray):
            return self._step(x_t)
        try:
            array = x_t.numpy()
        except (AttributeError, TypeError, RuntimeError):  # wrong, or a tensor with a gradient
            self._check("x_t", x_t, self._input_shapes)
            array = x_t.detach().numpy()
        return torch.from_numpy(self._step(array))

    def _step(self, x: np.ndarray) -> np.ndarray:
        h = np.empty(self._output_shapes.get(x.ndim, 0), np.float32)
        problem = self._native.step(x, h, self._most_threads())
        if problem == "x":  # wrong, or right but not as the native step needs it
            self._check("x_t", x, self._input_shapes)
            problem = self._native.step(np.require(x, requirements=["C", "A"]), h, self._most_threads())
        if problem is not None:
            raise self._changed("a weight's content" if problem == "content" else problem)
        return h

    def _step_of_fallback(self, fallback: "_Fallback", x_t: np.ndarray | Tensor) -> np.ndarray | Tensor:
        changed = fallback.changed_weight()
        if changed is not None:
            raise self._changed(changed)
        self._check("x_t", x_t, self._input_shapes)
        h = fallback.step(self._as_tensor(x_t).reshape(self._input_shapes[0]))
        h = h.reshape(self._output_shapes[x_t.ndim])
        return h if isinstance(x_t, Tensor) else h.cpu().numpy()

    @property
    def state(self) -> Any:
        """The state of every layer (L, B, H), of an LSTM (h, c); a copy. Tensors or arrays of that shape can be set."""
        if self._fallback is not None:
            states = tuple(state.clone() for state in self._fallback.states)
            return states[0] if len(states) == 1 else states
        state = torch.empty(self._state_shapes[0])
        self._native.read(state.data_ptr())
        return state

    @state.setter
    def state(self, value: Any) -> None:
        values = (value,) if len(self._state_shapes) == 1 else value
        if not isinstance(values, (tuple, list)) or len(values) != len(self._state_shapes):
            got = f"{len(value)} of them" if isinstance(value, (tuple, list)) else type(value).__name__
            raise InputError(f"{self._call}: expected state to be two arrays or tensors (h, c), got {got}")
        for state, shape in zip(values, self._state_shapes, strict=True):
            self._check("state", state, [shape])
        self._set_states([self._as_tensor(state).contiguous() for state in values])

    def _set_states(self, states: Sequence[Tensor]) -> None:
        if self._fallback is not None:
            self._fallback.set_states(states)
        else:
            self._native.write(states[0].data_ptr())

    def reset(self) -> None:
        """Begin anew: the state becomes zeros, or what the layer has learned for it when the stream was opened."""
        self._set_states(self._first_state)

    def _as_tensor(self, value: Tensor | np.ndarray) -> Tensor:
        if isinstance(value, Tensor):
            return value.detach()
        return torch.from_numpy(np.array(value)).to(self._device)

    def _check(self, name: str, value: object, shapes: list[tuple[int, ...]]) -> None:
        """Raise InputError unless the value is an array or a tensor, ShapeError unless it is of one of the shapes."""
        if not isinstance(value, (np.ndarray, Tensor)):
            got = type(value).__name__
            raise InputError(f"{self._call}: expected {name} to be a NumPy array or a tensor, got {got}")
        expected, given = str(self._dtype).removeprefix("torch."), str(value.dtype).removeprefix("torch.")
        if given != expected:
            raise ShapeError(f"{self._call}: expected {name} in {expected} like the weights, got {given}; convert it")
        if isinstance(value, Tensor) and value.device != self._device:
            raise ShapeError(f"{self._call}: expected {name} on {self._device} like the weights, got {value.device}")
        if tuple(value.shape) not in shapes:
            axes = "(L, B, H)" if name == "state" else "(B, I)"
            raise ShapeError(
                f"{self._call}: expected {name} {axes} = {' or '.join(map(str, shapes))}, got {tuple(value.shape)}; "
                f"this stream was opened by {self._opened_by}"
            )

    def _changed(self, what: str) -> InputError:
        return InputError(
            f"{self._call}: {what} has changed since the stream was opened; open a new one by {self._opened_by}"
        )


class _Fallback:
    """Steps of the layer itself, with the weights as they are at each step; states (L, B, H) of h, and of c."""

    def __init__(self, layer: "RecurrentLayer", states: tuple[Tensor, ...]):
        self._layer = layer
        self._before = self._facts()
        # Kept, so that no other weight can take their memory's address.
        self._memory = [parameter.detach() for parameter in layer.parameters()]
        self.states = states
        self._lock = Lock()  # a step reads the states and replaces them

    def set_states(self, states: Sequence[Tensor]) -> None:
        """Go on from copies of these."""
        with self._lock:
            self.states = tuple(state.clone() for state in states)

    def _facts(self) -> dict[str, tuple[int, int, int]]:
        """Of each parameter, those of parametrizations among them: its identity, version and address."""
        return {
            name: (id(parameter), 0 if parameter.is_inference() else parameter._version, parameter.data_ptr())
            for name, parameter in self._layer.named_parameters()
        }

    def changed_weight(self) -> str | None:
        """Name of a parameter that is not what it was."""
        now = self._facts()
        names = self._before | now
        return next((name for name in names if self._before.get(name) != now.get(name)), None)

    def step(self, x: Tensor) -> Tensor:
        """The top layer's state (B, H) after a step with x (B, I)."""
        device = x.device.type
        available = torch.amp.is_autocast_available(device)
        with self._lock, torch.no_grad(), torch.autocast(device, enabled=False) if available else nullcontext():
            y = self._step_at_once(x)
            return self._step_of_each(x) if y is None else y

    def _step_at_once(self, x: Tensor) -> Tensor | None:
        """By the short way of a plain call; None where there is none."""
        time = 1 if self._layer.batch_first else 0
        hx = self.states[0] if len(self.states) == 1 else self.states
        found = self._layer._plainly(x.unsqueeze(time), hx, None)
        if found is None:
            return None
        y, last = found
        self.states = last if isinstance(last, tuple) else (last,)
        return y.squeeze(time)

    def _step_of_each(self, x: Tensor) -> Tensor:
        """Layer by layer."""
        after = []
        for weights, *before in zip(self._layer._own_weights(), *self.states, strict=True):
            y, *states = self._layer._run(x.unsqueeze(0), tuple(before), weights)
            after.append(states)
            x = y.squeeze(0)
        self.states = tuple(torch.stack(states) for states in zip(*after, strict=True))
        return x


def _names(layer: "RecurrentLayer") -> list[str | None]:
    """Of each layer the names of its weights and biases, None for a bias that there is not."""
    nothing = [] if layer.bias else [None] * layer._products
    return [name for names in layer._all_weights for name in [*names, *nothing]]


def _check_request(call: str, layer: "RecurrentLayer", batch_size: int, weights: str) -> None:
    """Raise InputError unless a stream is possible."""
    if layer.layer_norm or layer.zoneout:
        option = "layer_norm" if layer.layer_norm else "zoneout"
        raise InputError(f"{call}: a stream has no {option}; run the layer itself, one step a call, with hx")
    if weights not in get_args(Weights):
        raise InputError(f"{call}: unknown weights {weights!r}; expected one of {', '.join(get_args(Weights))}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"{call}: expected batch_size to be a whole number >= 1, got {batch_size!r}")
    if layer.bidirectional:
        raise InputError(
            f"{call}: a bidirectional layer cannot stream: its backward direction begins at the last step, which a "
            f"stream does not know"
        )
    for name in _names(layer):
        if name is not None and name not in layer._parameters and not is_parametrized(layer, name):
            raise InputError(f"{call}: {name} is computed by a hook, which a stream does not run; remove the hook")


def _why_not_native(layer: "RecurrentLayer", weights: Weights) -> str | None:
    """Why the native step cannot serve the layer; None if it can."""
    status = ops.native_status()
    if native_stream is None or not status.available:
        return status.reason
    if layer.mode != "GRU":
        return "it steps GRUs only"
    if layer.backend not in ("auto", "native"):
        return f"the layer insists on backend={layer.backend!r}"
    for name in _names(layer):
        if name is None:
            continue
        weight = layer._parameters.get(name)
        if weight is None:
            return f"{name} is parametrized"
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            return f"it reads float32 on the CPU, but {name} is {weight.dtype} on {weight.device}"
        if not weight.is_contiguous() or weight.numel() == 0:
            return f"{name} is {'empty' if weight.numel() == 0 else 'not contiguous'}"
    largest = max(layer.input_size, layer.hidden_size)
    if weights == "int8" and largest > native_stream.MOST_INT8_INPUTS:
        return f"rows of {largest} weights are too long for int8; at most {native_stream.MOST_INT8_INPUTS}"
    return None
