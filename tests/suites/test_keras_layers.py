"""Keras's own tests of its recurrent layers, and ours of the same, with our ops in the place of its torch backend's.

Keras's tests give all gates the same weights and compare with numbers; ours give each gate its own and compare, over
the same options, with plain Keras. See conftest.py for how the ops get in.
"""

import os
from contextlib import suppress
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

with TemporaryDirectory() as home, mock.patch.dict(os.environ, KERAS_BACKEND="torch", KERAS_HOME=home):
    keras = pytest.importorskip("keras", reason="the layers are Keras's, of the extra `test`")
    their_tests: dict[str, Any] = {}
    parts = {"gru": "GRUTest", "lstm": "LSTMTest", "simple_rnn": "SimpleRNNTest", "bidirectional": "SimpleRNNTest"}
    with suppress(ImportError):  # some builds come without
        for part, kind in parts.items():
            their_tests[f"Keras_{part}"] = getattr(import_module(f"keras.src.layers.rnn.{part}_test"), kind)

if keras.backend.backend() != "torch":
    pytest.skip(f"Keras runs on {keras.backend.backend()} here, our ops on torch", allow_module_level=True)

pytestmark = [  # both are about what Keras itself does with NumPy and with its data
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),
]
COUNTS_CUDNN = "counts the calls of torch's own kernel on a GPU, which ours replace"
NOT_SERVED = {
    "test_keeps_use_cudnn": "asks for attributes of a layer; computes nothing",
    "test_fused_lstm_eligibility": "asks which layers Keras would give to cuDNN; computes nothing",
    "test_fused_gru_eligibility": "asks which layers Keras would give to cuDNN; computes nothing",
    "test_torch_cudnn_dispatch_fires": COUNTS_CUDNN,
    "test_torch_cudnn_bidirectional_gru_dispatch_fires": COUNTS_CUDNN,
}


@pytest.fixture(autouse=True)
def plugin(request: pytest.FixtureRequest) -> Any:
    if request.node.name in NOT_SERVED:
        pytest.skip(NOT_SERVED[request.node.name])
    return request.getfixturevalue("gatewise_in_keras")


globals().update(their_tests)


def test_keras_brought_its_tests(plugin):
    keras.layers.GRU(2)(np.zeros((1, 2, 3), np.float32))
    assert plugin.calls == {"gru": 1}
    if len(their_tests) < len(parts):
        pytest.skip(f"Keras {keras.__version__} is installed without its own tests; they are not run")


B, T, I, H = 4, 6, 3, 5  # noqa: E741
KINDS = {
    "GRU-after": ("GRU", {"reset_after": True}),
    "GRU-before": ("GRU", {"reset_after": False}),
    "LSTM": ("LSTM", {}),
    "SimpleRNN-tanh": ("SimpleRNN", {"activation": "tanh"}),
    "SimpleRNN-relu": ("SimpleRNN", {"activation": "relu"}),
}
MASKS = {
    "unmasked": None,
    "padded": np.arange(T) < np.array([[4], [6], [0], [1]]),
    "gaps": np.array([[1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]], bool),
}

every_kind = pytest.mark.parametrize("kind", KINDS)
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
# In float64 too within 1e-5: the products of Keras's own loop are computed in float32.
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
both_ways = pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])


def pair(
    kind: str, dtype: str = "float32", use_bias: bool = True, merge: Any = False, features: int = I, **options: Any
) -> list[Any]:
    """Keras's layer, which asks our ops, and its plain loop over the same cell; built, with the same random weights.

    merge: how Bidirectional merges the two directions, or False for one direction.
    """
    name, of_the_cell = KINDS[kind]
    of_the_cell = of_the_cell | {"use_bias": use_bias, "dtype": dtype}
    layer = getattr(keras.layers, name)(H, **of_the_cell, **options)
    plain = keras.layers.RNN(getattr(keras.layers, f"{name}Cell")(H, **of_the_cell), dtype=dtype, **options)
    layers = [layer, plain]
    if merge is not False:
        layers = [keras.layers.Bidirectional(each, merge_mode=merge, dtype=dtype) for each in layers]
    for each in layers:
        random = np.random.default_rng(0)
        each.build((B, T, features))
        each.set_weights([random.normal(size=weight.shape) for weight in each.weights])
    return layers


