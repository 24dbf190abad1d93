"""The short way of a plain call: the same to the last bit as the usual way, which it leaves all mistakes to."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import gatewise as gw
from gatewise.errors import InputError, ShapeError
from gatewise.kernels import ops

if ops.native_status().available:
    from gatewise.kernels import native_plain

pytestmark = pytest.mark.skipif(not ops.native_status().available, reason=str(ops.native_status().reason))

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "GRU": ("GRU", {}),
    "GRU-before": ("GRU", {"reset": "before"}),
    "LSTM": ("LSTM", {}),
    "RNN-tanh": ("RNN", {}),
    "RNN-relu": ("RNN", {"nonlinearity": "relu"}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
shapes = pytest.mark.parametrize(
    "shape", [(1, 1, 5, 7), (1, 1, 64, 256), (1, 3, 5, 7), (6, 4, 5, 17), (9, 33, 12, 64)], ids="T{0[0]}-B{0[1]}".format
)
forms = pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])


def make(kind: str, inputs: int = 5, hidden: int = 7, **arguments: Any) -> Any:
    name, own = KINDS[kind]
    torch.manual_seed(0)
    return getattr(gw, name)(inputs, hidden, **arguments, **own)


def states(layer: Any, batch: int) -> Any:
    random = torch.Generator().manual_seed(3)
    given = [torch.randn(layer.num_layers, batch, layer.hidden_size, generator=random) for _ in "hc"]
    return tuple(given) if layer.mode == "LSTM" else given[0]


def flat(value: Any) -> list[Tensor]:
    if isinstance(value, PackedSequence):
        value = [part for part in value if part is not None]
    return [value] if isinstance(value, Tensor) else [tensor for part in value for tensor in flat(part)]


def usual(monkeypatch: pytest.MonkeyPatch, run: Any) -> Any:
    """What run() gives without the short way."""
    with monkeypatch.context() as patch:
        patch.setattr(native_plain, "run", lambda *_: None)
        return run()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the short way served, for each call that came to it."""
    served: list[bool] = []
    run = native_plain.run

    def noted(*arguments: Any) -> Any:
        found = run(*arguments)
        served.append(found is not None)
        return found

    monkeypatch.setattr(native_plain, "run", noted)
    return served


@pytest.mark.parametrize("arguments", [{}, {"num_layers": 3, "bias": False}], ids=["L1", "L3-no-bias"])
@pytest.mark.parametrize("first", ["zeros", "hx"])
@forms
@shapes
@every_kind
def test_without_a_gradient(kind, shape, batch_first, first, arguments, monkeypatch, taken):
    steps, batch, inputs, hidden = shape
    layer = make(kind, inputs, hidden, batch_first=batch_first, **arguments)
    x = torch.randn((batch, steps, inputs) if batch_first else (steps, batch, inputs))
    hx = None if first == "zeros" else states(layer, batch)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            found = layer(x, hx)
            expected = usual(monkeypatch, lambda: layer(x, hx))
        assert all(torch.equal(a, b) for a, b in zip(flat(found), flat(expected), strict=True))
        assert [a.shape for a in flat(found)] == [b.shape for b in flat(expected)]
        assert all(tensor.is_inference() == (mode is torch.inference_mode) for tensor in flat(found))
    assert taken == [True, True]


