"""Files of arrays by name: what `gatewise convert` reads and writes."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gatewise.errors import InputError
from gatewise.interchange.torch_in import read_state_dict
from gatewise.run_folder import atomic_write

SUFFIXES = (".npz", ".safetensors", ".pt")


def check_suffix(path: Path) -> None:
    """InputError unless it is a file of arrays by its name."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: expected a name that ends with one of {', '.join(SUFFIXES)}")


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a .npz, .safetensors or .pt file by name. InputError: missing, damaged, not arrays."""
    check_suffix(path)
    if path.suffix != ".npz":
        return dict(read_state_dict(path))
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected arrays") from None
    except (OSError, ValueError, EOFError, KeyError, MemoryError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as arrays: {error}") from error


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Write arrays to a .npz, .safetensors or .pt file; what was written, by name.

    Arrays in dictionaries are named by the way to them: linear/w. Raises InputError, RunError.
    """
    import safetensors.torch

    check_suffix(path)
    flat = _flat(arrays)
    file = io.BytesIO()
    if path.suffix == ".npz":
        np.savez(file, **{name: np.asarray(array) for name, array in flat.items()})  # type: ignore[arg-type]
    elif path.suffix == ".pt":
        torch.save({name: torch.as_tensor(array) for name, array in flat.items()}, file)
    else:
        file.write(safetensors.torch.save({name: torch.as_tensor(array).contiguous() for name, array in flat.items()}))
    atomic_write(path, file.getvalue())
    return flat


def _flat(arrays: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in arrays.items():
        flat |= _flat(value, f"{path}{key}/") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return flat
