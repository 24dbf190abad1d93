"""Vocabularies and label sets: ids and back, what is unknown, JSON, damaged documents."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.data.vocabulary import LabelSet, Vocabulary, tokenize
from gatewise.errors import DataError, InputError

SENTENCES = [["the", "cat", "sat"], ["the", "Dog"], ["the", "cat"]]


def test_tokens_by_falling_frequency():
    vocabulary = Vocabulary.fit(SENTENCES)
    assert vocabulary.names == ["<pad>", "<unk>", "the", "cat", "Dog", "sat"]
    assert vocabulary.counts == [0, 0, 3, 2, 1, 1]
    ids = vocabulary.encode(["the", "dog", "sat"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 1, 5]
    assert vocabulary.decode(ids) == ["the", "<unk>", "sat"]
    assert "cat" in vocabulary
    assert len(vocabulary) == 6


def test_min_count_and_max_size():
    vocabulary = Vocabulary.fit(SENTENCES, min_count=2)
    assert vocabulary.names == ["<pad>", "<unk>", "the", "cat"]
    assert vocabulary.describe() == {"size": 4, "unknown": 2, "unknown_share": 2 / 7}
    assert Vocabulary.fit(SENTENCES, max_size=3).names == ["<pad>", "<unk>", "the"]
    assert Vocabulary.fit(SENTENCES, max_size=1).names == ["<pad>", "<unk>"]
    assert Vocabulary.fit([]).describe() == {"size": 2, "unknown": 0, "unknown_share": 0.0}


def test_lower_case():
    vocabulary = Vocabulary.fit([["The", "the", "Cat"]], lower_case=True)
    assert vocabulary.names[2:] == ["the", "cat"]
    assert vocabulary.counts[2] == 2
    assert vocabulary.encode(["THE", "cat"]).tolist() == [2, 3]


def test_sentence_marks():
    vocabulary = Vocabulary.fit([["a", "</s>", "<unk>"]], sentence_marks=True)
    assert vocabulary.names == ["<pad>", "<unk>", "<s>", "</s>", "a"]
    assert vocabulary.sentence_marks
    assert (Vocabulary.padding_id, Vocabulary.unknown_id, Vocabulary.start_id, Vocabulary.end_id) == (0, 1, 2, 3)
    assert not Vocabulary.fit([["a"]]).sentence_marks


def test_characters_of_words():
    vocabulary = Vocabulary.fit(["abc", "ab"])
    characters = vocabulary.encode_characters(["ab", "", "cbax", "abcabcab"], longest=5)
    assert characters.dtype == np.int32
    assert characters.tolist() == [[2, 3, 0, 0, 0], [0] * 5, [4, 3, 2, 1, 0], [2, 3, 4, 2, 3]]
    assert vocabulary.encode_characters([], longest=5).shape == (0, 0)
    assert vocabulary.encode_characters(["ab"], longest=1).tolist() == [[2]]


@given(st.lists(st.lists(st.text(min_size=1))), st.booleans(), st.booleans())
def test_json_gives_the_same_vocabulary(sentences: list[list[str]], lower_case: bool, marks: bool):
    vocabulary = Vocabulary.fit(sentences, lower_case=lower_case, sentence_marks=marks)
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again == vocabulary
    assert again.lower_case == lower_case
    assert all(np.array_equal(again.encode(words), vocabulary.encode(words)) for words in sentences)


def test_labels_sorted():
    labels = LabelSet.fit(["10", "9", "-1", "9"])
    assert labels.names == ["-1", "9", "10"]
    assert labels.counts == [1, 2, 1]
    assert LabelSet.fit(["10", "9", "b"]).names == ["10", "9", "b"]
    classes = labels.encode(["10", "-1"])
    assert classes.dtype == np.int64
    assert classes.tolist() == [2, 0]
    assert labels.decode(classes) == ["10", "-1"]
    assert LabelSet.from_json(labels.to_json()) == labels
    assert LabelSet.from_json(labels.to_json()) != LabelSet.fit(["10"])


@pytest.mark.parametrize(
    ("dtype", "names", "values"),
    [
        (None, ["9", "10"], ["9", "10"]),
        ("<U", ["10", "9"], ["10", "9"]),
        ("|O", ["10", "9"], ["10", "9"]),
        ("<i8", ["9", "10"], [9, 10]),
        ("<f4", ["9", "10"], [9.0, 10.0]),
        ("|b1", ["false", "true"], [False, True]),
    ],
)
def test_labels_in_their_own_type(dtype, names, values):
    """Texts of memory are sorted as NumPy sorts them; what a file holds, as numbers if it can be."""
    labels = LabelSet.fit(names, dtype)
    again = LabelSet.from_json(labels.to_json())
    assert (again.names, again.dtype) == (names, dtype)
    assert again.values.tolist() == values
    assert again.values.dtype.kind == ("U" if dtype is None else np.dtype(dtype).kind)


def test_a_damaged_type():
    document = LabelSet.fit(["1"], "<i8").to_json().replace("<i8", "i8, i8")
    with pytest.raises(InputError, match=r"^damaged label set: expected dtype, a type of NumPy's such as <i8$"):
        LabelSet.from_json(document)


def test_several_labels():
    labels = LabelSet.fit("abc")
    chosen = labels.encode_many([("a", "c"), ()])
    assert chosen.dtype == np.float32
    assert chosen.tolist() == [[1, 0, 1], [0, 0, 0]]


def test_unknown_label():
    labels = LabelSet.fit("ab")
    assert labels.encode_known("abx").tolist() == [0, 1, -1]
    with pytest.raises(DataError, match=r'^test.csv: row 3: the label "x" is not one that was trained: a, b$'):
        labels.encode("x", "test.csv: row 3")
    with pytest.raises(DataError, match=r'^the label "x" is not one that was trained: a, b$'):
        labels.encode_many([("a", "x")])


def test_balanced_weights():
    labels = LabelSet.fit("aaab")
    weights = labels.balanced_weights()
    assert weights.tolist() == pytest.approx([2 / 3, 2])
    assert (weights * labels.counts).sum() == pytest.approx(4)


def test_tokenize():
    assert tokenize("Don't  stop, it’s\n5€!") == ["Don't", "stop", ",", "it’s", "5", "€", "!"]


def test_saved_and_loaded(tmp_path: Path):
    path = tmp_path / "vocabulary.json"
    vocabulary = Vocabulary.fit(SENTENCES)
    vocabulary.save(path)
    assert Vocabulary.load(path) == vocabulary
    with pytest.raises(InputError) as caught:
        LabelSet.load(path)
    assert (
        str(caught.value) == f'{path}: not a label set: expected a JSON object with "kind": "label set" and its version'
    )
    path.write_bytes(b"\xff")
    with pytest.raises(InputError) as caught:
        Vocabulary.load(path)
    assert str(caught.value) == f"{path}: not a vocabulary: no UTF-8 at byte 0"
    with pytest.raises(InputError) as caught:
        Vocabulary.load(tmp_path / "gone.json")
    assert str(caught.value) == f"{tmp_path / 'gone.json'}: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": 2}, "written by a newer gatewise (vocabulary version 2, this one reads 1); upgrade gatewise"),
        ({"names": "abc"}, "damaged vocabulary: expected names, a list of texts"),
        ({"counts": ["1"]}, "damaged vocabulary: expected counts, a list of whole numbers"),
        ({"counts": [1]}, "damaged vocabulary: expected different names, and a count for each"),
        ({"names": ["<pad>"] * 6}, "damaged vocabulary: expected different names, and a count for each"),
        ({"names": list("abcdef")}, "damaged vocabulary: expected <pad>, <unk>, then the tokens"),
    ],
)
def test_damaged(changes: dict[str, object], expected: str):
    document = json.loads(Vocabulary.fit(SENTENCES).to_json()) | changes
    with pytest.raises(InputError) as caught:
        Vocabulary.from_json(json.dumps(document))
    assert str(caught.value) == expected


def test_no_json():
    with pytest.raises(InputError, match=r"^not a vocabulary: no JSON at line 1, column 2$"):
        Vocabulary.from_json("{")
