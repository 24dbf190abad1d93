"""What flows through a graph that is a chain of layers: the data on their way along it, and last states.

Neither has numbers. Of each axis is known what it is made of, so that Transpose, Reshape and the like can be followed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np

from gatewise.interchange.onnx_constants import target_shape
from gatewise.interchange.onnx_recurrent import Recurrent

Axis = tuple[tuple[str, int], ...]  # (name, size) of all that is merged in it: T, B, D, F; of last states L, B, H
Pending = Literal["", "filled -inf", "filled 0", "summed", "forward half", "backward half", "last step", "first step"]


@dataclass(frozen=True)
class Link:
    """A layer of the chain: its table, as `sequential.build` takes it, and its parameters.

    first_states: of a recurrent layer, from which rows of which input of the graph its first states are.
    """

    table: dict[str, Any]
    tensors: dict[str, np.ndarray]
    recurrent: Recurrent | None = None
    first_states: tuple[tuple[str, int], ...] = ()


Chain = tuple[Link, ...]


@dataclass(frozen=True)
class Laid:
    """Something with axes."""

    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes, with the sizes that are assumed for time and rows."""
        return tuple(int(np.prod([size for _, size in axis], dtype=np.int64)) for axis in self.axes)

    def names(self) -> list[str]:
        """Of each axis the names of what it is made of, such as T, B, DF."""
        return ["".join(name for name, _ in axis) for axis in self.axes]


L = TypeVar("L", bound=Laid)


@dataclass(frozen=True)
class Steps(Laid):
    """The data after the layers of a chain. pending: what has been done of a pooling that takes several nodes."""

    chain: Chain = ()
    tokens: bool = False
    pending: Pending = ""

    def then(self, link: Link, features: int | None = None) -> "Steps":
        """The data after one more layer; features: how many it gives, if that is another number."""
        axes = self.axes if features is None else (*self.axes[:-1], (("F", features),))
        return Steps(axes, (*self.chain, link))

    def has_features(self) -> bool:
        """Whether the last axis is the features of a step, of both directions one after the other."""
        return bool(self.axes) and self.names()[-1] in ("F", "DF")


@dataclass(frozen=True)
class Ends(Laid):
    """Last states: of each block along L the chain up to its layer, the direction, and "h" or "c"."""

    blocks: tuple[tuple[Chain, int, str], ...] = ()

    def pooled(self) -> Steps | None:
        """The same as the data of a chain that pools with "last"; None if it is something else."""
        chain, _, _ = self.blocks[0]
        recurrent = chain[-1].recurrent
        whole = recurrent is not None and [direction for _, direction, _ in self.blocks] == [
            *range(recurrent.directions)
        ]
        whole = whole and all(other is chain and part == "h" for other, _, part in self.blocks)
        if not whole or recurrent is None or self.names() not in (["B", "LH"], ["B", "H"]):
            return None
        axes = (self.axes[0], (("F", recurrent.output_size),))
        return Steps(axes, (*chain, Link({"kind": "pooling", "pooling": "last"}, {})))


def directions(chain: Chain) -> int:
    """How many directions stand side by side in the features: 2 after a bidirectional layer, until a linear one."""
    for link in reversed(chain):
        if link.table["kind"] == "linear":
            return 1
        if link.recurrent is not None:
            return link.recurrent.directions
    return 1


def transposed(value: L, permutation: Sequence[int] | None) -> L | None:
    """With the axes in another order, the opposite one if None; None if it is no order."""
    order = list(permutation) if permutation is not None else list(reversed(range(len(value.axes))))
    if sorted(order) != list(range(len(value.axes))):
        return None
    return replace(value, axes=tuple(value.axes[axis] for axis in order))


def squeezed(value: L, axes: Sequence[int] | None) -> L | None:
    """Without axes of size 1, all of them if None; None if one is not of size 1."""
    shape, rank = value.shape, len(value.axes)
    if axes is None:
        axes = [axis for axis, size in enumerate(shape) if size == 1]
    if any(not -rank <= axis < rank or shape[axis] != 1 for axis in axes):
        return None
    dropped = {axis % rank for axis in axes}
    return replace(value, axes=tuple(axis for number, axis in enumerate(value.axes) if number not in dropped))


def unsqueezed(value: L, axes: Sequence[int]) -> L | None:
    """With new axes of size 1 at these places; None if there are no such places."""
    rank = len(value.axes) + len(axes)
    if any(not -rank <= axis < rank for axis in axes) or rank > 16:
        return None
    new, old = {axis % rank for axis in axes}, iter(value.axes)
    if len(new) != len(axes):
        return None
    return replace(value, axes=tuple(() if axis in new else next(old) for axis in range(rank)))


def reshaped(value: L, target: Sequence[int], allow_zero: bool) -> L | None:
    """In another shape whose axes hold whole axes of this one, in order; None if they do not."""
    shape = target_shape(value.shape, target, allow_zero)
    axes = None if shape is None else _merged(value.axes, shape)
    # torch's exporter may freeze time or rows in a shape that is to put the directions side by side.
    beside = value.names() == ["T", "B", "D", "F"] and len(target) == 3
    if axes is None and beside and target[2] == value.shape[2] * value.shape[3]:
        axes = (*value.axes[:2], value.axes[2] + value.axes[3])
    return None if axes is None else replace(value, axes=axes)


def _merged(old: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...] | None:
    """The parts of the axes, one after the other, as axes of these sizes."""
    parts = [part for axis in old for part in axis if part[1] > 1 or part[0] not in ("D", "L")]
    axes: list[Axis] = []
    for size in shape:
        taken: list[tuple[str, int]] = []
        product = 1
        while parts and (product < size or (not taken and size == 1 and parts[0][1] == 1)):
            taken.append(parts.pop(0))
            product *= taken[-1][1]
        if product != size:
            return None
        if parts and parts[0][1] == 1 and taken and taken[-1][0] in ("D", "L"):
            taken.append(parts.pop(0))  # the one unit of each direction
        axes.append(tuple(taken))
    return tuple(axes) if all(size == 1 for _, size in parts) else None
