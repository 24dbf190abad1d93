"""Tables of examples: columns that are named, that are guessed, and that cannot be."""

from pathlib import Path
from typing import Any

import pytest

from gatewise.data.examples import Examples
from gatewise.data.labelled_table import read_labelled_table, read_tagged_table, read_translation_table
from gatewise.errors import DataError


def read(
    tmp_path: Path, text: str, name: str = "t.csv", reader: Any = read_labelled_table, **settings: Any
) -> Examples:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return reader(path, **settings)


def error_of(tmp_path: Path, text: str, name: str = "t.csv", **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text, name, **settings)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def notes_of(examples: Examples, tmp_path: Path) -> list[str]:
    return [note.removeprefix(f"{tmp_path}/") for note in examples.notes]


@pytest.mark.parametrize(
    ("text", "text_column", "label_column"),
    [
        ("id,review,sentiment\n1,good,pos\n2,bad,neg\n", "review", "sentiment"),
        ("Label,Text\npos,good\nneg,bad\n", "Text", "Label"),
        ("what,label\ngood,pos\nbad,neg\n", "what", "label"),
        ("text,what\ngood,pos\nbad,neg\n", "text", "what"),
        ("what,how\na good one,pos\na bad one,neg\n", "what", "how"),
        ("title,text,y\nx,good,pos\nz,bad,neg\n", "text", "y"),
    ],
)
def test_guessed(text: str, text_column: str, label_column: str, tmp_path: Path):
    examples = read(tmp_path, text)
    assert [word for text in examples.texts for word in text.split() if word in ("good", "bad")] == ["good", "bad"]
    assert examples.labels == ["pos", "neg"]
    columns = text.partition("\n")[0].replace(",", ", ")
    assert notes_of(examples, tmp_path) == [
        f't.csv: took the text from column "{text_column}" and the label from column "{label_column}", of {columns}'
    ]
    assert examples.places[1] == f"{tmp_path}/t.csv: row 2"


def test_named_columns_are_no_guess(tmp_path: Path):
    text = "a,b,c\nx,good,pos\nz,bad,neg\n"
    examples = read(tmp_path, text, text_column="b", label_column="c")
    assert (examples.texts, examples.labels, examples.notes) == (["good", "bad"], ["pos", "neg"], ())
    examples = read(tmp_path, "text,b,c\ngood,x,pos\nbad,z,neg\n", label_column="c")
    assert notes_of(examples, tmp_path) == ['t.csv: took the text from column "text", of text, b, c']


def test_header_that_is_none(tmp_path: Path):
    spam = "ham\tGo until jurong point\nspam\tFree entry now\nham\tOk lar joking\n"
    examples = read(tmp_path, spam, "t.tsv")
    assert examples.labels == ["ham", "spam", "ham"]
    assert examples.texts[0] == "Go until jurong point"
    assert notes_of(examples, tmp_path) == [
        't.tsv: has no header, for "ham" in its first line is a value below, too',
        't.tsv: took the text from column "2" and the label from column "1", of 1, 2',
    ]
    assert len(read(tmp_path, spam, "t.tsv", header=False)) == 3
    assert len(read(tmp_path, spam, "t.tsv", header=True)) == 2
    assert len(read(tmp_path, "text,label\ntext,label\nx,y\n")) == 2


def test_several_labels(tmp_path: Path):
    examples = read(tmp_path, "text,labels\na,x|y\nb,\nc, y \n", label_separator="|")
    assert examples.target_kind == "labels"
    assert examples.label_sets == [("x", "y"), (), ("y",)]
    examples = read(tmp_path, '{"text": "a", "labels": ["y", "x", "x"]}\n{"text": "b", "labels": []}\n', "t.jsonl")
    assert examples.label_sets == [("x", "y"), ()]


def test_groups_and_times(tmp_path: Path):
    text = "text,label,who,when\na,x,1,2020-01-02\nb,y,2,2020-01-01\n"
    examples = read(tmp_path, text, group_column="who", time_column="when")
    assert examples.groups == ["1", "2"]
    assert examples.times is not None
    assert examples.times.astype("M8[D]").astype(str).tolist() == ["2020-01-02", "2020-01-01"]


