"""Files as people have them: gzip anywhere, standard input as `-`, strictly UTF-8, and one clear line if it cannot be.

A source is a path, or `-`. Whatever is wrong raises DataError, which begins with the name of the source.
"""

import difflib
import gzip
import sys
import zlib
from pathlib import Path

from gatewise.errors import DataError

STANDARD_INPUT = "-"

_GZIP = b"\x1f\x8b"


def name_of(source: str | Path) -> str:
    """What messages call the source."""
    return "standard input" if str(source) == STANDARD_INPUT else str(source)


def suffix_of(source: str | Path) -> str:
    """The end of the name in lower case, without that of gzip: ".csv" of Train.CSV.gz; "" of standard input."""
    path = Path(str(source).lower())
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def read_bytes(source: str | Path) -> bytes:
    """All that is in the file, decompressed if it is gzip. Raises DataError: missing, a folder, unreadable, empty."""
    name = name_of(source)
    try:
        data = sys.stdin.buffer.read() if name == "standard input" else Path(source).read_bytes()
    except FileNotFoundError:
        raise DataError(_missing(Path(source))) from None
    except IsADirectoryError:
        raise DataError(f"{name}: is a folder; expected a file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise DataError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{name}: damaged gzip: {reason_of(error)}") from error
    elif data and str(source).lower().endswith(".gz"):
        raise DataError(f"{name}: no gzip, though its name says so; rename it, or compress it")
    if not data:
        raise DataError(f"{name}: empty")
    return data


def decode(data: bytes, name: str) -> str:
    """The text of a file, without a byte order mark, and with newlines as the only line endings.

    DataError, with the line, unless it is UTF-8; and if nothing but white space is left.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}: not UTF-8: byte 0x{data[error.start]:02x} in line {line}; "
            "convert it to UTF-8 first, for example with iconv"
        ) from error
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text or text.isspace():
        raise DataError(f"{name}: nothing but white space" if text else f"{name}: empty")
    return text


def read_text(source: str | Path) -> str:
    """The text of the file, as `decode` gives it."""
    return decode(read_bytes(source), name_of(source))


def split_lines(text: str) -> list[str]:
    """The lines of a text; a newline at its end ends the last line and begins no other."""
    return text.removesuffix("\n").split("\n")


def read_lines(source: str | Path) -> list[str]:
    """The lines of the file."""
    return split_lines(read_text(source))


def reason_of(error: BaseException) -> str:
    """The first line of an error of another library, to follow a colon: in lower case, but for an acronym."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return reason if reason[1:2].isupper() else reason[:1].lower() + reason[1:]


def find_one(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of the names that lies in the folder, compressed or not; None if none does."""
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def _missing(path: Path) -> str:
    """What to say of a path at which nothing lies; with the name there that is most like it."""
    if not path.parent.is_dir():
        return f"{path}: no such file; there is no folder {path.parent}"
    names = sorted(other.name for other in path.parent.iterdir())
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"{path}: no such file" + (f"; did you mean {path.with_name(near[0])}?" if near else "")
