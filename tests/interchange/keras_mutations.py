"""Keras files with something wrong in them: small good ones, and what can be done to them, from a random generator.

`originals()` gives good files by name, `mutated(name, data, random)` one with a mutation, or several.
"""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.random import Generator

from gatewise.interchange.keras_files import CONFIG, WEIGHTS
from gatewise.interchange.keras_out import write_keras
from gatewise.models.sequential import build

TABLES = [
    {"kind": "embedding", "vocabulary_size": 7, "size": 3},
    {"kind": "gru", "input_size": 3, "hidden_size": 4, "bidirectional": True},
    {"kind": "lstm", "input_size": 8, "hidden_size": 2},
    {"kind": "pooling", "pooling": "mean"},
    {"kind": "linear", "input_size": 2, "output_size": 3},
    {"kind": "activation", "function": "softmax"},
]
NUMBERS = [-1, 0, 1, 2, 3, 7, 255, 2**16, 2**31, 2**32 - 1, 2**63, 10**30, -0.5, 1e308, float("nan")]
WORDS = [
    "",
    "GRU",
    "LSTM",
    "Lambda",
    "Dense",
    "Functional",
    "tanh",
    "concat",
    "\x00",
    "é\ud800",
    "../../etc/passwd",
    "x" * 5000,
]


def originals() -> dict[str, bytes]:
    """A `.keras` file and an `.h5` file of a model that both hold, the same ones each time."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        path = Path(folder, "model.keras")
        write_keras(build(TABLES), path)
        archive = path.read_bytes()
    return {"model.keras": archive, "model.h5": legacy(archive)}


def legacy(archive: bytes) -> bytes:
    """The content of a `.keras` file in the form of an `.h5` file."""
    members = unzipped(archive)
    config = json.loads(members[CONFIG])
    names = {"embedding": "embedding", "bidirectional": "bidirectional", "lstm": "lstm", "dense": "dense"}
    roles = {"embedding": ["embeddings"]}
    image = io.BytesIO()
    with h5py.File(image, "w") as file, h5py.File(io.BytesIO(members[WEIGHTS])) as weights:
        file.attrs["keras_version"] = b"2.11.0"
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in names]

        def copy(path: str, member: Any) -> None:
            if isinstance(member, h5py.Dataset):
                _, layer, *places, _, number = path.split("/")
                role = roles.get(layer, ["kernel", "bias" if layer == "dense" else "recurrent_kernel", "bias"])
                middle = [f"{p.split('_')[0]}_gru/cell" for p in places if p.endswith("_layer")]
                own = "/".join([layer, layer, *middle, f"{role[int(number)]}:0"])
                group.create_dataset(own, data=member[()])

        weights.visititems(copy)
    return image.getvalue()


def unzipped(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {entry.filename: file.read(entry) for entry in file.infolist()}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()


def mutated(name: str, data: bytes, random: Generator) -> bytes:
    """A good file of that name with one to three mutations.

    Only the first may be one that opens the file, for that is done here, in the process of the test.
    """
    kinds = ARCHIVE if name.endswith(".keras") else HDF5
    if random.integers(3):
        data = kinds[int(random.integers(len(kinds)))](data, random)
        count = max(0, int(random.integers(-3, 3)))
    else:
        count = int(random.integers(1, 3))
    for _ in range(count):
        data = ANY[int(random.integers(len(ANY)))](data, random) if data else data
    return data


def flipped(data: bytes, random: Generator) -> bytes:
    """With some bits changed, anywhere."""
    changed = np.frombuffer(data, np.uint8).copy()
    where = random.integers(len(changed), size=int(random.integers(1, 20)))
    changed[where] ^= random.integers(1, 256, size=len(where), dtype=np.uint8)
    return changed.tobytes()


def truncated(data: bytes, random: Generator) -> bytes:
    return data[: int(random.integers(len(data)))]


def spliced(data: bytes, random: Generator) -> bytes:
    """With a stretch that is copied to another place, over what is there or between it, or cut out, or zeroed."""
    size = int(random.integers(1, max(2, min(len(data), 600))))
    source, target = (int(random.integers(len(data))) for _ in range(2))
    piece = data[source : source + size]
    return [
        data[:target] + piece + data[target:],
        data[:target] + piece + data[target + len(piece) :],
        data[:target] + data[target + size :],
        data[:target] + bytes(len(piece)) + data[target + len(piece) :],
    ][int(random.integers(4))]


def with_a_field_changed(data: bytes, random: Generator) -> bytes:
    """With an extreme number, of 1 to 8 bytes, near one of the file's signatures: there the sizes and addresses lie."""
    marks = (
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x89HDF",
        b"TREE",
        b"SNOD",
        b"HEAP",
        b"GCOL",
        b"OHDR",
        b"\x01\x00\x11",
    )
    places = [i for mark in marks for i in range(len(data)) if data.startswith(mark, i)] if len(data) < 60_000 else []
    place = (places[int(random.integers(len(places)))] if places else 0) + int(random.integers(4, 120))
    size = int(random.choice([1, 2, 4, 8]))
    number = int(random.choice([0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])) % 256**size
    number = 256**size - 1 if random.integers(4) == 0 else number
    return data[:place] + number.to_bytes(size, "little") + data[place + size :]


