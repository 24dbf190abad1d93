"""The recurrent cells by their equations, in plain torch: the definition that all that is faster is compared with.

Sources, each with torch's names, biases and order of gates:

- GRU: Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio, "Learning Phrase Representations using RNN
  Encoder-Decoder for Statistical Machine Translation", 2014, section 2.3; z = 1 keeps the state, as in torch.
- LSTM: Hochreiter, Schmidhuber, "Long Short-Term Memory", 1997, with the forget gates of Gers, Schmidhuber, Cummins,
  "Learning to Forget: Continual Prediction with LSTM", 2000; the projection is that of Sak, Senior, Beaufays, "Long
  Short-Term Memory Recurrent Neural Network Architectures for Large Scale Acoustic Modeling", 2014, section 2.2.
- RNN: Elman, "Finding Structure in Time", 1990.
- minGRU: Feng, Tung, Ahmed, Bengio, Hajimirsadeghi, "Were RNNs All We Needed?", 2024, section 3.1, and appendix B for
  the positive candidate; z = 1 keeps the state, as in the GRU.

What a step is given as `regularisation` extends its equations: m is the mask of recurrent dropout, k that of zoneout,
LN a normalisation and its gain; `gatewise.kernels.regularisation` defines them and names their sources. Without it, m
is 1, k is 0, and LN changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from gatewise.kernels import packing
from gatewise.kernels.regularisation import NONE, Regularisation, kept, normalised, product

Gates = dict[str, Tensor]
# weight_ih, weight_hh, bias_ih, bias_hh, and weight_hr of an LSTM with projection; of a minGRU None for those of h
Weights = Sequence[Tensor | None]


def gru_step(
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: str,
    gates: Gates | None = None,
    regularisation: Regularisation | None = None,
) -> Tensor:
    """The state after one step.

    (1) r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)             reset gate: how much of the past the candidate sees
    (2) z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)             update gate: how much of the past is kept
    (3) n = tanh(W_in x + b_in + r * (W_hn h + b_hn))          candidate, reset="after" the recurrent product
    (3) n = tanh(W_in x + b_in + W_hn (r * h) + b_hn)          candidate, reset="before" the recurrent product
    (4) h' = (1 - z) * n + z * h                               new state

    With regularisation:

    (1) r = sigmoid(LN(W_ir x) + b_ir + LN(W_hr (m * h)) + b_hr)
    (2) z = sigmoid(LN(W_iz x) + b_iz + LN(W_hz (m * h)) + b_hz)
    (3) n = tanh(LN(W_in x) + b_in + r * (LN(W_hn (m * h)) + b_hn))           reset="after"
    (3) n = tanh(LN(W_in x) + b_in + LN(W_hn (r * (m * h))) + b_hn)           reset="before"
    (4) h' = k * h + (1 - k) * ((1 - z) * n + z * h)

    LN takes its mean and variance over the rows of r and z together, and over those of n.

    x (B, I): input; h (B, H): state; weight_ih (3H, I), weight_hh (3H, H), bias_ih (3H,), bias_hh (3H,): the rows of
    the gates r, z, n, one below the other. Any floating dtype, any device. gates: where r, z and n are noted.
    """
    more = regularisation or NONE
    blocks = [2 * h.shape[-1], h.shape[-1]]
    x_r, x_z, x_n = product(x, weight_ih, bias_ih, more.norm_ih, blocks).chunk(3, -1)  # each (B, H)
    w_rz, w_n = weight_hh.split(blocks)
    b_rz, b_n = (None, None) if bias_hh is None else bias_hh.split(blocks)
    g_rz, g_n = (None, None) if more.norm_hh is None else more.norm_hh.split(blocks)

    m_h = more.read(h)
    h_r, h_z = product(m_h, w_rz, b_rz, g_rz).chunk(2, -1)
    r = torch.sigmoid(x_r + h_r)  # (1)
    z = torch.sigmoid(x_z + h_z)  # (2)
    past = r * product(m_h, w_n, b_n, g_n) if reset == "after" else product(r * m_h, w_n, b_n, g_n)
    n = torch.tanh(x_n + past)  # (3)
    if gates is not None:
        gates.update(r=r, z=z, n=n)
    return kept(more.zoneout_h, h, (1 - z) * n + z * h)  # (4)


def lstm_step(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None = None,
    gates: Gates | None = None,
    regularisation: Regularisation | None = None,
) -> tuple[Tensor, Tensor]:
    """The state and the cell after one step.

    (1) i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)             input gate: how much of the candidate is taken
    (2) f = sigmoid(W_if x + b_if + W_hf h + b_hf)             forget gate: how much of the cell is kept
    (3) g = tanh(W_ig x + b_ig + W_hg h + b_hg)                candidate
    (4) o = sigmoid(W_io x + b_io + W_ho h + b_ho)             output gate: how much of the cell is shown
    (5) c' = f * c + i * g                                     new cell
    (6) h' = o * tanh(c')                                      new state
    (6) h' = W_hr (o * tanh(c'))                               new state, with projection

    With regularisation, where v is the cell as it would be without zoneout, and a and b are its gain and shift:

    (1) i = sigmoid(LN(W_ii x) + b_ii + LN(W_hi (m * h)) + b_hi), and (2), (3), (4) likewise
    (5) v = f * c + i * g
        c' = k_c * c + (1 - k_c) * v
    (6) h' = k_h * h + (1 - k_h) * o * tanh(LN(v) * a + b)
    (6) h' = k_h * h + (1 - k_h) * W_hr (o * tanh(LN(v) * a + b))

    LN takes its mean and variance over all 4H rows of a product, and over the H units of the cell. As in the paper on
    zoneout, h' shows v, not c'.

    x (B, I): input; h (B, R): state; c (B, H): cell; weight_ih (4H, I), weight_hh (4H, R), bias_ih (4H,),
    bias_hh (4H,): the rows of the gates i, f, g, o, one below the other; weight_hr (R, H): projection, without it R is
    H. Any floating dtype, any device. gates: where i, f, g, o and c' are noted.
    """
    more = regularisation or NONE
    sums = product(x, weight_ih, bias_ih, more.norm_ih) + product(more.read(h), weight_hh, bias_hh, more.norm_hh)
    sum_i, sum_f, sum_g, sum_o = sums.chunk(4, -1)  # each (B, H)
    i = torch.sigmoid(sum_i)  # (1)
    f = torch.sigmoid(sum_f)  # (2)
    g = torch.tanh(sum_g)  # (3)
    o = torch.sigmoid(sum_o)  # (4)
    v = f * c + i * g
    c = kept(more.zoneout_c, c, v)  # (5)
    shown = o * torch.tanh(v if more.norm_c is None else normalised(v, more.norm_c, more.norm_c_bias))
    if weight_hr is not None:
        shown = linear(shown, weight_hr)
    h = kept(more.zoneout_h, h, shown)  # (6)
    if gates is not None:
        gates.update(i=i, f=f, g=g, o=o, c=c)
    return h, c


def rnn_step(
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    nonlinearity: str,
    regularisation: Regularisation | None = None,
) -> Tensor:
    """The state after one step.

    (1) h' = tanh(W_ih x + b_ih + W_hh h + b_hh)               nonlinearity="tanh"
    (1) h' = max(0, W_ih x + b_ih + W_hh h + b_hh)             nonlinearity="relu"

    With regularisation:

    (1) h' = k * h + (1 - k) * tanh(LN(W_ih x) + b_ih + LN(W_hh (m * h)) + b_hh), or max(0, ...) of the same sum

    LN takes its mean and variance over all H rows.

    x (B, I): input; h (B, H): state; weight_ih (H, I), weight_hh (H, H), bias_ih (H,), bias_hh (H,). Any floating
    dtype, any device.
    """
    function = torch.tanh if nonlinearity == "tanh" else torch.relu
    more = regularisation or NONE
    sums = product(x, weight_ih, bias_ih, more.norm_ih) + product(more.read(h), weight_hh, bias_hh, more.norm_hh)
    return kept(more.zoneout_h, h, function(sums))  # (1)


def mingru_step(
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    candidate: str,
    gates: Gates | None = None,
) -> Tensor:
    """The state after one step.

    (1) z = sigmoid(W_iz x + b_iz)                             update gate: how much of the past is kept
    (2) n = W_in x + b_in                                      candidate="linear"
    (2) n = g(W_in x + b_in)                                   candidate="positive"
        g(a) = a + 0.5 where a >= 0, else sigmoid(a)
    (3) h' = (1 - z) * n + z * h                               new state

    The paper's z_t is 1 - z: it says how much of the candidate is taken. It computes with logarithms where the
    candidate is positive, which needs h0 > 0; these equations take any h0.

    x (B, I): input; h (B, H): state; weight_ih (2H, I), bias_ih (2H,): the rows of the gates z, n, one below the other.
    Any floating dtype, any device. gates: where z and n are noted.
    """
    a_z, a_n = linear(x, weight_ih, bias_ih).chunk(2, -1)  # each (B, H)
    z = torch.sigmoid(a_z)  # (1)
    n = a_n if candidate == "linear" else torch.where(a_n >= 0, a_n + 0.5, torch.sigmoid(a_n))  # (2)
    if gates is not None:
        gates.update(z=z, n=n)
    return (1 - z) * n + z * h  # (3)


@dataclass(frozen=True)
class Cell:
    """A cell of the family.

    step(x, *states, *weights, gates=, regularisation=): the states after one step, or the one that there is.
    blocks: of H rows that the weights have, one below the other.
    gates: what a step notes of them; to it comes "h", the state.
    states: h, or h and c.
    has_recurrent_weights: weight_hh, on which regularisation acts, and bias_hh.
    """

    step: Callable[..., Tensor | tuple[Tensor, ...]]
    blocks: int
    gates: tuple[str, ...]
    states: int = 1
    has_recurrent_weights: bool = True


CELLS = {
    "gru_after": Cell(partial(gru_step, reset="after"), 3, ("r", "z", "n")),
    "gru_before": Cell(partial(gru_step, reset="before"), 3, ("r", "z", "n")),
    "lstm": Cell(lstm_step, 4, ("i", "f", "g", "o", "c"), states=2),
    "rnn_tanh": Cell(partial(rnn_step, nonlinearity="tanh"), 1, ()),
    "rnn_relu": Cell(partial(rnn_step, nonlinearity="relu"), 1, ()),
    "mingru_linear": Cell(partial(mingru_step, candidate="linear"), 2, ("z", "n"), has_recurrent_weights=False),
    "mingru_positive": Cell(partial(mingru_step, candidate="positive"), 2, ("z", "n"), has_recurrent_weights=False),
}


def step(
    cell: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Weights,
    gates: Gates | None = None,
    regularisation: Regularisation | None = None,
) -> list[Tensor]:
    """The states of a cell, one of those in CELLS, after one step."""
    of = CELLS[cell]
    given = weights if of.has_recurrent_weights else (weights[0], weights[2])
    how: dict[str, Any] = {"gates": gates} if of.gates else {}
    if regularisation is not None:
        how["regularisation"] = regularisation
    new = of.step(x, *states, *given, **how)
    return [new] if isinstance(new, Tensor) else [*new]


@dataclass(frozen=True)
class Stretch:
    """Steps in the order in which a sweep takes them."""

    x: Tensor  # (S, B, I)
    first: Sequence[Tensor]  # states (B, R) of a sequence that begins
    begins: Tensor | None  # (S, B, 1) bool: before which steps that is so
    valid: Tensor | None  # (S, B, 1) bool: the others leave the states as they are
    regularisation: Regularisation | None

    def part(self, start: int, stop: int) -> "Stretch":
        """The steps from start to stop."""
        return self.changed(lambda rows: rows[start:stop])

    def changed(self, function: Callable[[Tensor], Tensor]) -> "Stretch":
        """The same with the function's value in the place of all that has the axis of the steps."""
        begins, valid = (None if rows is None else function(rows) for rows in (self.begins, self.valid))
        more = self.regularisation and self.regularisation.with_masks(function)
        return Stretch(function(self.x), self.first, begins, valid, more)


