"""The definition itself: derivatives, torch's cells, the equations by hand, and the limits that the gates have."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gatewise.kernels import reference
from gatewise.kernels.regularisation import Regularisation

RESETS = ("after", "before")
T, B, I, H = 4, 3, 5, 2  # noqa: E741


def arguments(bias: bool = True) -> list:
    """x, h0, weight_ih, weight_hh, bias_ih, bias_hh in float64, all different."""
    random = torch.Generator().manual_seed(0)
    shapes = [(T, B, I), (B, H), (3 * H, I), (3 * H, H), (3 * H,), (3 * H,)]
    tensors = [torch.randn(shape, dtype=torch.float64, generator=random).requires_grad_() for shape in shapes]
    return [*tensors] if bias else [*tensors[:4], None, None]


def gates(**values: int) -> list[Tensor]:
    """Arguments whose biases hold the gates r and z at the given value, 0 or 1, whatever comes in."""
    tensors = [tensor.detach() for tensor in arguments()]
    bias_ih = tensors[4]
    for gate, rows in (("r", slice(0, H)), ("z", slice(H, 2 * H))):
        if gate in values:
            bias_ih[rows] = 1000 * (2 * values[gate] - 1)
    return tensors


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("reset", RESETS)
def test_derivatives(reset, bias, reverse):
    tensors = arguments(bias)

    def run(*differentiable: Tensor) -> tuple[Tensor, Tensor]:
        return reference.gru(*differentiable, *tensors[len(differentiable) :], reset=reset, reverse=reverse)

    differentiable = tuple(tensor for tensor in tensors if tensor is not None)
    assert torch.autograd.gradcheck(run, differentiable)
    assert torch.autograd.gradgradcheck(run, differentiable)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_after_is_torchs(bias):
    x, h0, *weights = arguments(bias)
    cell = torch.nn.GRUCell(I, H, bias=bias, dtype=torch.float64)
    for name, weight in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights, strict=True):
        if weight is not None:
            getattr(cell, name).data = weight.data
    torch.testing.assert_close(reference.gru_step(x[0], h0, *weights, reset="after"), cell(x[0], h0))


def test_before_is_the_equations_by_hand():
    """Cho 2014, one number at a time, with its own matrix for each gate and the update gate that keeps."""
    x, h0, weight_ih, weight_hh, bias_ih, bias_hh = (tensor.detach() for tensor in arguments())
    w_r, w_z, w_n = weight_ih.view(3, H, I)
    u_r, u_z, u_n = weight_hh.view(3, H, H)
    b_r, b_z, b_n = (bias_ih + bias_hh).view(3, H)
    result = reference.gru_step(x[0], h0, weight_ih, weight_hh, bias_ih, bias_hh, "before")
    for row in range(B):
        x_t, h = x[0, row], h0[row]
        r = torch.stack([torch.sigmoid(w_r[j] @ x_t + u_r[j] @ h + b_r[j]) for j in range(H)])
        for j in range(H):
            z = torch.sigmoid(w_z[j] @ x_t + u_z[j] @ h + b_z[j])
            n = torch.tanh(w_n[j] @ x_t + sum(u_n[j, k] * r[k] * h[k] for k in range(H)) + b_n[j])
            torch.testing.assert_close(result[row, j], z * h[j] + (1 - z) * n)


def test_the_placements_are_different_functions():
    after, before = (reference.gru(*arguments(), reset=reset)[0] for reset in RESETS)
    assert (after - before).abs().max() > 0.01


@pytest.mark.parametrize("reset", RESETS)
def test_the_whole_is_its_steps(reset):
    x, h, *weights = arguments()
    y, hn = reference.gru(x, h, *weights, reset=reset)
    for t in range(T):
        h = reference.gru_step(x[t], h, *weights, reset=reset)
        torch.testing.assert_close(y[t], h, rtol=0, atol=0)
    torch.testing.assert_close(hn, h, rtol=0, atol=0)


@pytest.mark.parametrize("reset", RESETS)
def test_reverse_reads_from_the_end(reset):
    x, *others = arguments()
    y, hn = reference.gru(x, *others, reset=reset, reverse=True)
    flipped, last = reference.gru(x.flip(0), *others, reset=reset)
    # Not bit for bit: how a product of torch's is rounded may depend on where its operands lie.
    torch.testing.assert_close(y, flipped.flip(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(hn, last, rtol=1e-12, atol=1e-12)
    assert torch.equal(hn, y[0])


@pytest.mark.parametrize("reset", RESETS)
def test_z_at_one_keeps_the_state(reset):
    x, h0, *weights = gates(z=1)
    y, hn = reference.gru(x, h0, *weights, reset=reset)
    assert torch.equal(y, h0.expand(T, B, H))
    assert torch.equal(hn, h0)


@pytest.mark.parametrize("reset", RESETS)
def test_z_at_zero_takes_the_candidate(reset):
    x, h0, weight_ih, weight_hh, bias_ih, bias_hh = gates(z=0)
    r = torch.sigmoid(x[0] @ weight_ih[:H].T + bias_ih[:H] + h0 @ weight_hh[:H].T + bias_hh[:H])
    past = r * (h0 @ weight_hh[2 * H :].T + bias_hh[2 * H :])
    if reset == "before":
        past = (r * h0) @ weight_hh[2 * H :].T + bias_hh[2 * H :]
    candidate = torch.tanh(x[0] @ weight_ih[2 * H :].T + bias_ih[2 * H :] + past)
    torch.testing.assert_close(reference.gru_step(x[0], h0, weight_ih, weight_hh, bias_ih, bias_hh, reset), candidate)


@pytest.mark.parametrize("reset", RESETS)
def test_r_and_z_at_zero_forget_the_past(reset):
    x, h0, *weights = gates(r=0, z=0)
    y, _ = reference.gru(x, h0, *weights, reset=reset)
    from_elsewhere, _ = reference.gru(x, -7 * h0, *weights, reset=reset)
    torch.testing.assert_close(y, from_elsewhere, rtol=0, atol=0)


@pytest.mark.parametrize("reset", RESETS)
def test_r_at_one_and_z_at_zero_is_the_plain_rnn(reset):
    x, h0, weight_ih, weight_hh, bias_ih, bias_hh = gates(r=1, z=0)
    rnn = torch.nn.RNN(I, H, dtype=torch.float64)
    rnn.load_state_dict(
        {
            "weight_ih_l0": weight_ih[2 * H :],
            "weight_hh_l0": weight_hh[2 * H :],
            "bias_ih_l0": bias_ih[2 * H :],
            "bias_hh_l0": bias_hh[2 * H :],
        }
    )
    y, hn = reference.gru(x, h0, weight_ih, weight_hh, bias_ih, bias_hh, reset)
    expected, last = rnn(x, h0[None])
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(hn, last[0])


@pytest.mark.parametrize("reset", RESETS)
def test_the_state_stays_within_one(reset):
    x, h0, *weights = arguments()
    y, _ = reference.gru(50 * x, h0.clamp(-1, 1), *weights, reset=reset)
    assert y.abs().max() <= 1


@pytest.mark.parametrize("reset", RESETS)
def test_zero_weights_halve_the_state(reset):
    x, h0, *weights = arguments()
    y, hn = reference.gru(x, h0, *(torch.zeros_like(weight) for weight in weights), reset=reset)
    assert torch.equal(y, torch.stack([h0 / 2**t for t in range(1, T + 1)]))
    assert torch.equal(hn, h0 / 2**T)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reset", RESETS)
def test_any_dtype(reset, dtype):
    exact, _ = reference.gru(*arguments(), reset=reset)
    y, hn = reference.gru(*(a.to(dtype) for a in arguments()), reset=reset)
    assert y.dtype == hn.dtype == dtype
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=16 * torch.finfo(dtype).eps)


# The others, and the whole family


every_cell = pytest.mark.parametrize("cell", reference.CELLS)
R = 1  # state of an LSTM with projection


def cell_arguments(cell: str, *, projection: bool = False) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """x, the states and the weights of a cell in float64, all different."""
    random = torch.Generator().manual_seed(0)
    of = reference.CELLS[cell]
    rows, count = of.blocks * H, of.states
    size = R if projection else H
    shapes = [(T, B, I), (B, size), (B, H)][: 1 + count]
    shapes += [(rows, I), (rows, size), (rows,), (rows,)] if of.has_recurrent_weights else [(rows, I), (rows,)]
    shapes += [(R, H)] * projection
    x, *others = (torch.randn(shape, dtype=torch.float64, generator=random).requires_grad_() for shape in shapes)
    return x, others[:count], others[count:]


def all_of(cell: str, weights: list[Tensor]) -> list[Any]:
    """The weights as `recurrent` takes them."""
    return [*weights] if reference.CELLS[cell].has_recurrent_weights else [weights[0], None, weights[1], None]


def run(cell: str, x: Tensor, states: list[Tensor], weights: list[Tensor], **how: Any) -> tuple[Tensor, ...]:
    y, last, _ = reference.recurrent(cell, x, states, all_of(cell, weights), **how)
    return y, *last


def lstm_by_hand(x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Gers 2000, one row at a time, with its own matrix for each gate; Sak 2014 where there is a projection."""
    weight_ih, weight_hh, bias_ih, bias_hh, *projection = weights
    w, u = weight_ih.view(4, H, I), weight_hh.view(4, H, -1)
    b = (bias_ih + bias_hh).view(4, H)
    hs, cs = [], []
    for row in range(B):
        i, f, g, o = (w[k] @ x[row] + u[k] @ h[row] + b[k] for k in range(4))
        cs.append(c[row] / (1 + torch.exp(-f)) + torch.tanh(g) / (1 + torch.exp(-i)))
        hs.append(torch.tanh(cs[-1]) / (1 + torch.exp(-o)))
        if projection:
            hs[-1] = projection[0] @ hs[-1]
    return torch.stack(hs), torch.stack(cs)


