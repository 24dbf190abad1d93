"""What takes one vector of a row's steps, and how last states are taken apart and put together: several nodes each."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from gatewise.interchange.onnx_constants import Call, slices, split_sizes
from gatewise.interchange.onnx_trial import Trial, Value, constant_of, refused
from gatewise.interchange.onnx_values import Ends, Laid, Link, Steps, directions


def taken(trial: Trial, call: Call, x: Laid, axis: int, part: slice) -> Laid:
    """A part of one axis: some blocks of last states, or the step that a pooling takes."""
    size = x.shape[axis]
    places = range(size)[part]
    if places == range(size):
        return x
    name, left = x.names()[axis], (*x.axes[:axis], (), *x.axes[axis + 1 :])
    if isinstance(x, Ends) and name == "L" and len(places):
        axes = (*x.axes[:axis], (("L", len(places)),), *x.axes[axis + 1 :])
        return replace(x, axes=axes, blocks=tuple(x.blocks[place] for place in places))
    if isinstance(x, Steps) and name == "T" and len(places) == 1:
        if x.pending == "backward half" and places[0] == 0:
            return replace(x, axes=left, pending="first step")
        if places[0] == size - 1 and not x.pending:
            if directions(x.chain) == 2:
                raise refused(
                    call,
                    "takes the last step of both directions, where the backward one has read one step only; our "
                    "pooling takes what each direction ends with",
                )
            trial.reads(None)
            return _pooled(call, replace(x, axes=left), "last")
    raise refused(call, f"takes {len(places)} of {size} places of axis {name or axis}, which no layer of a chain does")


def _pooled(call: Call, x: Steps, pooling: str) -> Steps:
    if not x.chain:
        raise refused(call, "pools before any layer")
    return Steps(x.axes, (*x.chain, Link({"kind": "pooling", "pooling": pooling}, {})))


def slice_(trial: Trial, call: Call) -> Value:
    """A part of some axes, as `taken`."""
    x = call.inputs[0]
    if not isinstance(x, Laid):
        raise refused(call, "slices a constant by data")
    for axis, part in slices(call, len(x.axes)).items():
        x = taken(trial, call, x, axis, part)
    return x


def split(trial: Trial, call: Call) -> list[Value]:
    """Blocks of last states, or the features of the two directions."""
    x, axis = call.inputs[0], int(call.attributes.get("axis", 0))
    if not isinstance(x, Laid) or not -len(x.axes) <= axis < len(x.axes):
        raise refused(call, "has no such axis")
    axis %= len(x.axes)
    sizes = split_sizes(call, x.shape[axis])
    if isinstance(x, Ends):
        ends = np.cumsum([0, *sizes])
        return [taken(trial, call, x, axis, slice(a, b)) for a, b in pairwise(ends)]
    if not isinstance(x, Steps) or x.pending or axis != len(x.axes) - 1 or not x.has_features():
        raise refused(call, "splits the data, which no layer of a chain does")
    if len(sizes) != 2 or sizes[0] != sizes[1] or directions(x.chain) != 2:
        raise refused(call, "splits the features into other parts than the two directions")
    axes = (*x.axes[:-1], (("F", sizes[0]),))
    return [replace(x, axes=axes, pending="forward half"), replace(x, axes=axes, pending="backward half")]


def gather_nd(trial: Trial, call: Call) -> Value:
    """The last step of each row."""
    x, index = call.inputs[0], constant_of(call, 1)
    expected = (trial.lengths - 1).reshape(-1, 1)
    fits = isinstance(x, Steps) and x.names()[:2] == ["B", "T"] and len(x.axes) == 3 and x.has_features()
    if not fits or call.attributes.get("batch_dims", 0) != 1 or not np.array_equal(index, expected):
        raise refused(call, "gathers other things than the last step of each row")
    trial.reads(trial.lengths)
    axes = (x.axes[0], x.axes[2])
    if x.pending == "forward half":
        return replace(x, axes=axes, pending="last step")
    if x.pending or directions(x.chain) == 2:
        raise refused(call, "takes the last step of both directions, where the backward one has read one step only")
    return _pooled(call, replace(x, axes=axes), "last")


def concat(trial: Trial, call: Call) -> Value:
    """Last states of several layers or directions; or what the two directions end with."""
    values, axis = list(call.inputs), int(call.attributes.get("axis", 0))
    if all(isinstance(value, Ends) for value in values):
        return _joined(call, values, axis)
    if len(values) == 2 and all(isinstance(value, Steps) for value in values):
        forward, backward = values
        halves = [forward.pending, backward.pending] == ["last step", "first step"]
        alike = forward.names() == backward.names() == ["B", "F"] and forward.chain is backward.chain
        if halves and alike and axis in (1, -1):
            both = 2 * forward.shape[1]
            return _pooled(call, Steps((forward.axes[0], (("F", both),)), forward.chain), "last")
    raise refused(call, "joins data that are not what the two directions of one layer end with")


def _joined(call: Call, values: list[Ends], axis: int) -> Ends:
    """Last states one after the other along L, or side by side along H."""
    first, rank = values[0], len(values[0].axes)
    if not -rank <= axis < rank or any(value.names() != first.names() for value in values):
        raise refused(call, "joins last states with different axes")
    axis %= rank
    blocks = tuple(block for value in values for block in value.blocks)
    others = {value.shape[:axis] + value.shape[axis + 1 :] for value in values}
    joined = (("L", len(blocks)),)
    if len(others) == 1 and first.names()[axis] == "L":
        return Ends((*first.axes[:axis], joined, *first.axes[axis + 1 :]), blocks)
    if len(others) == 1 and first.names() == ["B", "H"] and axis == 1 and len({value.shape for value in values}) == 1:
        return Ends((first.axes[0], joined + first.axes[1]), blocks)
    raise refused(call, "joins last states along another axis than layers and directions")


def where(trial: Trial, call: Call) -> Value:
    """Steps past a row's length, filled with what a pooling leaves out; or first states, kept by rows without steps."""
    mask = constant_of(call, 0)
    x, other = (call.inputs[position] if position < len(call.inputs) else None for position in (1, 2))
    if isinstance(other, Ends):
        state = constant_of(call, 1)
        first = not np.any(state) or any(np.array_equal(state, given) for given in trial.states.values())
        if first and state.shape == other.shape and np.array_equal(mask, (trial.lengths == 0)[:, None]):
            return other
        raise refused(call, "chooses between last states and something else than the first ones of rows without steps")
    fill = constant_of(call, 2)
    value = float(fill.reshape(())) if fill.size == 1 else np.nan
    if not isinstance(x, Steps) or x.pending or x.names()[:2] != ["T", "B"] or value not in (0.0, -np.inf):
        raise refused(call, "chooses between other things than steps within and past a row's length")
    expected = (np.arange(trial.steps)[:, None] < trial.lengths)[..., None]
    if not np.array_equal(mask, expected):
        raise refused(call, "fills other steps than those past a row's length")
    trial.reads(trial.lengths)
    return replace(x, pending="filled 0" if value == 0 else "filled -inf")


