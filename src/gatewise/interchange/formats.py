"""export and import_network: a model to another library's form and back, whichever it is.

A format is a line in a table here, and a module that is imported when it is asked for.
"""

import importlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gatewise.config import Section, dump_toml
from gatewise.data.batches import TokenFile, open_tokens
from gatewise.data.tokenizers import Tokenizer
from gatewise.errors import InputError
from gatewise.interchange import torch_in, torch_modules
from gatewise.interchange.parity import Parity
from gatewise.models.sequential import SequentialNetwork
from gatewise.run_folder import DOCUMENTS, RunFolder
from gatewise.training.checkpoint import load_checkpoint
from gatewise.training.network import Network
from gatewise.training.runs import load

_CALIBRATION = (64, 32)  # steps and rows of a run's text, from which the ranges of int8 are taken
_WRITERS: dict[str, tuple[str, str]] = {
    "torch": ("gatewise.interchange.torch_out", "export_torch"),
    "onnx": ("gatewise.interchange.onnx_out", "export_onnx"),
    "keras": ("gatewise.interchange.keras_out", "export_keras"),
    "c": ("gatewise.interchange.c", "export_c"),
}
_READERS = {"onnx": "gatewise.interchange.onnx_in", "keras": "gatewise.interchange.keras_in"}
_SUFFIXES = {
    ".onnx": "onnx",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".pt": "torch",
    ".pth": "torch",
    ".bin": "torch",
    ".safetensors": "torch",
}


def export(
    model: Any,
    format: str,
    folder: str | Path,
    *,
    weights: str = "float32",
    calibration: np.ndarray | None = None,
    overwrite: bool = False,
) -> Parity:
    """Write a model in another library's form to a folder, run it there, and say how near it comes to the model.

    model: the folder of a run; a model of gatewise; a module of torch that is a chain of layers, or a list of layers.
    format: "torch", "onnx", "keras" or "c". folder: is made, with the artifact, golden.npz, parity.json and parity.md.
    weights: "float32", or, for C, "int8". calibration: for int8, inputs like those to come, tokens (T, B) or features
        (T, B, F); by default from the text that a run was trained on, or random ones if there is none.
    overwrite: replace a folder that is there.

    Raises InputError: a model that is no chain of known layers, or a folder that exists; ExportError: the format cannot
    hold the model, or what was written does not give what the model gives; then nothing is left of it. RunError.
    """
    if format not in _WRITERS:
        raise InputError(f"export: expected format to be one of {', '.join(_WRITERS)}, got {format!r}")
    if weights not in ("float32", "int8") or (weights == "int8" and format != "c"):
        raise InputError(
            f"export: {format} takes weights of float32{' or int8' if format == 'c' else ''}, got {weights!r}"
        )
    if calibration is not None and weights != "int8":
        raise InputError("export: calibration is for weights of int8")
    if isinstance(model, str | Path):
        if weights == "int8" and calibration is None:
            calibration = _read_before(RunFolder(model))
        metadata, description = run_metadata(model), f"the run {Path(model).name}"
        model = load(model, device="cpu")
    else:
        metadata, description = _metadata(model), f"a {type(model).__name__}"
    network = _chain(model)
    module, name = _WRITERS[format]
    write = getattr(importlib.import_module(module), name)
    if format == "c":
        how: dict[str, Any] = {"weights": weights, "calibration": calibration, "description": description}
        return write(network, folder, **how, overwrite=overwrite)
    return write(network, folder, metadata=metadata, overwrite=overwrite)


def import_network(
    model: str | Path | nn.Module | Sequence[nn.Module], *, description: str | Path | None = None
) -> Network:
    """A model from elsewhere as layers of gatewise, which predicts, is saved as a run, and can be exported.

    model: a file (.onnx, .keras, .h5, or a torch state dict: .pt, .pth, .bin, .safetensors); or a module of torch, as
        `interchange.torch_modules` takes it.
    description: a TOML file that says what the layers of a state dict are; None to guess from names and shapes. What
        was guessed is in the network's `source`.

    Raises InputError: no such file, damaged, or with something in it that has no counterpart here, which is named.
    """
    if not isinstance(model, str | Path):
        return Network(torch_modules.network(model), source=f"a {type(model).__name__} of torch")
    found = read_network(Path(model), description)
    return Network(found.network, source=found.in_words())


