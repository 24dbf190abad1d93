"""Files: gzip, standard input, UTF-8, and every way in which a file can be wrong."""

import gzip
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gatewise.data.files import decode, find_one, name_of, read_bytes, read_lines, read_text, suffix_of
from gatewise.errors import DataError


def error_of(source: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        read_text(source)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.csv"


def test_gzip_is_known_by_its_first_bytes(path: Path):
    for file in (path, path.with_suffix(".csv.gz")):
        file.write_bytes(gzip.compress(b"a\r\nb\rc\n"))
        assert read_lines(file) == ["a", "b", "c"]


def test_byte_order_mark_and_blank_lines(path: Path):
    path.write_bytes(b"\xef\xbb\xbfa\n\n b\x0c\xe2\x80\xa8\n\n")
    assert read_lines(path) == ["a", "", " b\x0c\u2028", ""]


def test_standard_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(gzip.compress(b"a\nb"))))
    assert name_of("-") == "standard input"
    assert read_lines("-") == ["a", "b"]
    assert error_of("-") == "standard input: empty"


def test_suffix():
    assert [suffix_of(name) for name in ("a/Train.CSV.gz", "x.tar.npz", Path("b.conllu"), "-", "train")] == [
        ".csv",
        ".npz",
        ".conllu",
        "",
        "",
    ]


def test_find_one(tmp_path: Path):
    assert find_one(tmp_path, ("seq.in", "words.txt")) is None
    (tmp_path / "words.txt.gz").touch()
    assert find_one(tmp_path, ("seq.in", "words.txt")) == tmp_path / "words.txt.gz"


def test_missing(path: Path):
    assert error_of(path) == f"{path}: no such file"
    path.with_name("trian.csv").touch()
    assert error_of(path) == f"{path}: no such file; did you mean {path.with_name('trian.csv')}?"
    nowhere = path.parent / "none" / "train.csv"
    assert error_of(nowhere) == f"{nowhere}: no such file; there is no folder {nowhere.parent}"


def test_folder(tmp_path: Path):
    assert error_of(tmp_path) == f"{tmp_path}: is a folder; expected a file"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="this system has no file that fails when it is read")
def test_unreadable():
    assert error_of("/proc/self/mem") == "/proc/self/mem: cannot be read: Input/output error"
    assert error_of("a\0b") == "a\0b: cannot be read: embedded null byte"


def test_empty(path: Path):
    path.write_bytes(b"")
    assert error_of(path) == f"{path}: empty"
    path.write_bytes(b"\xef\xbb\xbf")
    assert error_of(path) == f"{path}: empty"
    path.write_bytes(gzip.compress(b""))
    assert error_of(path) == f"{path}: empty"
    path.write_bytes(b"\n \t\n")
    assert error_of(path) == f"{path}: nothing but white space"


def test_broken_gzip(path: Path):
    whole = gzip.compress(b"some text that is long enough")
    for data, expected in (
        (whole[:-9], "compressed file ended before the end-of-stream marker was reached"),
        (whole[:-8] + b"\0" * 8, "CRC check failed"),
        (whole[:12] + b"\xff" + whole[13:], "error -3 while decompressing data"),
    ):
        path.write_bytes(data)
        assert error_of(path).startswith(f"{path}: damaged gzip: {expected}")
    path = path.with_suffix(".gz")
    path.write_bytes(b"plain")
    assert error_of(path) == f"{path}: no gzip, though its name says so; rename it, or compress it"


def test_not_utf8(path: Path):
    path.write_bytes(b"good\nlines\ncaf\xe9\n")
    assert error_of(path) == (
        f"{path}: not UTF-8: byte 0xe9 in line 3; convert it to UTF-8 first, for example with iconv"
    )
    with pytest.raises(DataError, match=r"^a.txt: not UTF-8: byte 0xff in line 1; "):
        decode(b"\xff\xfea\0", "a.txt")


def test_bytes_are_left_as_they_are(path: Path):
    path.write_bytes(b"\xff\r\n")
    assert read_bytes(path) == b"\xff\r\n"
