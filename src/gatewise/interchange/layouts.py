"""One layer and direction: the arrays of a convention to torch's, and back.

    weight_ih (G*H, I)  weight_hh (G*H, H)  bias_ih (G*H,)  bias_hh (G*H,)

with the gates in torch's order, and an update gate that keeps the old state; no biases for a layer without.
"""

from collections.abc import Mapping

import numpy as np

from gatewise.errors import InputError, ShapeError
from gatewise.interchange.conventions import GATES, TABLE, Array, Convention

Arrays = dict[str, np.ndarray]
Blocks = dict[tuple[str, str], np.ndarray]  # the part of each role (W, U, b, d) and gate: (H, I), (H, H) or (H,)
_AXES = "ldsgoi"


def to_torch(arrays: Mapping[str, np.ndarray], convention: Convention) -> Arrays:
    """The arrays of a layer and direction in torch's form, from those of a convention.

    Raises InputError: one is missing, or there is one too many; ShapeError.
    """
    hidden_size, input_size = _checked_sizes(arrays, convention)
    blocks: Blocks = {}
    for array in convention.arrays:
        if array.name in arrays:
            blocks |= _read(array, np.asarray(arrays[array.name]), hidden_size, input_size)
    _change_meaning(blocks, convention, convention.forget_offset)
    gates = GATES[convention.cell]
    dtype = blocks["W", gates[0]].dtype
    made = {"weight_ih": [blocks["W", g] for g in gates], "weight_hh": [blocks["U", g] for g in gates]}
    if any(role in "bd" for role, _ in blocks):
        none = np.zeros(hidden_size, dtype)
        made["bias_ih"] = [blocks.get(("b", g), none) for g in gates]
        made["bias_hh"] = [blocks.get(("d", g), none) for g in gates]
    return {name: np.concatenate(parts) for name, parts in made.items()}


def from_torch(arrays: Mapping[str, np.ndarray], convention: Convention, form: str | None = None) -> Arrays:
    """The arrays of a convention, from those of a layer and direction in torch's form.

    form: what the cell is, one of `convention.forms`; the first if None. Where the convention has one bias for the two
    of torch and only their sum counts, it gets the sum.

    Raises InputError: there is a recurrent bias of n within the reset gate, for which the convention has no place;
    or, as ShapeError, for arrays that are not torch's.
    """
    form = form or next(iter(convention.forms), None)
    inside = next(c for c in TABLE if c.library == "gatewise" and c.cell == convention.cell)
    hidden_size, input_size = _checked_sizes(arrays, inside)
    blocks: Blocks = {}
    for array in inside.arrays:
        if array.name in arrays:
            blocks |= _read(array, np.asarray(arrays[array.name]), hidden_size, input_size)
    blocks = _fitted(blocks, convention, form)
    _change_meaning(blocks, convention, -convention.forget_offset)
    made = {}
    for array in convention.arrays:
        if array.columns or ("bias_ih" in arrays or not array.optional):
            made[array.name] = _write(array, blocks)
    return made


def shape_in_words(array: Array) -> str:
    """The shape of an array: (I, 3H)."""
    count = len(array.blocks)
    sizes = {"l": "L", "d": "D", "s": "2", "o": "H", "i": {"W": "I", "U": "H"}.get(array.columns, "I+H")}
    sizes["g"] = str(count // 2 if "s" in array.axes else count)
    words = [(sizes["g"] if count > 1 else "") + "H" if axis == "go" else sizes[axis] for axis in array.axes.split()]
    return f"({', '.join(words)}{',' if len(words) == 1 else ''})"


def _checked_sizes(arrays: Mapping[str, np.ndarray], convention: Convention) -> tuple[int, int]:
    """H and I of the arrays. InputError, ShapeError unless they are all there, and fit each other."""
    where = f"convert: {convention.library} {convention.cell}"
    known = {array.name: array for array in convention.arrays}
    optional = [array.name for array in convention.arrays if array.optional]
    needed = [name for name in known if name not in optional or any(other in arrays for other in optional)]
    missing, extra = [name for name in needed if name not in arrays], [name for name in arrays if name not in known]
    if missing or extra:
        problems = [f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("unknown", extra)) if names]
        raise InputError(f"{where}: expected arrays {', '.join(known)}; {'; '.join(problems)}")
    recurrent = next(array for array in convention.arrays if "U" in array.columns)
    hidden_size = _size_of(arrays[recurrent.name], recurrent, "o", where)
    first = next(array for array in convention.arrays if "W" in array.columns)
    input_size = _size_of(arrays[first.name], first, "i", where) - (hidden_size if len(first.columns) == 2 else 0)
    for array in convention.arrays:
        if array.name in arrays:
            sizes = _sizes(array, hidden_size, input_size)
            expected = tuple(int(np.prod([sizes[letter] for letter in axis])) for axis in array.axes.split())
            if tuple(arrays[array.name].shape) != expected or input_size < 1:
                raise _wrong_shape(where, array, arrays[array.name], f", here {expected}" if input_size > 0 else "")
    return hidden_size, input_size


