"""gru(), lstm(), rnn(), mingru(): a whole sequence through the recurrence, by the backend that serves it best.

What they share:

    x (T, B, I): inputs; or (sum of lengths, I), packed, with batch_sizes.
    bias_ih, bias_hh: both None if there are none.
    backend: "native" (float32 and bfloat16 on the CPU), "torch" (no reset="before", no resets, no gates,
        no regularisation; of mingru() all, by a scan), "reference" (anything), or "auto": the first of these that can
        serve.
    reverse: run from the last step to the first; y stays in the order of x, the last state is that after step 0.
    lengths (B,) integer: steps of each row, in any order, from 0 to T. What comes after them is read by none; y and the
        gates are zeros there. A row's last state is that after its last real step, in reverse after step 0.
    batch_sizes (T,) int64 on the CPU: rows at each step of packed x, as in torch's PackedSequence; y and the gates are
        (sum of lengths, ...). Not together with lengths.
    resets (T, B) bool; packed (sum of lengths,): True where a new sequence begins. The state is the first one again
        before that step, and gradients stop there. In reverse each sequence is read from its own end, so that it gives
        what it would give alone.
    return_gates: give, as another result, a dict of what every gate was at every step, each (T, B, H), without
        gradient, "h", the states themselves, among them.
    checkpoint_every: keep the states of every so many steps only and compute the rest again in the backward sweep.
    regularisation: masks of recurrent dropout and zoneout, gains of layer normalisation.

In bfloat16 the native backend keeps the state and all sums in float32. Under `torch.autocast` all tensors are first
brought to autocast's dtype, and so are the results; gradients arrive in the dtype of what was given. Layer
normalisation computes in float32 even then.

They raise ShapeError if a tensor's rank, size, dtype or device does not fit the others, BackendError if the backend
that was asked for cannot serve, and InputError if another argument is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import InputError
from gatewise.kernels import arguments, backends
from gatewise.kernels.backends import BACKENDS, NATIVE_DTYPES, native_calls
from gatewise.kernels.reference import CELLS
from gatewise.kernels.regularisation import Regularisation

__all__ = [
    "BACKENDS",
    "CANDIDATES",
    "NATIVE_DTYPES",
    "NONLINEARITIES",
    "RESETS",
    "gru",
    "lstm",
    "mingru",
    "native_status",
    "rnn",
]

RESETS = ("after", "before")
NONLINEARITIES = ("tanh", "relu")
CANDIDATES = ("linear", "positive")
AUTOCAST_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class NativeStatus:
    """Whether the native kernel can serve here, with which instructions, and if not, why not.

    instruction_set: "amx" (for bfloat16, and AVX-512 for float32), "avx512", "avx2" or "portable".
    """

    available: bool
    instruction_set: str | None
    openmp: bool
    reason: str | None


def native_status() -> NativeStatus:
    """What the native kernel of this installation can do on this machine."""
    if native_calls is None:
        return NativeStatus(False, None, False, backends.WHY_NOT_NATIVE)
    return NativeStatus(True, native_calls.instruction_set(), native_calls.OPENMP, None)


def release_memory() -> None:
    """Give back what the native kernel keeps for the next call: workspaces, buffers of gates, packed weights.

    What it keeps is bounded: a workspace for each calling thread, as large as its largest call needed, and at most
    512 MB of buffers and 128 MB of packed weights. Of the workspaces, that of the calling thread is given back.
    """
    if native_calls is not None:
        native_calls.release_memory()


def gru(
    x: Tensor,
    h0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    *,
    reset: str = "after",
    backend: str = "auto",
    reverse: bool = False,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    resets: Tensor | None = None,
    return_gates: bool = False,
    checkpoint_every: int | None = None,
    regularisation: Regularisation | None = None,
) -> tuple[Any, ...]:
    """The states of a whole sequence: y (T, B, H), and the last one: hn (B, H); gates r, z, n, h if asked for.

    The equations are those of `gatewise.kernels.reference.gru_step`.

    h0 (B, H): first state; weight_ih (3H, I), weight_hh (3H, H), bias_ih (3H,), bias_hh (3H,): the rows of the gates
    r, z, n, one below the other. reset: "after" or "before": where the reset gate meets the recurrent product of the
    candidate. All else, and the errors, are at the top of this module.
    """
    cell = _GRU_CELLS.get(reset)
    if cell is None:
        raise InputError(f"gru: unknown reset {reset!r}; expected one of {', '.join(RESETS)}")
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    more = (reverse, lengths, batch_sizes, resets, return_gates, checkpoint_every, regularisation)
    y, (hn,), gates = _recurrent("gru", cell, 3, backend, x, (h0,), weights, *more)
    return (y, hn, gates) if return_gates else (y, hn)


def lstm(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None = None,
    *,
    backend: str = "auto",
    reverse: bool = False,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    resets: Tensor | None = None,
    return_gates: bool = False,
    checkpoint_every: int | None = None,
    regularisation: Regularisation | None = None,
) -> tuple[Any, ...]:
    """The states of a whole sequence: y (T, B, R), the last state hn (B, R) and the last cell cn (B, H).

    The equations are those of `gatewise.kernels.reference.lstm_step`. The gates are i, f, g, o, c, h.

    h0 (B, R), c0 (B, H): first state and cell; weight_ih (4H, I), weight_hh (4H, R), bias_ih (4H,), bias_hh (4H,): the
    rows of the gates i, f, g, o, one below the other; weight_hr (R, H): projection, without it R is H. All else, and
    the errors, are at the top of this module.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    more = (reverse, lengths, batch_sizes, resets, return_gates, checkpoint_every, regularisation)
    y, (hn, cn), gates = _recurrent("lstm", "lstm", 4, backend, x, (h0, c0), weights, *more)
    return (y, hn, cn, gates) if return_gates else (y, hn, cn)


