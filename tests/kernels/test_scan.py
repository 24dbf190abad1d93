"""The scan against the reference, and what only it promises."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gatewise.kernels import packing, reference, scan

B, I, H = 3, 4, 5  # noqa: E741
every_cell = pytest.mark.parametrize("cell", scan.CELLS)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own


def arguments(cell: str, steps: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x, h0, weight_ih, bias_ih."""
    random, rows = torch.Generator().manual_seed(steps), reference.CELLS[cell].blocks * H
    shapes = [(steps, B, I), (B, H), (rows, I), (rows,)]
    return [torch.randn(shape, dtype=torch.float64, generator=random).to(dtype).requires_grad_() for shape in shapes]


def outcome(recurrent: Any, cell: str, tensors: list[Tensor], **how: Any) -> list[Tensor]:
    """y, the last state, the gates, and the gradients for a loss in which every element has its own weight."""
    x, h0, weight_ih, bias_ih = tensors
    y, (hn,), gates = recurrent(cell, x, (h0,), (weight_ih, None, bias_ih, None), return_gates=True, **how)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, hn, *gates.values(), *torch.autograd.grad((y * weights).sum() + hn.square().sum(), tensors)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*scan.CELLS]),
    st.integers(1, 70),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 1, 5, 100]),
)
def test_any_rows(cell, steps, reverse, ragged, packed, resets, every):
    tensors, random = arguments(cell, steps), torch.Generator().manual_seed(steps)
    how: dict[str, Any] = {"reverse": reverse, "checkpoint_every": every}
    if ragged or packed:
        how["lengths"] = torch.randint(int(packed), steps + 1, (B,), generator=random)
    if resets:
        how["resets"] = torch.rand(steps, B, generator=random) < 0.3
    if packed:
        how["lengths"] = how["lengths"].sort(descending=True).values
        places = packing.places(how["lengths"])
        tensors[0] = tensors[0].detach().flatten(0, 1)[places].requires_grad_()
        how |= {"packed": True} | ({"resets": how["resets"].flatten()[places]} if resets else {})
    found, expected = (outcome(module.recurrent, cell, tensors, **how) for module in (scan, reference))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@every_cell
@pytest.mark.parametrize("steps", [1, 2, 5, 8, 11])
def test_derivatives(cell, steps):
    def run(x: Tensor, h0: Tensor, weight_ih: Tensor, bias_ih: Tensor) -> tuple[Tensor, ...]:
        y, last, _ = scan.recurrent(cell, x, (h0,), (weight_ih, None, bias_ih, None))
        return y, *last

    assert torch.autograd.gradcheck(run, arguments(cell, steps), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, arguments(cell, steps), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@every_cell
def test_any_dtype(cell, dtype):
    exact = outcome(reference.recurrent, cell, arguments(cell, 37))
    found = outcome(scan.recurrent, cell, arguments(cell, 37, dtype))
    for value, expected in zip(found, exact, strict=True):
        assert value.dtype == dtype
        limit = 16 * torch.finfo(dtype).eps * max(1.0, float(expected.detach().abs().max()))
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=limit)


@pytest.mark.parametrize("small", [0.0, 1e-300, 1e-30, 0.5])
def test_products_that_underflow_cost_nothing(small):
    """A prefix product of these is 0, by which nothing can be divided."""
    random = torch.Generator().manual_seed(0)
    a = torch.rand(5000, 2, dtype=torch.float64, generator=random) * small
    b, h = (torch.randn(shape, dtype=torch.float64, generator=random) for shape in ((5000, 2), (2,)))
    assert small == 0.5 or not a.prod(0).any()
    now, states = h, []
    for t in range(len(a)):
        now = a[t] * now + b[t]
        states.append(now)
    torch.testing.assert_close(scan.scan(a, b, h), torch.stack(states), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("steps", [3, 9, 20])
def test_what_came_before_a_sequence_is_not_read(steps):
    """A state that has become infinite ends with its sequence."""
    x, h0, weight_ih, bias_ih = (tensor.detach() for tensor in arguments("mingru_linear", steps))
    resets = torch.zeros(steps, B, dtype=torch.bool)
    resets[2, 1] = True
    weights = (weight_ih, None, bias_ih, None)
    x[1, 1] = torch.nan
    y, _, _ = scan.recurrent("mingru_linear", x, (h0,), weights, resets=resets)
    expected, _, _ = reference.recurrent("mingru_linear", x, (h0,), weights, resets=resets)
    assert y[1, 1].isnan().all()
    assert y[2:].isfinite().all()
    torch.testing.assert_close(y, expected, equal_nan=True)


@every_cell
def test_transforms(cell):
    x, h0, weight_ih, bias_ih = (tensor.detach() for tensor in arguments(cell, 7))

    def loss(recurrent: Any, x: Tensor, weight_ih: Tensor) -> Tensor:
        y, _, _ = recurrent(cell, x, (h0,), (weight_ih, None, bias_ih, None))
        return y.square().sum()

    for derive in (torch.func.grad, torch.func.hessian):
        found, expected = (
            torch.func.vmap(derive(lambda x, w, run=module.recurrent: loss(run, x, w)), (0, None))(
                torch.stack([x, 2 * x]), weight_ih
            )
            for module in (scan, reference)
        )
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
