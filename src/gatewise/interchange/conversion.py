"""convert: weights of one library as those of another, by the table of conventions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from gatewise.errors import InputError, ShapeError
from gatewise.interchange.conventions import Convention, find, of_library
from gatewise.interchange.layouts import Arrays, from_torch, to_torch

Stack = dict[str, Arrays]  # the arrays of each layer and direction: "l0", "l0_reverse", "l1", ...
_LAYER = r"l\d+(?:_reverse)?"
_AS_TORCH = ("torch", "gatewise")


def convert(
    weights: Mapping[str, Any],
    source: str,
    target: str,
    *,
    cell: str | None = None,
    reset: str | None = None,
    nonlinearity: str | None = None,
    prefix: str = "",
) -> dict[str, Any]:
    """The weights of a recurrent layer as another library names, lays out and means them.

        layer.load_state_dict(gw.convert(params, source="haiku", target="gatewise"))

    weights: arrays by name, in dictionaries within dictionaries where the library has them so: NumPy arrays, tensors,
        or what NumPy can read. Of a layer with both directions or of several layers: torch's own names for torch and
        gatewise, both directions in one array for ONNX and oneDNN, and for the others {"l0": {...}, "l0_reverse":
        {...}, "l1": {...}}. The result has the same form; its arrays are tensors for torch and gatewise, of NumPy
        otherwise.
    source, target: names of conventions, as in docs/conventions.md: "torch", "keras", "onnx", "haiku", ...
    cell: "gru", "lstm" or "rnn"; None to tell it from the names and shapes.
    reset: of a GRU, where the reset gate acts, "after" or "before"; nonlinearity: of an RNN, "tanh" or "relu". They
        must be given only where the source can be both, the arrays do not tell, and the target is not the same for
        both: so gatewise and ONNX (linear_before_reset) to Keras need a reset, and torch to Haiku a nonlinearity.
    prefix: take only the arrays whose names begin so; one that all names share need not be given.

    What has no place but in another place is moved there: two biases whose sum alone counts become one, the signs of an
    update gate of the other meaning are changed. What is not moved is bit for bit what it was; bfloat16 becomes
    float32.

    Raises InputError: a convention that does not exist; arrays missing or unknown; a GRU whose reset gate acts where
    the target's does not, or with a bias that the target has no place for. ShapeError: a wrong shape.
    """
    of_library(target, cell)
    found, stack = _read(_selected(_flat(weights), prefix), source, cell, reset, nonlinearity)
    convention, form = _chosen(found, target, reset or nonlinearity)
    return _write({layer: from_torch(arrays, convention, form) for layer, arrays in stack.items()}, convention)


def _flat(weights: Mapping[str, Any], path: str = "") -> dict[str, np.ndarray]:
    """Arrays by the names on the way to them: linear/w."""
    if not isinstance(weights, Mapping):
        raise InputError(f"convert: expected a dictionary of arrays by name, got {type(weights).__name__}")
    flat: dict[str, np.ndarray] = {}
    for key, value in weights.items():
        name = f"{path}{key}"
        flat |= _flat(value, f"{name}/") if isinstance(value, Mapping) else {name: _array(name, value)}
    return flat


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    try:
        array = np.asarray(value)
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"convert: {name}: expected an array, got {type(value).__name__}: {error}") from error
    if array.dtype.kind != "f":
        raise InputError(f"convert: {name}: expected an array of floating-point numbers, got {array.dtype}")
    return array


def _selected(arrays: Arrays, prefix: str) -> Arrays:
    selected = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if not selected:
        names = ", ".join(list(arrays)[:8])
        beginning = f" whose name begins with {prefix!r}" if prefix else ""
        raise InputError(f"convert: expected arrays, got none{beginning}{f' among {names}' if names else ''}")
    return selected


def _read(
    arrays: Arrays, library: str, cell: str | None, reset: str | None, nonlinearity: str | None
) -> tuple[list[Convention], Stack]:
    """The conventions of a library that the arrays keep to, and each layer and direction in torch's form.

    There are several where the arrays do not tell them apart: those of a Keras GRU without biases.
    """
    candidates = of_library(library, cell)
    for wanted, form in (("gru", reset), ("rnn", nonlinearity)):
        if form is not None:
            find(library, wanted, form)  # or says why there is none
            candidates = [c for c in candidates if c.cell == wanted and form in c.forms]
    if not candidates:
        raise InputError(f"convert: only a gru has reset, only an rnn nonlinearity; got cell={cell!r}")
    fitting: list[Convention] = []
    stack: Stack = {}
    problems: list[tuple[int, bool, InputError]] = []
    for convention in candidates:
        try:
            stack = {layer: to_torch(part, convention) for layer, part in _layers(arrays, convention, library)}
            fitting.append(convention)
        except InputError as error:
            known = {array.name for array in convention.arrays}
            found = {name for _, part in _layers(arrays, convention, library) for name in part}
            distance = len(found ^ known) + isinstance(error, ShapeError)
            problems.append((distance, bool(found - known), error))
    if fitting:
        return fitting, stack
    _, unknown, error = min(problems, key=lambda problem: problem[0])
    if unknown:
        raise type(error)(f"{error}; of the weights of a whole model, prefix takes those of one layer") from None
    raise error


def _chosen(found: list[Convention], target: str, given: str | None) -> tuple[Convention, str | None]:
    """The target's convention, and the form of the cell, given or told from the source.

    InputError if the target has none for that form, or if it could be several forms that are not the same there.
    """
    source, cell = found[0].library, found[0].cell
    forms = [given] if given else [form for convention in found for form in convention.forms]
    if len(forms) < 2:
        form = next(iter(forms), None)
        return find(target, cell, form), form
    able = {form: c for form in forms for c in of_library(target, cell) if form in c.forms}
    if set(able) == set(forms) and len({id(convention) for convention in able.values()}) == 1:
        return able[forms[0]], forms[0]
    argument, both = "reset" if cell == "gru" else "nonlinearity", " or ".join(f'"{form}"' for form in forms)
    holds = "holds these differently" if len(able) > 1 else f'holds only "{next(iter(able))}"'
    raise InputError(
        f"convert: these arrays of a {cell} of {source} do not say whether its {argument} is {both}, and {target} "
        f"{holds}; say which it is, with {argument}"
    )


def _layers(arrays: Arrays, convention: Convention, library: str) -> Iterator[tuple[str, Arrays]]:
    """The arrays of each layer and direction, under the names of the convention."""
    known = {array.name for array in convention.arrays}
    groups: dict[str, Arrays] = {}
    for name, array in arrays.items():
        pattern = rf"(?P<name>.*)_(?P<layer>{_LAYER})" if library in _AS_TORCH else rf"(?P<layer>{_LAYER})/(?P<name>.*)"
        match = re.fullmatch(pattern, name)
        layer, own = (match["layer"], match["name"]) if match else ("l0", name)
        groups.setdefault(layer, {})[own] = array
    for layer, group in groups.items():
        shared = _shared_prefix(list(group), known)
        yield from _directions(layer, {name.removeprefix(shared): array for name, array in group.items()}, convention)


def _shared_prefix(names: list[str], known: set[str]) -> str:
    """What stands before the names of the convention, such as "params/" or "encoder.gru."; what fits most of them."""
    prefixes = {name.removesuffix(own) for name in names for own in known if name.endswith(own)}
    prefixes = {prefix for prefix in prefixes if prefix == "" or prefix[-1] in "/."}
    return max(sorted(prefixes), key=lambda prefix: sum(f"{prefix}{own}" in names for own in known), default="")


def _directions(layer: str, arrays: Arrays, convention: Convention) -> Iterator[tuple[str, Arrays]]:
    """A layer's arrays, split where one holds several layers or directions: along the axes l and d."""
    axes = {array.name: array.axes.split() for array in convention.arrays}
    counts = {"l": 1, "d": 1}
    for letter in counts:
        found = {
            array.shape[axes[name].index(letter)]
            for name, array in arrays.items()
            if letter in axes.get(name, ()) and array.ndim == len(axes[name])
        }
        if len(found) == 1:
            counts[letter] = found.pop()
    if counts == {"l": 1, "d": 1} or counts["d"] not in (1, 2) or counts["l"] < 1:
        yield layer, arrays
        return
    first = int(layer.removesuffix("_reverse")[1:])
    for index in range(counts["l"]):
        for direction in range(counts["d"]):
            part = arrays
            for letter, place in (("l", index), ("d", direction)):
                part = {
                    name: array.take([place], axes[name].index(letter)) if letter in axes.get(name, ()) else array
                    for name, array in part.items()
                }
            yield f"l{first + index}{'_reverse' if direction else ''}", part


def _write(stack: Stack, convention: Convention) -> dict[str, Any]:
    """The arrays of the layers and directions as the library has them."""
    if convention.library in _AS_TORCH:
        return {
            f"{name}_{layer}": torch.from_numpy(array) for layer, part in stack.items() for name, array in part.items()
        }
    if any("d" in array.axes for array in convention.arrays):
        for layer in [layer for layer in stack if f"{layer}_reverse" in stack]:
            both = stack[layer], stack.pop(f"{layer}_reverse")
            places = {array.name: array.axes.split().index("d") for array in convention.arrays}
            stack[layer] = {
                name: np.concatenate([part[name] for part in both], axis=places[name]) for name in stack[layer]
            }
    if len(stack) == 1:
        return _nested(next(iter(stack.values())))
    return {layer: _nested(part) for layer, part in stack.items()}


def _nested(arrays: Arrays) -> dict[str, Any]:
    """The arrays in dictionaries within dictionaries: linear/w as {"linear": {"w": ...}}."""
    nested: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, last = name.split("/")
        inner = nested
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = array
    return nested
