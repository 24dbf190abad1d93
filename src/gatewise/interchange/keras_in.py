"""Keras models as networks of ours, read without Keras: nothing in a file is imported, unpickled or executed."""

import re
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gatewise.errors import InputError
from gatewise.interchange.hdf5 import Content
from gatewise.interchange.keras_config import KerasLayer, chain
from gatewise.interchange.keras_files import read_file
from gatewise.interchange.keras_layers import READERS, Part, Reading
from gatewise.models.sequential import SequentialNetwork, build


def network(path: str | Path) -> SequentialNetwork:
    """The network that a Keras file holds, in eval mode: float32, or float64 if that is what its weights are.

    path: a `.keras` file of Keras 3 (or 2.13 and later), or an `.h5` file of a whole model, of Keras 2 or 3; a
    Sequential or a functional model in a line. Time comes first in what the network takes and gives: x (T, B, F)
    features or (T, B) tokens.

    A mask (an Embedding with mask_zero, a Masking layer) is not carried over: pass `lengths` to the network for rows
    that are padded at their end, and what Keras gives comes out, up to each row's length; a UserWarning says so.
    recurrent_dropout, of training only, is left out.

    Raises InputError: missing, damaged or hostile; a layer or an option that has no counterpart here, by name.
    """
    path = Path(path)
    source = str(path)
    file = read_file(path)
    layers = chain(file.config, source)
    reading = Reading()
    parts = [part for layer in layers for part in _read(layer, reading)]
    if not parts:
        raise InputError(f"{source}: the model has no layer")
    weights = Weights(file.weights(), layers if file.archive else None)
    tables, arrays = _filled(parts, weights)
    if reading.masked_by is not None:
        warnings.warn(
            f"{source}: layer {reading.masked_by!r} masks steps; here no step is masked: pass lengths for rows that "
            "are padded at their end",
            stacklevel=2,
        )
    return _network(tables, arrays, source)


def _read(layer: KerasLayer, reading: Reading) -> Sequence[Part]:
    reader = READERS.get(layer.kind)
    if reader is None:
        code = ": it holds Python code, which is never executed" if layer.kind == "Lambda" else ""
        layer.refuse(f"a layer of this kind is not read{code}; known are {', '.join(READERS)}")
    return reader(layer, reading)


class Weights:
    """The arrays of a file by layer and role.

    layers: all of the model, for in a `.keras` file arrays lie by the kinds of layers and their number among those;
    None for an `.h5` file, where they lie by the layers' names.
    """

    def __init__(self, content: Content, layers: Sequence[KerasLayer] | None) -> None:
        self.content = content
        self.names = sorted((*content.arrays, *content.others))
        self.folders: dict[str, str] | None = None
        if layers is not None:
            counts: Counter[str] = Counter()
            top = "layers"
            if not any(name.startswith("layers/") for name in content.arrays):
                top = "_layer_checkpoint_dependencies"  # Keras 2.12 and 2.13
            self.folders = {}
            for layer in layers:
                number = counts[layer.kind]
                counts[layer.kind] += 1
                self.folders[layer.name] = f"{top}/{_snake_case(layer.kind)}" + (f"_{number}" if number else "")

    def find(self, layer: KerasLayer, place: str, roles: Sequence[str]) -> list[np.ndarray]:
        """The arrays of a layer: "kernel" and "bias", say. place: which part of it, as a `.keras` file names that."""
        if self.folders is None:
            return self._by_name(layer, place, roles)
        folder = "/".join(part for part in (self.folders[layer.name], place, "vars") if part)
        return [self._array(layer, f"{folder}/{number}", role) for number, role in enumerate(roles)]

    def _array(self, layer: KerasLayer, path: str, role: str) -> np.ndarray:
        if path in self.content.others:
            layer.refuse(f"{role}: expected float16, float32 or float64 at {path}, got {self.content.others[path]}")
        if path not in self.content.arrays:
            layer.refuse(f"{role}: the file holds no array at {path}")
        return self.content.arrays[path]

    def _by_name(self, layer: KerasLayer, place: str, roles: Sequence[str]) -> list[np.ndarray]:
        """In an `.h5` file: model_weights/LAYER/.../forward_gru/gru_cell/kernel:0; the middle has changed often."""
        folder = f"model_weights/{layer.name}/"
        direction = place.split("_")[0] if place.startswith(("forward", "backward")) else None
        start = bisect_left(self.names, folder)
        own = list(takewhile(lambda path: path.startswith(folder), islice(self.names, start, None)))
        found = []
        for role in roles:
            paths = [
                path
                for path in own
                if path.split("/")[-1].partition(":")[0] == role and direction in (None, _direction(path, layer))
            ]
            if len(paths) != 1:
                where = f" of the {direction} direction" if direction else ""
                layer.refuse(f"{role}{where}: expected one array of that name below {folder}, got {paths[:3]}")
            found.append(self._array(layer, paths[0], role))
        return found


def _direction(path: str, layer: KerasLayer) -> str | None:
    """Which direction of a Bidirectional an array belongs to: .../backward_gru/gru_cell/kernel:0.

    Keras puts the direction before the name, but that of a backward layer of one's own it leaves as it is.
    """
    for part in path.split("/")[-3:-1]:
        for direction, key in (("forward", "layer"), ("backward", "backward_layer")):
            own = layer.wrapped(key)
            if part.startswith(f"{direction}_") or (own is not None and part == own.name):
                return direction
    return None


def _snake_case(name: str) -> str:
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _filled(parts: Sequence[Part], weights: Weights) -> tuple[list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """The tables of the layers, with the sizes that only their weights say, and their weights."""
    tables, arrays = [], []
    width = None  # what the part before gives, if known
    for part in parts:
        table, own, width = part.fill(weights.find, width)
        tables.append(table)
        arrays.append(own)
    return tables, arrays


def _network(
    tables: Sequence[dict[str, Any]], arrays: Sequence[dict[str, np.ndarray]], source: str
) -> SequentialNetwork:
    with torch.random.fork_rng(devices=[]):  # the first weights are replaced, so no random numbers are spent
        result = build(tables, source=source)
    dtypes = {array.dtype for own in arrays for array in own.values()}
    result.to(torch.float64 if dtypes and all(dtype.itemsize == 8 for dtype in dtypes) else torch.float32)
    state = {
        f"layers.{position}.{name}": torch.from_numpy(np.array(array, order="C"))
        for position, own in enumerate(arrays)
        for name, array in own.items()
    }
    result.load_state_dict(state)
    return result.eval()