def _size_of(value: np.ndarray, array: Array, letter: str, where: str) -> int:
    """The size of an axis that is part of an array's shape."""
    axes = array.axes.split()
    count = _sizes(array, 1, 1)
    if len(value.shape) == len(axes):
        axis, dim = next((axis, dim) for axis, dim in zip(axes, value.shape, strict=True) if letter in axis)
        others = count["g"] if "g" in axis and letter != "g" else 1
        if dim > 0 and dim % others == 0:
            return dim // others
    raise _wrong_shape(where, array, value, "")


def _wrong_shape(where: str, array: Array, value: np.ndarray, here: str) -> ShapeError:
    return ShapeError(
        f"{where}: expected {array.name} of shape {shape_in_words(array)}{here}, got {tuple(value.shape)}"
    )


def _sizes(array: Array, hidden_size: int, input_size: int) -> dict[str, int]:
    """The size of each letter of an array's axes."""
    halves = 2 if "s" in array.axes else 1
    columns = {"": 1, "W": input_size, "U": hidden_size}.get(array.columns, input_size + hidden_size)
    return {"l": 1, "d": 1, "s": halves, "g": len(array.blocks) // halves, "o": hidden_size, "i": columns}


def _read(array: Array, value: np.ndarray, hidden_size: int, input_size: int) -> Blocks:
    """The blocks of an array, by role and gate."""
    sizes = _sizes(array, hidden_size, input_size)
    letters = array.axes.replace(" ", "")
    value = value.reshape([sizes[letter] for letter in letters])
    value = value.transpose([letters.index(letter) for letter in _AXES if letter in letters])
    value = value.reshape(len(array.blocks), hidden_size, *([sizes["i"]] if array.columns else []))
    blocks: Blocks = {}
    for (what, gate), block in zip(array.blocks, value, strict=True):
        widths = [input_size if role == "W" else hidden_size for role in what]
        parts = np.split(block, np.cumsum(widths)[:-1], axis=1) if array.columns else [block]
        blocks |= {(role, gate): part for role, part in zip(what, parts, strict=True)}
    return blocks


def _write(array: Array, blocks: Blocks) -> np.ndarray:
    """The array that holds the blocks, of which it has those that are missing as zeros."""
    some = blocks["W", array.blocks[0][1]]
    none = np.zeros(len(some), some.dtype)
    values = []
    for what, gate in array.blocks:
        parts = [blocks[role, gate] if array.columns else blocks.get((role, gate), none) for role in what]
        values.append(np.concatenate(parts, axis=-1))
    value = np.stack(values)
    sizes = _sizes(array, len(some), some.shape[1])
    letters = array.axes.replace(" ", "")
    ordered = [letter for letter in _AXES if letter in letters]
    value = value.reshape([sizes[letter] for letter in ordered]).transpose(
        [ordered.index(letter) for letter in letters]
    )
    shape = [int(np.prod([sizes[letter] for letter in axis])) for axis in array.axes.split()]
    return np.ascontiguousarray(value.reshape(shape))


def _change_meaning(blocks: Blocks, convention: Convention, forget_offset: float) -> None:
    """Turn the update gate of the one meaning into that of the other, and move the constant of the forget gate.

    sigmoid(-a) = 1 - sigmoid(a), so a gate that keeps the new state is one that keeps the old, all signs changed.
    """
    if convention.cell == "gru" and convention.z == "new":
        blocks.update({(role, gate): -value for (role, gate), value in blocks.items() if gate == "z"})
    if forget_offset:
        bias = blocks.get(("b", "f"), np.zeros(len(blocks["W", "f"]), blocks["W", "f"].dtype))
        blocks["b", "f"] = bias + np.asarray(forget_offset, bias.dtype)


def _fitted(blocks: Blocks, convention: Convention, form: str | None) -> Blocks:
    """The blocks with the recurrent biases for which the convention has no place added to the others."""
    kept, fitted = convention.holds("d"), dict(blocks)
    for gate in GATES[convention.cell]:
        bias = fitted.get(("d", gate))
        if bias is None or gate in kept:
            continue
        if (convention.cell, form, gate) == ("gru", "after", "n"):
            if np.any(bias != 0):
                raise InputError(_no_place(bias, convention))
        else:
            fitted["b", gate] = fitted["b", gate] + bias
        del fitted["d", gate]
    return fitted


def _no_place(bias: np.ndarray, convention: Convention) -> str:
    able = [c.library for c in TABLE if c.cell == "gru" and "after" in c.forms and "n" in c.holds("d")]
    return (
        f"convert: the GRU of {convention.library} has no recurrent bias of its gate n, and this one has (the last "
        f"{len(bias)} numbers of bias_hh, as large as {np.abs(bias).max():.2g}). The reset gate multiplies it, so it "
        f"cannot be added to another bias. Conventions with a place for it: {', '.join(dict.fromkeys(able))}; or train "
        f"the model on with that bias held at zero"
    )