def step_by_step(
    cell: str, stretch: Stretch, now: Sequence[Tensor], weights: Weights, return_gates: bool
) -> tuple[Tensor, list[Tensor], Gates]:
    """The states h (S, B, R) after each step of a stretch, the states after the last one, and the gates."""
    outputs, notes = [], []
    for t in range(len(stretch.x)):
        if stretch.begins is not None:
            now = [torch.where(stretch.begins[t], first, s) for first, s in zip(stretch.first, now, strict=True)]
        notes.append({})
        more = stretch.regularisation and stretch.regularisation.with_masks(lambda mask, t=t: mask[t])
        new = step(cell, stretch.x[t], now, weights, notes[-1] if return_gates else None, more)
        if stretch.valid is not None:
            new = [torch.where(stretch.valid[t], s, old) for s, old in zip(new, now, strict=True)]
        now = new
        outputs.append(now[0])
    gates = {name: torch.stack([note[name] for note in notes]) for name in notes[0]}
    return torch.stack(outputs), [*now], gates


Sweep = Callable[[str, Stretch, Sequence[Tensor], Weights, bool], tuple[Tensor, list[Tensor], Gates]]


def recurrent(
    cell: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Weights,
    *,
    reverse: bool = False,
    lengths: Tensor | None = None,
    packed: bool = False,
    resets: Tensor | None = None,
    return_gates: bool = False,
    checkpoint_every: int | None = None,
    regularisation: Regularisation | None = None,
    sweep: Sweep = step_by_step,
) -> tuple[Tensor, tuple[Tensor, ...], Gates | None]:
    """A cell over a whole sequence: y (T, B, R), the last states, and the gates of every step if they are asked for.

    It can be derived any number of times, and no shape depends on what the tensors hold.

    x (T, B, I): inputs; states: (h0,), or (h0, c0) of an LSTM.
    reverse: from the last step to the first; y stays in the order of x.
    lengths (B,): steps of each row, any integer. The others are zeros in y, whatever x holds there.
    packed: x (sum of lengths, I), y, gates and resets (sum of lengths,) hold the rows, sorted by falling length, step
        after step.
    resets (T, B) bool: where a new sequence begins: its first state is h0, in either direction.
    checkpoint_every: the backward sweep computes all else again from the states of every so many steps.
    sweep: what computes a stretch.
    """
    if packed:
        assert lengths is not None
        places = packing.places(lengths).to(x.device)
        shape = (int(lengths.max()), len(lengths))
        padded = _spread(x, places, shape)
        resets = None if resets is None else _spread(resets, places, shape)
        if regularisation is not None:
            regularisation = regularisation.with_masks(lambda mask: _spread(mask, places, shape))
    else:
        padded = x
    if lengths is not None:
        lengths = lengths.to(x.device)
    more = (lengths, resets, return_gates, checkpoint_every, regularisation, sweep)
    y, last, gates = _unroll(cell, padded, states, weights, reverse, *more)
    if packed:
        y = _collect(y, places)
        gates = gates and {name: _collect(gate, places) for name, gate in gates.items()}
    return y, last, gates


