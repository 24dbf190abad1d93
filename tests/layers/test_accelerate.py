"""gw.accelerate: gatewise's layers inside models of torch's, and back."""

import copy
import io
import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.nn.utils.weight_norm import weight_norm

import gatewise as gw
from gatewise.errors import BackendError, InputError
from gatewise.kernels import ops

T, B, I, H = 6, 4, 5, 7  # noqa: E741
OURS = (gw.GRU, gw.LSTM, gw.RNN, gw.GRUCell, gw.LSTMCell, gw.RNNCell)


class Block(nn.Module):
    """A GRU in both directions, some levels down."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(H, H), nn.GRU(H, H, bidirectional=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0].unflatten(-1, (2, H)).sum(-2)


class Model(nn.Module):
    """GRUs at several depths, one at two places, tied weights, a buffer, a cell, and an LSTM."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(I, H, num_layers=2, batch_first=True)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.shared = nn.GRU(H, H)
        self.again = self.shared
        self.tied = nn.GRU(H, H)
        self.tied.weight_hh_l0 = self.shared.weight_hh_l0
        self.tied.register_buffer("scale", torch.tensor(0.5))
        self.cell = nn.GRUCell(H, H)
        self.lstm = nn.LSTM(H, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.transpose(0, 1))[0].transpose(0, 1)
        for block in self.blocks:
            x = block(x)
        x = self.tied(self.again(self.shared(x)[0])[0])[0] * self.tied.scale
        return self.lstm(torch.stack([self.cell(step) for step in x]))[0]


SWAPPED = ["first", "blocks.0.inner.1", "blocks.1.inner.1", "shared", "tied", "cell", "lstm"]


def model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model()


