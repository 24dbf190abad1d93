"""Recurrent dropout, zoneout and layer normalisation, for all recurrent layers alike."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from kinds import REGULARISED, without_projection
from torch import Tensor
from torch.nn.functional import layer_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gatewise as gw
from gatewise.errors import BackendError, InputError, ShapeError
from gatewise.kernels import ops
from gatewise.kernels.regularisation import Regularisation, normalised

T, B, I, H = 5, 4, 3, 4  # noqa: E741
LENGTHS = torch.tensor([3, 5, 0, 4])
RESETS = torch.rand(T, B, generator=torch.Generator().manual_seed(5)) < 0.35
# A projection to half of the units, which are fewer here than elsewhere.
KINDS = REGULARISED | {"LSTM-projection": REGULARISED["LSTM-projection"]._replace(options={"proj_size": 2})}
NATIVE = without_projection(KINDS)
OPTIONS: dict[str, dict[str, Any]] = {
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "zoneout": {"zoneout": 0.3},
    "layer_norm": {"layer_norm": True},
    "all": {"recurrent_dropout": 0.4, "zoneout": 0.3, "layer_norm": True},
}
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
every_kind = pytest.mark.parametrize("kind", REGULARISED)
every_option = pytest.mark.parametrize("option", OPTIONS)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(kind: str, *, num_layers: int = 2, bidirectional: bool = True, **arguments: Any) -> Any:
    """A layer, with gains and shifts of normalisation that differ."""
    name, own, *_ = KINDS[kind]
    torch.manual_seed(0)
    layer = getattr(gw, name)(I, H, num_layers, bidirectional=bidirectional, **arguments, **own)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("norm"):
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return layer


def inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(T, B, I, generator=torch.Generator().manual_seed(1)).to(dtype)


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for part in value for tensor in flat(part)]


def seeded(layer: Any, *arguments: Any, **how: Any) -> Any:
    torch.manual_seed(7)
    return layer(*arguments, **how)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the layers' calls of ops are given as regularisation, from here on."""
    calls: list[Any] = []

    def recording(op: Any) -> Any:
        def call(*arguments: Any, **how: Any) -> Any:
            calls.append(how.get("regularisation"))
            return op(*arguments, **how)

        return call

    for name in ("gru", "lstm", "rnn"):
        monkeypatch.setattr(ops, name, recording(getattr(ops, name)))
    return calls


# Values, against the equations


def ln(sums: Tensor, gain: Tensor | None) -> Tensor:
    return sums if gain is None else layer_norm(sums, sums.shape, gain)


def one_step(kind: str, x: Tensor, h: Tensor, c: Tensor, w: list[Any], r: Any, k_h: Any, k_c: Any, m: Any) -> Any:
    """The state, the cell and the gates of one row after one step."""
    w_i, w_h, b_i, b_h, *w_r = w
    g_i, g_h, seen = r.norm_ih, r.norm_hh, m * h
    parts = [slice(0, 2 * H), slice(2 * H, 3 * H)] if "GRU" in kind else [slice(None)]
    of_x = torch.cat([ln(w_i[p] @ x, None if g_i is None else g_i[p]) for p in parts]) + b_i
    gates: dict[str, Tensor] = {}
    if "GRU" in kind:
        rz, n = parts
        of_h = ln(w_h[rz] @ seen, None if g_h is None else g_h[rz]) + b_h[rz]
        reset, z = torch.sigmoid(of_x[rz] + of_h).split(H)
        gain = None if g_h is None else g_h[n]
        if kind == "GRU-before":
            n = torch.tanh(of_x[n] + ln(w_h[n] @ (reset * seen), gain) + b_h[n])
        else:
            n = torch.tanh(of_x[n] + reset * (ln(w_h[n] @ seen, gain) + b_h[n]))
        gates, new = {"r": reset, "z": z, "n": n}, (1 - z) * n + z * h
    else:
        sums = of_x + ln(w_h @ seen, g_h) + b_h
        if "RNN" in kind:
            new = sums.clamp(min=0) if kind == "RNN-relu" else sums.tanh()
        else:
            i, f, g, o = sums.split(H)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            v = f * c + i * g
            c = k_c * c + (1 - k_c) * v
            if r.norm_c is not None:
                v = layer_norm(v, (H,), r.norm_c, r.norm_c_bias)
            new = o * v.tanh()
            new = w_r[0] @ new if w_r[0] is not None else new
            gates = {"i": i, "f": f, "g": g, "o": o, "c": c}
    h = k_h * h + (1 - k_h) * new
    return h, c, gates | {"h": h}