def _unroll(cell, x, states, weights, reverse, lengths, resets, return_gates, checkpoint_every, regularisation, sweep):
    steps = len(x)
    valid = None if lengths is None else torch.arange(steps, device=x.device).unsqueeze(1) < lengths  # (T, B)
    if valid is not None:
        valid = valid.unsqueeze(-1)
        x = torch.where(valid, x, 0)
    if resets is not None:
        # Read backwards, a sequence begins one step before the mark of the one that follows it.
        resets = torch.cat([resets[1:], torch.zeros_like(resets[:1])]) if reverse else resets
        resets = resets.unsqueeze(-1)
        if valid is not None:
            resets = resets & valid  # a mark in the padding does not touch the last state
    whole = Stretch(x, states, resets, valid, regularisation)
    if reverse:
        whole = whole.changed(lambda rows: rows.flip(0))

    def run(start, stop, *now):
        return sweep(cell, whole.part(start, stop), now, weights, return_gates)

    if checkpoint_every is None:
        y, last, gates = run(0, steps, *states)
    else:
        parts, last = [], states
        for start in range(0, steps, checkpoint_every):
            parts.append(recomputed(run, start, start + checkpoint_every, *last))
            last = parts[-1][1]
        y = torch.cat([part[0] for part in parts])
        gates = {name: torch.cat([part[2][name] for part in parts]) for name in parts[0][2]}
    gates = {name: gate.detach() for name, gate in gates.items()}
    if reverse:
        y, gates = y.flip(0), {name: gate.flip(0) for name, gate in gates.items()}
    if valid is not None:
        y = torch.where(valid, y, 0)
        gates = {name: torch.where(valid, gate, 0) for name, gate in gates.items()}
    return y, tuple(last), gates | {"h": y.detach()} if return_gates else None


def recomputed(function, *arguments):
    """What the function gives; its backward computes it again instead of having kept what it needs."""
    # The transforms of torch.func know no hooks of saved tensors: there everything is kept.
    if not torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def _spread(tensor: Tensor, places: Tensor, shape: tuple[int, int]) -> Tensor:
    """Packed (sum of lengths, ...) as (T, B, ...), with zeros for what is not there."""
    zeros = tensor.new_zeros(shape[0] * shape[1], *tensor.shape[1:])
    return zeros.index_copy(0, places, tensor).unflatten(0, shape)


def _collect(tensor: Tensor, places: Tensor) -> Tensor:
    return tensor.flatten(0, 1).index_select(0, places)


def gru(
    x: Tensor,
    h0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: str,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The states of a whole sequence: y (T, B, H), and the last one: hn (B, H); as `recurrent`."""
    y, (hn,), _ = recurrent(f"gru_{reset}", x, (h0,), (weight_ih, weight_hh, bias_ih, bias_hh), reverse=reverse)
    return y, hn
