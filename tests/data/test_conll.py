"""CoNLL and CoNLL-U: words and tags, documents, and broken lines."""

import gzip
from pathlib import Path

import pytest

from gatewise.data.conll import read_conll, read_conllu
from gatewise.errors import DataError

UD = """# newdoc id = one
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\tMood=Imp\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\tCase=Acc\t1\tobj\t_\t_
2.1\tmismo\t_\t_\t_\t_\t_\t_\t_\t_
3\tal mar\tmar\tNOUN\tn\t_\t1\tobl\t_\t_

# sent_id = 2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""
NER = """-DOCSTART- -X- -X- O

# id 7
EU NNP I-NP B-ORG
rejects VBZ I-VP O

# NN I-NP O


-DOCSTART- -X- -X- O

Bonn NNP I-NP B-LOC"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def error_of(read, source: Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        read(source, **settings)
    return str(caught.value)


def test_conllu(tmp_path: Path):
    path = write(tmp_path / "es.conllu", UD)
    sentences = read_conllu(path)
    assert sentences.words == [["vamos", "nos", "al mar"], ["#"]]
    assert sentences.tags == [["VERB", "PRON", "NOUN"], ["SYM"]]
    assert sentences.places == [f"{path}: line 4", f"{path}: line 10"]
    assert sentences.groups is None
    assert read_conllu(path, tag_column="feats").tags == [["Mood=Imp", "Case=Acc", "_"], ["_"]]
    assert read_conllu(path, tag_column=None).target_kind == "none"


def test_conllu_plus(tmp_path: Path):
    path = write(tmp_path / "x.conllup", "# global.columns = ID FORM PARSEME:MWE\n1\ta\t*\n2\tb\t1:VID\n")
    assert read_conllu(path, tag_column="PARSEME:MWE").tags == [["*", "1:VID"]]


def test_documents_are_groups(tmp_path: Path):
    word = "1\ta\t_\tX\t_\t_\t0\t_\t_\t_\n\n"
    path = write(tmp_path / "x.conllu", f"# newdoc\n{word}{word}" * 20)
    groups = read_conllu(path).groups
    assert groups is not None
    assert groups == [str(i // 2 + 1) for i in range(40)]


def test_conllu_broken(tmp_path: Path):
    path = tmp_path / "x.conllu"
    rest = "\t_" * 8
    for text, expected in (
        ("1\tone\tX\n", "line 1: expected 10 columns separated by tabs, got 3"),
        (f"1\ta{rest}\n3\tb{rest}\n", "line 2: expected the id 2, got 3"),
        (f"1\ta{rest}\n\n2\tb{rest}\n", "line 3: expected the id 1, got 2"),
        (f"# c\none\ta{rest}\n", "line 2: expected the id 1, got one"),
        (f"1\t{rest}\n", "line 1: the word is empty"),
        ("# only a comment\n", "no sentence in it"),
    ):
        assert error_of(read_conllu, write(path, text)) == f"{path}: {expected}"
    write(path, UD)
    assert error_of(read_conllu, path, tag_column="pos") == (
        f'{path}: no column "pos"; its columns are id, form, lemma, upos, xpos, feats, head, deprel, deps, misc'
    )


def test_conll(tmp_path: Path):
    path = write(tmp_path / "train.txt", NER)
    sentences = read_conll(path)
    assert sentences.words == [["EU", "rejects"], ["#"], ["Bonn"]]
    assert sentences.tags == [["B-ORG", "O"], ["O"], ["B-LOC"]]
    assert sentences.places == [f"{path}: line 4", f"{path}: line 7", f"{path}: line 12"]
    assert read_conll(path, tag_column=2).tags[0] == ["NNP", "VBZ"]
    assert read_conll(path, tag_column=None).target_kind == "none"
    assert read_conll(write(path, "New York\tB\n!\tO\n")).words == [["New York", "!"]]
    assert read_conll(write(path, "a\nb\n\nc\n"), tag_column=None).words == [["a", "b"], ["c"]]


def test_conll_broken(tmp_path: Path):
    path = tmp_path / "train.txt"
    for text, expected in (
        ("a B\nb\n", "line 2: expected 2 columns separated by spaces as in line 1, got 1"),
        ("\na\tB\nb\tO\tX\n", "line 3: expected 2 columns separated by tabs as in line 2, got 3"),
        ("a\nb\n", "line 1: expected two columns or more, a word and its tag, got 'a'"),
        ("a\tB\nb\t\n", "line 2: the tag is empty"),
        ("-DOCSTART- O\n\n", "no sentence in it"),
    ):
        assert error_of(read_conll, write(path, text)) == f"{path}: {expected}"
    assert error_of(read_conll, write(path, "a B\n"), tag_column=3) == (
        f"{path}: tag_column = 3, but a line has 2 columns, counted from 1"
    )


def test_english_web_treebank(data_dir: Path):
    counts = {}
    for part in ("train.conllu.gz", "dev.conllu", "test.conllu"):
        sentences = read_conllu(data_dir / "ud-english-ewt" / f"en_ewt-ud-{part}")
        counts[part[:3]] = int(sentences.lengths.sum())
        assert len(sentences.label_counts()) == 17
    assert counts == {"tra": 204_577, "dev": 25_147, "tes": 25_094}


def test_gzip_and_plain_are_the_same(tmp_path: Path):
    plain = write(tmp_path / "es.conllu", UD)
    packed = tmp_path / "es.conllu.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_conllu(packed).words == read_conllu(plain).words
