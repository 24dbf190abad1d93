"""classification: files of every kind that a classifier reads, and examples in memory."""

import gzip

import numpy as np
import pytest

from gatewise.config import ClassifierData
from gatewise.data.classification import classified, read_classified
from gatewise.errors import DataError


def read(path, **options):
    with_labels = options.pop("with_labels", True)
    return read_classified(path, ClassifierData(**options), with_labels=with_labels)


def test_a_table(tmp_path):
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress(b"text,label,who\ngood one,pos,a\nbad one,neg,b\n"))
    examples = read(path, group_column="who")
    assert (examples.texts, examples.labels, examples.groups) == (["good one", "bad one"], ["pos", "neg"], ["a", "b"])
    assert read(path, with_labels=False).target_kind == "none"
    assert read(path, label_column="who", text_column="text").labels == ["a", "b"]


def test_several_labels(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("text\tlabels\none\tx|y\ntwo\t\n")
    assert read(path, label_separator="|").label_sets == [("x", "y"), ()]


def test_texts_and_labels_line_by_line(tmp_path):
    (tmp_path / "seq.in").write_text("play a song\nrain today\n")
    (tmp_path / "label").write_text("PlayMusic\nGetWeather\n")
    assert read(tmp_path).labels == ["PlayMusic", "GetWeather"]
    assert read(tmp_path, with_labels=False).texts == ["play a song", "rain today"]
    (tmp_path / "label").unlink()
    with pytest.raises(DataError) as error:
        read(tmp_path)
    assert str(error.value) == (f"{tmp_path}: has seq.in but no label beside it; expected a file with a label a line")


def test_a_folder_for_each_label(tmp_path):
    for label, text in (("ham", "hello"), ("spam", "buy")):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.txt").write_text(text)
    examples = read(tmp_path)
    assert (examples.texts, examples.labels) == (["hello", "buy"], ["ham", "spam"])
    assert read(tmp_path, with_labels=False).target_kind == "none"


def test_arrays(tmp_path):
    np.savez(tmp_path / "train.npz", X=np.zeros((3, 4, 2)), y=np.array([0, 1, 0]), lengths=np.array([4, 2, 3]))
    examples = read(tmp_path / "train.npz")
    assert [steps.shape for steps in examples.steps] == [(4, 2), (2, 2), (3, 2)]
    assert examples.labels == ["0", "1", "0"]


def test_lines_of_text_have_no_labels(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("one\n\ntwo\n")
    assert read(path, with_labels=False).texts == ["one", "two"]
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value) == (
        f"{path}: expected a table, .ts, .npz or .npy file, a folder of .txt by label, or texts with a file of labels"
    )
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "other.txt")


@pytest.mark.parametrize(
    ("inputs", "labels", "kind", "targets"),
    [
        (["one", "two"], ["a", "b"], "text", ["a", "b"]),
        (("one", "two"), np.array([3, 4]), "text", ["3", "4"]),
        ([["one", "word"], ["two"]], [0, 1], "words", ["0", "1"]),
        (["one", "two"], [["a", "b"], []], "text", [("a", "b"), ()]),
        (["one", "two"], np.array([[0, 1], [1, 1]]), "text", [("1",), ("0", "1")]),
        (np.zeros((2, 5, 3)), ["a", "b"], "steps", ["a", "b"]),
        ([np.zeros((5, 3)), np.ones((2, 3))], [True, False], "steps", ["true", "false"]),
        ([np.zeros((2, 3)), np.ones((2, 3))], [["a"], ["a", "b"]], "steps", [("a",), ("a", "b")]),
    ],
)
def test_in_memory(inputs, labels, kind, targets):
    examples = classified(inputs, labels)
    assert examples.input_kind == kind
    assert examples.targets == targets
    assert examples.places == ["X[0]", "X[1]"]
    assert classified(inputs).target_kind == "none"


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        ([], None, "X: expected texts, lists of words, or arrays of steps, got nothing"),
        (3, None, "X: expected texts, lists of words, or arrays of steps, got int"),
        (["one", ["two"]], None, "X[1]: expected a text as in the first one"),
        ([["one"], "two"], None, "X[1]: expected a list of words as in the first one"),
        (["one", " "], None, "X[1] is empty; leave it out"),
        (["one", "two"], ["a"], "y has 1 targets for 2 sequences; give one for each"),
        (["one", "two"], ["a", None], "y[1] is empty; expected a label"),
        (np.array([[[0.0]], [[np.nan]]]), ["a", "b"], "X[1, 0, 0] is nan; expected a finite number"),
    ],
)
def test_what_is_refused_in_memory(inputs, labels, message):
    with pytest.raises(DataError) as error:
        classified(inputs, labels)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("inputs", "matrix", "shape", "is_matrix"),
    [
        (np.zeros((2, 3)), "auto", (1, 3), True),
        ([[0, 1, 2], [3, 4, 5]], "auto", (1, 3), True),
        ([(0.0,), (1.0,)], "features", (1, 1), True),
        ([np.zeros(3), np.zeros(3)], "features", (1, 3), True),
        ([np.zeros(3), np.zeros(3)], "auto", (3, 1), False),
        ([[0, 1, 2], [3, 4]], "auto", (3, 1), False),
        (np.zeros((2, 3)), "steps", (3, 1), False),
        ([[0, 1, 2], [3, 4, 5]], "steps", (3, 1), False),
        (np.zeros((2, 4, 3)), "auto", (4, 3), False),
        ([[[0, 1], [2, 3]], [[4, 5], [6, 7]]], "auto", (2, 2), False),
    ],
)
def test_rows_of_a_matrix_and_sequences(inputs, matrix, shape, is_matrix):
    examples = classified(inputs, matrix=matrix)
    assert examples.steps[0].shape == shape
    assert examples.matrix == is_matrix
    if is_matrix:
        np.testing.assert_array_equal(np.concatenate(examples.steps), np.asarray(inputs))


def test_a_matrix_in_a_file_is_series_unless_it_is_said_to_be_features(tmp_path):
    np.savez(tmp_path / "some.npz", X=np.arange(6.0).reshape(2, 3), y=["a", "b"])
    assert read(tmp_path / "some.npz").steps[0].tolist() == [[0], [1], [2]]
    assert read(tmp_path / "some.npz", matrix="features").steps[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [(["a", "b"], "<U"), ([1, 2], "<i8"), (np.array(["a", "b"], dtype=object), "|O"), ([[1], [1, 2]], "<i8")],
)
def test_the_type_of_labels(labels, dtype):
    assert classified(["one", "two"], labels).label_dtype == dtype


def test_a_column_of_labels():
    with pytest.warns(
        UserWarning, match="A column-vector y was passed when a 1d array was expected; it is read as y.r"
    ):
        assert classified(["one", "two"], np.array([["a"], ["b"]])).labels == ["a", "b"]