def test_to_predict(tmp_path: Path):
    examples = read(tmp_path, "review,id\nx y z,1\n", text_column="review", with_labels=False)
    assert (examples.texts, examples.targets, examples.target_kind) == (["x y z"], None, "none")
    assert read(tmp_path, "anything\nx\n", with_labels=False).texts == ["x"]


def test_to_predict_with_other_columns_than_in_training(tmp_path: Path):
    assert error_of(tmp_path, "revew,id\nx,1\n", text_column="review", with_labels=False) == (
        't.csv: no column "review"; its columns are revew, id; did you mean "revew"?'
    )


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("a,b,c\n1,2,3\n", {}, "t.csv: which column is the text? give text_column, one of a, b, c"),
        ("text,b,c\n1,2,3\n", {}, "t.csv: which column is the label? give label_column, one of text, b, c"),
        ("text\n1\n", {}, "t.csv: which column is the label? give label_column, one of text"),
        ("text,label\na,x\n,y\n", {}, 't.csv: row 2: column "text" is empty; fill or delete the row'),
        ("text,label\na,x\nb,\n", {}, 't.csv: row 2: column "label" is empty; fill or delete the row'),
        ("text,label\na,x\n", {"label_column": "intent"}, 't.csv: no column "intent"; its columns are text, label'),
        ("text,label\na,x\n", {"group_column": "who"}, 't.csv: no column "who"; its columns are text, label'),
    ],
)
def test_wrong(text: str, settings: dict[str, str], expected: str, tmp_path: Path):
    assert error_of(tmp_path, text, **settings) == expected


def test_tagged(tmp_path: Path):
    examples = read(tmp_path, "words,tags\nplay jazz,O B-genre\n", reader=read_tagged_table)
    assert (examples.words, examples.tags) == ([["play", "jazz"]], [["O", "B-genre"]])
    lines = '{"id": 1, "tokens": ["New York", "!"], "ner_tags": [3, 0], "pos_tags": [1, 2]}\n'
    examples = read(tmp_path, lines, "t.jsonl", read_tagged_table)
    assert (examples.words, examples.tags) == ([["New York", "!"]], [["3", "0"]])
    assert notes_of(examples, tmp_path) == [
        't.jsonl: took the words from column "tokens" and the tags from column "ner_tags", '
        "of id, tokens, ner_tags, pos_tags"
    ]
    assert read(tmp_path, lines, "t.jsonl", read_tagged_table, tags_column="pos_tags").tags == [["1", "2"]]
    assert read(tmp_path, "words\na b\n", reader=read_tagged_table, with_tags=False).words == [["a", "b"]]


def test_tagged_wrong(tmp_path: Path):
    assert (
        error_of(tmp_path, "words,tags\na b,O\n", reader=read_tagged_table)
        == "t.csv: row 1: 2 words and 1 tags; give as many"
    )
    assert error_of(tmp_path, "words,tags\na,O\n,O\n", reader=read_tagged_table) == (
        't.csv: row 2: column "words" is empty; fill or delete the row'
    )
    assert error_of(tmp_path, "a,b,c\n1,2,3\n", reader=read_tagged_table) == (
        "t.csv: which column is the words? give words_column, one of a, b, c"
    )


def test_translations(tmp_path: Path):
    for text, settings in (
        ("source,target\nGo.,Va !\n", {}),
        ("fr,en\nGo.,Va !\n", {}),
        ("id,trg,src\n1,Va !,Go.\n", {}),
        ("id,fr,en\n1,Va !,Go.\n", {"source_column": "en", "target_column": "fr"}),
    ):
        examples = read(tmp_path, text, reader=read_translation_table, **settings)
        assert (examples.texts, examples.target_texts) == (["Go."], ["Va !"])
    examples = read(tmp_path, "en\nGo.\n", reader=read_translation_table, with_targets=False)
    assert (examples.texts, examples.targets) == (["Go."], None)
    assert error_of(tmp_path, "id,fr,en\n1,Va !,Go.\n", reader=read_translation_table, source_column="en") == (
        "t.csv: which column is the target? give target_column, one of id, fr, en"
    )
