"""What of an ONNX graph is known before any input is given: nodes whose inputs are constants are computed with NumPy.

Only the operators that exporters put between a weight, or a shape, and its use. Results are measured before they are
made, so that a small file cannot ask for a large array.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gatewise.errors import InputError
from gatewise.interchange.onnx_file import OnnxFile

if TYPE_CHECKING:
    import onnx

Array = np.ndarray
Inputs = Sequence[Any]
_CAST = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}
_LENGTH = 80  # characters of a name that an error shows


def place(node: "onnx.NodeProto", index: int, graph: str = "the graph") -> str:
    """How an error names a node: its operator, its name, and where it stands."""
    domain = "" if node.domain in ("", "ai.onnx") else f" of {node.domain[:_LENGTH]}"
    name = f' "{node.name[:_LENGTH]}"' if node.name else ""
    return f"{node.op_type[:_LENGTH]}{domain}{name} (node {index} of {graph})"


_ATTRIBUTES = {
    1: "alpha beta clip ratio value_float",
    2: "axis to start end keepdims allowzero batch_dims transA transB num_outputs hidden_size linear_before_reset"
    " layout input_forget value_int",
    3: "direction",
    4: "value",
    6: "activation_alpha activation_beta value_floats",
    7: "axes perm shape split starts ends value_ints",
    8: "activations",
}
_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors", 10: "graphs"}
_TYPE_OF = {name: type for type, names in _ATTRIBUTES.items() for name in names.split()}


def attributes(node: "onnx.NodeProto", where: str) -> dict[str, Any]:
    """The attributes of a node: numbers, texts, lists of them; tensors and graphs as they are.

    Raises InputError: one that we read has another type than it has in ONNX, or is no UTF-8.
    """
    result: dict[str, Any] = {}
    for attribute in node.attribute:
        shown = f"{where}: the attribute {attribute.name[:_LENGTH]}"
        if attribute.type not in _FIELDS or _TYPE_OF.get(attribute.name, attribute.type) != attribute.type:
            raise InputError(f"{shown} has type {attribute.type} of ONNX, which is not the one that it must have")
        value = getattr(attribute, _FIELDS[attribute.type])
        try:
            if attribute.type == 3:
                value = value.decode()
            elif attribute.type == 8:
                value = [text.decode() for text in value]
            elif attribute.type in (6, 7, 9, 10):
                value = list(value)
        except UnicodeDecodeError:
            raise InputError(f"{shown} is not UTF-8") from None
        result[attribute.name] = value
    return result


class Call:
    """A node with its attributes and what is known of its inputs, by position; None where there is none.

    In `fold` they are arrays; where a chain of layers is followed, some are the data.
    """

    def __init__(self, file: OnnxFile, node: "onnx.NodeProto", inputs: Inputs, where: str) -> None:
        self.file, self.node, self.inputs, self.where = file, node, inputs, where
        self.attributes = attributes(node, where)

    def input(self, position: int) -> Array:
        """The input at a position. Raises InputError if there is none."""
        value = self.optional(position)
        if value is None:
            raise InputError(f"{self.where}: input {position} is missing")
        return value

    def optional(self, position: int) -> Array | None:
        """The input at a position, or None."""
        return self.inputs[position] if position < len(self.inputs) else None

    def integers(self, name: str, position: int) -> list[int] | None:
        """Whole numbers that are an attribute in old versions of an operator and an input in new ones."""
        if name in self.attributes:
            return self.attributes[name]
        value = self.optional(position)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or value.size > 64 or value.dtype.kind not in "iu":
            raise InputError(f"{self.where}: expected input {position} to be some whole numbers that are constant")
        return [int(each) for each in value.reshape(-1)]

    def spend(self, size: int, dtype: np.dtype) -> None:
        """Account for a result of so many numbers that is about to be made."""
        self.file.budget.spend(size * dtype.itemsize, self.where)


def _constant(call: Call) -> Array:
    for name in ("value_float", "value_floats", "value_int", "value_ints"):
        if name in call.attributes:
            return np.array(call.attributes[name], np.float32 if "float" in name else np.int64)
    if "value" not in call.attributes:
        raise InputError(f"{call.where}: expected the attribute value, got {', '.join(call.attributes) or 'none'}")
    return call.file.array(call.attributes["value"], call.where)


def _cast(call: Call) -> Array:
    x, to = call.input(0), call.attributes.get("to")
    if to not in _CAST:
        raise InputError(f"{call.where}: a cast to type {to} of ONNX is not supported")
    call.spend(x.size, np.dtype(_CAST[to]))
    return x.astype(_CAST[to])


def shape_slice(shape: Sequence[int], attributes: dict[str, Any]) -> Array:
    """What Shape gives: the sizes from the attribute start to the attribute end."""
    return np.array(shape[slice(attributes.get("start", 0), attributes.get("end"))], np.int64)


def target_shape(shape: Sequence[int], target: Sequence[int], allow_zero: bool) -> tuple[int, ...] | None:
    """The shape that Reshape gives: 0 keeps a size (unless zero is allowed), -1 is what is left; None if none fits."""
    if not allow_zero and any(size == 0 and axis >= len(shape) for axis, size in enumerate(target)):
        return None
    sizes = [shape[axis] if size == 0 and not allow_zero else size for axis, size in enumerate(target)]
    total, known = math.prod(shape), math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known > 0 and total % known == 0:
        sizes[sizes.index(-1)] = total // known
    return tuple(sizes) if min(sizes, default=0) >= 0 and math.prod(sizes) == total else None


def _reshape(call: Call) -> Array:
    x = call.input(0)
    target = call.integers("shape", 1)
    shape = None if target is None else target_shape(x.shape, target, bool(call.attributes.get("allowzero", 0)))
    if shape is None:
        raise InputError(f"{call.where}: a tensor {x.shape} does not fit the shape {target}")
    if not x.flags.c_contiguous:
        call.spend(x.size, x.dtype)  # for it is copied
    return x.reshape(shape)


def _squeeze(call: Call) -> Array:
    axes = call.integers("axes", 1)
    return np.squeeze(call.input(0), None if axes is None else tuple(axes))


def _unsqueeze(call: Call) -> Array:
    axes = call.integers("axes", 1)
    if axes is None:
        raise InputError(f"{call.where}: axes are missing")
    return np.expand_dims(call.input(0), tuple(axes))


def _concat(call: Call) -> Array:
    arrays = [call.input(position) for position in range(len(call.inputs))]
    call.spend(sum(array.size for array in arrays), arrays[0].dtype if arrays else np.dtype(np.float64))
    return np.concatenate(arrays, call.attributes.get("axis", 0))


def split_sizes(call: Call, size: int) -> list[int]:
    """The sizes of the parts that Split makes of an axis. Raises InputError."""
    sizes = call.integers("split", 1)
    if sizes is None:
        count = int(call.attributes.get("num_outputs", len(call.node.output)))
        each = -(-size // max(1, count))
        sizes = [each] * (count - 1) + [size - each * (count - 1)] if count <= 64 else []
    if min(sizes, default=-1) < 0 or sum(sizes) != size or len(sizes) != len(call.node.output):
        raise InputError(f"{call.where}: an axis of {size} cannot be split so")
    return sizes


def _split(call: Call) -> list[Array]:
    x, axis = call.input(0), call.attributes.get("axis", 0)
    return np.split(x, np.cumsum(split_sizes(call, x.shape[axis]))[:-1], axis)


def slices(call: Call, rank: int) -> dict[int, slice]:
    """What Slice takes of each axis that it names. Raises InputError."""
    starts, ends = call.integers("starts", 1), call.integers("ends", 2)
    axes, steps = call.integers("axes", 3), call.integers("steps", 4)
    starts, ends = starts or [], ends or []
    axes, steps = list(range(len(starts))) if axes is None else axes, [1] * len(starts) if steps is None else steps
    if (
        not len(starts) == len(ends) == len(axes) == len(steps)
        or not all(steps)
        or any(not -rank <= axis < rank for axis in axes)
    ):
        raise InputError(f"{call.where}: starts, ends, axes and steps do not fit a tensor of {rank} axes")
    # With a negative step an end before the first element is far below -size, which Python reads the same way.
    return {axis % rank: slice(*each) for axis, each in zip(axes, zip(starts, ends, steps, strict=True), strict=True)}


def _slice(call: Call) -> Array:
    x = call.input(0)
    taken = slices(call, x.ndim)
    return x[tuple(taken.get(axis, slice(None)) for axis in range(x.ndim))]


def _gather(call: Call) -> Array:
    x, indices, axis = call.input(0), call.input(1), call.attributes.get("axis", 0)
    if indices.dtype.kind not in "iu" or not -x.ndim <= axis < x.ndim:
        raise InputError(f"{call.where}: cannot gather from axis {axis} of {x.shape} with indices of {indices.dtype}")
    call.spend(x.size // max(1, x.shape[axis]) * indices.size, x.dtype)
    return np.take(x, indices, axis)


def _expand(call: Call) -> Array:
    return _broadcast(call, call.input(0), np.broadcast_shapes(call.input(0).shape, tuple(call.integers("", 1) or [])))


def _broadcast(call: Call, value: Array, shape: Sequence[int]) -> Array:
    _check_shape(call, shape)
    call.spend(math.prod(shape), value.dtype)
    return np.array(np.broadcast_to(value, shape))


def _check_shape(call: Call, shape: Sequence[int]) -> None:
    if len(shape) > 16 or any(not 0 <= size < 2**31 for size in shape):
        raise InputError(f"{call.where}: cannot make a tensor of the shape {str(tuple(shape))[:_LENGTH]}")


def _constant_of_shape(call: Call) -> Array:
    value = np.zeros(1, np.float32)
    if "value" in call.attributes:
        value = call.file.array(call.attributes["value"], call.where)
    return _broadcast(call, value.reshape(()), call.integers("", 0) or [])


def _tile(call: Call) -> Array:
    x, repeats = call.input(0), call.integers("", 1) or []
    _check_shape(call, repeats)
    call.spend(x.size * math.prod(repeats), x.dtype)
    return np.tile(x, repeats)


def _range(call: Call) -> Array:
    dtype = call.input(0).dtype
    start, limit, step = (call.input(position).reshape(()).item() for position in range(3))
    count = math.ceil((limit - start) / step) if step else 2**31
    if count >= 2**31:
        raise InputError(f"{call.where}: cannot count from {start} to {limit} in steps of {step}")
    call.spend(max(0, count), dtype)
    return np.arange(start, limit, step, dtype=dtype)


def _where(call: Call) -> Array:
    condition, x, y = (call.input(position) for position in range(3))
    call.spend(math.prod(np.broadcast_shapes(condition.shape, x.shape, y.shape)), x.dtype)
    return np.where(condition, x, y)


def _elementwise(function: Callable[..., Array]) -> Callable[[Call], Array]:
    def compute(call: Call) -> Array:
        arrays = [call.input(position) for position in range(len(call.inputs))]
        call.spend(math.prod(np.broadcast_shapes(*(array.shape for array in arrays))), np.dtype(np.float64))
        return function(*arrays)

    return compute


def _divide(x: Array, y: Array) -> Array:
    if x.dtype.kind not in "iu":
        return x / y
    if not np.all(y):
        raise ValueError("division by zero")
    return x // y


FOLDED: dict[str, Callable[[Call], Any]] = {
    "Constant": _constant,
    "Identity": lambda call: call.input(0),
    "Cast": _cast,
    "Shape": lambda call: shape_slice(call.input(0).shape, call.attributes),
    "Size": lambda call: np.array(call.input(0).size, np.int64),
    "Transpose": lambda call: np.transpose(call.input(0), call.attributes.get("perm")),
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Tile": _tile,
    "Range": _range,
    "Where": _where,
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(_divide),
    "Neg": _elementwise(np.negative),
    "Equal": _elementwise(np.equal),
    "Less": _elementwise(np.less),
    "Greater": _elementwise(np.greater),
    "Not": _elementwise(np.logical_not),
    "And": _elementwise(np.logical_and),
}


def is_folded(node: "onnx.NodeProto") -> bool:
    """Whether a node of constants is computed."""
    return node.domain in ("", "ai.onnx") and node.op_type in FOLDED


def fold(file: OnnxFile, node: "onnx.NodeProto", inputs: Inputs, where: str) -> list[Array]:
    """The outputs of a node of constants. Raises InputError if its inputs do not fit, or they would be too large."""
    call = Call(file, node, inputs, where)
    try:
        with np.errstate(all="ignore"):
            result = FOLDED[node.op_type](call)
    except InputError:
        raise
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise InputError(f"{where}: cannot be computed: {str(error)[:200]}") from None
    return [np.asarray(each) for each in result] if isinstance(result, list) else [np.asarray(result)]
