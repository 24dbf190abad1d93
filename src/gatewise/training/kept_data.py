"""The examples of a run as the network reads them, in one file, so that a training goes on without what it was made of.

training_state/data.safetensors     of each part its columns, and what people see of its examples
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.data.examples import Examples
from gatewise.data.ragged import Ragged
from gatewise.data.splits import PARTS
from gatewise.errors import RunError
from gatewise.run_folder import load_tensors, read_header, save_tensors

Columns = dict[str, Ragged | np.ndarray]


@dataclass(frozen=True)
class Part:
    """A part of the examples.

    columns: by name, what the network reads and what it is to say. places, texts: of each example, where it lies and
    what it says, for people; texts are None where an example is no text.
    """

    columns: Columns
    places: list[str]
    texts: list[str] | None

    @staticmethod
    def of(examples: Examples, columns: Columns) -> "Part":
        """The part of these examples."""
        texts = None
        if examples.input_kind != "steps":
            texts = [text if isinstance(text, str) else " ".join(text) for text in examples.inputs]
        return Part(columns, examples.places, texts)


def keep(path: Path, parts: Mapping[str, Part]) -> str:
    """Write the parts, of `splits.PARTS`; returns what identifies them, for checkpoints. Raises RunError."""
    save_tensors(path, _tensors(parts), {})
    return read_header(path)["sha256"]


def read_kept(path: Path, identity: str) -> dict[str, Part]:
    """The parts that were kept. RunError: missing, damaged, or not those of the checkpoint with this identity."""
    tensors, _ = load_tensors(path)
    if read_header(path)["sha256"] != identity:
        raise RunError(f"{path}: damaged, or of another run: the checkpoint was made with other examples")
    parts: dict[str, Part] = {}
    for name in sorted({key.partition("/")[0] for key in tensors}, key=PARTS.index):
        held = {key.partition("/")[2]: tensor.numpy() for key, tensor in tensors.items() if key.startswith(f"{name}/")}
        about = json.loads(held.pop("about").tobytes())
        columns: Columns = {
            column: Ragged(held[f"{column}/values"], held[f"{column}/offsets"]) if ragged else held[column]
            for column, ragged in about["columns"].items()
        }
        parts[name] = Part(columns, about["places"], about["texts"])
    return parts


def same(parts: Mapping[str, Part], others: Mapping[str, Part]) -> bool:
    """Whether the parts hold the same examples."""
    left, right = _tensors(parts), _tensors(others)
    return left.keys() == right.keys() and all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def _tensors(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        about: dict[str, Any] = {
            "columns": {column: isinstance(values, Ragged) for column, values in part.columns.items()},
            "places": part.places,
            "texts": part.texts,
        }
        document = json.dumps(about).encode()
        tensors[f"{name}/about"] = torch.from_numpy(np.frombuffer(document, dtype=np.uint8).copy())
        for column, values in part.columns.items():
            if isinstance(values, Ragged):
                tensors[f"{name}/{column}/values"] = torch.from_numpy(values.values)
                tensors[f"{name}/{column}/offsets"] = torch.from_numpy(values.offsets)
            else:
                tensors[f"{name}/{column}"] = torch.from_numpy(np.ascontiguousarray(values))
    return tensors