def by_rows(kind, x, states, weights, r, reverse, lengths, resets):
    """y, the last states and the gates, by a loop over rows and steps."""

    def at(k: Any, t: int, b: int) -> Any:
        return k[t, b].to(x.dtype) if isinstance(k, Tensor) else 0.0 if k is None else k

    last, outputs = [], {}
    for b in range(B):
        length = T if lengths is None else int(lengths[b])
        h, c = first = [state[b] for state in states] if len(states) == 2 else [states[0][b]] * 2
        for t in reversed(range(length)) if reverse else range(length):
            begins = t + 1 < length and resets is not None and resets[t + 1, b]
            if begins if reverse else resets is not None and resets[t, b]:
                h, c = first
            m = 1.0 if r.dropout is None else r.dropout[b]
            h, c, gates = one_step(kind, x[t, b], h, c, weights, r, at(r.zoneout_h, t, b), at(r.zoneout_c, t, b), m)
            for name, gate in gates.items():
                outputs.setdefault(name, {})[t, b] = gate
        last.append((h, c)[: len(states)])
    zeros = {name: torch.zeros_like(next(iter(places.values()))) for name, places in outputs.items()}
    stacked = {
        name: torch.stack([torch.stack([places.get((t, b), zeros[name]) for b in range(B)]) for t in range(T)])
        for name, places in outputs.items()
    }
    return stacked["h"], tuple(torch.stack(rows) for rows in zip(*last, strict=True)), stacked


def arguments_of(kind: str, option: str) -> tuple[list[Tensor], list[Tensor | None], Regularisation]:
    """First states, weights and a regularisation in float64, of random values."""
    random = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=random).requires_grad_()

    blocks = KINDS[kind].cell.blocks
    size, lstm = KINDS[kind].options.get("proj_size", H), "LSTM" in kind
    states = [normal(B, size)] + [normal(B, H)] * lstm
    weights = [normal(blocks * H, I), normal(blocks * H, size), normal(blocks * H), normal(blocks * H)]
    weights += [normal(size, H) if kind == "LSTM-projection" else None] * lstm
    masks, more = {}, {}
    if option in ("recurrent_dropout", "all"):
        masks["dropout"] = (torch.rand(B, size, generator=random) < 0.6).double() / 0.6
    if option in ("zoneout", "all"):
        masks["zoneout_h"] = torch.rand(T, B, size, generator=random) < 0.3
        if lstm:
            masks["zoneout_c"] = torch.rand(T, B, H, generator=random) < 0.5
    if option == "expectation":
        masks["zoneout_h"] = 0.3
        if lstm:
            masks["zoneout_c"] = 0.6
    if option in ("layer_norm", "all"):
        more = {"norm_ih": normal(blocks * H), "norm_hh": normal(blocks * H)}
        if lstm:
            more |= {"norm_c": normal(H), "norm_c_bias": normal(H)}
    return states, weights, Regularisation(**masks, **more)


def run_op(kind: str, x: Tensor, states: Any, weights: Any, **how: Any) -> tuple[Any, ...]:
    """y, last states, gates."""
    name, own, *_ = KINDS[kind]
    own = {} if name == "LSTM" else own
    y, *last, gates = getattr(ops, name.lower())(x, *states, *weights, return_gates=True, **own, **how)
    return y, tuple(last), gates


