"""The native kernels for the whole family, against the reference in float64: outputs, states, gates and every gradient.

With rows of different lengths, packed rows, sequences that begin anew on the way, checkpoints, and what regularises.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gatewise.kernels import ops, packing, reference
from gatewise.kernels.regularisation import Regularisation

if ops.native_status().available:
    from gatewise.kernels import native_extended, native_recurrent

pytestmark = pytest.mark.skipif(not ops.native_status().available, reason=str(ops.native_status().reason))

CELLS = reference.CELLS
REGULARISABLE = [name for name, cell in CELLS.items() if cell.has_recurrent_weights]
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
GAINS = ("norm_ih", "norm_hh", "norm_c", "norm_c_bias")
REGULARISED = ("dropout", "zoneout", "norm", "dropout zoneout norm", "dropout expectation norm")
SIZES = st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100])
SHAPES = [  # T, B, I, H
    (1, 1, 1, 1),
    (1, 3, 5, 7),
    (1, 33, 28, 64),
    (2, 1, 3, 16),
    (9, 5, 1, 20),
    (7, 70, 12, 48),
    (10, 131, 3, 5),
    (63, 3, 17, 33),
    (12, 16, 64, 128),
    (3, 2, 20, 1024),
    (2, 33, 300, 512),
]


@dataclass(frozen=True)
class Case:
    """A cell, the sizes of a call, and how its rows lie."""

    cell: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    reverse: bool = False
    bias: bool = True
    ragged: bool = False
    packed: bool = False
    resets: bool = False
    threads: int = 2
    seed: int = 0
    regularised: str = ""  # one of REGULARISED, or nothing


CASES = st.builds(
    Case,
    cell=st.sampled_from([*CELLS]),
    steps=st.integers(1, 20),
    batch=st.integers(1, 20),
    inputs=SIZES,
    hidden=SIZES,
    reverse=st.booleans(),
    bias=st.booleans(),
    ragged=st.booleans(),
    packed=st.booleans(),
    resets=st.booleans(),
    threads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**16),
)
REGULARISED_CASES = st.builds(
    replace, CASES, cell=st.sampled_from(REGULARISABLE), regularised=st.sampled_from(REGULARISED)
)


def tensors_of(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random tensors by name, every gate with its own weights, and what says how the rows lie."""
    random = torch.Generator().manual_seed(case.seed)

    def uniform(limit: float, *size: int) -> Tensor:
        return (2 * torch.rand(size, generator=random) - 1) * limit

    of, limit = CELLS[case.cell], 1.5 / case.hidden**0.5
    rows, recurrent = of.blocks * case.hidden, of.has_recurrent_weights
    tensors = {
        "x": uniform(1, case.steps, case.batch, case.inputs),
        "h0": uniform(1, case.batch, case.hidden),
        "c0": uniform(1, case.batch, case.hidden) if of.states > 1 else None,
        "weight_ih": uniform(limit, rows, case.inputs),
        "weight_hh": uniform(limit, rows, case.hidden) if recurrent else None,
        "bias_ih": uniform(1, rows) if case.bias else None,
        "bias_hh": uniform(1, rows) if case.bias and recurrent else None,
    }
    how: dict[str, Any] = {"reverse": case.reverse}
    if case.ragged or case.packed:
        lengths = torch.randint(int(case.packed), case.steps + 1, (case.batch,), generator=random)
        if case.packed:
            lengths = lengths.sort(descending=True).values
        how["lengths"] = lengths
    if case.resets:
        how["resets"] = torch.rand(case.steps, case.batch, generator=random) < 0.3
    if case.packed:
        places = packing.places(how["lengths"])
        tensors["x"] = tensors["x"].flatten(0, 1)[places]
        how |= {"packed": True} | ({"resets": how["resets"].flatten()[places]} if case.resets else {})
    if case.regularised:
        more = regularisation_of(case, random)
        if case.packed:
            more = more.with_masks(lambda mask: mask.flatten(0, 1)[places])
        tensors |= more.gains()
        how["regularisation"] = replace(more, **dict.fromkeys(GAINS))
    return tensors, how


def regularisation_of(case: Case, random: torch.Generator) -> Regularisation:
    """What regularises a case, with random masks (T, B, H) and gains."""
    lstm, rows, masks = case.cell == "lstm", CELLS[case.cell].blocks * case.hidden, {}
    if "dropout" in case.regularised:
        masks["dropout"] = (torch.rand(case.batch, case.hidden, generator=random) < 0.7) / 0.7
    for name, p in (("zoneout_h", 0.3), ("zoneout_c", 0.6))[: 1 + lstm]:
        if "zoneout" in case.regularised:
            masks[name] = torch.rand(case.steps, case.batch, case.hidden, generator=random) < p
        elif "expectation" in case.regularised:
            masks[name] = p
    sizes = {"norm_ih": rows, "norm_hh": rows} | ({"norm_c": case.hidden, "norm_c_bias": case.hidden} if lstm else {})
    if "norm" in case.regularised:
        masks |= {name: torch.rand(size, generator=random) + 0.5 for name, size in sizes.items()}
    return Regularisation(**masks)


