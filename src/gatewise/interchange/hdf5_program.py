"""A program: an HDF5 file comes in by standard input, what Keras keeps in one goes out by standard output.

It is a process of its own, run by hdf5.py, because the HDF5 library is made for files that one trusts: over a damaged
or hostile one it can crash, loop, or ask for any amount of memory. Here that ends this process and nothing else. It
knows nothing of gatewise, so that it starts fast.

    hdf5_program.py MEMORY SECONDS      bytes of address space, seconds of processor time (where the system limits them)

Output: 8 bytes, little-endian: size of a JSON document; the document; the arrays' bytes, one after another, in C order.
The document is {"error": text}, or {"attributes": {name: text}, "arrays": [{"name", "shape", "dtype", "bytes"}]}. Only
arrays of float16, float32 and float64 have bytes.
"""

import io
import json
import math
import os
import sys
from typing import Any

import h5py
import numpy as np

ATTRIBUTES = ("model_config", "keras_version")
LONGEST_ATTRIBUTE = 4_000_000
MOST_OBJECTS = 10_000
DEEPEST = 16
SKIPPED = ("optimizer", "optimizer_weights")  # groups at the top that hold no weights of layers


class Refused(Exception):
    """The file has something that is not read."""


def main() -> None:
    """Read it all, then set the limits, then look into it."""
    data = sys.stdin.buffer.read()
    warm_up()
    limit(*map(int, sys.argv[1:3]))
    arrays: list[np.ndarray] = []
    try:
        answer = content(data, arrays)
    except Refused as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "damaged: it asks for more memory than a file of its size can need"}
    except RecursionError:
        answer = {"error": "damaged: its groups are nested too deep"}
    except Exception as error:  # h5py raises many kinds
        answer = {"error": f"damaged: {printable(' '.join(str(error).split()))[:300] or type(error).__name__}"}
    text = json.dumps(answer).encode()
    sys.stdout.buffer.write(len(text).to_bytes(8, "little") + text)
    if "error" not in answer:
        for array in arrays:
            sys.stdout.buffer.write(array.reshape(-1).view(np.uint8).data)
    sys.stdout.buffer.flush()
    os._exit(0)  # the library's own tidying up may crash over a damaged file


def warm_up() -> None:
    """Write and read a file, so that Python has imported all that it needs before no file can be opened any more."""
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.attrs["model_config"], file.attrs["keras_version"] = np.bytes_(b"text"), "text"
        file.create_group("group").create_dataset("dataset", data=np.zeros(2, np.float32))
    content(image.getvalue(), [])
    json.dumps({"error": printable("\udc80")})


def limit(memory: int, seconds: int) -> None:
    """Let the system end this process if it takes more; and let it open no file from here on."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, value in (
        ("RLIMIT_AS", memory),
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", 0),  # external links, external storage, filters in shared libraries
    ):
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, hard))


def content(data: bytes, arrays: list[np.ndarray]) -> dict[str, Any]:
    """The answer; what its arrays hold is added to `arrays`. Raises Refused, and whatever h5py raises."""
    entries: list[dict[str, Any]] = []
    with h5py.File(io.BytesIO(data), "r") as file:
        attributes = {name: attribute(file, name) for name in ATTRIBUTES if name in file.attrs}
        groups: list[tuple[str, h5py.Group, int]] = [("", file, 0)]
        seen, stored = 0, 0
        while groups:
            path, group, depth = groups.pop()
            if depth > DEEPEST:
                raise Refused(f"{printable(path)[:100]}: nested deeper than {DEEPEST} groups")
            for key in map(str, group):
                seen += 1
                if seen > MOST_OBJECTS:
                    raise Refused(f"more than {MOST_OBJECTS} groups and datasets")
                if depth == 0 and key in SKIPPED:
                    continue
                name = f"{path}/{key}" if path else key
                if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                    raise Refused(f"{printable(name)} is a soft or external link; no link is followed")
                member = group[key]
                if isinstance(member, h5py.Group):
                    groups.append((name, member, depth + 1))
                elif isinstance(member, h5py.Dataset):
                    entry, array = dataset(member, printable(name))
                    entries.append(entry)
                    stored += entry["bytes"]
                    if stored > len(data):
                        raise Refused("its datasets hold more bytes than the file")
                    if array is not None:
                        arrays.append(array)
        return {"attributes": attributes, "arrays": entries}


def attribute(file: h5py.File, name: str) -> str:
    """An attribute that is a text."""
    value = file.attrs[name]
    if isinstance(value, str):
        value = value.encode(errors="surrogateescape")  # as h5py decodes bytes that are no text
    if not isinstance(value, bytes) or len(value) > LONGEST_ATTRIBUTE:
        raise Refused(f"the attribute {name}: expected a text of at most {LONGEST_ATTRIBUTE} bytes")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refused(f"damaged: the attribute {name} is no UTF-8 text") from None


def dataset(member: h5py.Dataset, name: str) -> tuple[dict[str, Any], np.ndarray | None]:
    """What a dataset is, and what it holds, if that is plain floats. Nothing is allocated for what the file lacks."""
    shape, dtype = member.shape, member.dtype
    entry: dict[str, Any] = {"name": name, "shape": shape, "dtype": dtype.name, "bytes": 0}
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8) or shape is None:
        return entry, None
    if member.is_virtual or member.external:
        raise Refused(f"{name} lies in another file, which is not opened")
    if member.chunks is not None:
        raise Refused(
            f"{name} is stored in chunks, as Keras never does, and perhaps compressed; write it again in one piece, "
            "for example with h5repack -f NONE -l CONTI"
        )
    declared, stored = math.prod(shape) * dtype.itemsize, member.id.get_storage_size()
    if declared != stored:
        raise Refused(f"{name} is declared as {shape} {dtype.name}, {declared} bytes, but the file holds {stored}")
    array = np.asarray(member[()], dtype=dtype.newbyteorder("<"))
    return {**entry, "bytes": declared}, array


def printable(text: str) -> str:
    """A name or message of a file that may be no proper text."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


if __name__ == "__main__":
    main()