def with_gradients(outputs: tuple[Any, ...], leaves: list[Tensor]) -> list[Tensor]:
    y, last, gates = outputs
    tensors = [y, *last]
    weights = [torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out) for out in tensors]
    loss = torch.stack([(out * weight).sum() for out, weight in zip(tensors, weights, strict=True)]).sum()
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [*tensors, *gates.values(), *gradients]


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    ("option", "form"),
    [(option, "both") for option in ("recurrent_dropout", "zoneout", "expectation", "layer_norm")]
    + [("all", form) for form in ("plain", "lengths", "resets", "both", "packed", "checkpoints")],
)
@every_kind
def test_the_equations(kind, option, form, reverse):
    states, weights, regularisation = arguments_of(kind, option)
    x = inputs(torch.float64).requires_grad_()
    gains = [getattr(regularisation, name) for name in ("norm_ih", "norm_hh", "norm_c", "norm_c_bias")]
    leaves = [x, *states, *(tensor for tensor in (*weights, *gains) if tensor is not None)]
    lengths: Any = {"lengths": LENGTHS, "both": LENGTHS, "packed": torch.tensor([5, 4, 4, 1])}.get(form)
    resets = RESETS if form in ("resets", "both") else None
    expected = by_rows(kind, x, states, weights, regularisation, reverse, lengths, resets)

    if form == "packed":

        def packed(tensor: Tensor) -> Tensor:
            return pack_padded_sequence(tensor, lengths).data

        sizes = pack_padded_sequence(x, lengths).batch_sizes
        masks = regularisation.with_masks(packed)
        y, last, gates = run_op(
            kind, packed(x), states, weights, reverse=reverse, batch_sizes=sizes, regularisation=masks
        )
        y, last_expected, gates_expected = y, expected[1], {name: packed(g) for name, g in expected[2].items()}
        found, expected = (y, last, gates), (packed(expected[0]), last_expected, gates_expected)
    else:
        every = {"checkpoint_every": 2} if form == "checkpoints" else {}
        how: dict[str, Any] = {"reverse": reverse, "lengths": lengths, "resets": resets, **every}
        found = run_op(kind, x, states, weights, regularisation=regularisation, **how)
    assert list(found[2]) == list(expected[2])
    for value, exact in zip(with_gradients(found, leaves), with_gradients(expected, leaves), strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-9, atol=1e-9)


def test_normalisation_by_hand():
    random = torch.Generator().manual_seed(2)
    sums, gain, shift = (torch.randn(*shape, generator=random) for shape in ((3, 9), (9,), (9,)))
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        given = sums.to(dtype)
        found = normalised(given, gain.to(dtype), shift.to(dtype), [6, 3])
        assert found.dtype == dtype
        exact = given.double()
        for columns in (slice(0, 6), slice(6, 9)):
            part = exact[:, columns]
            centred = part - part.mean(1, keepdim=True)
            exact[:, columns] = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        exact = exact * gain.to(dtype).double() + shift.to(dtype).double()
        torch.testing.assert_close(found.double(), exact, rtol=limit, atol=limit)


@every_option
@pytest.mark.parametrize("kind", NATIVE)
def test_the_native_backend(kind, option):
    """Of whole layers, against the reference in float64 with the same masks; second derivatives too."""
    layer, x = make(kind, backend="native", **OPTIONS[option]), inputs()
    exact = copy.deepcopy(layer).double()
    exact.backend = "reference"
    found = []
    for own, given in ((layer, x), (exact, x.double())):
        leaf = given.requires_grad_()
        y, last = seeded(own, leaf, lengths=LENGTHS, resets=RESETS)
        leaves = [leaf, *own.parameters()]
        loss = y.square().sum() + sum(state.sum() for state in flat(last))
        gradients = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        second = torch.autograd.grad(norm, leaves, allow_unused=True, materialize_grads=True)
        found.append([y, *flat(last), *gradients, *second])
    for value, expected in zip(*found, strict=True):
        largest = float(expected.detach().abs().max().clamp(min=1e-2))
        assert float((value - expected).detach().abs().max()) <= 2e-3 * largest  # four units may have a small variance


@every_kind
def test_derivatives(kind):
    layer = make(kind, num_layers=1, dtype=torch.float64, **OPTIONS["all"])
    x = torch.randn(3, 2, I, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(7)
        given = dict(zip(names, parameters, strict=True))
        return tuple(flat(torch.func.functional_call(layer, given, (x,), {"lengths": torch.tensor([3, 2])})))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()), fast_mode=True)
    if kind != "RNN-relu":
        assert torch.autograd.gradgradcheck(run, (x, *layer.parameters()), fast_mode=True)


