"""Lengths, resets, gates, learned first states, weight dropout and checkpoints, for all recurrent layers alike."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import ALL, REGULARISED
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gatewise as gw
from gatewise.errors import BackendError, InputError, ShapeError
from gatewise.kernels import ops

T, B, I, H = 7, 5, 4, 6  # noqa: E741
LENGTHS = [3, 7, 0, 5, 1]
every_kind = pytest.mark.parametrize("kind", ALL)
every_backend = pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
both_directions = pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(kind: str, *, num_layers: int = 2, bidirectional: bool = True, backend: str = "auto", **arguments: Any) -> Any:
    name, own, *_ = ALL[kind]
    if backend == "torch" and kind == "GRU-before":
        pytest.skip("backend 'torch' has no reset='before'")
    torch.manual_seed(0)
    sizes = {"num_layers": num_layers, "bidirectional": bidirectional}
    return getattr(gw, name)(I, H, **sizes, backend=backend, **arguments, **own)


def inputs(steps: int = T, batch: int = B, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(steps, batch, I, generator=torch.Generator().manual_seed(1)).to(dtype)


def first_states(layer: Any, batch: int = B) -> Any:
    random = torch.Generator().manual_seed(2)
    count, dtype = layer.num_layers * (2 if layer.bidirectional else 1), layer.weight_ih_l0.dtype
    h0 = torch.randn(count, batch, layer.proj_size or H, generator=random).to(dtype)
    return (h0, torch.randn(count, batch, H, generator=random).to(dtype)) if layer.mode == "LSTM" else h0


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for part in value for tensor in flat(part)]


def rows(hx: Any, which: Any) -> Any:
    return tuple(state[:, which] for state in hx) if isinstance(hx, tuple) else hx[:, which]


def trained(layer: Any, outputs: Any, *leaves: Tensor) -> list[Tensor]:
    """Outputs and gradients of the leaves and parameters, for a loss in which every element has its own weight."""
    outputs = flat(outputs)
    weights = [torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out) for out in outputs]
    loss = torch.stack([(out * weight).sum() for out, weight in zip(outputs, weights, strict=True)]).sum()
    gradients = torch.autograd.grad(loss, [*leaves, *layer.parameters()], allow_unused=True, materialize_grads=True)
    return [*(out.detach() for out in outputs), *gradients]


def assert_close(found: list[Tensor], expected: list[Tensor], limit: float = 1e-5) -> None:
    for value, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(value, exact.to(value.dtype), rtol=limit, atol=limit)


# Lengths


@every_backend
@both_directions
@every_kind
def test_a_row_alone_equals_the_row_in_a_padded_batch(kind, bidirectional, backend):
    layer = make(kind, bidirectional=bidirectional, backend=backend)
    x, hx = inputs(), first_states(layer)
    y, last = layer(x, hx, lengths=torch.tensor(LENGTHS))
    for row, length in enumerate(LENGTHS):
        assert torch.equal(y[length:, row], torch.zeros_like(y[length:, row]))
        expected_last = rows(hx, [row])
        if length > 0:
            alone, expected_last = layer(x[:length, [row]], rows(hx, [row]))
            torch.testing.assert_close(y[:length, [row]], alone, rtol=1e-5, atol=1e-6)
        assert_close(flat(rows(last, [row])), flat(expected_last), 1e-6)


@every_backend
@every_kind
def test_lengths_equal_a_packed_sequence(kind, backend):
    layer, lengths = make(kind, backend=backend), torch.tensor([3, 7, 2, 7, 1])
    x, hx = inputs().requires_grad_(), first_states(layer)
    found = trained(layer, layer(x, hx, lengths=lengths), x)
    output, last = layer(pack_padded_sequence(x, lengths, enforce_sorted=False), hx)
    assert_close(found, trained(layer, (pad_packed_sequence(output)[0], last), x))


@every_backend
@every_kind
def test_what_lies_in_the_padding_reaches_nothing(kind, backend):
    layer, lengths = make(kind, backend=backend), torch.tensor(LENGTHS)
    padding = torch.arange(T)[:, None] >= lengths
    results = []
    for filling in (0.0, torch.nan, torch.inf):
        x = inputs().masked_fill(padding[..., None], filling).requires_grad_()
        results.append(trained(layer, layer(x, first_states(layer), lengths=lengths), x))
        dx = results[-1][3 if "LSTM" in kind else 2]
        assert torch.equal(dx[padding], torch.zeros_like(dx[padding]))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@every_kind
def test_gradients_of_lengths_equal_the_reference_in_float64(kind):
    layer, exact = make(kind), make(kind, backend="reference", dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    found = []
    for module in (layer, exact):
        x = inputs(dtype=module.weight_ih_l0.dtype).requires_grad_()
        found.append(trained(module, module(x, lengths=torch.tensor(LENGTHS)), x))
    assert_close(*found, limit=2e-5)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@every_kind
def test_derivatives_with_lengths(kind, backend):
    layer = make(kind, num_layers=1, backend=backend, dtype=torch.float64)
    x = torch.randn(3, 3, I, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(flat(layer(x, lengths=torch.tensor([2, 0, 3]))))

    assert torch.autograd.gradcheck(run, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_lengths_of_any_integer_dtype(dtype):
    layer, x = make("GRU"), inputs()
    expected = layer(x, lengths=torch.tensor(LENGTHS))
    torch.testing.assert_close(layer(x, lengths=torch.tensor(LENGTHS, dtype=dtype)), expected, rtol=0, atol=0)


@every_backend
@every_kind
def test_forms_of_lengths(kind, backend):
    layer, x, lengths = make(kind, backend=backend), inputs(), torch.tensor(LENGTHS)
    y, last = layer(x, lengths=lengths)
    layer.batch_first = True
    turned, same = layer(x.transpose(0, 1), lengths=lengths)
    assert_close([turned.transpose(0, 1), *flat(same)], [y, *flat(last)])
    for length in (5, torch.tensor(5), torch.tensor(5, dtype=torch.uint8)):
        single, last_single = layer(x[:, 3], lengths=length)
        assert_close([single, *flat(last_single)], [y[:, 3], *flat(rows(last, 3))])


@every_backend
def test_all_rows_empty(backend):
    layer = make("LSTM", backend=backend)
    hx = first_states(layer)
    y, last = layer(inputs(), hx, lengths=torch.zeros(B, dtype=torch.int64))
    assert not y.any()
    assert_close(flat(last), flat(hx), 0)


def test_lengths_compile():
    torch.compiler.reset()
    x = inputs()
    for backend in ("auto", "torch", "reference"):
        layer = make("GRU", num_layers=1, bidirectional=False, backend=backend)
        compiled = torch.compile(layer, backend="eager", fullgraph=backend != "torch")
        for values in (LENGTHS, [7, 7, 1, 0, 2]):
            lengths = torch.tensor(values)
            torch.testing.assert_close(compiled(x, lengths=lengths), layer(x, lengths=lengths))
        with pytest.raises(RuntimeError, match="expected lengths from 0 to"):
            compiled(x, lengths=torch.tensor([7, 8, 1, 0, 2]))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), kind=st.sampled_from([*ALL]), steps=st.integers(1, 6), batch=st.integers(1, 4))
def test_any_lengths_and_resets(data, kind, steps, batch):
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch)))
    marks = data.draw(st.lists(st.booleans(), min_size=steps * batch, max_size=steps * batch))
    resets = torch.tensor(marks).view(steps, batch)
    layer, exact = make(kind), make(kind, backend="reference", dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    found = []
    for module in (layer, exact):
        x = inputs(steps, batch, module.weight_ih_l0.dtype).requires_grad_()
        found.append(trained(module, module(x, first_states(module, batch), lengths=lengths, resets=resets), x))
    assert_close(*found, limit=5e-5)


# Resets


def pieces(marks: Tensor) -> list[slice]:
    """The sequences of a row (T,) bool, each as a slice of its steps."""
    bounds = sorted({0, *marks.nonzero().flatten().tolist(), len(marks)})
    return [slice(a, b) for a, b in pairwise(bounds)]


RESETS = torch.rand(T, B, generator=torch.Generator().manual_seed(5)) < 0.35


@pytest.mark.parametrize("backend", ["auto", "reference"])
@both_directions
@every_kind
def test_resets_equal_the_sequences_one_by_one(kind, bidirectional, backend):
    """Through all layers, for each of which a mark is the border between two sequences."""
    layer = make(kind, bidirectional=bidirectional, backend=backend)
    x, hx = inputs().requires_grad_(), first_states(layer)
    y, last = layer(x, hx, resets=RESETS)
    expected = torch.zeros_like(y)
    size = layer.proj_size or H
    for row in range(B):
        parts = [layer(x[piece, [row]], rows(hx, [row])) for piece in pieces(RESETS[:, row])]
        expected[:, row] = torch.cat([part for part, _ in parts])[:, 0]
        for i, state in enumerate(flat(rows(last, row))):
            forward, backward = flat(parts[-1][1])[i][:, 0], flat(parts[0][1])[i][:, 0]
            ends = [(backward if bidirectional and k % 2 else forward)[k] for k in range(len(state))]
            torch.testing.assert_close(state, torch.stack(ends), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    assert_close(trained(layer, y[..., :size], x), trained(layer, expected[..., :size], x))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@every_kind
def test_gradients_stop_at_a_reset(kind, backend):
    layer = make(kind, num_layers=1, bidirectional=False, backend=backend)
    x = inputs().requires_grad_()
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[4, 1] = True
    y, _ = layer(x, resets=resets)
    (dx,) = torch.autograd.grad(y[5].sum(), x)
    assert not dx[:4, 1].any()
    assert dx[4:6, 1].abs().sum(-1).all()
    assert dx[:6, [0, 2, 3, 4]].abs().sum(-1).all() or kind == "RNN-relu"


@every_kind
def test_forms_of_resets(kind):
    layer, x = make(kind), inputs()
    y, last = layer(x, resets=RESETS)
    layer.batch_first = True
    turned, same = layer(x.transpose(0, 1), resets=RESETS.T)
    assert_close([turned.transpose(0, 1), *flat(same)], [y, *flat(last)])
    single, last_single = layer(x[:, 3], resets=RESETS[:, 3])
    assert_close([single, *flat(last_single)], [y[:, 3], *flat(rows(last, 3))])


# Gates


def assert_equations(kind: str, gates: dict[str, Tensor], first: Any, reverse: bool, weight_hr: Tensor | None) -> None:
    """The states follow from the gates."""
    h, known = gates["h"], ALL[kind].cell.gates
    assert tuple(gates) == (*known, "h")
    if not known:
        return
    steps = reversed(range(len(h))) if reverse else range(len(h))
    for t in steps:
        g = {gate: value[t] for gate, value in gates.items()}
        if "z" in g:
            first = ((1 - g["z"]) * g["n"] + g["z"] * first[0],)
        else:
            c = g["f"] * first[1] + g["i"] * g["g"]
            torch.testing.assert_close(g["c"], c, rtol=1e-5, atol=1e-6)
            shown = g["o"] * torch.tanh(c)
            first = (shown if weight_hr is None else shown @ weight_hr.T, c)
        torch.testing.assert_close(g["h"], first[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@both_directions
@every_kind
def test_the_states_follow_from_the_gates(kind, bidirectional, backend):
    layer = make(kind, bidirectional=bidirectional, backend=backend)
    x, hx = inputs(), first_states(layer)
    y, last, gates = layer(x, hx, return_gates=True)
    suffixes = ["l0", "l0_reverse", "l1", "l1_reverse"] if bidirectional else ["l0", "l1"]
    assert list(gates) == suffixes
    torch.testing.assert_close((y, last), layer(x, hx), rtol=0, atol=1e-6)
    assert torch.equal(torch.cat([gates[s]["h"] for s in suffixes if "l1" in s], -1), y)
    firsts = list(zip(*(hx if isinstance(hx, tuple) else (hx,)), strict=True))
    for suffix, first in zip(suffixes, firsts, strict=True):
        assert not any(gate.requires_grad for gate in gates[suffix].values())
        weight_hr = getattr(layer, f"weight_hr_{suffix}", None)
        assert_equations(kind, gates[suffix], first, "reverse" in suffix, weight_hr)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@every_kind
def test_gates_are_the_same_in_every_form(kind, backend):
    layer, x, lengths = make(kind, backend=backend), inputs(), torch.tensor([3, 7, 2, 5, 1])
    exact = make(kind, backend="reference", dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    _, _, expected = exact(x.double(), lengths=lengths, return_gates=True)
    padding = torch.arange(T)[:, None] >= lengths
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    for form in ("padded", "padded-without-tape", "packed", "batch-first", "single"):
        layer.batch_first = form == "batch-first"
        if form == "padded":
            _, _, gates = layer(x, lengths=lengths, return_gates=True)
        elif form == "padded-without-tape":
            with torch.no_grad():
                _, _, gates = layer(x, lengths=lengths, return_gates=True)
        elif form == "packed":
            _, _, gates = layer(packed, return_gates=True)
        elif form == "batch-first":
            _, _, gates = layer(x.transpose(0, 1), lengths=lengths, return_gates=True)
        else:
            _, _, gates = layer(x[:, 1], return_gates=True)
        for suffix, named in expected.items():
            assert list(gates[suffix]) == list(named)
            for name, exact_gate in named.items():
                gate = gates[suffix][name]
                assert not exact_gate[padding].any()
                if form == "packed":
                    gate = pad_packed_sequence(packed._replace(data=gate))[0]
                elif form == "batch-first":
                    gate = gate.transpose(0, 1)
                elif form == "single":
                    exact_gate = exact_gate[:, 1]
                torch.testing.assert_close(gate.double(), exact_gate, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@every_kind
def test_gates_with_resets(kind, backend):
    layer, x = make(kind, backend=backend), inputs()
    exact = make(kind, backend="reference", dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    _, _, gates = layer(x, resets=RESETS, return_gates=True)
    _, _, expected = exact(x.double(), resets=RESETS, return_gates=True)
    for suffix, named in expected.items():
        for name, gate in named.items():
            torch.testing.assert_close(gates[suffix][name].double(), gate, rtol=0, atol=1e-5)


# Learned first states, weight dropout


@every_kind
def test_learned_first_states(kind):
    plain, layer = make(kind), make(kind, learn_initial_state=True)
    learned = ["h0", "c0"] if "LSTM" in kind else ["h0"]
    assert list(layer.state_dict()) == [*plain.state_dict(), *learned]
    assert [tuple(layer.get_parameter(name).shape) for name in learned] == [
        (4, layer.proj_size or H),
        (4, H),
    ][: len(learned)]
    x = inputs()
    torch.testing.assert_close(layer(x), plain(x))
    with torch.no_grad():
        for name in learned:
            layer.get_parameter(name).normal_()
    hx = tuple(layer.get_parameter(name).unsqueeze(1).expand(-1, B, -1) for name in learned)
    given: Any = hx if "LSTM" in kind else hx[0]
    for how in ({}, {"resets": RESETS}, {"lengths": torch.tensor(LENGTHS)}):
        torch.testing.assert_close(layer(x, **how), plain(x, given, **how))
    torch.testing.assert_close(layer(x[:, 0]), plain(x[:, 0], rows(given, 0)))
    zeros = tuple(torch.zeros_like(state) for state in hx)
    torch.testing.assert_close(layer(x, zeros if "LSTM" in kind else zeros[0]), plain(x))

    layer(x)[0].sum().backward()
    assert all(layer.get_parameter(name).grad.abs().sum() > 0 for name in learned)
    layer.reset_parameters()
    assert not any(layer.get_parameter(name).any() for name in learned)
    assert layer.double()(x.double())[0].dtype == torch.float64


@pytest.mark.parametrize("kind", REGULARISED)
def test_weight_dropout(kind):
    plain, layer = make(kind), make(kind, weight_dropout=0.5)
    x = inputs()
    generator_state = torch.get_rng_state()
    torch.testing.assert_close(layer.eval()(x), plain(x), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), generator_state)

    layer.train()
    torch.manual_seed(4)
    expected = layer(x)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            if "weight_hh" in name:
                weight.copy_(torch.nn.functional.dropout(weight, 0.5))
    torch.testing.assert_close(plain(x), expected)  # one mask for all steps
    assert (layer(x)[0] - expected[0]).abs().max() > 1e-3
    expected[0].sum().backward()
    weights = {name: p for name, p in layer.named_parameters() if "weight_hh" in name}
    for name, weight in weights.items():
        dropped = plain.get_parameter(name) == 0
        assert 0.2 < dropped.float().mean() < 0.8
        assert not weight.grad[dropped].any()
    assert list(layer.state_dict()) == list(plain.state_dict())


# Checkpoints


@every_backend
@pytest.mark.parametrize("k", [1, 3, 100])
@every_kind
def test_checkpoints_change_nothing(kind, k, backend):
    layer = make(kind, backend=backend)
    x, hx, lengths = inputs().requires_grad_(), first_states(layer), torch.tensor([3, 7, 2, 7, 1])
    for how in ({}, {"lengths": torch.tensor(LENGTHS)}, {"resets": RESETS}):
        if backend != "torch" or "resets" not in how:
            expected = trained(layer, layer(x, hx, **how), x)
            assert_close(trained(layer, layer(x, hx, checkpoint_every=k, **how), x), expected)
    results = []
    for every in (None, k):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        output, last = layer(packed, hx, checkpoint_every=every)
        results.append(trained(layer, (output.data, last), x))
    assert_close(*results)


def test_gates_with_checkpoints():
    layer, x = make("LSTM", backend="reference"), inputs()
    _, _, expected = layer(x, return_gates=True)
    _, _, gates = layer(x, return_gates=True, checkpoint_every=2)
    torch.testing.assert_close(gates, expected, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_derivatives_with_checkpoints(backend):
    layer = make("GRU", num_layers=1, backend=backend, dtype=torch.float64)
    x = torch.randn(3, 2, I, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(layer(x, checkpoint_every=2)), (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: tuple(layer(x, checkpoint_every=2)), (x,), fast_mode=True)


# Transforms and devices


@pytest.mark.parametrize("backend", ["auto", "reference"])
@every_kind
def test_gradients_of_each_sample(kind, backend):
    layer = make(kind, num_layers=1, backend=backend)
    x, lengths = inputs(), torch.tensor([3, 7, 2, 5, 1])
    parameters = dict(layer.named_parameters())

    def loss(values: dict[str, Tensor], x: Tensor, **how: Tensor) -> Tensor:
        return torch.func.functional_call(layer, values, (x,), how)[0].square().sum()

    def of_each(x: Tensor, length: Tensor, resets: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        differentiate = torch.func.grad(loss)
        return differentiate(parameters, x), differentiate(parameters, x, lengths=length, resets=resets)

    plain, described = torch.func.vmap(of_each, (1, 0, 1))(x, lengths, RESETS)
    for row in range(B):
        for found, how in ((plain, {}), (described, {"lengths": lengths[row], "resets": RESETS[:, row]})):
            layer.zero_grad()
            loss(parameters, x[:, row], **how).backward()
            for name, parameter in parameters.items():
                torch.testing.assert_close(found[name][row], parameter.grad, rtol=1e-4, atol=1e-5)


@every_kind
def test_on_the_meta_device(kind):
    layer = make(kind, device="meta")
    x, lengths = inputs().to("meta"), torch.tensor(LENGTHS)
    for how in ({"lengths": lengths.to("meta")}, {"resets": RESETS}):
        y, _, gates = layer(x, return_gates=True, **how)
        assert y.shape == (T, B, 2 * (layer.proj_size or H))
        assert y.device.type == gates["l1_reverse"]["h"].device.type == "meta"


# Mistakes


X = torch.zeros(T, B, I)
PACKED = pack_padded_sequence(X, [7, 7, 3, 2, 1])
TOGETHER = (
    "cannot be given together with a PackedSequence, which has its own order of rows; pass the padded batch with "
    "lengths instead"
)
MISTAKES: dict[str, tuple[type[Exception], str, Any, dict[str, Any]]] = {
    "lengths-beyond": (
        InputError,
        "expected lengths from 0 to 7, the number of steps of x, got 8 for row 1; shorten it or pad x",
        X,
        {"lengths": torch.tensor([7, 8, 1, 2, 3])},
    ),
    "lengths-negative": (
        InputError,
        "expected lengths from 0 to 7, the number of steps of x, got -1 for row 2; a length counts steps from the "
        "first",
        X,
        {"lengths": torch.tensor([7, 7, -1, 2, 3])},
    ),
    "lengths-count": (
        ShapeError,
        "expected lengths (5,), one for each of the 5 rows of x, got (4,)",
        X,
        {"lengths": torch.ones(4, dtype=torch.int64)},
    ),
    "lengths-rank": (
        ShapeError,
        "expected lengths (5,), one for each of the 5 rows of x, got (5, 1)",
        X,
        {"lengths": torch.ones(5, 1, dtype=torch.int64)},
    ),
    "lengths-float": (
        ShapeError,
        "expected lengths (B,) of an integer dtype, got torch.float32; convert them: lengths.long()",
        X,
        {"lengths": torch.ones(5)},
    ),
    "lengths-bool": (
        ShapeError,
        "expected lengths (B,) of an integer dtype, got torch.bool; convert them: lengths.long()",
        X,
        {"lengths": torch.ones(5, dtype=torch.bool)},
    ),
    "lengths-list": (
        InputError,
        "expected lengths to be a tensor (5,) of whole numbers, got list; use torch.tensor(lengths)",
        X,
        {"lengths": [1] * 5},
    ),
    "lengths-single": (
        ShapeError,
        "expected lengths of a single sequence (T, I) to be one whole number, got (1,)",
        X[:, 0],
        {"lengths": torch.tensor([3])},
    ),
    "lengths-single-beyond": (
        InputError,
        "expected lengths from 0 to 7, the number of steps of x, got 9 for row 0; shorten it or pad x",
        X[:, 0],
        {"lengths": 9},
    ),
    "lengths-packed": (InputError, f"lengths {TOGETHER}", PACKED, {"lengths": torch.ones(5, dtype=torch.int64)}),
    "resets-packed": (InputError, f"resets {TOGETHER}", PACKED, {"resets": torch.zeros(T, B, dtype=torch.bool)}),
    "resets-shape": (
        ShapeError,
        "expected resets (T, B) = (7, 5) for this x, got (5, 7)",
        X,
        {"resets": torch.zeros(B, T, dtype=torch.bool)},
    ),
    "resets-shape-single": (
        ShapeError,
        "expected resets (T,) = (7,) for this x, got (7, 1)",
        X[:, 0],
        {"resets": torch.zeros(T, 1, dtype=torch.bool)},
    ),
    "resets-dtype": (
        ShapeError,
        "expected resets (T, B) to be torch.bool, got torch.float32; convert them: resets != 0",
        X,
        {"resets": torch.zeros(T, B)},
    ),
    "resets-list": (
        InputError,
        "expected resets to be a boolean tensor (T, B) = (7, 5), got list; use torch.tensor(resets)",
        X,
        {"resets": [[False] * B] * T},
    ),
    **{
        f"checkpoint-{every!r}": (
            InputError,
            f"expected checkpoint_every to be a whole number of steps >= 1, or None, got {every!r}",
            given,
            {"checkpoint_every": every},
        )
        for every, given in ((0, X), (-3, PACKED), (2.0, X), (True, X), ("2", PACKED))
    },
}


@pytest.mark.parametrize("name", sorted({kind.layer for kind in ALL.values()}))
@pytest.mark.parametrize(("error", "message", "input", "how"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(name, error, message, input, how):
    with pytest.raises(error) as raised:
        getattr(gw, name)(I, H)(input, **how)
    assert type(raised.value) is error
    assert str(raised.value).removeprefix(f"{name}: ") == message
    assert str(raised.value).startswith(f"{name}: ")


def test_resets_of_a_batch_first_layer_are_batch_first():
    layer = gw.GRU(I, H, batch_first=True)
    with pytest.raises(ShapeError) as error:
        layer(X.transpose(0, 1), resets=torch.zeros(T, B, dtype=torch.bool))
    assert str(error.value) == "GRU: expected resets (B, T) = (5, 7) for this x, got (7, 5)"


@pytest.mark.parametrize("name", ["GRU", "LSTM", "RNN"])
def test_what_torchs_kernels_lack(name):
    layer = getattr(gw, name)(I, H, backend="torch")
    for how, what in (
        ({"resets": torch.zeros(T, B, dtype=torch.bool)}, "resets"),
        ({"return_gates": True}, "gates"),
    ):
        with pytest.raises(BackendError) as error:
            layer(X, **how)
        assert str(error.value) == f"{name.lower()}: backend 'torch' has no {what}; use backend='auto'"


def test_a_projection_is_native_but_not_with_what_regularises():
    if not ops.native_status().available:
        pytest.skip("no native kernel in this installation")
    gw.LSTM(I, H, proj_size=2, backend="native")(X)
    with pytest.raises(BackendError) as error:
        gw.LSTM(I, H, proj_size=2, backend="native", layer_norm=True)(X)
    what = "projection together with regularisation"
    assert str(error.value) == f"lstm: backend 'native' has no {what}; use backend='auto'"