@dataclass(frozen=True)
class Found:
    """The network in a file, what kind of file it was, and what was guessed of it, a line each."""

    network: SequentialNetwork
    file: str
    kind: str
    guesses: list[str]

    def in_words(self) -> str:
        """One line for the configuration of a run."""
        return "; ".join([f"{self.file}, {self.kind}", *self.guesses])


def read_network(path: Path, description: str | Path | None = None) -> Found:
    """As `import_network` of a file, with what was found."""
    format = format_of(path)
    if format == "torch":
        network, guesses = torch_in.network(path, description)
        return Found(network, path.name, "a torch state dict", guesses)
    if description is not None:
        raise InputError(f"{path}: is a {format} file, which describes itself; leave out {description}")
    module = importlib.import_module(_READERS[format])
    return Found(module.network(path), path.name, "an ONNX model" if format == "onnx" else "a Keras model", [])


def format_of(path: Path) -> str:
    """Which format a file has, by its name or else by how it begins. InputError if that cannot be told."""
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; expected a model")
    if path.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[path.suffix.lower()]
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"\x89HDF\r\n"):
        return "keras"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return "keras" if "config.json" in archive.namelist() else "torch"
    if start.startswith(b"\x08") and b"\x12" in start[2:4]:  # ir_version, then the producer's name
        return "onnx"
    raise InputError(f"{path}: expected a file that ends with one of {', '.join(_SUFFIXES)}")


def _chain(model: Any) -> SequentialNetwork:
    """The chain of layers that a model computes, on the CPU."""
    network = getattr(model, "network", model)
    if network is not model and not hasattr(network, "as_sequential"):
        raise InputError(
            f"export: a {type(model).__name__} is no chain of layers, one after another, so it cannot be exported"
        )
    if not isinstance(network, nn.Module | Sequence):
        hint = "; fit it first" if hasattr(model, "fit") else ""
        raise InputError(f"export: expected a run, a model or a module, got {type(model).__name__}{hint}")
    return torch_modules.network(network).cpu()


def run_metadata(run: str | Path) -> dict[str, str]:
    """What an artifact says of the run it was made from: its task, config.toml and documents (tokenizer), as texts."""
    folder = RunFolder(run)
    metadata = {"task": folder.check_existing(), "config": folder.config.read_text(encoding="utf-8")}
    for name in DOCUMENTS:
        if folder.document(name).exists():
            metadata[name] = folder.document(name).read_text(encoding="utf-8")
    return metadata


def _read_before(folder: RunFolder) -> np.ndarray | None:
    """Tokens (T, B) from all over the text that a run was trained on; None if it has none, or too few."""
    if not folder.tokens.exists() or not folder.checkpoint.exists():
        return None
    tokens = open_tokens(TokenFile.from_json(load_checkpoint(folder.checkpoint).data, folder.tokens))
    steps, batch = _CALIBRATION
    if len(tokens) < steps:
        return None
    starts = np.linspace(0, len(tokens) - steps, batch).astype(int)
    return np.stack([tokens[start : start + steps].numpy() for start in starts], axis=1).astype(np.int64)


def _metadata(model: Any) -> dict[str, str]:
    """The same of a model in memory, as far as it has such things."""
    metadata = {}
    if isinstance(config := getattr(model, "config", None), Section):
        metadata["config"] = dump_toml(config)
    if isinstance(tokenizer := getattr(model, "tokenizer", None), Tokenizer):
        metadata["tokenizer"] = tokenizer.to_json()
    if source := getattr(model, "source", ""):
        metadata["source"] = source
    return metadata