@pytest.mark.parametrize("projection", [False, True], ids=["plain", "projection"])
def test_lstm_is_the_equations_by_hand(projection):
    x, (h, c), weights = cell_arguments("lstm", projection=projection)
    step: Any = reference.lstm_step
    torch.testing.assert_close(step(x[0], h, c, *weights), lstm_by_hand(x[0], h, c, weights))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_rnn_is_the_equation_by_hand(nonlinearity):
    x, (h,), (weight_ih, weight_hh, bias_ih, bias_hh) = cell_arguments(f"rnn_{nonlinearity}")
    sums = x[0] @ weight_ih.T + h @ weight_hh.T + bias_ih + bias_hh
    expected = sums.tanh() if nonlinearity == "tanh" else sums.clamp(min=0)
    result = reference.rnn_step(x[0], h, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("candidate", ["linear", "positive"])
def test_mingru_is_the_equations_by_hand(candidate):
    """Feng 2024, one number at a time, with the paper's z, which takes the candidate, and its g."""
    x, (h,), (weight_ih, bias_ih) = cell_arguments(f"mingru_{candidate}")
    result = reference.mingru_step(x[0], h, weight_ih, bias_ih, candidate)
    signs = set()
    for row in range(B):
        for j in range(H):
            keeps = weight_ih[j] @ x[0, row] + bias_ih[j]
            a = weight_ih[H + j] @ x[0, row] + bias_ih[H + j]
            z = 1 - 1 / (1 + torch.exp(-keeps))
            g = a if candidate == "linear" else a + 0.5 if a >= 0 else 1 / (1 + torch.exp(-a))
            signs.add(bool(a >= 0))
            torch.testing.assert_close(result[row, j], (1 - z) * h[row, j] + z * g)
    assert signs == {True, False}


def test_a_positive_candidate_keeps_the_state_positive():
    x, (h,), weights = cell_arguments("mingru_positive")
    y, _ = run("mingru_positive", 5 * x, [h.abs()], weights)
    assert (y > 0).all()
    assert (run("mingru_linear", 5 * x, [h.abs()], weights)[0] < 0).any()


@pytest.mark.parametrize("candidate", ["linear", "positive"])
def test_a_mingru_keeps_and_takes_as_z_says(candidate):
    x, (h,), (weight_ih, bias_ih) = cell_arguments(f"mingru_{candidate}")
    for z in (0, 1):
        bias, gates = bias_ih.detach().clone(), {}
        bias[:H] = 1000 * (2 * z - 1)
        result = reference.mingru_step(x[0], h, weight_ih, bias, candidate, gates)
        assert torch.equal(result, h if z else gates["n"])


def test_a_mingru_has_nothing_that_is_regularised():
    x, states, weights = cell_arguments("mingru_linear")
    more = Regularisation(zoneout_h=0.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'regularisation'"):
        reference.step("mingru_linear", x[0], states, all_of("mingru_linear", weights), regularisation=more)


def test_the_cell_keeps_and_takes_as_its_gates_say():
    x, (h, c), weights = cell_arguments("lstm")
    for f, i, expected in ((1, 0, c), (0, 0, torch.zeros_like(c)), (0, 1, None)):
        held = [weight.detach().clone() for weight in weights]
        held[2][:H], held[2][H : 2 * H] = 1000 * (2 * i - 1), 1000 * (2 * f - 1)
        gates: dict[str, Tensor] = {}
        step: Any = reference.lstm_step
        _, cn = step(x[0], h, c, *held, gates=gates)
        assert torch.equal(cn, gates["g"] if expected is None else expected)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_lstm_and_rnn_are_torchs(nonlinearity):
    for theirs, cell in ((torch.nn.LSTMCell(I, H), "lstm"), (torch.nn.RNNCell(I, H, True, nonlinearity), "rnn")):
        cell = cell if cell == "lstm" else f"rnn_{nonlinearity}"
        x, states, weights = cell_arguments(cell)
        theirs.double().load_state_dict(
            dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights, strict=True))
        )
        expected = theirs(x[0], tuple(states) if len(states) > 1 else states[0])
        found = reference.step(cell, x[0], states, weights)
        torch.testing.assert_close(found, [*expected] if len(states) > 1 else [expected])