def batch(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(T, B, I, generator=torch.Generator().manual_seed(1)).to(dtype)


def flattened(outputs: Any) -> list[Tensor]:
    """The tensors among what a module gives."""
    if isinstance(outputs, PackedSequence):
        return [outputs.data]
    return [outputs] if isinstance(outputs, Tensor) else [tensor for out in outputs for tensor in flattened(out)]


def outcome(module: nn.Module, *inputs: Tensor | PackedSequence) -> dict[str, Tensor]:
    """Every output and the gradient of every parameter, by name; the outputs weigh differently in the gradients."""
    module.zero_grad()
    torch.manual_seed(2)  # of the dropout masks
    outputs = flattened(module(*inputs))
    torch.autograd.backward(outputs, [torch.randn_like(out) for out in outputs])
    gradients = {f"gradient of {name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {f"output {i}": out.detach() for i, out in enumerate(outputs)} | gradients


def assert_close(values: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(values) == list(expected)
    for name, exact in expected.items():
        error = (values[name] - exact).abs().max() / exact.abs().max().clamp(min=1e-30)
        assert error.item() < 1e-5, name


def assert_same(values: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(values) == list(expected)
    assert [name for name in values if not torch.equal(values[name], expected[name])] == []


# Values


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("form", ["batch", "single", "packed"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"bias": False, "batch_first": True}, {"num_layers": 3, "bidirectional": True, "dropout": 0.4}],
    ids=["plain", "no-bias-batch-first", "stacked-both-ways-dropout"],
)
def test_layer_computes_the_same(arguments: dict[str, Any], form: str, kind: str):
    layer = getattr(nn, kind)(I, H, **arguments)
    x: Tensor | PackedSequence = batch()
    if form == "single":
        x = x[:, 0]
    elif form == "packed":
        x = pack_padded_sequence(x, torch.tensor([3, T, 1, 4]), enforce_sorted=False)
    expected = outcome(layer, x)
    with gw.accelerate(layer) as report:
        assert report.swapped == [""]
        assert type(layer) is getattr(gw, kind)
        assert_close(outcome(layer, x), expected)
    assert type(layer) is getattr(nn, kind)
    assert_same(outcome(layer, x), expected)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "layer",
    [lambda: nn.LSTM(I, H, 2, proj_size=3, bidirectional=True), lambda: nn.RNN(I, H, 2, nonlinearity="relu")],
    ids=["projection", "relu"],
)
def test_what_one_kind_alone_has(layer: Callable[[], nn.Module]):
    module = layer()
    expected = outcome(module, batch())
    with gw.accelerate(module) as report:
        assert report.swapped == [""]
        assert_close(outcome(module, batch()), expected)
    assert_same(outcome(module, batch()), expected)


@pytest.mark.parametrize("kind", ["GRUCell", "LSTMCell", "RNNCell"])
@pytest.mark.parametrize("first", ["zeros", "hx"])
def test_cell_computes_the_same(first: str, kind: str):
    cell, state = getattr(nn, kind)(I, H), torch.ones(B, H)
    inputs: Any = (batch()[0],)
    if first == "hx":
        inputs += ((state, state / 2) if kind == "LSTMCell" else state,)
    expected = outcome(cell, *inputs)
    with gw.accelerate(cell):
        assert type(cell) is getattr(gw, kind)
        assert_close(outcome(cell, *inputs), expected)
    assert type(cell) is getattr(nn, kind)
    assert_same(outcome(cell, *inputs), expected)


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_model_computes_the_same(backend: str):
    net = model()
    expected = outcome(net, batch())
    with gw.accelerate(net, backend=backend):
        assert net.cell.backend == net.first.backend == backend
        assert_close(outcome(net, batch()), expected)
    assert_same(outcome(net, batch()), expected)


# What stays


def test_swaps_every_gru_once_and_keeps_all_else():
    net = model().eval()
    net.first.weight_ih_l0.requires_grad_(False)

    def identities() -> list[tuple[str, int]]:
        named = [*net.named_modules(remove_duplicate=False), *net.named_parameters(), *net.named_buffers()]
        return [(name, id(thing)) for name, thing in [*named, *net.state_dict(keep_vars=True).items()]]

    expected, attributes = identities(), [list(vars(module)) for module in net.modules()]
    report = gw.accelerate(net)
    assert report.swapped == SWAPPED
    assert [name for name, module in net.named_modules() if isinstance(module, OURS)] == SWAPPED
    assert identities() == expected
    assert not any(module.training for module in net.modules())
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["first.weight_ih_l0"]

    report.undo()
    assert identities() == expected
    assert [list(vars(module)) for module in net.modules()] == attributes
    assert [type(module) for module in net.modules()] == [type(module) for module in Model().modules()]


def test_hooks_stay():
    net, seen = model(), []
    net.shared.register_forward_pre_hook(lambda *_: seen.append("forward pre"))
    net.shared.register_forward_hook(lambda *_: seen.append("forward"))
    net.shared.register_full_backward_pre_hook(lambda *_: seen.append("backward pre"))
    net.shared.register_full_backward_hook(lambda *_: seen.append("backward"))
    net.shared.register_state_dict_pre_hook(lambda *_: seen.append("state dict pre"))
    net.shared._register_state_dict_hook(lambda *_: seen.append("state dict"))
    net.shared.register_load_state_dict_pre_hook(lambda *_: seen.append("load pre"))
    net.shared.register_load_state_dict_post_hook(lambda *_: seen.append("load"))

    def run() -> list[str]:
        seen.clear()
        outcome(net, batch())
        net.load_state_dict(net.state_dict())
        return seen.copy()

    expected = run()
    assert len(set(expected)) == 8
    with gw.accelerate(net):
        assert run() == expected
    assert run() == expected


@pytest.mark.parametrize(
    "optimizer",
    [lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.Adam(p, 1e-2, eps=1e-3)],
    ids=["sgd", "adam"],
)
def test_an_optimizer_steps_on(optimizer: Callable[..., torch.optim.Optimizer]):
    net, twin = model(), model()
    steps, twin_steps = optimizer(net.parameters()), optimizer(twin.parameters())

    def train():
        for module, step in ((net, steps), (twin, twin_steps)):
            for _ in range(3):
                outcome(module, batch())
                step.step()

    train()
    with gw.accelerate(net):
        before = net.get_parameter("shared.weight_hh_l0").detach().clone()
        train()
        assert not torch.equal(net.get_parameter("shared.weight_hh_l0"), before)
        assert_close(net.state_dict(), twin.state_dict())
    train()
    assert_close(net.state_dict(), twin.state_dict())


# Copies and files


def test_state_dicts_go_both_ways():
    net, plain = model(), model(seed=3)
    gw.accelerate(net)
    assert list(net.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(net.state_dict())
    assert_close(outcome(net, batch()), outcome(plain, batch()))
    net.load_state_dict(model(seed=4).state_dict())
    assert_close(outcome(net, batch()), outcome(model(seed=4), batch()))


def save_and_load(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), save_and_load],
    ids=["copy", "pickle", "save"],
)
def test_a_copy_is_accelerated_too(duplicate: Callable[[Model], Model]):
    net = model()
    report = gw.accelerate(net)
    other = duplicate(net)
    report.undo()
    assert type(net.first) is nn.GRU
    assert type(other.first) is gw.GRU
    assert other.again is other.shared
    assert_close(outcome(other, batch()), outcome(net, batch()))


def test_a_copy_with_its_report_is_undone_alone():
    net = model()
    other, report = copy.deepcopy((net, gw.accelerate(net)))
    report.undo()
    assert type(other.first) is nn.GRU
    assert type(net.first) is gw.GRU


# The way back


def to_double(net: Model) -> None:
    net.to(torch.float64)


def to_and_fro(net: Model) -> None:
    net.to("meta").to_empty(device="cpu")
    net.load_state_dict(model(seed=5).state_dict())


def train(net: Model) -> None:
    outcome(net, batch())
    torch.optim.SGD(net.parameters(), 0.1).step()


def load(net: Model) -> None:
    net.load_state_dict(model(seed=5).state_dict())


def load_by_assignment(net: Model) -> None:
    net.load_state_dict(model(seed=5).state_dict(), assign=True)


def duplicate(net: Model) -> None:
    copy.deepcopy(net).to(torch.float64)


@pytest.mark.parametrize("meanwhile", [train, load, load_by_assignment, to_double, to_and_fro, duplicate])
def test_undo_whatever_happened_meanwhile(meanwhile: Callable[[Model], None]):
    net = model()
    report = gw.accelerate(net)
    outcome(net, batch())
    meanwhile(net)
    report.undo()
    never = model()
    meanwhile(never)
    never.load_state_dict(net.state_dict())
    dtype = next(net.parameters()).dtype
    assert [type(module) for module in net.modules()] == [type(module) for module in never.modules()]
    assert_same(outcome(net, batch(dtype)), outcome(never, batch(dtype)))


def test_undo_after_an_exception():
    net = model()
    with pytest.raises(KeyError), gw.accelerate(net):
        raise KeyError
    assert type(net.first) is nn.GRU


def test_twice_is_harmless():
    net = model()
    outer = gw.accelerate(net)
    inner = gw.accelerate(net, backend="torch")
    assert inner.swapped == []
    assert set(inner.left) == {*SWAPPED}
    inner.undo()
    assert type(net.first) is gw.GRU
    assert net.first.backend == "auto"
    outer.undo()
    assert type(net.first) is nn.GRU

    later = gw.accelerate(net)
    outer.undo()
    assert type(net.first) is gw.GRU
    later.undo()
    later.undo()
    assert type(net.first) is nn.GRU


# Weights that are computed from others


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def add_parametrizations(module: nn.Module, ih: str, hh: str) -> None:
    parametrize.register_parametrization(module, hh, Half())
    parametrizations.weight_norm(module, ih)


def add_weight_norm(module: nn.Module, ih: str, hh: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        weight_norm(module, hh)


def add_pruning(module: nn.Module, ih: str, hh: str) -> None:
    prune.l1_unstructured(module, hh, amount=0.5)


LAYERS = {
    "GRU": lambda: (nn.GRU(I, H), "weight_ih_l0", "weight_hh_l0"),
    "LSTM": lambda: (nn.LSTM(I, H), "weight_ih_l0", "weight_hh_l0"),
    "RNN": lambda: (nn.RNN(I, H), "weight_ih_l0", "weight_hh_l0"),
    "GRUCell": lambda: (nn.GRUCell(I, H), "weight_ih", "weight_hh"),
    "LSTMCell": lambda: (nn.LSTMCell(I, H), "weight_ih", "weight_hh"),
    "RNNCell": lambda: (nn.RNNCell(I, H), "weight_ih", "weight_hh"),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("compute_weights", [add_parametrizations, add_weight_norm, add_pruning])
def test_computed_weights_are_carried(compute_weights: Callable[..., None], layer: Callable[[], tuple]):
    module, ih, hh = layer()
    x = batch() if hh.endswith("l0") else batch()[0]
    compute_weights(module, ih, hh)
    for _ in range(2):
        expected = outcome(module, x)
        with gw.accelerate(module) as report:
            assert report.swapped == [""]
            assert isinstance(module, OURS)
            assert_close(outcome(module, x), expected)
        assert not isinstance(module, OURS)
        assert_same(outcome(module, x), expected)
        torch.optim.SGD(module.parameters(), 0.1).step()


def test_parametrizations_may_come_and_go_meanwhile():
    module = nn.GRU(I, H)
    with gw.accelerate(module):
        parametrize.register_parametrization(module, "weight_hh_l0", Half())
        expected = outcome(module, batch())
        other = copy.deepcopy(module)
    assert parametrize.is_parametrized(module, "weight_hh_l0")
    assert isinstance(module, nn.GRU)
    assert isinstance(other, gw.GRU)
    assert_close(outcome(module, batch()), expected)
    assert_close(outcome(other, batch()), expected)

    report = gw.accelerate(module)
    parametrize.remove_parametrizations(module, "weight_hh_l0")
    assert type(module) is gw.GRU
    report.undo()
    assert type(module) is nn.GRU


# What is left, and the report


class Peephole(nn.GRU):
    def forward(self, input: Any, hx: Tensor | None = None) -> Any:
        output, hn = super().forward(input, hx)
        return output + 1, hn


class Ran(nn.RNNCellBase):
    def __init__(self):
        super().__init__(I, H, True, num_chunks=2)


def test_report():
    net = nn.Sequential(nn.GRU(I, H), nn.GRU(I, H), Peephole(I, H), Ran(), nn.RNN(I, H), nn.LSTM(I, H))
    net.append(gw.GRU(I, H, reset="before"))
    vars(net[1])["forward"] = lambda x: (x, None)
    report = gw.accelerate(net)
    assert report.swapped == ["0", "4", "5"]
    assert list(report.left) == ["1", "2", "3", "6"]
    assert str(report) == (
        "swapped 3 (0, 4, 5)\n"
        "left 1 (1): its forward was replaced and may compute something else\n"
        "left 1 (2): Peephole is a subclass of torch's and may compute something else\n"
        "left 1 (3): Ran is none of torch's layers\n"
        "left 1 (6): computed by gatewise already, with backend 'auto'"
    )
    assert type(net[2]) is Peephole
    assert str(gw.accelerate(nn.GRUCell(I, H))) == "swapped 1 (the model itself)"
    assert str(gw.accelerate(nn.Linear(I, H))) == "swapped nothing"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_scripted_and_quantized_are_left():
    scripted = torch.jit.script(nn.Sequential(nn.GRU(I, H)))
    assert gw.accelerate(scripted).left == {"0": "scripted, its code is fixed"}
    if torch.backends.quantized.engine == "none":
        pytest.skip("this torch has no engine for quantized layers")
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.GRU(I, H)), {nn.GRU})
    assert gw.accelerate(quantized).left == {"0": "quantized"}


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "backend", "message"),
    [
        ([nn.GRU(I, H)], "auto", "accelerate: expected model to be a torch.nn.Module, got list"),
        (nn.GRU, "auto", "accelerate: expected model to be a torch.nn.Module, got type"),
        (None, "auto", "accelerate: expected model to be a torch.nn.Module, got NoneType"),
        (nn.GRU(I, H), "cuda", "accelerate: unknown backend 'cuda'; expected one of auto, native, torch, reference"),
    ],
    ids=["list", "class", "none", "backend"],
)
def test_mistakes(arguments: Any, backend: str, message: str):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        gw.accelerate(arguments, backend=backend)
    assert not isinstance(arguments, gw.GRU)


def test_undo_tells_what_it_cannot_restore():
    class Wrapped(gw.GRU):
        pass

    first = nn.GRU(I, H)
    net = nn.Sequential(first, nn.GRU(I, H))
    report = gw.accelerate(net)
    first.__class__ = Wrapped  # pyright: ignore[reportAttributeAccessIssue]
    message = (
        "undo: cannot restore 0: expected it to be a GRU of gatewise, but its class has become "
        "test_undo_tells_what_it_cannot_restore.<locals>.Wrapped since; reverse that, then undo again"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        report.undo()
    assert [type(module) for module in net] == [Wrapped, nn.GRU]
    first.__class__ = gw.GRU  # pyright: ignore[reportAttributeAccessIssue]
    report.undo()
    assert [type(module) for module in net] == [nn.GRU, nn.GRU]


def test_a_backend_that_cannot_serve_says_so_when_it_is_called():
    layer = nn.GRU(I, H, dtype=torch.float64)
    gw.accelerate(layer, backend="native")
    if not ops.native_status().available:
        pytest.skip("no native kernel in this installation")
    with pytest.raises(BackendError, match="float64"):
        layer(batch(torch.float64))