# Masks


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_a_row_keeps_its_dropout_mask(packed):
    """Weights that hand the state on unchanged show the mask's powers."""
    rows, p = 50, 0.25
    layer: Any = gw.RNN(1, 40, nonlinearity="relu", bias=False, recurrent_dropout=p)
    with torch.no_grad():
        layer.weight_ih_l0.zero_()
        layer.weight_hh_l0.copy_(torch.eye(40))
    x, h0 = torch.zeros(4, rows, 1), torch.ones(1, rows, 40)
    resets = torch.zeros(4, rows, dtype=torch.bool)
    resets[2] = True
    torch.manual_seed(0)
    if packed:
        y = pad_packed_sequence(layer(pack_padded_sequence(x, [4] * rows), h0)[0])[0]
        torch.testing.assert_close(y[3], y[0] ** 4)
    else:
        y, _ = layer(x, h0, resets=resets)
        torch.testing.assert_close(y, torch.stack([y[0], y[0] ** 2, y[0], y[0] ** 2]))  # the same after a reset
    mask = y[0]
    assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).item()}
    assert abs((mask == 0).float().mean() - p) < 0.03
    assert (mask[0] != mask[1]).any()
    assert torch.equal(layer.eval()(x, h0)[0], torch.ones(4, rows, 40))


def test_the_direct_path_is_not_dropped():
    """A closed update gate hands the state on, whatever the recurrent weights read."""
    for reset in ("after", "before"):
        layer: Any = gw.GRU(1, H, reset=reset, recurrent_dropout=0.5)
        with torch.no_grad():
            layer.bias_ih_l0[H : 2 * H] = 100.0
        h0 = torch.randn(1, B, H)
        torch.testing.assert_close(layer(torch.zeros(T, B, 1), h0)[0], h0.expand(T, -1, -1))


def test_zoneout_keeps_at_its_rate():
    """What a cell of no weights computes is 0: what is kept is seen in an initial state of ones."""
    rows, size, p = 50, 40, 0.3
    layer = gw.RNN(1, size, bias=False, zoneout=p)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
    x, h0 = torch.zeros(4, rows, 1), torch.ones(1, rows, size)
    torch.manual_seed(0)
    y, _ = layer(x, h0)
    assert set(y.unique().tolist()) == {0.0, 1.0}
    assert (y[1:] <= y[:-1]).all()
    for t in range(4):
        assert abs(y[t].mean() - p ** (t + 1)) < 0.03
    expected = torch.tensor([p, p**2, p**3, p**4])[:, None, None].expand(4, rows, size)
    torch.testing.assert_close(layer.eval()(x, h0)[0], expected)


def test_zoneout_of_h_and_c(monkeypatch):
    given = recorded(monkeypatch)
    for zoneout, (p_h, p_c) in ((0.2, (0.2, 0.2)), ([0.2, 0.7], (0.2, 0.7)), ((0.0, 0.7), (None, 0.7))):
        layer = gw.LSTM(I, 200, proj_size=100, zoneout=zoneout)
        x = torch.randn(T, B, I)
        layer(x)
        regularisation = given.pop()
        for k, p, size in ((regularisation.zoneout_h, p_h, 100), (regularisation.zoneout_c, p_c, 200)):
            if p is None:
                assert k is None
            else:
                assert k.shape == (T, B, size)
                assert abs(k.float().mean() - p) < 0.05
        layer.eval()(x)
        regularisation = given.pop()
        assert (regularisation.zoneout_h, regularisation.zoneout_c) == (p_h, p_c)
    layer = gw.LSTM(I, H, zoneout=(0.0, 1.0))
    h0, c0 = torch.randn(2, 1, B, H)
    _, (_, cn) = layer(torch.randn(T, B, I), (h0, c0))
    assert torch.equal(cn, c0)