MARKS = torch.rand(T, B, generator=torch.Generator().manual_seed(2)) < 0.4
HOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "reverse": {"reverse": True},
    "lengths-resets": {"lengths": torch.tensor([2, 0, 4]), "resets": MARKS},
    "reverse-lengths-resets": {"reverse": True, "lengths": torch.tensor([2, 0, 4]), "resets": MARKS},
}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
@pytest.mark.parametrize(("cell", "projection"), [*((cell, False) for cell in reference.CELLS), ("lstm", True)])
def test_derivatives_of_every_cell(cell, projection, how):
    x, states, weights = cell_arguments(cell, projection=projection)
    count = len(states)

    def compute(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        return run(cell, x, list(others[:count]), list(others[count:]), **how)

    assert torch.autograd.gradcheck(compute, (x, *states, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(compute, (x, *states, *weights), fast_mode=True)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@every_cell
def test_packed_rows_are_those_of_the_padded_batch(cell, reverse):
    x, states, weights = cell_arguments(cell)
    weights = all_of(cell, weights)
    lengths = torch.tensor([4, 3, 1])
    resets = torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.4
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths)
    marks = torch.nn.utils.rnn.pack_padded_sequence(resets, lengths).data
    how: dict[str, Any] = {"reverse": reverse, "lengths": lengths, "return_gates": True}
    y, last, gates = reference.recurrent(cell, x, states, weights, resets=resets, **how)
    z, packed_last, packed_gates = reference.recurrent(
        cell, packed.data, states, weights, resets=marks, packed=True, **how
    )
    assert packed_gates is not None
    assert tuple(packed_gates) == (*reference.CELLS[cell].gates, "h")
    pad = torch.nn.utils.rnn.pad_packed_sequence
    torch.testing.assert_close(pad(packed._replace(data=z))[0], y, rtol=0, atol=0)
    torch.testing.assert_close(packed_last, last, rtol=0, atol=0)
    torch.testing.assert_close({n: pad(packed._replace(data=g))[0] for n, g in packed_gates.items()}, gates)


@every_cell
def test_transforms_follow_lengths_and_resets(cell):
    x, states, weights = cell_arguments(cell)
    lengths, resets = torch.tensor([2, 0, 4]), MARKS

    def one(x: Tensor, length: Tensor, marks: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        first = [state[None] for state in states]
        how = {"lengths": length[None], "resets": marks[:, None]}
        return tuple(out.squeeze(-2) for out in run(cell, x[:, None], first, weights, **how))

    y, *last = torch.func.vmap(one, (1, 0, 1, *[0] * len(states)), (1, *[0] * len(states)))(x, lengths, resets, *states)
    torch.testing.assert_close((y, *last), run(cell, x, states, weights, lengths=lengths, resets=resets))