def rnn(
    x: Tensor,
    h0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    *,
    nonlinearity: str = "tanh",
    backend: str = "auto",
    reverse: bool = False,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    resets: Tensor | None = None,
    return_gates: bool = False,
    checkpoint_every: int | None = None,
    regularisation: Regularisation | None = None,
) -> tuple[Any, ...]:
    """The states of a whole sequence: y (T, B, H), and the last one: hn (B, H); of gates there is h alone.

    The equations are those of `gatewise.kernels.reference.rnn_step`.

    h0 (B, H): first state; weight_ih (H, I), weight_hh (H, H), bias_ih (H,), bias_hh (H,). nonlinearity: "tanh" or
    "relu". All else, and the errors, are at the top of this module.
    """
    cell = _RNN_CELLS.get(nonlinearity)
    if cell is None:
        raise InputError(f"rnn: unknown nonlinearity {nonlinearity!r}; expected one of {', '.join(NONLINEARITIES)}")
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    more = (reverse, lengths, batch_sizes, resets, return_gates, checkpoint_every, regularisation)
    y, (hn,), gates = _recurrent("rnn", cell, 1, backend, x, (h0,), weights, *more)
    return (y, hn, gates) if return_gates else (y, hn)


def mingru(
    x: Tensor,
    h0: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    *,
    candidate: str = "linear",
    backend: str = "auto",
    reverse: bool = False,
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    resets: Tensor | None = None,
    return_gates: bool = False,
    checkpoint_every: int | None = None,
) -> tuple[Any, ...]:
    """The states of a whole sequence: y (T, B, H), and the last one: hn (B, H); gates z, n, h if asked for.

    The equations are those of `gatewise.kernels.reference.mingru_step`.

    h0 (B, H): first state; weight_ih (2H, I), bias_ih (2H,): the rows of the gates z, n, one below the other.
    candidate: "linear" or "positive". All else, and the errors, are at the top of this module; there are no recurrent
    weights, so that there is nothing to regularise.
    """
    cell = _MINGRU_CELLS.get(candidate)
    if cell is None:
        raise InputError(f"mingru: unknown candidate {candidate!r}; expected one of {', '.join(CANDIDATES)}")
    weights = (weight_ih, None, bias_ih, None)
    more = (reverse, lengths, batch_sizes, resets, return_gates, checkpoint_every, None)
    y, (hn,), gates = _recurrent("mingru", cell, 2, backend, x, (h0,), weights, *more)
    return (y, hn, gates) if return_gates else (y, hn)