def inputs(dtype: str, states: int = 0) -> list[Tensor]:
    """x (B, T, I) and first states (B, H)."""
    random = np.random.default_rng(1)
    shapes = [(B, T, I), *[(B, H)] * states]
    return [
        torch.tensor(random.normal(size=shape), dtype=getattr(torch, dtype), requires_grad=True) for shape in shapes
    ]


def outcome(layer: Any, given: list[Tensor], mask: np.ndarray | None) -> dict[str, Tensor]:
    """Outputs and states, and every gradient of a loss in which each of their elements has its own weight."""
    outputs = layer(given[0], mask=mask, initial_state=given[1:] or None)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    loss = torch.stack([(y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum() for y in outputs]).sum()
    leaves = {f"input {i}": tensor for i, tensor in enumerate(given)}
    leaves |= {f"weight {i}": variable.value for i, variable in enumerate(layer.trainable_variables)}
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    result = {f"output {i}": tensor.detach() for i, tensor in enumerate(outputs)}
    return result | {f"gradient of {name}": grad for name, grad in zip(leaves, gradients, strict=True)}


def assert_same(layers: list[Any], given: list[Tensor], mask: np.ndarray | None) -> None:
    result, expected = (outcome(layer, given, mask) for layer in layers)
    assert list(result) == list(expected)
    for name, tensor in expected.items():
        note = f"{name}: {{}}".format
        torch.testing.assert_close(result[name], tensor, rtol=1e-5, atol=1e-5, msg=note)


@every_kind
@every_mask
@both_ways
@both_dtypes
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_values_states_and_gradients(sequences, dtype, go_backwards, mask, kind):
    for use_bias, first, zeroed in (
        (True, True, False),
        (False, True, True),
        (True, False, True),
        (False, False, False),
    ):
        options = {"go_backwards": go_backwards, "return_sequences": sequences, "zero_output_for_mask": zeroed}
        layers = pair(kind, dtype, use_bias, return_state=True, **options)
        assert_same(layers, inputs(dtype, len(layers[0].state_size) if first else 0), mask)


@every_kind
@every_mask
def test_unrolled(mask, kind):
    layers = pair(kind, unroll=True, return_sequences=True, return_state=True)
    assert_same(layers, inputs("float32"), mask)


@every_kind
@every_mask
@both_ways
def test_a_state_is_kept_from_call_to_call(go_backwards, mask, kind):
    layers = pair(kind, stateful=True, return_sequences=True, go_backwards=go_backwards)
    given = inputs("float32")
    first, second = ([layer(given[0], mask=mask) for layer in layers] for _ in range(2))
    assert not torch.equal(first[0], second[0])
    for outputs in (first, second):
        torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    layers[0].reset_state()
    assert torch.equal(layers[0](given[0], mask=mask), first[0])


@every_kind
@every_mask
@pytest.mark.parametrize("merge", ["concat", "sum", "ave", "mul", None], ids=str)
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_bidirectional(sequences, merge, mask, kind, plugin):
    layers = pair(kind, merge=merge, return_sequences=sequences, return_state=True)
    states = 2 * len(layers[0].forward_layer.state_size)
    for given in (inputs("float32"), inputs("float32", states)):
        plugin.calls.clear()
        assert_same(layers, given, mask)
        assert plugin.calls.total() == 2


def test_a_mask_comes_from_an_embedding_and_goes_on():
    """Zeros are masked by the embedding, and the mask passes through the first layer to the second."""
    tokens = np.array([[3, 1, 4, 0, 0], [2, 0, 0, 0, 0], [5, 6, 1, 2, 3]])
    outputs = []
    for first, second in zip(pair("GRU-after", return_sequences=True), pair("LSTM", features=H), strict=True):
        model = keras.Sequential([keras.layers.Embedding(7, I, mask_zero=True), first, second])
        model.build((None, 5))
        random = np.random.default_rng(2)
        model.set_weights([random.normal(size=weight.shape) for weight in model.weights])
        outputs.append(model(tokens))
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
