"""What only gw.MinGRU and its cell have; what they share with the others is tested beside these."""

from typing import Any

import pytest
import torch
from torch import nn

import gatewise as gw
from gatewise.errors import BackendError, InputError, ShapeError
from gatewise.kernels import ops

T, B, I, H = 6, 4, 5, 7  # noqa: E741


def test_parameters():
    torch.manual_seed(0)
    layer = gw.MinGRU(I, H, 2, bidirectional=True, dtype=torch.float64)
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "weight_ih_l0": (2 * H, I),
        "bias_ih_l0": (2 * H,),
        "weight_ih_l0_reverse": (2 * H, I),
        "bias_ih_l0_reverse": (2 * H,),
        "weight_ih_l1": (2 * H, 2 * H),
        "bias_ih_l1": (2 * H,),
        "weight_ih_l1_reverse": (2 * H, 2 * H),
        "bias_ih_l1_reverse": (2 * H,),
    }
    assert [[weight.shape for weight in weights] for weights in layer.all_weights][2] == [(2 * H, 2 * H), (2 * H,)]
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}
    for parameter in layer.parameters():  # drawn as torch draws those of its layers
        assert 0.7 * H**-0.5 < parameter.abs().max() <= H**-0.5
    assert list(gw.MinGRU(I, H, bias=False).state_dict()) == ["weight_ih_l0"]
    assert list(gw.MinGRUCell(I, H).state_dict()) == ["weight_ih", "bias_ih"]
    assert list(gw.MinGRUCell(I, H, bias=False).state_dict()) == ["weight_ih"]


def test_the_same_seed_draws_the_same_weights_for_layer_and_cell():
    drawn = []
    for module in (gw.MinGRU, gw.MinGRUCell):
        torch.manual_seed(3)
        drawn.append(list(module(I, H).parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))
    torch.manual_seed(3)
    assert torch.equal(drawn[0][0], torch.empty(2 * H, I).uniform_(-(H**-0.5), H**-0.5))


def test_state_dicts():
    layer, other = gw.MinGRU(I, H, 2), gw.MinGRU(I, H, 2)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(T, B, I)
    assert torch.equal(layer(x)[0], other(x)[0])
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight_hh_l0"):
        layer.load_state_dict(nn.GRU(I, H, 2).state_dict())


def test_devices():
    assert {p.device.type for p in gw.MinGRU(I, H, device="meta").parameters()} == {"meta"}
    assert gw.MinGRUCell(I, H, device="meta").weight_ih.device.type == "meta"
    with torch.device("meta"):
        assert gw.MinGRU(I, H).weight_ih_l0.device.type == gw.MinGRUCell(I, H).weight_ih.device.type == "meta"
    layer = gw.MinGRU(I, H, device="meta").to_empty(device="cpu")
    layer.reset_parameters()
    layer.flatten_parameters()
    assert layer(torch.randn(T, B, I))[0].shape == (T, B, H)


@pytest.mark.parametrize("candidate", ops.CANDIDATES)
def test_dropout_lies_between_the_layers(candidate):
    layer, x = gw.MinGRU(I, H, 2, dropout=0.5, candidate=candidate), torch.randn(T, B, I)
    first, second = (gw.MinGRU(size, H, candidate=candidate) for size in (I, H))
    for one, name in ((first, "l0"), (second, "l1")):
        own = {key.replace(name, "l0"): value for key, value in layer.state_dict().items() if key.endswith(name)}
        one.load_state_dict(own)
    torch.manual_seed(1)
    y, _ = layer(x)
    torch.manual_seed(1)
    expected, _ = second(nn.functional.dropout(first(x)[0], 0.5))
    torch.testing.assert_close(y, expected)


