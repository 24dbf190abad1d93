"""What is assumed of a model's inputs while its graph is followed, and how a node's inputs are read and refused."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gatewise.errors import InputError
from gatewise.interchange.onnx_constants import Call
from gatewise.interchange.onnx_file import OnnxFile
from gatewise.interchange.onnx_values import Ends, Steps

LAYERS = 1000  # of a chain
Value = Any  # np.ndarray, Steps or Ends


class OtherOrder(Exception):
    """A recurrent layer reads rows first: what was taken for time is rows."""


@dataclass
class Trial:
    """What is assumed of the inputs while a graph is followed, and what was found.

    steps, rows: sizes. lengths (B,): what the input for lengths is taken to be; all steps if there is none.
    states: what each input for first states is taken to be: numbers that occur once. ways: whether layers were found
    that read rows to their lengths ("lengths") and that read all steps ("all steps").
    """

    file: OnnxFile
    steps: int
    rows: int
    lengths: np.ndarray
    states: dict[str, np.ndarray] = field(default_factory=dict)
    ways: set[str] = field(default_factory=set)

    def reads(self, lengths: np.ndarray | None) -> bool:
        """Take note of the lengths that a layer reads; False if they are none that the layers of a chain can share."""
        whole = lengths is None or bool(np.all(lengths == self.steps))
        given = lengths is not None and np.array_equal(lengths.reshape(-1), self.lengths)
        if whole != given:  # both, where every row has all steps anyway
            self.ways.add("all steps" if whole else "lengths")
        return whole or given


def refused(call: Call, why: str) -> InputError:
    """The error that names a node and its place."""
    return InputError(f"{call.where}: {why}")


def steps_of(call: Call, position: int = 0) -> Steps:
    """The data at an input; what is under way of a pooling must be completed first."""
    value = call.inputs[position] if position < len(call.inputs) else None
    if isinstance(value, Ends):
        value = value.pooled()
        if value is None:
            raise refused(call, "reads last states in a way that is no layer of a chain")
    if not isinstance(value, Steps):
        raise refused(call, f"input {position} is a constant, where a chain of layers has the data")
    if value.pending:
        raise refused(call, "stands within a pooling over time, of which it is no part")
    if len(value.chain) >= LAYERS:
        raise refused(call, f"more than {LAYERS} layers")
    return value


def constant_of(call: Call, position: int) -> np.ndarray:
    """The constant at an input."""
    value = call.inputs[position] if position < len(call.inputs) else None
    if not isinstance(value, np.ndarray):
        raise refused(call, f"expected input {position} to be a constant; a chain of layers has no other path of data")
    return value
