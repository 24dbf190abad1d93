"""Streams of every layer, against the layer over the whole sequence; a GRU's native ones are in test_stream.py."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from kinds import ALL
from torch import Tensor

import gatewise as gw
from gatewise.errors import BackendError, InputError, ShapeError
from gatewise.kernels import ops

T, B, I, H = 6, 3, 5, 4  # noqa: E741
STATUS = ops.native_status()
every_kind = pytest.mark.parametrize("kind", ALL)


def make(kind: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    layer = getattr(gw, ALL[kind].layer)(I, H, **ALL[kind].options, **arguments)
    for name in ("h0", "c0"):
        if arguments.get("learn_initial_state") and hasattr(layer, name):
            torch.nn.init.normal_(getattr(layer, name))
    return layer


def as_tuple(state: Any) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def assert_follows(stream: Any, x: Tensor, y: Tensor, last: Any) -> None:
    """The stream's steps over x (T, B, I) are y (T, B, H), and leave it in the states `last`."""
    for x_t, expected in zip(x, y.detach(), strict=True):
        torch.testing.assert_close(stream(x_t), expected)
    torch.testing.assert_close(as_tuple(stream.state), tuple(state.detach() for state in as_tuple(last)))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_layers": 2, "bias": False},
        {"num_layers": 2, "batch_first": True},
        {"num_layers": 2, "dropout": 0.9, "batch_first": True},
        {"num_layers": 2, "learn_initial_state": True},
        {"dtype": torch.float64},
        pytest.param({"backend": "native"}, marks=pytest.mark.skipif(not STATUS.available, reason=str(STATUS.reason))),
        {"backend": "reference"},
    ],
    ids=["plain", "no-bias", "batch-first", "dropout", "learned", "float64", "native", "reference"],
)
@every_kind
def test_steps_of_the_layer(kind, arguments):
    layer = make(kind, **arguments)
    x = torch.randn(T, B, I, dtype=arguments.get("dtype"))
    stream = layer.stream(B)  # in training mode, where a stream drops nothing
    layer.eval()
    y, last = layer(x.transpose(0, 1) if layer.batch_first else x)
    layer.train()
    for _ in range(2):
        assert_follows(stream, x, y.transpose(0, 1) if layer.batch_first else y, last)
        stream.reset()


@every_kind
def test_weights_and_states_are_dropped_in_the_layer_only(kind):
    if not ALL[kind].cell.has_recurrent_weights:
        pytest.skip("there are no recurrent weights")
    layer, x = make(kind, weight_dropout=0.9, recurrent_dropout=0.9), torch.randn(T, B, I)
    stream = layer.stream(B)
    y, last = layer.eval()(x)
    layer.train()
    assert_follows(stream, x, y, last)


@every_kind
def test_arrays_and_single_rows(kind):
    layer, x = make(kind), torch.randn(T, 1, I)
    y = layer(x)[0].detach()
    stream, single = layer.stream(), layer.stream()
    for x_t, expected in zip(x, y, strict=True):
        h = stream(x_t.numpy())
        assert isinstance(h, np.ndarray)
        np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(single(x_t[0]), expected[0])


@every_kind
def test_a_state_to_keep_and_set(kind):
    layer, x = make(kind, num_layers=2), torch.randn(T, B, I)
    stream, other = layer.stream(B), layer.stream(B)
    for x_t in x[:3]:
        stream(x_t)
    kept = stream.state
    expected = [stream(x_t) for x_t in x[3:]]
    other.state = tuple(state.numpy() for state in kept) if isinstance(kept, tuple) else kept.numpy()
    for state in as_tuple(kept):
        state.zero_()  # a copy of the stream's
    assert all(torch.equal(other(x_t), h) for x_t, h in zip(x[3:], expected, strict=True))
    _, last = layer(x[:3])
    stream.state = last if isinstance(last, Tensor) else [state.detach() for state in last]
    torch.testing.assert_close(stream(x[3]), layer(x[:4])[0][3].detach())


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_steps_from_several_threads_are_made_one_after_another(backend):
    layer: Any = gw.RNN(1, 1, nonlinearity="relu", bias=False, backend=backend)
    torch.nn.init.ones_(layer.weight_ih_l0)
    torch.nn.init.ones_(layer.weight_hh_l0)
    stream, one = layer.stream(), torch.ones(1, 1)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: stream(one), range(400)))
    finally:
        sys.setswitchinterval(interval)
    assert float(stream.state) == 400  # each adds one


def test_states_of_an_lstm_that_do_not_fit():
    stream = make("LSTM").stream(B)
    h = torch.zeros(1, B, H)
    for state, got in ((h, "Tensor"), ((h,), "1 of them"), (None, "NoneType")):
        with pytest.raises(InputError) as error:
            stream.state = state
        assert str(error.value) == f"LSTM.stream: expected state to be two arrays or tensors (h, c), got {got}"
    with pytest.raises(ShapeError, match=r"^LSTM\.stream: expected state \(L, B, H\) = \(1, 3, 4\), got \(1, 3, 5\)"):
        stream.state = h, torch.zeros(1, B, 5)
    assert all(torch.equal(state, h) for state in as_tuple(stream.state))


@every_kind
def test_a_weight_that_has_changed(kind):
    layer, x = make(kind), torch.randn(B, I)
    stream = layer.stream(B)
    stream(x)
    with torch.no_grad():
        layer.weight_ih_l0.add_(1)
    name = ALL[kind].layer
    with pytest.raises(InputError, match=rf"^{name}\.stream: weight_ih_l0 has changed since the stream was opened"):
        stream(x)
    layer.stream(B)(x)


@every_kind
def test_what_cannot_stream(kind):
    name = ALL[kind].layer
    with pytest.raises(InputError, match=rf"^{name}\.stream: a bidirectional layer cannot stream"):
        make(kind, bidirectional=True).stream()
    if name != "GRU":
        with pytest.raises(BackendError, match=rf"^{name}\.stream: weights='int8' needs the native kernel"):
            make(kind).stream(weights="int8")
    if ALL[kind].cell.has_recurrent_weights:
        with pytest.raises(InputError, match=rf"^{name}\.stream: a stream has no zoneout"):
            make(kind, zoneout=0.1).stream()
