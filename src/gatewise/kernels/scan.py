"""A recurrence without recurrent weights over all steps at once, in plain torch: any dtype, any device, any derivative.

h_t = a_t * h_{t-1} + b_t takes as many steps as the logarithm of T where pairs of steps become one (Blelloch, "Prefix
Sums and Their Applications", 1990, section 1.4):

    h_2 = a_2 * (a_1 * h_0 + b_1) + b_2 = (a_2 * a_1) * h_0 + (a_2 * b_1 + b_2)

Nothing is divided by a product of many a, so that one that has become 0 costs no accuracy.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gatewise.kernels import reference
from gatewise.kernels.reference import Gates, Stretch, Weights

# Of the cells that can be scanned, whose h' is linear in h, the gate that h is multiplied by.
CELLS = {"mingru_linear": "z", "mingru_positive": "z"}

_FEW = 4  # steps that are taken one by one


def scan(a: Tensor, b: Tensor, h: Tensor, begins: Tensor | None = None) -> Tensor:
    """h_t = a_t * h_{t-1} + b_t for all steps, (T, ...).

    a (T, ...), b (T, ...): of any floating dtype; h (...): the state before the first step. begins (T, ...) bool, which
    may be of fewer columns: where h_t is b_t, even if the state before is infinite; a is 0 there.
    """
    steps = len(a)
    if steps <= _FEW:
        states = [h]
        for t in range(steps):
            states.append(_after(a[t], b[t], states[-1], None if begins is None else begins[t]))
        return torch.stack(states[1:])
    (a_1, a_2), (b_1, b_2) = _pairs(a), _pairs(b)
    begins_1, begins_2 = (None, None) if begins is None else _pairs(begins)
    either = None if begins_1 is None or begins_2 is None else begins_1 | begins_2
    second = scan(a_2 * a_1, _after(a_2, b_2, b_1, begins_2), h, either)
    first = _after(a_1, b_1, torch.cat([h.unsqueeze(0), second[:-1]]), begins_1)
    y = torch.stack([first, second], 1).flatten(0, 1)
    if steps % 2 == 0:
        return y
    last = _after(a[-1], b[-1], y[-1], None if begins is None else begins[-1])
    return torch.cat([y, last.unsqueeze(0)])


def _after(a: Tensor, b: Tensor, h: Tensor, begins: Tensor | None) -> Tensor:
    now = torch.addcmul(b, a, h)
    return now if begins is None else torch.where(begins, b, now)


def _pairs(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second one of each pair of steps; the last of an odd number of steps belongs to none."""
    half = len(rows) // 2
    first, second = rows[: 2 * half].unflatten(0, (half, 2)).unbind(1)
    return first, second


def _all_at_once(
    cell: str, stretch: Stretch, now: Sequence[Tensor], weights: Weights, return_gates: bool
) -> tuple[Tensor, list[Tensor], Gates]:
    """As `gatewise.kernels.reference.step_by_step`, for a cell that can be scanned."""
    gates: Gates = {}
    zeros = torch.zeros((), dtype=stretch.x.dtype, device=stretch.x.device)
    # The step itself, from no state and for all steps, says what each adds to what it leaves of the state.
    (b,) = reference.step(cell, stretch.x, (zeros,), weights, gates, stretch.regularisation)
    a = gates[CELLS[cell]]
    if stretch.begins is not None:
        b = torch.where(stretch.begins, b + a * stretch.first[0], b)
        a = torch.where(stretch.begins, 0, a)
    if stretch.valid is not None:
        a, b = torch.where(stretch.valid, a, 1), torch.where(stretch.valid, b, 0)
    wide = torch.promote_types(b.dtype, torch.float32)
    y = scan(a.to(wide), b.to(wide), now[0].to(wide), stretch.begins).to(b.dtype)
    return y, [y[-1]], gates if return_gates else {}


# As `gatewise.kernels.reference.recurrent`, for a cell that can be scanned.
recurrent = partial(reference.recurrent, sweep=_all_at_once)
