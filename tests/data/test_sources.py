"""Sources: the reader of each kind, for each task, and the parts that a folder holds."""

import gzip
import io
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gatewise.data.sources import read_parts, read_to_classify, read_to_tag, read_to_translate
from gatewise.data.splits import make_split
from gatewise.errors import DataError

UD = "1\tGo\tgo\tVERB\tVB\t_\t0\troot\t_\t_\n2\t!\t!\tPUNCT\t.\t_\t1\tpunct\t_\t_\n"
FILES = {
    "t.csv": "text,label\nGo !,a\n",
    "t.tsv": "Go !\tVa !\n",
    "named.tsv": "en\tfr\nGo !\tVa !\n",
    "t.jsonl": '{"tokens": ["Go", "!"], "tags": ["V", "P"], "source": "Go !", "target": "Va !"}\n',
    "t.conllu": UD,
    "t.conll": "Go VB V\n! . P\n",
    "t.ts": "@classLabel true a b\n@data\n1,2:3,4:a\n",
    "lines.txt": "Go !\n",
    "labels.txt": "a\n",
    "tags.txt": "V P\n",
    "snips/seq.in": "Go !\n",
    "snips/seq.out": "V P\n",
    "snips/label": "a\n",
    "folder/a/1.txt": "Go !\n",
    "x.pdf": "?",
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    np.savez(tmp_path / "t.npz", X=np.ones((1, 2, 2)), y=np.array(["a"]))
    np.savez(tmp_path / "tags.npz", X=np.ones((1, 2, 2)), y=np.array([["V", "P"]]))
    np.save(tmp_path / "x.npy", np.ones((1, 2, 2)))
    np.save(tmp_path / "y.npy", np.array(["a"]))
    return tmp_path


def error_of(read: Callable[..., Any], *arguments: Any, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(*arguments, **settings)
    return str(caught.value)


@pytest.mark.parametrize("name", ["t.csv", "snips", "folder", "t.ts", "t.npz", "lines.txt labels.txt", "x.npy y.npy"])
def test_to_classify(name: str, files: Path):
    examples = read_to_classify(*(files / part for part in name.split()))
    assert examples.labels == ["a"]
    if examples.input_kind == "text":
        assert examples.texts == ["Go !"]


@pytest.mark.parametrize("name", ["t.csv", "t.ts", "t.npz", "lines.txt", "x.npy"])
def test_to_predict_a_class(name: str, files: Path):
    examples = read_to_classify(files / name, with_labels=False)
    assert (len(examples), examples.targets) == (1, None)


@pytest.mark.parametrize("name", ["t.jsonl", "t.conllu", "t.conll", "snips", "tags.npz", "lines.txt tags.txt"])
def test_to_tag(name: str, files: Path):
    examples = read_to_tag(*(files / part for part in name.split()))
    assert examples.tags == [["VERB", "PUNCT"]] if name == "t.conllu" else [["V", "P"]]
    if examples.input_kind == "words":
        assert examples.words == [["Go", "!"]]


def test_columns_of_tags(files: Path):
    assert read_to_tag(files / "t.conllu", tags_column="xpos").tags == [["VB", "."]]
    assert read_to_tag(files / "t.conll", tags_column="2").tags == [["VB", "."]]
    assert error_of(read_to_tag, files / "t.conll", tags_column="pos") == (
        'tags_column: expected the number of a column, counted from 1, got "pos"'
    )


@pytest.mark.parametrize("name", ["t.jsonl", "t.conllu", "t.conll", "tags.npz", "lines.txt"])
def test_to_predict_tags(name: str, files: Path):
    examples = read_to_tag(files / name, with_tags=False)
    assert (len(examples), examples.targets, examples.lengths.tolist()) == (1, None, [2])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("t.tsv", {}),
        ("t.jsonl", {}),
        ("named.tsv", {"source_column": "en", "target_column": "fr"}),
    ],
)
def test_to_translate(name: str, settings: dict[str, Any], files: Path):
    examples = read_to_translate(files / name, **settings)
    assert (examples.texts, examples.target_texts) == (["Go !"], ["Va !"])


def test_to_translate_other_ways(files: Path):
    turned = read_to_translate(files / "t.tsv", source_column="2", target_column="1")
    assert (turned.texts, turned.target_texts) == (["Va !"], ["Go !"])
    assert read_to_translate(files / "lines.txt", with_targets=False).texts == ["Go !"]


@pytest.mark.parametrize(("one", "other"), [("t.fr", "t.en"), ("t.fr.gz", "t.en"), ("t.fr", "t.en.gz")])
@pytest.mark.parametrize("suffix", ["en", ".en"])
def test_to_translate_paired_files(one: str, other: str, suffix: str, tmp_path: Path):
    for name, text in ((one, "Va !\n\nCours !\n"), (other, "Go !\n\nRun !\n")):
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    examples = read_to_translate(tmp_path / one, target_suffix=suffix)
    assert (examples.texts, examples.target_texts) == (["Va !", "Cours !"], ["Go !", "Run !"])
    assert read_to_translate(tmp_path / one, target_suffix=suffix, with_targets=False).texts == ["Va !", "Cours !"]
    (tmp_path / other).unlink()
    with pytest.raises(DataError) as error:
        read_to_translate(tmp_path / one, target_suffix=suffix)
    missing = f"expected a file t.en beside it, for target_suffix = {suffix}"
    assert str(error.value) == f"{tmp_path / one}: its translations are not there: {missing}"


