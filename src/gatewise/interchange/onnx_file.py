"""An ONNX file as it lies on the disk: read with its sizes checked before anything of that size is made.

Nothing in a file is believed: the messages are counted before they are parsed, a tensor's dimensions are compared with
the bytes that are there, and data beside the file are read from its own folder only.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gatewise.errors import BackendError, InputError

if TYPE_CHECKING:
    import onnx

FIELDS = 500_000  # of all messages together: a hundred times what a large recurrent model has; read in 1 s
NUMBERS = 2**24  # bytes of whole numbers that are written one by one, of all tensors together
DEPTH = 100  # of messages in messages, as protobuf itself allows
SIZE = 2**31 - 1  # bytes of a file, as protobuf itself allows
SPARE = 64 * 2**20  # bytes that computing with a file's constants may take beside EXPANSION times its size
EXPANSION = 8
RANK = 16

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# By TensorProto.DataType: the NumPy type, and the field that holds the numbers where raw_data does not.
_TYPES = {
    1: ("<f4", "float_data"),
    2: ("<u1", "int32_data"),
    3: ("<i1", "int32_data"),
    4: ("<u2", "int32_data"),
    5: ("<i2", "int32_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("?", "int32_data"),
    10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"),
    12: ("<u4", "uint64_data"),
    13: ("<u8", "uint64_data"),
    16: ("<u2", "int32_data"),  # bfloat16: the upper half of a float32
}
_BFLOAT16 = 16


def require_onnx(caller: str) -> ModuleType:
    """The package onnx. Raises BackendError if it is not installed."""
    try:
        import onnx
    except ImportError:
        raise BackendError(
            f"{caller}: the package onnx is not installed; install it with: pip install 'gatewise[onnx]'"
        ) from None
    return onnx


@dataclass
class Budget:
    """How many bytes may still be made of a file."""

    left: int

    def spend(self, size: int, where: str) -> None:
        """Take `size` bytes for what is about to be made. Raises InputError if that is more than is left."""
        if size > self.left:
            raise InputError(
                f"{where}: would take {size:,} bytes, more than a file of this size may ask for; "
                "it is damaged or made to exhaust the memory"
            )
        self.left -= size


class OnnxFile:
    """A model that was read, and how its tensors are read.

    path: where it lies. model: onnx.ModelProto. opset: version of ONNX's own operators. budget: see Budget.
    """

    def __init__(self, path: str | Path, caller: str) -> None:
        """Read a file. Raises InputError: missing, not ONNX, damaged, too large; BackendError without onnx."""
        package = require_onnx(caller)
        self.path = Path(path)
        data = _contents(self.path)
        self.model: onnx.ModelProto = _parsed(package, data, self.path)
        self.budget = Budget(SPARE + EXPANSION * len(data))
        self.beside: set[Path] = set()  # files that hold its data
        opsets = [each.version for each in self.model.opset_import if each.domain in ("", "ai.onnx")]
        if not self.model.HasField("graph") or not opsets:
            raise InputError(
                f"{self.path}: not an ONNX model: it has no graph, or names no version of ONNX's operators"
            )
        self.opset = max(opsets)

    def initializer(self, tensor: "onnx.TensorProto") -> np.ndarray:
        """The numbers of a tensor of a graph. Raises InputError as `array`."""
        return self.array(tensor, f"{self.path}: initializer {tensor.name[:80]!r}")

    def array(self, tensor: "onnx.TensorProto", where: str) -> np.ndarray:
        """The numbers of a tensor. Raises InputError: another type than numbers, dimensions that its bytes do not fill.

        where: how an error names it.
        """
        if tensor.data_type not in _TYPES:
            raise InputError(f"{where}: expected a tensor of numbers, got type {tensor.data_type} of ONNX")
        kind, field = _TYPES[tensor.data_type]
        dtype = np.dtype(kind)
        dims = list(tensor.dims)
        if len(dims) > RANK or any(not 0 <= size < 2**31 for size in dims):
            raise InputError(f"{where}: expected at most {RANK} axes of less than 2**31 each, got {_short(dims)}")
        size = math.prod(dims)
        if tensor.HasField("segment"):
            raise InputError(f"{where}: is a segment of a tensor, which is not supported; save the model whole")
        if tensor.data_location == 1:
            values = np.frombuffer(self._beside(tensor, where, size * dtype.itemsize), dtype)
        elif tensor.HasField("raw_data"):
            raw = tensor.raw_data  # a copy each time
            if len(raw) != size * dtype.itemsize:
                raise InputError(
                    f"{where}: expected {size * dtype.itemsize:,} bytes for dimensions {_short(dims)}, "
                    f"got {len(raw):,}; the file is damaged"
                )
            values = np.frombuffer(raw, dtype)
        else:
            numbers = getattr(tensor, field)
            if len(numbers) != size:
                raise InputError(
                    f"{where}: expected {size:,} numbers for dimensions {_short(dims)}, got {len(numbers):,}; "
                    "the file is damaged"
                )
            self.budget.spend(8 * size, where)
            wide = np.array(numbers, np.float64 if dtype.kind == "f" and dtype.itemsize > 2 else np.int64)
            bits = dtype if dtype.kind != "f" or dtype.itemsize > 2 else np.dtype("<u2")
            values = wide.astype(bits).view(dtype)  # numbers that are too large for their type wrap
        if tensor.data_type == _BFLOAT16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.reshape(dims)

    def _beside(self, tensor: "onnx.TensorProto", where: str, size: int) -> bytes:
        """The bytes of a tensor that lie in a file of their own, in the folder of this one or below it."""
        told = {entry.key: entry.value for entry in tensor.external_data}
        location = told.get("location", "")
        relative = PurePosixPath(location)
        folder = self.path.absolute().parent
        if not location or "\\" in location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
            raise InputError(f"{where}: expected its data in a file of the model's folder, got {location[:80]!r}")
        file = folder / relative
        real = Path(os.path.realpath(file))
        if not real.is_relative_to(os.path.realpath(folder)):
            raise InputError(f"{where}: {location[:80]!r} leads out of the model's folder, which is not followed")
        try:
            offset, length = int(told.get("offset", "0")), int(told.get("length", str(size)))
        except ValueError:
            raise InputError(f"{where}: the place of its data in {location[:80]!r} is damaged") from None
        try:
            there = real.stat().st_size if real.is_file() else None
        except OSError:  # such as a name that is too long
            there = None
        if there is None:
            raise InputError(f"{where}: its data lie in {location[:80]!r}, which is not beside the model")
        if length != size or offset < 0 or offset + size > there:
            raise InputError(
                f"{where}: expected {size:,} bytes at byte {offset:,} of {location[:80]!r}, which does not hold them"
            )
        if real not in self.beside:  # its bytes count as those of the model's own file
            self.beside.add(real)
            self.budget.left += (EXPANSION + 1) * there
        self.budget.spend(size, where)
        with open(real, "rb") as opened:
            opened.seek(offset)
            return opened.read(size)


def _short(dims: list[int]) -> str:
    text = str(tuple(dims))
    return text if len(text) <= 80 else text[:77] + "..."


def _contents(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InputError(f"{path}: {'is a folder; name a file' if path.is_dir() else 'no such file'}")
        if path.stat().st_size > SIZE:
            raise InputError(f"{path}: larger than 2 GiB, which no ONNX file can be")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parsed(onnx: ModuleType, data: bytes, path: Path) -> Any:
    from google.protobuf.message import DecodeError

    try:
        _Scan(data).message(0, len(data), onnx.ModelProto.DESCRIPTOR, 0)
        return onnx.ModelProto.FromString(data)
    except (_NotProtobuf, DecodeError) as error:
        reason = str(error) if isinstance(error, _NotProtobuf) else "it cannot be parsed"
        raise InputError(f"{path}: not an ONNX model, or damaged: {reason}") from None


class _NotProtobuf(Exception):
    """What is wrong with the bytes."""


class _Scan:
    """Goes through the fields of messages, without making them: protobuf would make a hundred bytes out of two."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.fields = self.numbers = 0

    def message(self, start: int, end: int, descriptor: Any, depth: int) -> None:
        """Check the fields between two bytes, which are those of a message that the descriptor describes."""
        if depth > DEPTH:
            raise _NotProtobuf(f"more than {DEPTH} messages in one another")
        known, position = descriptor.fields_by_number, start
        while position < end:
            self.fields += 1
            if self.fields > FIELDS:
                raise _NotProtobuf(f"more than {FIELDS:,} fields")
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            field = known.get(number)
            if wire == _VARINT:
                _, position = self._varint(position, end)
            elif wire in (_FIXED64, _FIXED32):
                position += 8 if wire == _FIXED64 else 4
            elif wire == _BYTES:
                size, position = self._varint(position, end)
                if position + size > end:
                    raise _NotProtobuf(f"cut off at byte {position}: {size} bytes are announced, {end - position} left")
                if field is not None:
                    self._bytes(position, position + size, field, depth)
                position += size
            else:
                raise _NotProtobuf(f"an unknown kind of field at byte {position}")
        if position > end:
            raise _NotProtobuf(f"cut off at byte {end}")

    def _bytes(self, start: int, end: int, field: Any, depth: int) -> None:
        if field.message_type is not None:
            self.message(start, end, field.message_type, depth + 1)
        elif field.type == field.TYPE_STRING:
            try:
                self.data[start:end].decode()
            except UnicodeDecodeError:
                raise _NotProtobuf(f"a text that is not UTF-8 at byte {start}") from None
        elif field.type in (field.TYPE_INT64, field.TYPE_INT32, field.TYPE_UINT64):
            self.numbers += end - start  # a byte of them becomes up to eight
            if self.numbers > NUMBERS:
                raise _NotProtobuf(
                    f"more than {NUMBERS:,} bytes of numbers of varying length; save tensors as raw data"
                )

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                raise _NotProtobuf(f"cut off at byte {end}")
            byte = self.data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise _NotProtobuf(f"a number without an end at byte {position}")
