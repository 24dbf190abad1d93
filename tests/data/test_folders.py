"""Folders of texts by label."""

import gzip
from pathlib import Path

import pytest

from gatewise.data.folders import read_labelled_folder
from gatewise.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, data in {
        "pos/2.txt": b"good\r\n",
        "pos/10.txt.gz": gzip.compress(b"very good"),
        "neg/deep/1.TXT": b"bad",
        "neg/readme.md": b"no text of the set",
        "neg/.hidden.txt": b"no text",
        "empty/x.md": b"",
        ".git/a.txt": b"no label",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def error_of(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_labelled_folder(root)
    return str(caught.value)


def test_folder(root: Path):
    examples = read_labelled_folder(root)
    assert examples.texts == ["bad", "very good", "good"]
    assert examples.labels == ["neg", "pos", "pos"]
    assert examples.places[0] == str(root / "neg" / "deep" / "1.TXT")
    assert examples.notes == (f"{root}: took the labels neg, pos from the names of its folders",)


def test_wrong(root: Path):
    assert error_of(root / "none") == f"{root / 'none'}: no such folder"
    file = root / "pos" / "2.txt"
    assert error_of(file) == f"{file}: is a file; expected a folder"
    assert error_of(root / "pos") == (
        f"{root / 'pos'}: expected a folder for each label with .txt files in it, found 10.txt.gz, 2.txt"
    )
    file.write_bytes(b"\xff")
    assert error_of(root).startswith(f"{file}: not UTF-8: byte 0xff in line 1")
    file.write_bytes(b"")
    assert error_of(root) == f"{file}: empty"
    (root / "void").mkdir()
    assert error_of(root / "void").endswith("found nothing")