@pytest.mark.parametrize("used", ["y", "last", "all"])
@pytest.mark.parametrize("first", ["zeros", "hx"])
@forms
@shapes
@every_kind
def test_gradients(kind, shape, batch_first, first, used, monkeypatch, taken):
    steps, batch, inputs, hidden = shape
    layer = make(kind, inputs, hidden, batch_first=batch_first)
    x = torch.randn((batch, steps, inputs) if batch_first else (steps, batch, inputs), requires_grad=True)
    hx = None if first == "zeros" else states(layer, batch)
    leaves = [x, *layer.parameters(), *(state.requires_grad_() for state in ([] if hx is None else flat(hx)))]

    def trained() -> list[Tensor]:
        outputs = flat(layer(x, hx))
        chosen = {"y": outputs[:1], "last": outputs[1:], "all": outputs}[used]
        loss = torch.stack([(out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in chosen]).sum()
        return [*outputs, *torch.autograd.grad(loss, leaves)]

    found, expected = trained(), usual(monkeypatch, trained)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert taken == [True]


@pytest.mark.parametrize("arguments", [{}, {"num_layers": 2}], ids=["L1", "L2"])
@forms
@shapes
@every_kind
def test_lengths(kind, shape, batch_first, arguments, monkeypatch, taken):
    steps, batch, inputs, hidden = shape
    layer = make(kind, inputs, hidden, batch_first=batch_first, **arguments)
    x = torch.randn((batch, steps, inputs) if batch_first else (steps, batch, inputs), requires_grad=True)
    lengths = torch.randint(steps + 1, (batch,))
    leaves = [x, *layer.parameters()]

    def trained() -> list[Tensor]:
        outputs = flat(layer(x, lengths=lengths))
        return [*outputs, *torch.autograd.grad(torch.stack([out.square().sum() for out in outputs]).sum(), leaves)]

    found, expected = trained(), usual(monkeypatch, trained)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with torch.no_grad():
        found, expected = layer(x, lengths=lengths), usual(monkeypatch, lambda: layer(x, lengths=lengths))
    assert all(torch.equal(a, b) for a, b in zip(flat(found), flat(expected), strict=True))
    assert taken == [not arguments, True]


@pytest.mark.parametrize("first", ["zeros", "hx"])
@shapes
@every_kind
def test_bfloat16(kind, shape, first, monkeypatch, taken):
    """Taken where the kernels compute in it; the usual way widens it for the others, and for lengths."""
    steps, batch, inputs, hidden = shape
    layer = make(kind, inputs, hidden, num_layers=2).bfloat16()
    single = make(kind, inputs, hidden).bfloat16()
    x = torch.randn(steps, batch, inputs).bfloat16()
    hx = None if first == "zeros" else states(layer, batch)
    if hx is not None:
        hx = hx.bfloat16() if isinstance(hx, Tensor) else tuple(h.bfloat16() for h in hx)
    first_layer = None if hx is None else hx[:1] if isinstance(hx, Tensor) else tuple(h[:1] for h in hx)

    def called() -> list[Tensor]:
        with torch.inference_mode():
            found = flat(layer(x, hx))
        given = x.clone().requires_grad_()
        trained = flat(single(given, first_layer))
        leaves = [given, *single.parameters()]
        return [*found, *trained, *torch.autograd.grad([t.float().square().sum() for t in trained], leaves)]

    assert all(torch.equal(a, b) for a, b in zip(called(), usual(monkeypatch, called), strict=True))
    served = native_plain._native.computes_bfloat16(native_plain.native_calls.CELLS[single._plain_cell()])
    assert taken == [served] * 2
    with torch.inference_mode():
        layer(x, hx, lengths=torch.full((batch,), steps))
    assert not taken[-1]


def test_lengths_that_the_usual_way_sees_to(taken):
    layer, x = make("GRU"), torch.randn(3, 2, 5)
    for lengths, message in (([1, 2], "to be a tensor"), (torch.tensor([4, 1]), "got 4 for row 0"), (5, "a tensor")):
        with pytest.raises(InputError, match=message):
            layer(x, lengths=lengths)
    narrow, apart = torch.tensor([3, 1], dtype=torch.int32), torch.tensor([3, 0, 1, 0])[::2]
    for lengths in (narrow, apart):
        assert torch.equal(layer(x, lengths=lengths)[0], layer(x, lengths=torch.tensor([3, 1]))[0])
    assert taken == [False] * 3 + [False, True] * 2


@pytest.mark.parametrize("arguments", [{}, {"num_layers": 2}], ids=["L1", "L2"])
@pytest.mark.parametrize("first", ["zeros", "hx"])
@pytest.mark.parametrize("enforce_sorted", [False, True], ids=["any-order", "sorted"])
@shapes
@every_kind
def test_packed(kind, shape, enforce_sorted, first, arguments, monkeypatch, taken):
    steps, batch, inputs, hidden = shape
    layer = make(kind, inputs, hidden, **arguments)
    x = torch.randn(steps, batch, inputs, requires_grad=True)
    lengths = torch.randint(1, steps + 1, (batch,)).sort(descending=enforce_sorted).values
    hx = None if first == "zeros" else states(layer, batch)
    leaves = [x, *layer.parameters(), *(state.requires_grad_() for state in ([] if hx is None else flat(hx)))]

    def called() -> Any:
        return layer(pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted), hx)

    def trained() -> list[Tensor]:
        (packed, last) = called()
        outputs = flat([packed.data, last])
        return [*outputs, *torch.autograd.grad(torch.stack([out.square().sum() for out in outputs]).sum(), leaves)]

    found, expected = trained(), usual(monkeypatch, trained)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with torch.no_grad():
        found, expected = called(), usual(monkeypatch, called)
    assert isinstance(found[0], PackedSequence)
    assert all(torch.equal(a, b) for a, b in zip(flat(found), flat(expected), strict=True))
    assert taken == [not arguments, True]


def test_packed_rows_that_the_usual_way_sees_to(taken):
    layer, data = make("GRU"), torch.randn(4, 5)
    for sizes, message in (([1, 3], "that fall"), ([3, 2], "of 5 rows"), ([4, 0], "at least 1")):
        with pytest.raises((ShapeError, InputError), match=message):
            layer(PackedSequence(data, torch.tensor(sizes)))
    with pytest.raises(InputError, match="lengths cannot be given together"):
        layer(PackedSequence(data, torch.tensor([4])), lengths=torch.tensor([1] * 4))
    with pytest.raises(ShapeError, match="Expected hidden size"):
        layer(PackedSequence(data, torch.tensor([4])), torch.zeros(1, 3, 7))
    assert taken == [False] * 5


