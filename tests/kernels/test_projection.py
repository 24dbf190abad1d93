"""The LSTM with a projection on the native kernels, against the reference in float64: all that it gives, by name."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gatewise.errors import BackendError
from gatewise.kernels import ops, packing, reference

if ops.native_status().available:
    from gatewise.kernels import native_projected

pytestmark = [
    pytest.mark.skipif(not ops.native_status().available, reason=str(ops.native_status().reason)),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
SIZES = st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100])
SHAPES = [  # T, B, I, H, R
    (1, 1, 1, 1, 1),
    (1, 1, 64, 256, 32),
    (1, 33, 28, 64, 17),
    (2, 1, 3, 16, 16),
    (9, 5, 1, 20, 3),
    (7, 70, 12, 48, 40),
    (63, 3, 17, 33, 5),
    (12, 16, 64, 128, 100),
    (3, 2, 20, 1024, 64),
    (2, 33, 300, 512, 128),
    (40, 1, 64, 256, 8),
]


@dataclass(frozen=True)
class Case:
    """The sizes of a call, and how its rows lie; R is at most H."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    projected: int
    reverse: bool = False
    bias: bool = True
    ragged: bool = False
    packed: bool = False
    resets: bool = False
    threads: int = 2
    seed: int = 0


CASES = st.builds(
    lambda hidden, part, **how: Case(hidden=hidden, projected=max(1, round(hidden * part)), **how),
    hidden=SIZES,
    part=st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    steps=st.integers(1, 20),
    batch=st.integers(1, 20),
    inputs=SIZES,
    reverse=st.booleans(),
    bias=st.booleans(),
    ragged=st.booleans(),
    packed=st.booleans(),
    resets=st.booleans(),
    threads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**16),
)