def test_parts_of_paired_files(tmp_path: Path):
    for part in ("train", "dev"):
        (tmp_path / f"{part}.fr").write_text("Va !\n")
        (tmp_path / f"{part}.en").write_text("Go !\n")
    read = partial(read_to_translate, target_suffix="en")
    parts = read_parts(tmp_path, read, ignored="en")
    assert {part: examples.target_texts for part, examples in parts.items()} == {
        "training": ["Go !"],
        "validation": ["Go !"],
    }


def test_standard_input(monkeypatch: pytest.MonkeyPatch):
    def feed(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))

    feed("Go !\n\nRun !\n")
    examples = read_to_classify("-", with_labels=False)
    assert (examples.texts, examples.places[1]) == (["Go !", "Run !"], "standard input: line 3")
    feed("id,review\n1,Go !\n")
    assert read_to_classify("-", text_column="review", with_labels=False).texts == ["Go !"]
    feed('{"review": "Go !"}\n')
    assert read_to_classify("-", text_column="review", with_labels=False).texts == ["Go !"]
    feed("Go !\n")
    assert read_to_tag("-", with_tags=False).words == [["Go", "!"]]
    feed("Go !\n")
    assert read_to_translate("-", with_targets=False).texts == ["Go !"]


def test_unknown_kinds(files: Path):
    path = files / "x.pdf"
    assert error_of(read_to_classify, path) == (
        f"{path}: expected a table, .ts, .npz or .npy file, a folder of .txt by label, or texts with a file of labels"
    )
    assert error_of(read_to_tag, path) == (
        f"{path}: expected a .conllu or .conll file, a table, .npz or .npy, or words with a file of tags"
    )
    assert error_of(read_to_classify, files / "none.pdf") == f"{files / 'none.pdf'}: no such file"
    assert error_of(read_to_tag, files / "folder") == (
        f"{files / 'folder'}: expected a folder with seq.in and seq.out, or name a file in it"
    )


def test_parts_that_are_named(files: Path):
    parts = read_parts(files / "t.csv", read_to_classify, test=files / "t.csv")
    assert list(parts) == ["training", "test"]
    assert list(read_parts(files / "t.csv", read_to_classify)) == ["training"]


def test_parts_of_a_folder(tmp_path: Path):
    for name in ("x-ud-train.conllu", "x-ud-dev.conllu", "x-ud-test.conllu", "README.md"):
        (tmp_path / name).write_text(UD)
    parts = read_parts(tmp_path, read_to_tag)
    assert list(parts) == ["training", "validation", "test"]
    assert parts["validation"].source == str(tmp_path / "x-ud-dev.conllu")
    assert parts["training"].notes == (
        f"{tmp_path}: took training from x-ud-train.conllu, validation from x-ud-dev.conllu, "
        "test from x-ud-test.conllu",
    )
    (tmp_path / "y-train.conllu").write_text(UD)
    assert error_of(read_parts, tmp_path, read_to_tag) == (
        f"{tmp_path}: x-ud-train.conllu and y-train.conllu may both be for training; name the files"
    )


def test_folder_of_labels_is_no_folder_of_parts(tmp_path: Path):
    for name in ("train/1.txt", "bus/1.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("Go !")
    assert read_parts(tmp_path, read_to_classify)["training"].labels == ["bus", "train"]


# The whole way from real files to a split


def test_real_parts(data_dir: Path):
    counts = {}
    for name, read in (
        ("snips", read_to_classify),
        ("snips", read_to_tag),
        ("ud-english-ewt", read_to_tag),
        ("japanese-vowels", read_to_classify),
        ("jsb-chorales/JSB_Chorales.mat", read_to_tag),
    ):
        parts = read_parts(data_dir / name, read)
        split = make_split(parts["training"], validation=parts.get("validation"), test=parts.get("test"))
        counts[f"{name} {split.training.target_kind}"] = split.report.counts
    assert counts == {
        "snips label": {"training": 13_084, "validation": 700},
        "snips tags": {"training": 13_084, "validation": 700},
        "ud-english-ewt tags": {"training": 12_544, "validation": 2001, "test": 2077},
        "japanese-vowels label": {"training": 270, "test": 370},
        "jsb-chorales/JSB_Chorales.mat numbers": {"training": 229, "validation": 76, "test": 77},
    }


def test_readers_need_no_torch():
    modules = "sources, splits, series_table, series_splits, vocabulary, scaling, ragged"
    code = f"import sys; from gatewise.data import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_line_imports_no_polars():
    code = (
        "import sys, gatewise\n"
        "from gatewise.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'polars', 'torch', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
