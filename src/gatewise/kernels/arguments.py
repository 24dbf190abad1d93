"""Checks of what the functions of `ops` are given: one error for each cause, in words that say what to do."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gatewise.errors import InputError, ShapeError
from gatewise.kernels.regularisation import Regularisation

_NAMES = ("h0", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def check_tensors(
    op: str, gates: int, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor | None], rows: int | None = None
) -> None:
    """Raise ShapeError unless all tensors fit together.

    gates: how many blocks of H rows the weights have; rows: B, of packed x (sum of lengths, I).
    """
    h0, shape = states[0], x.shape
    if len(shape) != (3 if rows is None else 2) or h0.dim() != 2:
        axes = "(T, B, I)" if rows is None else "(sum of lengths, I)"
        raise ShapeError(f"{op}: expected x {axes} and h0 (B, H), got {tuple(x.shape)} and {tuple(h0.shape)}")
    if weights[1] is not None and (weights[2] is None) != (weights[3] is None):
        raise ShapeError(f"{op}: expected both bias_ih and bias_hh or neither, got one of them")
    if shape[0] == 0:
        raise ShapeError(f"{op}: expected at least one step in x (T, B, I), got {tuple(x.shape)}")
    batch, input_size = shape[1] if rows is None else rows, shape[-1]
    size = hidden_size = h0.shape[1]
    if len(weights) > 4 and weights[4] is not None:
        hidden_size = weights[4].shape[-1]
    high, dtype, device, on_cpu = gates * hidden_size, x.dtype, x.device, x.is_cpu
    shapes = ((batch, size), (high, input_size), (high, size), (high,), (high,), (size, hidden_size))
    expected = zip(_NAMES, (h0, *weights), shapes, strict=False)  # weight_hr may be absent
    if len(states) > 1:
        expected = (*expected, ("c0", states[1], (batch, hidden_size)))
    for name, tensor, shape in expected:
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ShapeError(
                f"{op}: expected {name} {shape} for x {tuple(x.shape)} and h0 {tuple(h0.shape)}, "
                f"got {tuple(tensor.shape)}"
            )
        if tensor.dtype is not dtype or not ((on_cpu and tensor.is_cpu) or tensor.device == device):
            raise ShapeError(
                f"{op}: expected {name} to be {dtype} on {device} like x, got {tensor.dtype} on {tensor.device}"
            )


def checked_lengths(op: str, lengths: Tensor, steps: int, batch: int) -> Tensor:
    """Lengths (B,) as int64; ShapeError or InputError unless they are whole numbers from 0 to T."""
    if not isinstance(lengths, Tensor):
        raise InputError(
            f"{op}: expected lengths to be a tensor ({batch},) of whole numbers, got {type(lengths).__name__}; "
            f"use torch.tensor(lengths)"
        )
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise ShapeError(
            f"{op}: expected lengths (B,) of an integer dtype, got {lengths.dtype}; convert them: lengths.long()"
        )
    if lengths.shape != (batch,):
        raise ShapeError(
            f"{op}: expected lengths ({batch},), one for each of the {batch} rows of x, got {tuple(lengths.shape)}"
        )
    lengths = lengths.long()
    if torch.compiler.is_compiling():
        fit = ((lengths >= 0) & (lengths <= steps)).all()
        torch._assert_async(fit, f"{op}: expected lengths from 0 to T, the number of steps of x")
    elif batch > 0 and not lengths.is_meta and not torch._C._are_functorch_transforms_active():
        least, most = lengths.aminmax()
        wrong = least if least < 0 else most
        if least < 0 or most > steps:
            row = int((lengths == wrong).nonzero()[0])
            raise InputError(
                f"{op}: expected lengths from 0 to {steps}, the number of steps of x, got {int(wrong)} for row {row}; "
                + ("a length counts steps from the first" if least < 0 else "shorten it or pad x")
            )
    return lengths


def check_batch_sizes(op: str, batch_sizes: Tensor, x: Tensor) -> int:
    """B, the number of rows; ShapeError or InputError unless batch_sizes can be those of x (sum of lengths, I)."""
    right = isinstance(batch_sizes, Tensor) and batch_sizes.dtype == torch.int64 and batch_sizes.device.type == "cpu"
    if not right or batch_sizes.dim() != 1:
        got = type(batch_sizes).__name__
        if isinstance(batch_sizes, Tensor):
            got = f"{batch_sizes.dtype} {tuple(batch_sizes.shape)} on {batch_sizes.device}"
        raise ShapeError(f"{op}: expected batch_sizes (T,) to be torch.int64 on the CPU, got {got}")
    if len(batch_sizes) == 0 or batch_sizes[-1] < 1 or (batch_sizes[1:] > batch_sizes[:-1]).any():
        raise InputError(
            f"{op}: expected batch_sizes (T,) that fall from step to step and are at least 1, as those of a "
            f"PackedSequence, got {batch_sizes.tolist()[:10]}"
        )
    total = int(batch_sizes.sum())
    if x.dim() == 2 and len(x) != total:
        raise ShapeError(
            f"{op}: expected x (sum of lengths, I) of {total} rows, the sum of batch_sizes, got {tuple(x.shape)}"
        )
    return int(batch_sizes[0])


def check_resets(op: str, resets: Tensor, shape: tuple[int, ...], axes: str) -> None:
    """Raise ShapeError unless resets are booleans of the shape whose axes are these."""
    if not isinstance(resets, Tensor):
        raise InputError(
            f"{op}: expected resets to be a boolean tensor {axes} = {shape}, got {type(resets).__name__}; "
            f"use torch.tensor(resets)"
        )
    if resets.dtype != torch.bool:
        raise ShapeError(
            f"{op}: expected resets {axes} to be torch.bool, got {resets.dtype}; convert them: resets != 0"
        )
    if tuple(resets.shape) != shape:
        raise ShapeError(f"{op}: expected resets {axes} = {shape} for this x, got {tuple(resets.shape)}")


def check_checkpoint_every(op: str, steps: int) -> None:
    """Raise InputError unless steps is a whole number of at least 1."""
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise InputError(f"{op}: expected checkpoint_every to be a whole number of steps >= 1, or None, got {steps!r}")


def check_regularisation(
    op: str, gates: int, regularisation: Regularisation, x: Tensor, states: Sequence[Tensor]
) -> None:
    """Raise ShapeError or InputError unless the masks and gains fit the other tensors, which fit together.

    gates: how many blocks of H rows the weights have.
    """
    if not isinstance(regularisation, Regularisation):
        raise InputError(
            f"{op}: expected regularisation to be a gatewise.kernels.regularisation.Regularisation, got "
            f"{type(regularisation).__name__}"
        )
    given = {name: value for name, value in vars(regularisation).items() if value is not None}
    size, hidden_size = states[0].shape[1], states[-1].shape[1]
    wide = {x.dtype, torch.promote_types(x.dtype, torch.float32)}
    expected = {"dropout": (states[0].shape, {x.dtype}), "zoneout_h": ((*x.shape[:-1], size), {torch.bool})}
    norms = {"norm_ih": ((gates * hidden_size,), wide), "norm_hh": ((gates * hidden_size,), wide)}
    if len(states) > 1:
        expected["zoneout_c"] = ((*x.shape[:-1], hidden_size), {torch.bool})
        norms["norm_c"] = ((hidden_size,), wide)
        if "norm_c" in given:
            expected["norm_c_bias"] = norms["norm_c"]
    if 0 < len(given.keys() & norms.keys()) < len(norms):
        missing = ", ".join(name for name in norms if name not in given)
        raise InputError(f"{op}: expected {', '.join(norms)} of regularisation together or none, but {missing} is None")
    expected |= norms
    for name, value in given.items():
        if name not in expected:
            raise InputError(
                f"{op}: expected {name} of regularisation to be None, for there is nothing for it to act on"
            )
        if not isinstance(value, Tensor):
            if name not in ("zoneout_h", "zoneout_c") or not is_probability(value):
                what = "a mask or a number from 0 to 1" if name.startswith("zoneout") else "a tensor"
                raise InputError(f"{op}: expected {name} of regularisation to be {what}, got {value!r}")
            continue
        shape, dtypes = expected[name]
        if value.shape != shape:
            raise ShapeError(
                f"{op}: expected {name} of regularisation {tuple(shape)} for x {tuple(x.shape)} and h0 "
                f"{tuple(states[0].shape)}, got {tuple(value.shape)}"
            )
        if value.dtype not in dtypes or value.device != x.device:
            kinds = " or ".join(sorted(map(str, dtypes)))
            raise ShapeError(
                f"{op}: expected {name} of regularisation to be {kinds} on {x.device} like x, got {value.dtype} on "
                f"{value.device}"
            )


def is_probability(value: object) -> bool:
    """Whether it is a number from 0 to 1."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