def test_masks_of_layers_and_directions_differ(monkeypatch):
    given = recorded(monkeypatch)
    make("LSTM", recurrent_dropout=0.5, zoneout=0.5)(inputs())
    assert len(given) == 4
    for i in range(4):
        assert not torch.equal(given[i].zoneout_h, given[i].zoneout_c)
        for j in range(i):
            assert not torch.equal(given[i].dropout, given[j].dropout)
            assert not torch.equal(given[i].zoneout_h, given[j].zoneout_h)


@every_option
@every_kind
def test_seeds_repeat_the_masks(kind, option):
    layer, x = make(kind, **OPTIONS[option]), inputs()
    first, again, other = seeded(layer, x), seeded(layer, x), layer(x)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert torch.equal(first[0], other[0]) == (option == "layer_norm")

    layer.eval()
    state = torch.get_rng_state()
    torch.testing.assert_close(layer(x), layer(x), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


@every_kind
def test_checkpoints_see_the_same_masks(kind):
    layer, x = make(kind, **OPTIONS["all"]), inputs().requires_grad_()
    leaves, found = [x, *layer.parameters()], []
    for every in (None, 2):
        y, last = seeded(layer, x, lengths=LENGTHS, checkpoint_every=every)
        loss = y.square().sum() + sum(state.sum() for state in flat(last))
        found.append([y, *flat(last), *torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*found)


# What stays as it was


@every_kind
def test_off_is_the_plain_layer(kind):
    x = inputs().requires_grad_()
    zoneout: Any = (0.0, 0) if "LSTM" in kind else 0
    plain, off = make(kind), make(kind, recurrent_dropout=0, zoneout=zoneout, layer_norm=False)
    dropped = make(kind, recurrent_dropout=0.5).eval()
    assert list(plain.state_dict()) == list(off.state_dict()) == list(dropped.state_dict())
    expected = plain(x)
    gradients = torch.autograd.grad(expected[0].sum(), [x, *plain.parameters()])
    for layer in (off, dropped):
        found = layer(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        own = torch.autograd.grad(found[0].sum(), [x, *layer.parameters()])
        torch.testing.assert_close(own, gradients, rtol=0, atol=0)

    reference = make(kind, backend="reference")
    states, weights, _ = arguments_of(kind, "none")
    x = x.double()
    expected = run_op(kind, x, states, weights, backend="reference")
    torch.testing.assert_close(run_op(kind, x, states, weights, regularisation=Regularisation()), expected)
    torch.testing.assert_close(reference(inputs()), plain(inputs()), rtol=1e-5, atol=1e-6)


@every_option
@every_kind
def test_a_row_alone_equals_the_row_in_a_padded_batch(kind, option):
    layer, x = make(kind, **OPTIONS[option]).eval(), inputs()
    filled = x.masked_fill((torch.arange(T)[:, None] >= LENGTHS)[..., None], torch.nan)
    y, last = layer(filled, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        assert not y[length:, row].any()
        if length > 0:
            alone, own = layer(x[:length, [row]])
            torch.testing.assert_close(y[:length, [row]], alone, rtol=1e-5, atol=1e-6)
            for state, expected in zip(flat(last), flat(own), strict=True):
                torch.testing.assert_close(state[:, [row]], expected, rtol=1e-5, atol=1e-6)


@every_kind
def test_forms_of_input(kind):
    layer, x, lengths = make(kind, **OPTIONS["all"]), inputs(), torch.tensor([3, 5, 1, 4])
    layer.eval()
    y, last = layer(x, lengths=lengths)
    packed, same = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
    torch.testing.assert_close((pad_packed_sequence(packed)[0], same), (y, last))
    torch.testing.assert_close(layer(x[:4, 3])[0], y[:4, 3])

    layer.train()
    layer.recurrent_dropout = 0.4  # an option may change, as torch's dropout may
    y, last = seeded(layer, x)
    layer.batch_first = True
    turned, same = seeded(layer, x.transpose(0, 1))
    torch.testing.assert_close((turned.transpose(0, 1), same), (y, last))


@every_kind
def test_all_options_together_train(kind):
    more: dict[str, Any] = {"learn_initial_state": True, "weight_dropout": 0.2, "dropout": 0.2}
    layer = make(kind, **OPTIONS["all"], **more)
    y, last, gates = layer(inputs(), resets=RESETS, lengths=LENGTHS, return_gates=True)
    assert all(
        gate.shape[:2] == (T, B) and not gate.requires_grad for named in gates.values() for gate in named.values()
    )
    (y.square().sum() + sum(state.square().sum() for state in flat(last))).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.parameters())


# Parameters


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@every_kind
def test_parameters_of_layer_norm(kind, bias):
    plain, layer = make(kind, bias=bias), make(kind, bias=bias, layer_norm=True)
    rows = len(layer.weight_ih_l0)
    own = {"norm_ih": (rows,), "norm_hh": (rows,)}
    if "LSTM" in kind:
        own |= {"norm_c": (H,)} | ({"norm_c_bias": (H,)} if bias else {})
    suffixes = ["l0", "l0_reverse", "l1", "l1_reverse"]
    expected = {f"{name}_{suffix}": shape for suffix in suffixes for name, shape in own.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    assert list(shapes) == [*plain.state_dict(), *expected]
    assert shapes | expected == shapes

    for name in expected:
        assert layer.get_parameter(name).std() > 0
    layer.reset_parameters()
    for name in expected:
        value = 0.0 if "bias" in name else 1.0
        assert torch.equal(layer.get_parameter(name), torch.full_like(layer.get_parameter(name), value))
    name, own, *_ = KINDS[kind]
    fresh = getattr(gw, name)(I, H, bias=bias, layer_norm=True, **own, dtype=torch.float64)
    assert {tensor.dtype for tensor in fresh.state_dict().values()} == {torch.float64}
    assert torch.equal(fresh.norm_ih_l0, torch.ones(rows, dtype=torch.float64))
    layer(inputs())[0].sum().backward()


@every_kind
def test_copies(kind):
    layer, x = make(kind, **OPTIONS["all"]), inputs()
    expected = seeded(layer, x)
    other = make(kind, **OPTIONS["all"])
    other.reset_parameters()
    other.load_state_dict(layer.state_dict())
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        torch.testing.assert_close(seeded(copied, x), expected, rtol=0, atol=0)
        assert repr(copied) == repr(layer)


def test_options_are_shown():
    layer = gw.LSTM(I, H, recurrent_dropout=0.2, zoneout=[0.1, 0.05], layer_norm=True)
    assert repr(layer) == f"LSTM({I}, {H}, recurrent_dropout=0.2, zoneout=(0.1, 0.05), layer_norm=True)"
    assert repr(gw.GRU(I, H, zoneout=0.5)) == f"GRU({I}, {H}, zoneout=0.5)"
    assert repr(gw.RNN(I, H)) == f"RNN({I}, {H})"


def test_an_accelerated_layer_has_none_of_it():
    layer = torch.nn.LSTM(I, H)
    expected = layer(inputs())
    with gw.accelerate(layer):
        torch.testing.assert_close(layer(inputs()), expected)
        assert (layer.recurrent_dropout, layer.zoneout, layer.layer_norm) == (0.0, 0.0, False)


# Number formats, transforms, devices


@every_kind
def test_autocast(kind):
    layer, x = make(kind, **OPTIONS["all"]), inputs()
    exact = seeded(layer, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, last = seeded(layer, x)
    assert {tensor.dtype for tensor in (y, *flat(last))} == {torch.bfloat16}
    assert (y - exact[0]).abs().median() < 5e-3  # single ones differ more, where a variance is small
    y.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())
    half = seeded(layer.bfloat16(), x.bfloat16())
    assert (half[0] - exact[0]).abs().median() < 5e-3


@pytest.mark.parametrize("kind", ["GRU", "LSTM-projection"])
def test_compile(kind):
    torch.compiler.reset()
    layer, x = make(kind, num_layers=1, bidirectional=False, **OPTIONS["all"]), inputs()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(seeded(compiled, x), seeded(layer, x))


@every_kind
def test_gradients_of_each_sample(kind):
    layer, x = make(kind, num_layers=1, **OPTIONS["all"]).eval(), inputs()
    parameters = dict(layer.named_parameters())

    def loss(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, values, (x,))[0].square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 1))(parameters, x)
    for row in range(B):
        layer.zero_grad()
        loss(parameters, x[:, row]).backward()
        for name, parameter in parameters.items():
            torch.testing.assert_close(found[name][row], parameter.grad, rtol=1e-4, atol=1e-5)

    layer.train()
    y = torch.func.vmap(lambda x: layer(x)[0], 1, out_dims=1, randomness="different")(x[:, :1].expand(-1, 3, -1))
    assert not torch.equal(y[:, 0], y[:, 1])
    y = torch.func.vmap(lambda x: layer(x)[0], 1, out_dims=1, randomness="same")(x[:, :1].expand(-1, 3, -1))
    torch.testing.assert_close(y[:, 0], y[:, 1])


@every_kind
def test_on_the_meta_device(kind):
    layer = make(kind, device="meta", **OPTIONS["all"])
    y, _ = layer(inputs().to("meta"), lengths=LENGTHS.to("meta"))
    assert (tuple(y.shape), y.device.type) == ((T, B, 2 * (layer.proj_size or H)), "meta")


# Mistakes

KEPT = "the probability of a unit to keep its value in a step"
HIDDEN = "the probability of a unit of h to be hidden from its cell"
OPTION_MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("GRU", {"recurrent_dropout": 1.5}, f"expected recurrent_dropout to be a number from 0 to 1, {HIDDEN}, got 1.5"),
    ("RNN", {"recurrent_dropout": True}, f"expected recurrent_dropout to be a number from 0 to 1, {HIDDEN}, got True"),
    ("GRU", {"zoneout": -0.1}, f"expected zoneout to be a number from 0 to 1, {KEPT}, got -0.1"),
    ("RNN", {"zoneout": float("nan")}, f"expected zoneout to be a number from 0 to 1, {KEPT}, got nan"),
    ("GRU", {"zoneout": (0.1, 0.2)}, f"expected zoneout to be a number from 0 to 1, {KEPT}, got (0.1, 0.2)"),
    ("LSTM", {"zoneout": 2}, f"expected zoneout to be a number from 0 to 1, or two of them for h and c, {KEPT}, got 2"),
    (
        "LSTM",
        {"zoneout": (0.1, 0.2, 0.3)},
        f"expected zoneout to be a number from 0 to 1, or two of them for h and c, {KEPT}, got (0.1, 0.2, 0.3)",
    ),
    (
        "LSTM",
        {"zoneout": (0.1, "0.2")},
        f"expected zoneout to be a number from 0 to 1, or two of them for h and c, {KEPT}, got (0.1, '0.2')",
    ),
    ("LSTM", {"layer_norm": 1}, "expected layer_norm to be True or False, got int"),
    ("GRU", {"learn_initial_state": None}, "expected learn_initial_state to be True or False, got NoneType"),
]


@pytest.mark.parametrize(("name", "options", "message"), OPTION_MISTAKES, ids=lambda value: str(value)[:30])
def test_wrong_options(name, options, message):
    with pytest.raises(InputError) as error:
        getattr(gw, name)(I, H, **options)
    assert str(error.value) == f"{name}: {message}"


OF_SHAPES = "for x (5, 4, 3) and h0 (4, 4), got"
NOTHING = "of regularisation to be None, for there is nothing for it to act on"
REGULARISATION_MISTAKES: list[tuple[str, type[Exception], dict[str, Any], str]] = [
    ("GRU", ShapeError, {"dropout": torch.ones(B, 5)}, f"dropout of regularisation (4, 4) {OF_SHAPES} (4, 5)"),
    (
        "GRU",
        ShapeError,
        {"dropout": torch.ones(B, H).double()},
        "dropout of regularisation to be torch.float32 on cpu like x, got torch.float64 on cpu",
    ),
    ("GRU", InputError, {"dropout": 0.5}, "dropout of regularisation to be a tensor, got 0.5"),
    (
        "GRU",
        ShapeError,
        {"zoneout_h": torch.ones(B, H) > 0},
        f"zoneout_h of regularisation (5, 4, 4) {OF_SHAPES} (4, 4)",
    ),
    (
        "GRU",
        ShapeError,
        {"zoneout_h": torch.ones(T, B, H)},
        "zoneout_h of regularisation to be torch.bool on cpu like x, got torch.float32 on cpu",
    ),
    (
        "GRU",
        InputError,
        {"zoneout_h": 1.5},
        "zoneout_h of regularisation to be a mask or a number from 0 to 1, got 1.5",
    ),
    ("RNN", InputError, {"zoneout_c": 0.5}, f"zoneout_c {NOTHING}"),
    ("LSTM", InputError, {"norm_c_bias": torch.ones(4)}, f"norm_c_bias {NOTHING}"),
    (
        "GRU",
        InputError,
        {"norm_ih": torch.ones(12)},
        "norm_ih, norm_hh of regularisation together or none, but norm_hh is None",
    ),
    (
        "LSTM",
        InputError,
        {"norm_ih": torch.ones(16), "norm_hh": torch.ones(16)},
        "norm_ih, norm_hh, norm_c of regularisation together or none, but norm_c is None",
    ),
    (
        "GRU",
        ShapeError,
        {"norm_ih": torch.ones(4), "norm_hh": torch.ones(12)},
        f"norm_ih of regularisation (12,) {OF_SHAPES} (4,)",
    ),
]


@pytest.mark.parametrize(
    ("name", "kind", "given", "message"), REGULARISATION_MISTAKES, ids=lambda value: str(value)[:30]
)
def test_wrong_regularisations(name, kind, given, message):
    op = name.lower()
    layer = getattr(gw, name)(I, H)
    states = [torch.zeros(B, H)] * (2 if name == "LSTM" else 1)
    with pytest.raises(kind) as error:
        getattr(ops, op)(torch.zeros(T, B, I), *states, *layer.all_weights[0], regularisation=Regularisation(**given))
    assert str(error.value) == f"{op}: expected {message}"


def test_what_is_no_regularisation():
    layer = gw.GRU(I, H)
    given: Any = {"dropout": 0.5}
    with pytest.raises(InputError) as error:
        ops.gru(torch.zeros(T, B, I), torch.zeros(B, H), *layer.all_weights[0], regularisation=given)
    kind = "gatewise.kernels.regularisation.Regularisation"
    assert str(error.value) == f"gru: expected regularisation to be a {kind}, got dict"


@pytest.mark.parametrize("backend", ["torch"])
@pytest.mark.parametrize("name", ["GRU", "LSTM", "RNN"])
def test_what_a_backend_lacks(name, backend):
    with pytest.raises(BackendError) as error:
        getattr(gw, name)(I, H, backend=backend, layer_norm=True)(inputs())
    assert str(error.value) == f"{name.lower()}: backend {backend!r} has no regularisation; use backend='auto'"


@pytest.mark.parametrize("name", ["GRU", "LSTM", "RNN"])
def test_what_the_native_backend_lacks(name):
    layer = getattr(gw, name)(I, H, backend="native", zoneout=0.1).eval()
    with pytest.raises(BackendError) as error:
        torch.func.vmap(lambda x: layer(x)[0], 1)(inputs())
    lack = "regularisation under the transforms of torch.func"
    assert str(error.value) == f"{name.lower()}: backend 'native' has no {lack}; use backend='auto'"


def test_a_stream_has_neither_layer_norm_nor_zoneout():
    refused: list[tuple[dict[str, Any], str]] = [({"layer_norm": True}, "layer_norm"), ({"zoneout": 0.1}, "zoneout")]
    for options, what in refused:
        with pytest.raises(InputError) as error:
            gw.GRU(I, H, **options).stream()
        message = f"GRU.stream: a stream has no {what}; run the layer itself, one step a call, with hx"
        assert str(error.value) == message
    gw.GRU(I, H, recurrent_dropout=0.5).stream()


def test_a_regularisation_is_fixed():
    regularisation = Regularisation(zoneout_h=0.5)
    with pytest.raises(AttributeError):
        regularisation.zoneout_h = 0.1  # pyright: ignore[reportAttributeAccessIssue]
    assert replace(regularisation, zoneout_h=0.1).zoneout_h == 0.1