def outcome(case: Case, *, native: bool, checkpoint_every: int | None = None) -> dict[str, Tensor]:
    """y, the last states, the gates and the gradients by name; of the reference in float64."""
    run: Any = native_recurrent.recurrent if native else reference.recurrent
    dtype = torch.float32 if native else torch.float64
    tensors, how = tensors_of(case)
    leaves: dict[str, Any] = {
        name: None if tensor is None else tensor.to(dtype, copy=True).requires_grad_()
        for name, tensor in tensors.items()
    }
    states = [leaves[name] for name in ("h0", "c0") if leaves[name] is not None]
    weights = [leaves[name] for name in WEIGHTS]
    if case.regularised:
        run = native_extended.recurrent if native else reference.recurrent
        more = how["regularisation"]
        dropout = None if more.dropout is None else more.dropout.to(dtype)
        how["regularisation"] = replace(more, dropout=dropout, **{name: leaves[name] for name in GAINS})
    before = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        more = {"return_gates": True} if checkpoint_every is None else {"checkpoint_every": checkpoint_every}
        y, last, gates = run(case.cell, leaves["x"], states, weights, **more, **how)
        outputs = [y, *last]
        loss = torch.zeros((), dtype=dtype)
        for out in outputs:
            loss = loss + (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum()
        loss.backward()
        with torch.no_grad():
            untaped, *_ = run(case.cell, leaves["x"], states, weights, **how)
    finally:
        torch.set_num_threads(before)
    named = {"y": y.detach(), "y without a tape": untaped, "hn": last[0].detach()}
    if len(last) > 1:
        named["cn"] = last[1].detach()
    named |= {f"gate {name}": gate for name, gate in (gates or {}).items()}
    return named | {f"gradient of {name}": leaf.grad for name, leaf in leaves.items() if leaf is not None}


def check(case: Case, state_limit: float = 2e-5, gradient_limit: float = 2e-4) -> None:
    found, exact = outcome(case, native=True), outcome(case, native=False)
    assert found.keys() == exact.keys()
    errors = {}
    for name, value in found.items():
        assert value.shape == exact[name].shape, name
        largest = exact[name].abs().max().clamp(min=1e-2)
        errors[name] = ((value.double() - exact[name]).abs().max() / largest).item()
    # Sums of gradients cancel out.
    assert not {
        name: e for name, e in errors.items() if not e <= (gradient_limit if "gradient" in name else state_limit)
    }


def check_regularised(case: Case) -> None:
    """Few units have small variances, by whose roots a normalisation divides."""
    normalised = "norm" in case.regularised
    scale = (10 if case.hidden > 8 else 100) if normalised else 1
    check(case, scale * 2e-5, scale * 2e-4)


@pytest.mark.parametrize("threads", [1, 2], ids=["1-thread", "2-threads"])
@pytest.mark.parametrize("cell", [cell for cell in CELLS if not cell.startswith("gru")])
@pytest.mark.parametrize("shape", SHAPES, ids="T{0[0]}-B{0[1]}-I{0[2]}-H{0[3]}".format)
def test_shapes(shape, cell, threads):
    check(Case(cell, *shape, threads=threads))


@settings(max_examples=150, deadline=None)
@given(CASES)
def test_any_rows(case):
    check(case)


@pytest.mark.parametrize("regularised", REGULARISED)
@pytest.mark.parametrize("cell", REGULARISABLE)
@pytest.mark.parametrize("shape", [SHAPES[i] for i in (0, 4, 7, 8)], ids="T{0[0]}-B{0[1]}-I{0[2]}-H{0[3]}".format)
def test_regularised_shapes(shape, cell, regularised):
    check_regularised(Case(cell, *shape, regularised=regularised))


@settings(max_examples=100, deadline=None)
@given(REGULARISED_CASES)
def test_any_regularised_rows(case):
    check_regularised(case)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*CELLS]),
    st.integers(1, 12),
    st.sampled_from([1, 2, 5, 9, 20, 40]),
    st.sampled_from([1, 5, 16, 33, 130]),
    st.booleans(),
    st.integers(0, 999),
)
def test_a_row_alone_equals_the_row_in_a_batch(cell, steps, batch, hidden, reverse, seed):
    """To the last bit, whatever the other rows' lengths are."""
    tensors, how = tensors_of(Case(cell, steps, batch, 6, hidden, reverse=reverse, ragged=True, seed=seed))
    states = [tensors[name] for name in ("h0", "c0") if tensors[name] is not None]
    weights = [tensors[name] for name in WEIGHTS]
    y, last, _ = native_recurrent.recurrent(cell, tensors["x"], states, weights, **how)
    for row, length in enumerate(how["lengths"].tolist()):
        assert not y[length:, row].any()
        if length == 0:
            assert all(torch.equal(s[row], first[row]) for s, first in zip(last, states, strict=True))
            continue
        own = [first[row : row + 1] for first in states]
        alone, last_alone, _ = native_recurrent.recurrent(
            cell, tensors["x"][:length, row : row + 1], own, weights, reverse=reverse
        )
        assert torch.equal(y[:length, row], alone[:, 0])
        assert all(torch.equal(s[row], a[0]) for s, a in zip(last, last_alone, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_neither_read_nor_given_a_gradient(cell):
    case = Case(cell, 9, 6, 5, 20, ragged=True)
    tensors, how = tensors_of(case)
    states = [tensors[name] for name in ("h0", "c0") if tensors[name] is not None]
    weights = [tensors[name] for name in WEIGHTS]
    leaves = [weight.requires_grad_() for weight in weights if weight is not None]
    valid = (torch.arange(9).unsqueeze(1) < how["lengths"]).unsqueeze(-1)
    outcomes = []
    for padding in (0.0, torch.nan):
        x = torch.where(valid, tensors["x"], padding).requires_grad_()
        y, last, _ = native_recurrent.recurrent(cell, x, states, weights, **how)
        gradients = torch.autograd.grad(y.sum() + last[0].sum(), [x, *leaves])
        assert not gradients[0].masked_select(~valid).any()
        outcomes.append([y, *last, *gradients])
    for a, b in zip(*outcomes, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("cell", CELLS)
def test_registration(cell):
    # Padding leaves a part of what is saved undefined, by which the last check would compare.
    some = ("test_schema", "test_autograd_registration", "test_faketensor")
    cases = (
        (Case(cell, 3, 2, 4, 5), 0, (*some, "test_aot_dispatch_dynamic")),
        (Case(cell, 3, 2, 4, 5), 2, (*some, "test_aot_dispatch_dynamic")),
        (Case(cell, 4, 3, 4, 5, ragged=True, resets=True, reverse=True), 0, some),
    )
    for case, every, checks in cases:
        tensors, how = tensors_of(case)
        leaves = [None if tensor is None else tensor.requires_grad_() for tensor in tensors.values()]
        rows = (how.get("lengths"), how.get("resets"), cell, case.reverse, False, True, every)
        torch.library.opcheck(torch.ops.gatewise.recurrent.default, (*leaves, *rows), test_utils=checks)


@pytest.mark.parametrize("cell", REGULARISABLE)
def test_registration_of_what_is_regularised(cell):
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for case in (
        Case(cell, 3, 2, 4, 5, regularised="dropout expectation norm"),
        Case(cell, 4, 3, 4, 5, ragged=True, resets=True, reverse=True, regularised="zoneout"),
    ):
        tensors, how = tensors_of(case)
        more, lstm = how["regularisation"], cell == "lstm"
        leaves = [tensors[name] for name in ("x", "h0", "c0", *WEIGHTS, *GAINS)]
        leaves = [None if tensor is None else tensor.requires_grad_() for tensor in leaves]
        masks = [k if isinstance(k, Tensor) else None for k in (more.dropout, more.zoneout_h, more.zoneout_c)]
        kept = (0.0, 0.0) if "zoneout" in case.regularised else (0.3, 0.6 if lstm else 0.0)
        rows = (how.get("lengths"), how.get("resets"), *kept, cell, case.reverse, False, True, 0)
        torch.library.opcheck(torch.ops.gatewise.extended.default, (*leaves, *masks, *rows), test_utils=checks)


@settings(max_examples=100, deadline=None)
@given(st.one_of(CASES, REGULARISED_CASES), st.integers(1, 21))
def test_checkpoints_change_nothing(case, every):
    plain, sparse = outcome(case, native=True), outcome(case, native=True, checkpoint_every=every)
    for name, value in sparse.items():
        # Sums of gradients cancel out; what goes through a normalisation is a small difference of large numbers.
        atol = (1e-5 if case.regularised else 1e-6) * max(1.0, float(plain[name].abs().max()))
        torch.testing.assert_close(value, plain[name], rtol=1e-5, atol=atol, msg=name)


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_with_lengths(cell):
    case = Case(cell, 9, 6, 5, 20, ragged=True, resets=True)
    tensors, how = tensors_of(case)
    narrow = {name: None if tensor is None else tensor.bfloat16() for name, tensor in tensors.items()}
    results = []
    for run, dtype in ((native_recurrent.recurrent, torch.bfloat16), (reference.recurrent, torch.float64)):
        given: dict[str, Any] = {n: None if tensor is None else tensor.to(dtype) for n, tensor in narrow.items()}
        states = [given[name] for name in ("h0", "c0") if given[name] is not None]
        y, last, _ = run(cell, given["x"], states, [given[name] for name in WEIGHTS], **how)
        assert y.dtype == last[0].dtype == dtype
        results.append(y.double())
    assert (results[0] - results[1]).abs().max() <= 5e-3 * results[1].abs().max()


def test_a_second_backward_is_right():
    case = replace(Case("lstm", 6, 4, 5, 20), ragged=True)
    tensors, how = tensors_of(case)
    leaves: list[Any] = [tensor.requires_grad_() for tensor in tensors.values()]
    x, h0, c0, *weights = leaves
    y, last, _ = native_recurrent.recurrent("lstm", x, (h0, c0), weights, **how)
    loss = y.square().sum() + last[1].sum()
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