def tensors_of(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random tensors by name, and what says how the rows lie."""
    random = torch.Generator().manual_seed(case.seed)

    def uniform(limit: float, *size: int) -> Tensor:
        return (2 * torch.rand(size, generator=random) - 1) * limit

    rows, limit = 4 * case.hidden, 1.5 / case.hidden**0.5
    tensors = {
        "x": uniform(1, case.steps, case.batch, case.inputs),
        "h0": uniform(1, case.batch, case.projected),
        "c0": uniform(1, case.batch, case.hidden),
        "weight_ih": uniform(limit, rows, case.inputs),
        "weight_hh": uniform(1.5 / case.projected**0.5, rows, case.projected),
        "bias_ih": uniform(1, rows) if case.bias else None,
        "bias_hh": uniform(1, rows) if case.bias else None,
        "weight_hr": uniform(limit, case.projected, case.hidden),
    }
    how: dict[str, Any] = {"reverse": case.reverse}
    if case.ragged or case.packed:
        lengths = torch.randint(int(case.packed), case.steps + 1, (case.batch,), generator=random)
        how["lengths"] = lengths.sort(descending=True).values if case.packed else lengths
    if case.resets:
        how["resets"] = torch.rand(case.steps, case.batch, generator=random) < 0.3
    if case.packed:
        places = packing.places(how["lengths"])
        tensors["x"] = tensors["x"].flatten(0, 1)[places]
        how |= {"packed": True} | ({"resets": how["resets"].flatten()[places]} if case.resets else {})
    return tensors, how


def outcome(case: Case, *, native: bool, checkpoint_every: int | None = None, only: str = "") -> dict[str, Tensor]:
    """y, the last states, the gates and the gradients by name, of a loss of all results or of one; or in float64."""
    dtype = torch.float32 if native else torch.float64
    tensors, how = tensors_of(case)
    leaves: dict[str, Any] = {
        name: None if tensor is None else tensor.to(dtype, copy=True).requires_grad_()
        for name, tensor in tensors.items()
    }
    weights = [leaves[name] for name in WEIGHTS]

    def run(**more: Any) -> Any:
        states = (leaves["h0"], leaves["c0"])
        if native:
            return native_projected.recurrent(leaves["x"], states, weights, **how, **more)
        return reference.recurrent("lstm", leaves["x"], states, weights, **how, **more)

    before = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        more = {"return_gates": True} if checkpoint_every is None else {"checkpoint_every": checkpoint_every}
        y, last, gates = run(**more)
        outputs = {"y": y, "hn": last[0], "cn": last[1]}
        loss = torch.zeros((), dtype=dtype)
        for name, out in outputs.items():
            if not only or name == only:
                loss = loss + (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum()
        loss.backward()
        with torch.no_grad():
            untaped, *_ = run()
    finally:
        torch.set_num_threads(before)
    named = {name: out.detach() for name, out in outputs.items()} | {"y without a tape": untaped}
    named |= {f"gate {name}": gate for name, gate in (gates or {}).items()}
    return named | {
        f"gradient of {name}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
        if leaf is not None
    }


def check(case: Case, only: str = "") -> None:
    found, exact = (outcome(case, native=native, only=only) for native in (True, False))
    assert found.keys() == exact.keys()
    errors = {}
    for name, value in found.items():
        assert value.shape == exact[name].shape, name
        largest = exact[name].abs().max().clamp(min=1e-2)
        errors[name] = ((value.double() - exact[name]).abs().max() / largest).item()
    # Sums of gradients cancel out.
    assert not {name: e for name, e in errors.items() if not e <= (2e-4 if "gradient" in name else 2e-5)}


@pytest.mark.parametrize("threads", [1, 2], ids=["1-thread", "2-threads"])
@pytest.mark.parametrize("shape", SHAPES, ids="T{0[0]}-B{0[1]}-I{0[2]}-H{0[3]}-R{0[4]}".format)
def test_shapes(shape, threads):
    check(Case(*shape, threads=threads))


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_any_rows(case):
    check(case)


@pytest.mark.parametrize("only", ["y", "hn", "cn"])
def test_a_gradient_of_one_result(only):
    check(Case(9, 5, 6, 20, 3), only)
    check(Case(1, 2, 6, 20, 3, reverse=True), only)


@settings(max_examples=50, deadline=None)
@given(CASES, st.integers(1, 21))
def test_checkpoints_change_nothing(case, every):
    plain, sparse = outcome(case, native=True), outcome(case, native=True, checkpoint_every=every)
    for name, value in sparse.items():
        # Sums over all rows add up chunk by chunk, and cancel out.
        atol = 1e-6 * max(1.0, float(plain[name].abs().max()))
        torch.testing.assert_close(value, plain[name], rtol=1e-5, atol=atol, msg=name)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.sampled_from([1, 5, 20, 40]), st.sampled_from([5, 33, 130]), st.booleans())
def test_a_row_alone_equals_the_row_in_a_batch(steps, batch, hidden, reverse):
    """To the last bit, whatever the other rows' lengths are."""
    tensors, how = tensors_of(Case(steps, batch, 6, hidden, 4, reverse=reverse, ragged=True))
    weights = [tensors[name] for name in WEIGHTS]
    y, last, _ = native_projected.recurrent(tensors["x"], (tensors["h0"], tensors["c0"]), weights, **how)
    for row, length in enumerate(how["lengths"].tolist()):
        assert not y[length:, row].any()
        own = [tensors[name][row : row + 1] for name in ("h0", "c0")]
        if length == 0:
            assert all(torch.equal(s[row], first[0]) for s, first in zip(last, own, strict=True))
            continue
        x = tensors["x"][:length, row : row + 1]
        alone, last_alone, _ = native_projected.recurrent(x, own, weights, reverse=reverse)
        assert torch.equal(y[:length, row], alone[:, 0])
        assert all(torch.equal(s[row], a[0]) for s, a in zip(last, last_alone, strict=True))


def test_some_gradients_only():
    tensors, how = tensors_of(Case(6, 4, 5, 20, 3, ragged=True))
    expected = outcome(Case(6, 4, 5, 20, 3, ragged=True), native=False, only="y")
    for wanted in ("weight_hr", "x", "h0", "weight_hh"):
        given = {name: tensor.clone().requires_grad_(name == wanted) for name, tensor in tensors.items()}
        weights = [given[name] for name in WEIGHTS]
        y, _, _ = native_projected.recurrent(given["x"], (given["h0"], given["c0"]), weights, **how)
        loss = (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()
        for _ in "12":  # a second backward is right, too
            (found,) = torch.autograd.grad(loss, given[wanted], retain_graph=True)
            torch.testing.assert_close(found, expected[f"gradient of {wanted}"].float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", [{}, {"reverse": True, "ragged": True, "resets": True}], ids=["plain", "rows"])
def test_second_derivatives(how):
    found = []
    for native in (True, False):
        tensors, rows = tensors_of(Case(5, 3, 4, 9, 3, **how))
        dtype = torch.float32 if native else torch.float64
        leaves = {name: tensor.to(dtype).requires_grad_() for name, tensor in tensors.items()}
        run: Any = native_projected.recurrent if native else partial(reference.recurrent, "lstm")
        states, weights = (leaves["h0"], leaves["c0"]), [leaves[name] for name in WEIGHTS]
        y, (_, cn), _ = run(leaves["x"], states, weights, **rows)
        slopes = torch.autograd.grad(y.square().sum() + cn.sum(), [*leaves.values()], create_graph=True)
        penalty = torch.stack([slope.square().sum() for slope in slopes]).sum()
        found.append(torch.autograd.grad(penalty, [*leaves.values()]))
    for value, exact in zip(*found, strict=True):
        assert (value.double() - exact).abs().max() <= 1e-4 * exact.abs().max().clamp(min=1e-2)


def test_what_is_left_to_others():
    tensors, _ = tensors_of(Case(5, 3, 4, 6, 3))
    given = [tensors[name] for name in ("x", "h0", "c0", *WEIGHTS)]
    ops.lstm(*given, backend="native")
    wide = torch.rand(9, 6)  # to more units than there are
    more = [tensors["x"], torch.rand(3, 9), tensors["c0"], tensors["weight_ih"], torch.rand(24, 9), None, None, wide]
    for arguments, lack in (
        ([tensor.bfloat16() for tensor in given], "projection in bfloat16"),
        (more, "projection to more units than there are"),
    ):
        ops.lstm(*arguments)
        with pytest.raises(BackendError) as error:
            ops.lstm(*arguments, backend="native")
        assert str(error.value) == f"lstm: backend 'native' has no {lack}; use backend='auto'"
