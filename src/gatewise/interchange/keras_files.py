"""The two forms of Keras's files: the `.keras` archive of Keras 3, and the older `.h5`. Nothing in them is executed.

A `.keras` file is a zip archive of config.json (the layers), metadata.json (versions) and model.weights.h5 (arrays). An
`.h5` file is HDF5, with the configuration in its attribute model_config and arrays by layer below model_weights.
"""

import contextlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatewise.errors import InputError
from gatewise.interchange import hdf5

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LONGEST_CONFIG = 4_000_000  # bytes; a hundred layers take 150 kB
MOST_ENTRIES_SIZE = 1_000_000  # bytes of the archive's list of its members
LEAST_INFLATED, MOST_EXPANSION = 64_000_000, 8  # of weights, floats, which hardly shrink when they are packed


@dataclass(frozen=True)
class KerasFile:
    """The configuration of a model, and how to come by its weights: read late, for most refusals need none."""

    config: Any
    weights: Callable[[], hdf5.Content]
    archive: bool  # whether it is a .keras file: then arrays lie by the layers' classes, otherwise by their names


def read_file(path: Path) -> KerasFile:
    """What a `.keras` or `.h5` file holds. Raises InputError: missing, another kind of file, damaged, hostile."""
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder (a TensorFlow SavedModel?); expected a .keras or .h5 file, as model.save writes it"
        )
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            if start == hdf5.SIGNATURE:
                return _legacy(start + file.read(), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if start[:2] == b"PK":
        return _archive(path)
    pickled = (
        " (it looks like a pickle, which is never read: it could execute anything)" if start[:1] == b"\x80" else ""
    )
    raise InputError(f"{path}: expected a .keras archive or an HDF5 file, got neither{pickled}")


def _legacy(data: bytes, source: str) -> KerasFile:
    content = hdf5.read(data, source)
    config = content.attributes.get("model_config")
    if config is None:
        raise InputError(
            f"{source}: holds no model_config: weights alone do not say what the layers are; "
            "save the whole model with model.save"
        )
    return KerasFile(_json(config.encode(), f"{source}: model_config"), lambda: content, archive=False)


def _archive(path: Path) -> KerasFile:
    with _readable(path) as archive:
        members = _members(archive, path)
        config = _json(_inflate(archive, members[CONFIG], LONGEST_CONFIG, path), f"{path}: {CONFIG}")

    def weights() -> hdf5.Content:
        with _readable(path) as archive:
            member = _members(archive, path)[WEIGHTS]
            data = _inflate(archive, member, LEAST_INFLATED + MOST_EXPANSION * member.compress_size, path)
        return hdf5.read(data, f"{path}: {WEIGHTS}")

    return KerasFile(config, weights, archive=True)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, opened; whatever zipfile raises over it becomes InputError."""
    try:
        _check_size_of_list(path)
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: damaged: the zip archive cannot be read: {text}") from error


def _check_size_of_list(path: Path) -> None:
    """InputError for an archive of so many members that their list alone takes much memory: zipfile reads it whole."""
    with open(path, "rb") as file:
        file.seek(0, io.SEEK_END)
        file.seek(max(0, file.tell() - 65_557))  # the last record, and the longest comment after it
        end = file.read()
    found = end.rfind(b"PK\x05\x06")
    if found >= 0 and len(end) >= found + 16:
        (size,) = struct.unpack_from("<L", end, found + 12)
        if end[:found].rfind(b"PK\x06\x07") == found - 20 and found >= 20:
            raise InputError(f"{path}: a zip64 archive, for files of more than 4 GB, is not read")
        if size > MOST_ENTRIES_SIZE:
            raise InputError(f"{path}: the list of the archive's members takes {size} bytes; a Keras file has three")


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The members that are read, by name. InputError for one that is missing, twice there, or points elsewhere."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
            raise InputError(f"{path}: the archive has a member that points out of it: {name[:100]!r}")
        if name in members:
            raise InputError(f"{path}: the archive has two members of the name {name[:100]!r}")
        if member.flag_bits & 1:
            raise InputError(f"{path}: {name[:100]!r} is encrypted; save the model without a password")
        members[name] = member
    for name in (CONFIG, WEIGHTS):
        if name not in members:
            raise InputError(
                f"{path}: the archive holds no {name}; expected {CONFIG} and {WEIGHTS}, as model.save('model.keras') "
                f"writes them, got {', '.join(sorted(members))[:200] or 'nothing'}"
            )
        if members[name].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{path}: {name} is packed in a way that Keras never uses")
    return members


def _inflate(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int, path: Path) -> bytes:
    """A member's bytes, at most so many: neither what it declares nor what really comes may be more."""
    if member.file_size > most:
        raise InputError(
            f"{path}: {member.filename} unpacks to {member.file_size} bytes, more than the {most} that are read from "
            f"{member.compress_size}"
        )
    with archive.open(member) as file:
        data = file.read(most + 1)
    if len(data) != member.file_size:
        raise InputError(f"{path}: damaged: {member.filename} has {len(data)} bytes, declared {member.file_size}")
    return data


def _json(data: bytes, source: str) -> Any:
    if len(data) > LONGEST_CONFIG:
        raise InputError(f"{source}: {len(data)} bytes, more than the {LONGEST_CONFIG} that are read")
    try:
        return json.loads(data.decode())
    except RecursionError:
        raise InputError(f"{source}: nested too deep to be the configuration of a model") from None
    except ValueError as error:
        raise InputError(f"{source}: damaged: no JSON: {str(error)[:200]}") from error


def write_archive(config: Mapping[str, Any], metadata: Mapping[str, Any], weights: bytes) -> bytes:
    """The bytes of a `.keras` file, the same for the same content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (
            (METADATA, json.dumps(metadata, ensure_ascii=False).encode()),
            (CONFIG, json.dumps(config, ensure_ascii=False).encode()),
            (WEIGHTS, weights),
        ):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o600 << 16  # the same on every system
            archive.writestr(entry, data)
    return file.getvalue()