def test_the_backends_agree():
    x, exact = torch.randn(50, B, I), gw.MinGRU(I, H, 2, bidirectional=True, dtype=torch.float64, backend="reference")
    expected, _ = exact(x.double())
    for backend in ("auto", "torch", "native", "reference"):
        if backend == "native" and not ops.native_status().available:
            continue
        layer = gw.MinGRU(I, H, 2, bidirectional=True, backend=backend)
        layer.load_state_dict(exact.state_dict())
        torch.testing.assert_close(layer(x)[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_float64_takes_all_steps_at_once(monkeypatch):
    """By a scan, not step by step: a sequence of 4096 steps calls the equations once."""
    from gatewise.kernels import reference

    calls: list[int] = []
    step = reference.step
    monkeypatch.setattr(reference, "step", lambda *given, **how: calls.append(1) or step(*given, **how))
    layer = gw.MinGRU(I, H, dtype=torch.float64)
    layer(torch.randn(4096, B, I, dtype=torch.float64))[0].sum().backward()
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["MinGRU", "MinGRUCell"])
def test_wrong_options(name):
    for wrong, message in (
        ({"candidate": "log"}, "unknown candidate 'log'; expected one of linear, positive"),
        ({"backend": "cudnn"}, "unknown backend 'cudnn'; expected one of auto, native, torch, reference"),
    ):
        with pytest.raises(InputError) as error:
            getattr(gw, name)(I, H, **wrong)
        assert str(error.value) == f"{name}: {message}"
    for option in ("weight_dropout", "recurrent_dropout", "zoneout", "layer_norm"):
        with pytest.raises(TypeError, match=rf"{name}\.__init__\(\) got an unexpected keyword argument '{option}'"):
            getattr(gw, name)(I, H, **{option: 0.1})


WRONG: list[dict[str, Any]] = [
    {"hidden_size": 0},
    {"hidden_size": 2.0},
    {"num_layers": 0},
    {"dropout": 1.5},
    {"bias": 1},
    {"dtype": torch.int64},
    {"device": "nowhere"},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_arguments_in_torchs_words(wrong):
    arguments = {"input_size": I, "hidden_size": H} | wrong
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        nn.GRU(**arguments)
    with pytest.raises(theirs.type) as mine:
        gw.MinGRU(**arguments)
    assert str(mine.value) == str(theirs.value)


def test_the_function_checks_its_tensors():
    x, h0, weight, bias = torch.zeros(T, B, I), torch.zeros(B, H), torch.zeros(2 * H, I), torch.zeros(2 * H)
    shapes = "for x (6, 4, 5) and h0 (4, 7), got"
    for wrong, message in (
        ((x, h0, weight[:-1], bias), f"expected weight_ih (14, 5) {shapes} (13, 5)"),
        ((x, h0, weight, bias[:-1]), f"expected bias_ih (14,) {shapes} (13,)"),
        ((x, h0[:-1], weight, bias), "expected h0 (4, 7) for x (6, 4, 5) and h0 (3, 7), got (3, 7)"),
        (
            (x, h0, weight, bias.double()),
            "expected bias_ih to be torch.float32 on cpu like x, got torch.float64 on cpu",
        ),
    ):
        with pytest.raises(ShapeError) as error:
            ops.mingru(*wrong)
        assert str(error.value) == f"mingru: {message}"
    with pytest.raises(InputError) as unknown:
        ops.mingru(x, h0, weight, bias, candidate="log")
    assert str(unknown.value) == "mingru: unknown candidate 'log'; expected one of linear, positive"
    with pytest.raises(BackendError, match="mingru: backend 'native' computes float32 and bfloat16 on the CPU"):
        ops.mingru(*(tensor.double() for tensor in (x, h0, weight, bias)), backend="native")


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_a_stream_is_the_layer_step_by_step(bias):
    layer, x = gw.MinGRU(I, H, 2, bias=bias, learn_initial_state=True, candidate="positive"), torch.randn(T, B, I)
    nn.init.normal_(layer.h0)
    stream = layer.stream(B)
    for _ in range(2):
        y, hn = layer(x)
        for x_t, expected in zip(x, y, strict=True):
            torch.testing.assert_close(stream(x_t), expected.detach())
        torch.testing.assert_close(stream.state, hn.detach())
        stream.reset()
    assert layer.stream()(x[0, 0].numpy()).shape == (H,)


def test_what_a_stream_refuses():
    with pytest.raises(InputError, match=r"^MinGRU\.stream: a bidirectional layer cannot stream: its backward"):
        gw.MinGRU(I, H, bidirectional=True).stream()
    with pytest.raises(ShapeError) as error:
        gw.MinGRU(I, H).stream(2)(torch.zeros(3, I))
    assert str(error.value) == (
        "MinGRU.stream: expected x_t (B, I) = (2, 5), got (3, 5); this stream was opened by layer.stream(2)"
    )
    if ops.native_status().available:
        with pytest.raises(BackendError) as lack:
            gw.MinGRU(I, H).stream(weights="int8")
        assert str(lack.value) == (
            "MinGRU.stream: weights='int8' needs the native kernel, which cannot serve: it steps GRUs only"
        )


def test_no_other_library_has_it(tmp_path):
    for format in ("torch", "onnx", "keras", "c"):
        with pytest.raises(InputError) as error:
            gw.export(nn.Sequential(gw.MinGRU(I, H)), format, tmp_path / format)
        assert str(error.value) == (
            "SequentialNetwork: MinGRU cannot be carried to other libraries; known are GRU, LSTM, RNN"
        )
        assert not (tmp_path / format).exists()


def test_accelerate_leaves_it():
    model = nn.ModuleList([gw.MinGRU(I, H), gw.MinGRUCell(I, H, backend="torch"), nn.GRU(I, H)])
    done = gw.accelerate(model)
    assert done.swapped == ["2"]
    assert done.left == {
        "0": "computed by gatewise already, with backend 'auto'",
        "1": "computed by gatewise already, with backend 'torch'",
    }


def test_repr():
    assert repr(gw.MinGRU(I, H)) == "MinGRU(5, 7)"
    layer = gw.MinGRU(I, H, 2, bias=False, candidate="positive", learn_initial_state=True, backend="torch")
    assert repr(layer) == (
        "MinGRU(5, 7, num_layers=2, bias=False, candidate=positive, backend=torch, learn_initial_state=True)"
    )
    assert repr(gw.MinGRUCell(I, H, candidate="positive")) == "MinGRUCell(5, 7, candidate=positive)"
