"""What can go wrong with the bytes of any file, from a random generator; the files in an archive, and back."""

import io
import zipfile

import numpy as np
from numpy.random import Generator


def flipped(data: bytes, random: Generator) -> bytes:
    """With some bytes changed, anywhere."""
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


def unzipped(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {entry.filename: file.read(entry) for entry in file.infolist()}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()