@every_kind
def test_second_derivatives(kind, monkeypatch, taken):
    layer, x = make(kind), torch.randn(6, 4, 5, requires_grad=True)

    def penalty() -> tuple[Tensor, ...]:
        (slope,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, *layer.parameters()], allow_unused=True)

    for value, expected in zip(penalty(), usual(monkeypatch, penalty), strict=True):
        torch.testing.assert_close(value, expected)
    assert taken == [True]


def test_frozen_weights_and_a_second_backward(taken):
    layer = make("GRU")
    layer.weight_hh_l0.requires_grad_(False)
    y, _ = layer(torch.randn(1, 1, 5))
    first, second = (torch.autograd.grad(y.sum(), layer.weight_ih_l0, retain_graph=True)[0] for _ in "12")
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(y.sum(), layer.weight_hh_l0)
    assert taken == [True]


def test_what_is_saved_can_be_kept_elsewhere(taken):
    """torch's checkpoints and hooks of saved tensors see all of it."""
    layer, x = make("GRU"), torch.randn(6, 4, 5, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x)[0].sum(), x)
    y = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False)
    assert isinstance(y, Tensor)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        layer(x)
    assert max(sizes) >= 6 * 4 * 4 * 7  # the gates
    assert taken == [True] * 3  # the checkpoint ends the call that repeats its own once it has what it needs


def test_rows_of_any_strides(monkeypatch, taken):
    layer, wide = make("GRU"), torch.randn(8, 6, 9)
    for x in (wide[::2, ::3, 2:7], wide.transpose(0, 1)[..., :5], wide[:1, :1, 4:].expand(3, 2, 5)):
        with torch.no_grad():
            assert torch.equal(layer(x)[0], usual(monkeypatch, lambda x=x: layer(x))[0])
    assert taken == [True] * 3


def test_the_last_state_is_its_own():
    with torch.no_grad():
        layer = make("GRU")
        y, hn = layer(torch.randn(1, 1, 5))
        kept = y.clone()
        hn.zero_()
        again, _ = layer(torch.randn(1, 1, 5), torch.zeros(1, 1, 7))
        assert torch.equal(y, kept)
        assert again.abs().sum() > 0


def test_weights_are_looked_at_in_every_call(taken):
    layer, x = make("GRU"), torch.randn(1, 1, 5)
    layer(x)
    for name, value in (("weight_hh_l0", torch.zeros(21, 6)), ("bias_ih_l0", torch.zeros(20))):
        broken = make("GRU")
        broken(x)
        getattr(broken, name).data = value
        with pytest.raises(ShapeError, match=f"gru: expected {name[:-3]} "):
            broken(x)
    half = make("GRU")
    half(x)
    half.weight_ih_l0.data = half.weight_ih_l0.data.double()
    with pytest.raises(ShapeError, match="does not match weight dtype"):
        half(x)
    assert taken == [True] + [True, False] * 3


@pytest.mark.parametrize("hx", [(), (torch.zeros(1, 1, 7),), [torch.zeros(1, 1, 7)]], ids=["none", "one", "list"])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_states_that_are_none(kind, hx):
    with pytest.raises((ShapeError, AttributeError)):
        make(kind)(torch.zeros(1, 1, 5), hx)


def test_where_it_must_not_be_taken(taken):
    """The usual way serves, and is right."""
    layer, x = make("GRU"), torch.randn(3, 2, 5)
    expected, _ = layer(x)
    taken.clear()
    single, _ = layer(x[:, 0])
    torch.testing.assert_close(single, expected[:, 0])
    torch.testing.assert_close(vmap(lambda row: layer(row.unsqueeze(1))[0][:, 0], 1, 1)(x), expected)
    double = functional_call(layer, {name: p.double() for name, p in layer.named_parameters()}, (x.double(),))[0]
    torch.testing.assert_close(double.float(), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x)[0].dtype == torch.bfloat16
    assert not any(taken)
    taken.clear()
    layer.backend = "reference"
    torch.testing.assert_close(layer(x)[0], expected)
    stack = make("GRU", num_layers=2, dropout=0.9, bidirectional=True)
    assert not torch.equal(stack(x)[0], stack(x)[0])
    assert not taken


def test_a_parametrized_weight(taken):
    layer, x = make("GRU"), torch.randn(3, 2, 5)
    expected, _ = layer(x)
    nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    torch.testing.assert_close(layer(x)[0], expected)
    assert taken == [True, False]
