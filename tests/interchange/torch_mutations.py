"""Torch's files of weights with something wrong in them: small good ones, and what can be done to them.

`originals()` gives good files by name, `mutated(name, data, random)` one with a mutation, or several.
"""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch
from byte_mutations import flipped, spliced, truncated, unzipped, zipped
from numpy.random import Generator

from gatewise.models.sequential import build

NUMBERS = [-1, 0, 1, 2, 3, 7, 255, 2**16, 2**31, 2**32 - 1, 2**40, 2**63, 10**30]
WORDS = ["", "F16", "I64", "BOOL", "F99", "dtype", "weight", "__metadata__", "../../etc/passwd", "é\x00", "x" * 5000]
NAMES = [b"torch\nFloatStorage", b"torch\nLongStorage", b"builtins\nexec", b"os\nsystem", b"collections\nOrderedDict"]


def originals() -> dict[str, bytes]:
    """The same weights as torch.save writes them, in both of its forms, and as safetensors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tables = [
            {"kind": "embedding", "vocabulary_size": 7, "size": 3},
            {"kind": "gru", "input_size": 3, "hidden_size": 4, "num_layers": 2, "bidirectional": True},
            {"kind": "linear", "input_size": 8, "output_size": 2},
        ]
        weights = build(tables).state_dict()
    files: dict[str, bytes] = {"model.safetensors": safetensors.torch.save(weights, {"format": "pt"})}
    for name, zips in (("model.pt", True), ("old.pth", False)):
        image = io.BytesIO()
        torch.save(weights, image, _use_new_zipfile_serialization=zips)
        files[name] = image.getvalue()
    return files


def mutated(name: str, data: bytes, random: Generator) -> bytes:
    """A good file with one to three mutations: of what it says first, then of the bytes."""
    structured = random.integers(3) > 0
    if structured:
        data = {"model.safetensors": with_another_header, "model.pt": with_another_pickle}.get(name, renamed)(
            data, random
        )
    for _ in range(int(random.integers(0, 2)) * int(random.integers(1, 3)) if structured else 1):
        data = BYTES[int(random.integers(len(BYTES)))](data, random) if data else data
    return data


def with_another_header(data: bytes, random: Generator) -> bytes:
    """safetensors' header with another value, or a name more or less, and a length that fits it, or not."""
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    names = list(header)
    for _ in range(int(random.integers(1, 4))):
        name = names[int(random.integers(len(names)))]
        entry, choice = header.get(name), int(random.integers(5))
        entry = entry if isinstance(entry, dict) else {}
        if choice == 0:
            header.pop(name, None)
        elif choice == 1:
            header[_pick(random, WORDS)] = entry
        elif choice == 2:
            header[name] = {**entry, _pick(random, ["shape", "data_offsets"]): [_pick(random, NUMBERS)] * 2}
        elif choice == 3:
            header[name] = {**entry, _pick(random, ["dtype", "shape", "data_offsets"]): _pick(random, WORDS)}
        else:
            header[name] = _pick(random, [None, [], {}, 7, "x"])
    text = json.dumps(header).encode()
    stated = len(text) if random.integers(5) else abs(_pick(random, NUMBERS)) % 2**64
    return stated.to_bytes(8, "little") + text + data[8 + size :]


def with_another_pickle(data: bytes, random: Generator) -> bytes:
    """With another pickle in the archive, or other members, under checksums that are right."""
    members = unzipped(data)
    names = list(members)
    pickle = next(name for name in names if name.endswith("data.pkl"))
    name = names[int(random.integers(len(names)))]
    match int(random.integers(6)):
        case 0:
            del members[name]
        case 1:
            members[name] = members[names[int(random.integers(len(names)))]]
        case 2:
            return zipped({**members, name: bytes(int(random.integers(1, 30_000_000)))}, zipfile.ZIP_DEFLATED)
        case 3:
            members[pickle] = renamed(members[pickle], random)
        case _:
            members[pickle] = BYTES[int(random.integers(len(BYTES)))](members[pickle], random)
    return zipped(members)


def renamed(data: bytes, random: Generator) -> bytes:
    """With another global in the place of one that a pickle names, or a number of four bytes in the place of one."""
    if random.integers(2):
        return data.replace(NAMES[int(random.integers(2))], NAMES[int(random.integers(len(NAMES)))])
    place = int(random.integers(max(1, len(data) - 4)))
    return data[:place] + (abs(_pick(random, NUMBERS)) % 2**32).to_bytes(4, "little") + data[place + 4 :]


def _pick(random: Generator, options: list[Any]) -> Any:
    return options[int(random.integers(len(options)))]


BYTES: list[Callable[[bytes, Generator], bytes]] = [flipped, truncated, spliced]
