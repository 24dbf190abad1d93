"""Parallel text in two columns: plain, gzip, zip; and broken lines."""

import zipfile
from pathlib import Path

import pytest

from gatewise.data.parallel import read_parallel
from gatewise.errors import DataError

HINT = "of translations in a file of their own give target_suffix, the end of its name"
PAIRS = 'Go.\tVa !\tCC-BY\n\n"Hi"\t" Salut\tCC-BY\n \t \n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    path.write_text(PAIRS, encoding="utf-8")
    return path


def error_of(source: Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        read_parallel(source, **settings)  # pyright: ignore[reportArgumentType]
    return str(caught.value)


def zipped(folder: Path, **members: str) -> Path:
    path = folder / "pairs.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("data")
        for name, text in members.items():
            archive.writestr(f"data/{name}.txt", text)
    return path


def test_two_columns(path: Path):
    pairs = read_parallel(path)
    assert (pairs.texts, pairs.target_texts) == (["Go.", '"Hi"'], ["Va !", '" Salut'])
    assert pairs.places == [f"{path}: line 1", f"{path}: line 3"]
    turned = read_parallel(path, source_column=2, target_column=1)
    assert (turned.texts, turned.target_texts) == (pairs.target_texts, pairs.texts)


def test_zip(tmp_path: Path):
    path = zipped(tmp_path, fra=PAIRS * 100, about="about it")
    pairs = read_parallel(path)
    assert len(pairs) == 200
    assert pairs.source == f"{path}/data/fra.txt"
    assert pairs.notes == (f"{path}: reading data/fra.txt in it, the largest text",)
    assert read_parallel(path, member="data/fra.txt").notes == ()


def test_zip_with_several_texts(tmp_path: Path):
    path = zipped(tmp_path, one=PAIRS, two=PAIRS)
    assert error_of(path) == f"{path}: which file in it? name its member: data/one.txt, data/two.txt"
    assert error_of(path, member="three") == f"{path}: no member three in it; there is data/one.txt, data/two.txt"
    assert error_of(zipped(tmp_path)) == f"{path}: which file in it? name its member: it is empty"


def test_damaged_zip(tmp_path: Path):
    path = zipped(tmp_path, fra=PAIRS * 100)
    data = bytearray(path.read_bytes())
    data[120:125] = b"\xff" * 5
    path.write_bytes(data)
    assert error_of(path).startswith(f"{path}: damaged zip: ")


def test_broken(path: Path):
    for text, expected in (
        ("a\tA\nb\n", f"line 2: expected 2 columns or more separated by tabs, got 1; {HINT}"),
        ("a\tA\n\tB\n", "line 2: column 1 is empty; fill or delete the line"),
        ("a\tA\nb\t \tx\n", "line 2: column 2 is empty; fill or delete the line"),
        ("\t\n \t\n", "nothing but white space"),
    ):
        path.write_text(text)
        assert error_of(path) == f"{path}: {expected}"
    path.write_text("a\tA\n")
    expected = f"{path}: line 1: expected 3 columns or more separated by tabs, got 2; {HINT}"
    assert error_of(path, target_column=3) == expected
    assert error_of(path, target_column=1) == (
        "expected two different columns counted from 1, got source_column = 1 and target_column = 1"
    )
    assert error_of(path, member="x") == f"{path}: no zip, so it has no member x"


def test_french_and_english(data_dir: Path):
    pairs = read_parallel(data_dir / "fra-eng" / "fra-eng.zip")
    assert len(pairs) == 167_130
    assert (pairs.texts[0], pairs.target_texts[0]) == ("Go.", "Va !")
