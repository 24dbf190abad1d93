"""Keras's layout of the weights of recurrent layers, and ours.

Keras multiplies from the right, so that its matrices are transposed; its GRU's gates are z, r, n, where z means what
ours does; its LSTM's are i, f, g, o, as ours. A GRU with reset_after has both biases, (2, 3H): of the inputs, and of
the state; every other layer has one, (G*H,), which is the sum of ours.
"""

from collections.abc import Sequence

import numpy as np

Arrays = dict[str, np.ndarray]
GATES = {"gru": 3, "lstm": 4, "rnn": 1}
_ORDER = {"gru": [1, 0, 2], "lstm": [0, 1, 2, 3], "rnn": [0]}  # of Keras's blocks as ours; and of ours as Keras's


def _blocks(matrix: np.ndarray, cell: str) -> np.ndarray:
    """The blocks of the last axis, one of each gate, in the other order."""
    blocks = np.split(matrix, GATES[cell], -1)
    return np.concatenate([blocks[i] for i in _ORDER[cell]], -1)


def from_keras(cell: str, kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray | None) -> Arrays:
    """Our weight_ih, weight_hh and, if there is a bias, bias_ih and bias_hh, which is zero where Keras has but one.

    kernel (I, G*H), recurrent_kernel (H, G*H), bias (G*H,) or, of a GRU with reset_after, (2, G*H).
    """
    arrays = {"weight_ih": _blocks(kernel, cell).T, "weight_hh": _blocks(recurrent_kernel, cell).T}
    if bias is not None:
        rows = _blocks(bias, cell)
        arrays["bias_ih"], arrays["bias_hh"] = rows if rows.ndim == 2 else (rows, np.zeros_like(rows))
    return arrays


def to_keras(cell: str, weights: Sequence[np.ndarray], *, both_biases: bool) -> list[np.ndarray]:
    """Keras's kernel, recurrent_kernel and, if there are biases, bias: both, or their sum.

    weights: ours: weight_ih, weight_hh and, if there are biases, bias_ih, bias_hh. both_biases: of a GRU with
    reset="after", where b_hn stands in r * (W_hn h + b_hn). Everywhere else both are added to the same sum, so that
    one bias does.
    """
    weight_ih, weight_hh, *biases = weights
    arrays = [weight_ih.T, weight_hh.T]
    if biases:
        arrays.append(np.stack(biases) if both_biases else np.add(*biases))
    return [np.ascontiguousarray(_blocks(array, cell)) for array in arrays]