def _json_mutated(text: bytes, random: Generator) -> bytes:
    """A configuration in which a value is another one, or gone, or there twice."""
    config = json.loads(text)
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [config]
    while waiting:
        node = waiting.pop()
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    for _ in range(int(random.integers(1, 4))):
        node, key = places[int(random.integers(len(places)))]
        other_node, other_key = places[int(random.integers(len(places)))]
        choice = int(random.integers(8))
        try:
            if choice == 0:
                del node[key]
            elif choice == 1:
                node[key] = NUMBERS[int(random.integers(len(NUMBERS)))]
            elif choice == 2:
                node[key] = WORDS[int(random.integers(len(WORDS)))]
            elif choice == 3:
                node[key] = [None, True, False, [], {}, [[]], {"config": {}}][int(random.integers(7))]
            elif choice == 4:
                node[key] = json.loads(json.dumps(other_node[other_key]))
            elif choice == 5 and isinstance(node, list):
                node.insert(int(random.integers(len(node) + 1)), json.loads(json.dumps(node[key])))
            elif choice == 6:
                nested: Any = 0
                for _ in range(int(random.integers(10, 900))):
                    nested = [nested] if random.integers(2) else {"config": nested}
                node[key] = nested
            else:
                node[key], other_node[other_key] = other_node[other_key], node[key]
        except (KeyError, IndexError, ValueError, RecursionError):
            continue  # what an earlier change took away, or put into itself
    try:
        return json.dumps(config).encode()
    except (ValueError, RecursionError):  # it holds itself now
        return text[: len(text) // 2]


def with_another_config(data: bytes, random: Generator) -> bytes:
    members = unzipped(data)
    return zipped(members | {CONFIG: _json_mutated(members[CONFIG], random)})


def with_other_weights(data: bytes, random: Generator) -> bytes:
    """With a mutation of the HDF5 file within the archive, under a checksum that is right."""
    members = unzipped(data)
    kinds = (flipped, truncated, spliced, with_a_field_changed, with_a_field_changed, with_another_dataset)
    kind = kinds[int(random.integers(len(kinds)))]
    return zipped(members | {WEIGHTS: kind(members[WEIGHTS], random)})


def with_other_members(data: bytes, random: Generator) -> bytes:
    members = unzipped(data)
    names = list(members)
    name = names[int(random.integers(len(names)))]
    choice = int(random.integers(5))
    if choice == 0:
        del members[name]
    elif choice == 1:
        members[name] = b""
    elif choice == 2:
        members[
            ["../evil", "/etc/passwd", "C:\\x", "assets/vocabulary.txt", name + "\x00"][int(random.integers(5))]
        ] = b"x"
    elif choice == 3:
        members[name] = members[names[int(random.integers(len(names)))]]
    else:
        members[name] = bytes(int(random.integers(1, 30_000_000)))
    return zipped(members, zipfile.ZIP_DEFLATED)


def with_another_model_config(data: bytes, random: Generator) -> bytes:
    image = io.BytesIO(data)
    with h5py.File(image, "r+") as file:
        text = str(file.attrs["model_config"]).encode()
        changed = _json_mutated(text, random)
        value: Any = [changed, changed.decode(), np.bytes_(changed[:60_000]), 7, np.zeros(9)][int(random.integers(5))]
        file.attrs["model_config"] = value
    return image.getvalue()


def with_another_dataset(data: bytes, random: Generator) -> bytes:
    """With an array that has another shape or type or storage, or that something else stands in the place of."""
    image = io.BytesIO(data)
    with h5py.File(image, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, member: names.append(name) if isinstance(member, h5py.Dataset) else None)
        name = names[int(random.integers(len(names)))]
        member: Any = file[name]
        array: np.ndarray = member[()]
        del file[name]
        zeros = np.zeros
        choice = int(random.integers(14))
        if choice == 0:
            file[name] = array.T
        elif choice == 1:
            file[name] = array[..., :-1]
        elif choice == 2:
            file[name] = array.astype(
                [np.int32, np.float16, np.float64, np.uint8, ">f4", "c8", "S4"][int(random.integers(7))]
            )
        elif choice == 3:
            file.create_dataset(name, shape=(2**20, 2**20), dtype="f4")  # declared, never stored
        elif choice == 4:
            file.create_dataset(name, shape=(2**16, 2**16), dtype="f4", chunks=(2**12, 2**12), compression="gzip")
        elif choice == 5:
            file.create_dataset(name, data=array, chunks=array.shape, compression="gzip", shuffle=True)
        elif choice == 6:
            file[name] = h5py.SoftLink("/" + names[0])
        elif choice == 7:
            file[name] = h5py.ExternalLink("/etc/passwd", "/x")
        elif choice == 8:
            file.create_dataset(name, shape=(64,), dtype="u1", external=[("/etc/passwd", 0, 64)])
        elif choice == 9:
            file.create_dataset(name, shape=(16,), dtype="f4", external=[("/etc/passwd", 0, 64)])
        elif choice == 10:
            file[name] = file["/"]  # a ring
        elif choice == 11:
            layout = h5py.VirtualLayout((4,), "f4")
            layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
            file.create_virtual_dataset(name, layout)
        elif choice == 12:
            file[name] = h5py.Empty("f4")
        else:
            file[name] = zeros([(), (0,), (0, 5), (1, 1, 1, 1)][int(random.integers(4))], np.float32)
    return image.getvalue()


Mutation = Callable[[bytes, Generator], bytes]
ANY: list[Mutation] = [flipped, truncated, spliced, with_a_field_changed]
ARCHIVE: list[Mutation] = [
    with_another_config,
    with_another_config,
    with_other_weights,
    with_other_weights,
    with_other_members,
]
HDF5: list[Mutation] = [with_another_model_config, with_another_dataset, with_a_field_changed]
