"""What lies in an HDF5 file, read in a process of its own: a hostile file can end that process, nothing else."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gatewise.errors import InputError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
PROGRAM = Path(__file__).with_name("hdf5_program.py")
# Python, NumPy and h5py take 0.12 GB of address space on Linux; what a file holds is there up to four times.
MEMORY, MEMORY_PER_BYTE = 400_000_000, 5
# Processor time: 0.2 s to start; then 150 MB a second were measured.
SECONDS, BYTES_PER_SECOND = 3, 30_000_000
WAIT_SECONDS = 120  # in case that the system limits no processor time, or the machine is very busy


@dataclass(frozen=True)
class Content:
    """What Keras keeps in an HDF5 file.

    attributes: texts of the file itself. arrays: floats by path, "layers/gru/cell/vars/0". others: of each dataset
    that is none of float16, float32, float64 what it is.
    """

    attributes: dict[str, str]
    arrays: dict[str, np.ndarray]
    others: dict[str, str]


def require_h5py(what: str) -> None:
    """Raise InputError unless h5py is installed; what: which cannot be done without it."""
    if importlib.util.find_spec("h5py") is None:
        raise InputError(f"{what} needs h5py, which is not installed; install it with: pip install 'gatewise[keras]'")


def read(data: bytes, source: str) -> Content:
    """The content of an HDF5 file. source: what an error names first.

    Raises InputError: damaged or hostile (links, external storage, chunks, absurd shapes), or no h5py is installed.
    """
    require_h5py(f"{source}: reading it")
    memory = MEMORY + MEMORY_PER_BYTE * len(data)
    seconds = SECONDS + len(data) // BYTES_PER_SECOND
    returncode, output = run_program(data, memory, seconds)
    if returncode is None:
        raise InputError(f"{source}: damaged: reading it does not come to an end")
    if returncode != 0:
        raise InputError(
            f"{source}: damaged: the HDF5 library crashed over it, or took more than {seconds} s "
            f"(the process that read it ended with {returncode})"
        )
    return _parsed(output, source)


def run_program(data: bytes, memory: int, seconds: int) -> tuple[int | None, bytes]:
    """How hdf5_program.py ended over a file, None if it did not, and what it said. memory, seconds: its limits."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OPENBLAS_NUM_THREADS": "1",  # each thread takes address space
        "HDF5_PLUGIN_PRELOAD": "::",  # no filters from shared libraries
    }
    try:
        # -P: what stands beside the program is not importable, so that no name of ours hides one of the library's.
        process = subprocess.run(
            [sys.executable, "-P", str(PROGRAM), str(memory), str(seconds)],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=WAIT_SECONDS + seconds,
        )
    except subprocess.TimeoutExpired:
        return None, b""
    return process.returncode, process.stdout


def _parsed(output: bytes, source: str) -> Content:
    start = 8 + int.from_bytes(output[:8], "little")
    answer = json.loads(output[8:start])
    if "error" in answer:
        raise InputError(f"{source}: {answer['error']}")
    arrays, others = {}, {}
    for entry in answer["arrays"]:
        name, shape, size = entry["name"].replace("\\", "/"), entry["shape"], entry["bytes"]
        if size:
            dtype = np.dtype(entry["dtype"]).newbyteorder("<")
            arrays[name] = np.frombuffer(output, dtype, size // dtype.itemsize, start).reshape(shape)
            start += size
        else:
            others[name] = f"{entry['dtype']} {shape}"
    return Content(answer["attributes"], arrays, others)