def both_directions(
    cell: str,
    x: Tensor,
    states: Sequence[Sequence[Tensor]],
    weights: Sequence[Sequence[Tensor | None]],
    *,
    backend: str = "auto",
    lengths: Tensor | None = None,
    batch_sizes: Tensor | None = None,
    resets: Tensor | None = None,
    checkpoint_every: int | None = None,
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]] | None:
    """y (T, B, 2H), and the last states of each direction; None where these are not faster at once.

    cell: a name in `gatewise.kernels.reference.CELLS`. states, weights: of the direction that reads forwards, and of
    the one that reads backwards, each as the public function of the cell takes them. All else, and the errors, are at
    the top of this module.
    """
    op = cell.partition("_")[0]
    gates = CELLS[cell].blocks
    if torch._C._is_any_autocast_enabled() or not backends.suits_both(backend, gates, x, states, weights):
        return None
    more = (lengths, batch_sizes, resets, checkpoint_every)
    for one, own in zip(states, weights, strict=True):
        lengths, resets = _checked(op, gates, x, one, own, *more)
    return backends.run_both(cell, x, states, weights, lengths, batch_sizes, resets, checkpoint_every)


_GRU_CELLS = {reset: f"gru_{reset}" for reset in RESETS}
_RNN_CELLS = {nonlinearity: f"rnn_{nonlinearity}" for nonlinearity in NONLINEARITIES}
_MINGRU_CELLS = {candidate: f"mingru_{candidate}" for candidate in CANDIDATES}


def _recurrent(
    op: str,
    cell: str,
    gates: int,
    backend: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    reverse: bool,
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    resets: Tensor | None,
    return_gates: bool,
    checkpoint_every: int | None,
    regularisation: Regularisation | None,
) -> backends.Outcome:
    """Check the arguments of a public function, and run it; gates: the blocks of H rows that the weights have."""
    if torch._C._is_any_autocast_enabled():
        x, states, weights, regularisation = _autocast(x, states, weights, regularisation)
    plain = lengths is None and batch_sizes is None and resets is None and checkpoint_every is None
    if plain and not return_gates and regularisation is None:
        arguments.check_tensors(op, gates, x, states, weights)
        return backends.run(op, cell, backend, x, states, weights, reverse)

    lengths, resets = _checked(op, gates, x, states, weights, lengths, batch_sizes, resets, checkpoint_every)
    if regularisation is not None:
        arguments.check_regularisation(op, gates, regularisation, x, states)
    more = (lengths, batch_sizes, resets, return_gates, checkpoint_every, regularisation)
    return backends.run(op, cell, backend, x, states, weights, reverse, *more)


def _checked(
    op: str,
    gates: int,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    resets: Tensor | None,
    checkpoint_every: int | None,
) -> tuple[Tensor | None, Tensor | None]:
    """The lengths and resets as backends take them, of arguments that all fit together."""
    if lengths is not None and batch_sizes is not None:
        raise InputError(f"{op}: expected lengths, or batch_sizes of packed x, got both")
    rows = None if batch_sizes is None else arguments.check_batch_sizes(op, batch_sizes, x)
    arguments.check_tensors(op, gates, x, states, weights, rows)
    if lengths is not None:
        lengths = arguments.checked_lengths(op, lengths, x.shape[0], x.shape[1])
    if resets is not None:
        axes = "(T, B)" if rows is None else "(sum of lengths,)"
        arguments.check_resets(op, resets, tuple(x.shape[:-1]), axes)
        resets = resets.to(x.device)
    if checkpoint_every is not None:
        arguments.check_checkpoint_every(op, checkpoint_every)
    return lengths, resets


def _autocast(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    regularisation: Regularisation | None,
) -> tuple[Tensor, Sequence[Tensor], Sequence[Any], Regularisation | None]:
    """All in the dtype of autocast on x's device, which leaves float64 and what is on another device alone.

    Of what regularises, the mask of dropout alone has x's dtype.
    """
    device = x.device.type
    if device not in _AUTOCAST_DEVICES or not torch.is_autocast_enabled(device):
        return x, states, weights, regularisation
    dtype = torch.get_autocast_dtype(device)

    def cast(tensor: Any) -> Any:
        if tensor is None or tensor.dtype not in AUTOCAST_DTYPES or tensor.device.type != device:
            return tensor
        return tensor.to(dtype)

    if isinstance(regularisation, Regularisation):
        regularisation = replace(regularisation, dropout=cast(regularisation.dropout))
    return cast(x), [cast(state) for state in states], [cast(weight) for weight in weights], regularisation
