"""Packed sequences: rows sorted by falling length, one step of all after another, as in torch's PackedSequence.

What is computed here is about places, in whole numbers, on the CPU. NumPy repeats them in 3 us, torch's threads in
up to 9 ms where other work has the cores.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def _numbers(tensor: Tensor) -> Any:
    """As an array; what is computed within a transform of torch.func has no memory that NumPy could share."""
    return np.array(tensor.tolist()) if torch._C._are_functorch_transforms_active() else tensor.numpy()


def lengths_of(batch_sizes: Tensor) -> Tensor:
    """The length (B,) of each row, falling, from the number of rows (T,) at each step."""
    ends = batch_sizes - torch.cat([batch_sizes[1:], batch_sizes.new_zeros(1)])  # rows whose last step this is
    return torch.from_numpy(np.repeat(np.arange(len(batch_sizes), 0, -1), _numbers(ends.flip(0))))


def batch_sizes_of(lengths: Tensor) -> Tensor:
    """The number of rows (T,) at each step, from the length (B,) of each row; T is the largest of them."""
    return len(lengths) - torch.bincount(lengths.cpu())[:-1].cumsum(0)


def steps_and_rows(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Step and row of each place."""
    steps = torch.from_numpy(np.repeat(np.arange(len(batch_sizes)), _numbers(batch_sizes)))
    rows = torch.arange(len(steps)) - starts(batch_sizes)[steps]
    return steps, rows


def starts(batch_sizes: Tensor) -> Tensor:
    """The first place (T,) of each step."""
    return batch_sizes.cumsum(0) - batch_sizes


def places(lengths: Tensor) -> Tensor:
    """Where each packed step lies in a padded batch (T, B) whose rows have these falling lengths, as t * B + b."""
    steps, rows = steps_and_rows(batch_sizes_of(lengths))
    return steps * len(lengths) + rows


def backwards(batch_sizes: Tensor) -> Tensor:
    """Of each place the place that takes its turn when every row is read from its own end; its own inverse."""
    steps, rows = steps_and_rows(batch_sizes)
    return starts(batch_sizes)[lengths_of(batch_sizes)[rows] - 1 - steps] + rows
