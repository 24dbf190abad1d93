"""Both directions of a layer at once: the same to the last bit as one after the other."""

import os
import signal
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import gatewise as gw
from gatewise.errors import InputError, ShapeError
from gatewise.kernels import backends, ops

if ops.native_status().available:
    from gatewise.kernels import native_both

pytestmark = pytest.mark.skipif(not ops.native_status().available, reason=str(ops.native_status().reason))

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "GRU": ("GRU", {}),
    "GRU-before": ("GRU", {"reset": "before"}),
    "LSTM": ("LSTM", {}),
    "RNN-tanh": ("RNN", {}),
    "RNN-relu": ("RNN", {"nonlinearity": "relu"}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
LENGTHS = torch.tensor([7, 3, 0, 6])


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let any call that can be made for both at once be so; how many were."""
    made: list[int] = []
    run = native_both.recurrent

    def noted(*arguments: Any, **how: Any) -> Any:
        made.append(1)
        return run(*arguments, **how)

    monkeypatch.setattr(native_both, "pays", lambda *_: True)
    monkeypatch.setattr(native_both, "recurrent", noted)
    return made


def make(kind: str, inputs: int = 5, hidden: int = 7, **arguments: Any) -> Any:
    name, own = KINDS[kind]
    torch.manual_seed(0)
    return getattr(gw, name)(inputs, hidden, bidirectional=True, **{"num_layers": 2, **arguments}, **own)


def states(layer: Any, batch: int) -> Any:
    random = torch.Generator().manual_seed(3)
    given = [torch.randn(2 * layer.num_layers, batch, layer.hidden_size, generator=random) for _ in "hc"]
    return tuple(given) if layer.mode == "LSTM" else given[0]


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for part in value for tensor in flat(part)]


def one_after_the_other(monkeypatch: pytest.MonkeyPatch, run: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(backends, "suits_both", lambda *_: False)
        return run()


def assert_equal(found: Any, expected: Any) -> None:
    found, expected = flat(found), flat(expected)
    assert [value.shape for value in found] == [value.shape for value in expected]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": LENGTHS},
    "resets": {"resets": torch.rand(7, 4, generator=torch.Generator().manual_seed(5)) < 0.3},
    "checkpoints": {"checkpoint_every": 2},
    "all": {"lengths": LENGTHS, "resets": torch.rand(7, 4) < 0.3, "checkpoint_every": 3},
    "packed": {},
}


@pytest.mark.parametrize("first", ["zeros", "hx"])
@pytest.mark.parametrize("form", FORMS)
@every_kind
def test_outputs_and_gradients(kind, form, first, monkeypatch, at_once):
    layer, x = make(kind), torch.randn(7, 4, 5, requires_grad=True)
    hx = None if first == "zeros" else states(layer, 4)
    leaves = [x, *layer.parameters(), *(state.requires_grad_() for state in ([] if hx is None else flat(hx)))]

    def run() -> list[Tensor]:
        given: Any = pack_padded_sequence(x, [7, 3, 1, 6], enforce_sorted=False) if form == "packed" else x
        output, last = layer(given, hx, **FORMS[form])
        outputs = [output.data if form == "packed" else output, *flat(last)]
        loss = torch.stack([(out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outputs]).sum()
        with torch.no_grad():
            untaped, _ = layer(given, hx, **FORMS[form])
        return [*outputs, *torch.autograd.grad(loss, leaves), untaped.data if form == "packed" else untaped]

    assert_equal(run(), one_after_the_other(monkeypatch, run))
    assert len(at_once) == 4


@pytest.mark.parametrize("shape", [(1, 1, 64, 256), (40, 1, 3, 130), (20, 3, 64, 64), (12, 40, 20, 96)], ids=str)
@every_kind
def test_sizes_that_two_threads_share_in_any_way(kind, shape, monkeypatch, at_once):
    steps, batch, inputs, hidden = shape
    layer, x = make(kind, inputs, hidden, num_layers=1), torch.randn(steps, batch, inputs, requires_grad=True)

    def run() -> list[Tensor]:
        y, last = layer(x)
        return [y, *flat(last), *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]

    assert_equal(run(), one_after_the_other(monkeypatch, run))
    assert len(at_once) == 1


@pytest.mark.parametrize("used", ["y", "one", "none of one"])
def test_gradients_of_some_results(used, monkeypatch, at_once):
    layer, x = make("LSTM", num_layers=1), torch.randn(7, 4, 5)
    layer.weight_hh_l0.requires_grad_(False)
    leaves = [p for p in layer.parameters() if p.requires_grad]

    def run() -> tuple[Tensor, ...]:
        y, (hn, cn) = layer(x)
        loss = {"y": y.sum(), "one": hn[1].sum(), "none of one": y[..., :7].sum() + cn[0].sum()}[used]
        return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)

    assert_equal(run(), one_after_the_other(monkeypatch, run))
    assert len(at_once) == 1


@every_kind
def test_second_derivatives(kind, monkeypatch, at_once):
    layer, x = make(kind), torch.randn(6, 4, 5, requires_grad=True)

    def penalty() -> tuple[Tensor, ...]:
        (slope,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, *layer.parameters()], allow_unused=True)

    found, expected = penalty(), one_after_the_other(monkeypatch, penalty)
    for value, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(value, exact)
    assert len(at_once) == 2


def test_other_forms_of_a_call(monkeypatch, at_once):
    layer, x = make("GRU", batch_first=True, dropout=0.5), torch.randn(4, 7, 5)
    for given in (x, x[0], torch.randn(5, 7, 4).transpose(0, 2), x[:, ::2], x[:1]):

        def run(given: Tensor = given) -> Any:
            torch.manual_seed(1)
            return layer(given)

        assert_equal(run(), one_after_the_other(monkeypatch, run))
    assert len(at_once) == 10


def test_mistakes_have_the_same_words(monkeypatch, at_once):
    x = torch.randn(7, 4, 5)
    for break_it, how, error in (
        (lambda layer: setattr(layer.weight_hh_l0_reverse, "data", torch.zeros(21, 6)), {}, ShapeError),
        (lambda layer: setattr(layer.bias_ih_l0, "data", torch.zeros(21, dtype=torch.float64)), {}, ShapeError),
        (lambda _: None, {"hx": torch.zeros(4, 4, 7, dtype=torch.float64)}, ShapeError),
        (lambda _: None, {"lengths": torch.tensor([8, 1, 1, 1])}, InputError),
    ):
        layer = make("GRU")
        break_it(layer)
        texts = []
        for run in (lambda go: go(), lambda go: one_after_the_other(monkeypatch, go)):
            with pytest.raises(error) as raised:
                run(lambda layer=layer, how=how: layer(x, **how))
            texts.append(str(raised.value))
        assert texts[0] == texts[1]
    assert not at_once


def test_where_it_pays():
    """Two threads, enough to do and few weights; of more threads only where one direction would use but one of them."""
    small, few, many = (3, 256, 8, 1, 16), (3, 256, 64, 1, 64), (3, 3200, 128, 32, 128)
    large = (3, 256, 256, 1, 256)
    for threads, expected in ((1, [False] * 4), (2, [False, True, True, False]), (4, [False, True, False, False])):
        torch.set_num_threads(threads)
        assert [native_both.pays(*case) for case in (small, few, many, large)] == expected


def test_who_is_left_to_the_usual_way(at_once):
    x = torch.randn(7, 4, 5)
    make("GRU", backend="reference")(x)
    make("GRU", dtype=torch.float64)(x.double())
    make("GRU", zoneout=0.1)(x)
    make("GRU")(x, return_gates=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        make("GRU")(x)
    torch.func.vmap(make("GRU"), 1)(x)
    assert not at_once


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_after_a_fork():
    """One after the other, in a child to which no threads have followed, and again at once in the parent."""
    layer, x = gw.GRU(40, 96, bidirectional=True), torch.randn(40, 2, 40)

    def run() -> list[Tensor]:
        y, hn = layer(x)
        return [y, hn, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))]

    expected = run()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        close = [torch.allclose(a, b, atol=1e-4) for a, b in zip(run(), expected, strict=True)]
        os._exit(0 if all(close) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert_equal(run(), expected)