def reduce_(pooling: str, needed: str) -> Callable[[Trial, Call], Value]:
    """A mean, maximum or sum over time; needed: what has been put in the steps past a row's length."""

    def pool(trial: Trial, call: Call) -> Value:
        x, axes = call.inputs[0], call.integers("axes", 1)
        rank = len(x.axes) if isinstance(x, Steps) else 0
        if not isinstance(x, Steps) or not axes or len(axes) != 1 or not -rank <= axes[0] < rank:
            raise refused(call, "expected to reduce over time")
        axis = axes[0] % rank
        if x.names()[axis] != "T":
            raise refused(call, f"expected to reduce over time, got axis {x.names()[axis] or axis}")
        keep = ((),) if call.attributes.get("keepdims", 1) else ()
        reduced = replace(x, axes=x.axes[:axis] + keep + x.axes[axis + 1 :])
        if pooling == "sum" and x.pending == "filled 0":
            return replace(reduced, pending="summed")
        if pooling == "sum" or x.pending not in ("", needed):
            raise refused(call, "reduces over time in a way that is none of our poolings: last, mean, max")
        if not x.pending:
            trial.reads(None)
        return _pooled(call, reduced, pooling)

    return pool


def divide(trial: Trial, call: Call) -> Value:
    """The mean over each row's steps."""
    x, by = call.inputs[0], call.inputs[1] if len(call.inputs) > 1 else None
    if not isinstance(x, Steps) or x.pending != "summed" or not isinstance(by, np.ndarray):
        raise refused(call, "divides the data, which no layer of a chain does")
    if x.names()[0] != "B" or not np.array_equal(by, trial.lengths.reshape(-1, 1)):
        raise refused(call, "divides by other numbers than the rows' lengths")
    return _pooled(call, x, "mean")
