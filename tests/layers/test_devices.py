"""Every layer, unchanged, on each device that is here: against itself in float64 on the CPU."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from kinds import ALL, REGULARISED
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import gatewise as gw

T, B, I, H = 9, 6, 5, 8  # noqa: E741
LENGTHS = [9, 2, 0, 7, 9, 4]
CALLS: dict[str, Callable[..., Any]] = {
    "plain": lambda layer, x: layer(x),
    "lengths": lambda layer, x: layer(x, lengths=torch.tensor(LENGTHS)),
    "lengths-there": lambda layer, x: layer(x, lengths=torch.tensor(LENGTHS, device=x.device)),
    "packed": lambda layer, x: layer(pack_padded_sequence(x, [max(n, 1) for n in LENGTHS], enforce_sorted=False)),
    "resets": lambda layer, x: layer(x, resets=(torch.arange(T * B).view(T, B) % 5 == 0).to(x.device)),
    "gates": lambda layer, x: layer(x, return_gates=True)[:2],
    "checkpoints": lambda layer, x: layer(x, checkpoint_every=4),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "learned-state": {"learn_initial_state": True},
    "zoneout": {"zoneout": 0.2},  # evaluated: no mask is drawn
    # From a state of zeros the gradient of a normalised product is as large as its epsilon is small.
    "layer-norm": {"layer_norm": True, "learn_initial_state": True},
}

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.fixture(params=["cpu", "cuda", "mps"])
def device(request) -> Iterator[str]:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device is here")
    if request.param == "mps" and not torch.backends.mps.is_available():
        pytest.skip("no MPS device is here")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield request.param
    torch.backends.cudnn.allow_tf32 = before


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, PackedSequence):
        return [value.data]
    return [value] if isinstance(value, torch.Tensor) else [tensor for part in value for tensor in tensors(part)]


def results(layer: nn.Module, call: str, x: torch.Tensor) -> list[torch.Tensor]:
    """Outputs, and gradients of x and the parameters, for a loss in which every element has its own weight."""
    x = x.clone().requires_grad_()
    outputs = tensors(CALLS[call](layer, x))
    weights = [torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out) for out in outputs]
    loss = torch.stack([(out * weight).sum() for out, weight in zip(outputs, weights, strict=True)]).sum()
    parameters = list(layer.parameters())
    return [*outputs, *torch.autograd.grad(loss, [x, *parameters], allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ALL)
def test_layers(device, kind, call, options):
    if options in ("zoneout", "layer-norm") and kind not in REGULARISED:
        pytest.skip("there are no recurrent weights")
    if device == "cpu" and options != "nothing":
        pytest.skip("the CPU's own tests are test_sequences.py and test_regularisation.py")
    torch.manual_seed(0)
    name, own, *_ = ALL[kind]
    layer = getattr(gw, name)(I, H, 2, bidirectional=True, **own, **OPTIONS[options]).eval()
    for state in [parameter for name, parameter in layer.named_parameters() if name in ("h0", "c0")]:
        nn.init.normal_(state)
    if device == "cuda" and call != "gates":
        layer.train()  # cuDNN has no gradients in evaluation; there is nothing here that training would draw
        if options == "zoneout":
            pytest.skip("masks are drawn in training, and not the same ones on two devices")
    x = torch.randn(T, B, I)
    exact = results(deepcopy(layer).double(), call, x.double())
    found = results(layer.to(device), call, x.to(device))
    for value, expected in zip(found, exact, strict=True):
        assert value.device.type == device
        size = float(expected.abs().max().clamp(min=1))
        limit = 1e-3 if options == "layer-norm" else 2e-5
        torch.testing.assert_close(value.cpu(), expected.to(value.dtype), rtol=0, atol=limit * size)


@pytest.mark.parametrize("cell", ["GRUCell", "LSTMCell", "RNNCell", "MinGRUCell"])
def test_cells(device, cell):
    torch.manual_seed(0)
    module = getattr(gw, cell)(I, H)
    x = torch.randn(B, I)
    exact = tensors(deepcopy(module).double()(x.double()))
    for value, expected in zip(tensors(module.to(device)(x.to(device))), exact, strict=True):
        torch.testing.assert_close(value.cpu(), expected.to(value.dtype), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("options", [{"recurrent_dropout": 0.3}, {"zoneout": 0.3}, {"weight_dropout": 0.3}])
@pytest.mark.parametrize("kind", REGULARISED)
def test_masks_are_drawn_on_the_device(device, kind, options):
    name, own, *_ = REGULARISED[kind]
    layer = getattr(gw, name)(I, H, 2, bidirectional=True, **own, **options).to(device)
    x = torch.randn(T, B, I, device=device)
    torch.manual_seed(3)
    first, _ = layer(x)
    torch.manual_seed(3)
    again, _ = layer(x)
    other, _ = layer(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(device, dtype):
    if device == "cpu" and dtype is torch.float16:
        pytest.skip("float16 is computed on the CPU by the reference alone")
    layer = gw.GRU(I, H, 2, bidirectional=True).to(device)
    x = torch.randn(T, B, I, device=device)
    exact, _ = layer(x)
    with torch.autocast(device, dtype=dtype):
        y, _ = layer(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.05)
    y.float().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_accelerated(device):
    model = nn.Sequential(nn.GRU(I, H, batch_first=True)).to(device)
    x = torch.randn(B, T, I, device=device)
    expected, _ = model(x)
    gw.accelerate(model)
    found, _ = model(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.device.type == device
