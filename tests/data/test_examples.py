"""Examples: their kinds, parts, descriptions, and what does not go together."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from gatewise.data.examples import Examples, some
from gatewise.errors import DataError

Make = Callable[..., Examples]
MakeArrays = Callable[..., list[np.ndarray]]


def test_parts_under_the_name_of_their_kind(made: Make, arrays: MakeArrays):
    texts = made(["a b", "c"], ["x", "y"])
    assert (texts.texts, texts.labels) == (["a b", "c"], ["x", "y"])
    tagged = made([["a", "b"]], [["X", "Y"]], "words", "tags")
    assert (tagged.words, tagged.tags) == ([["a", "b"]], [["X", "Y"]])
    steps = arrays(3, 1)
    numbers = made(steps, arrays(3, 1, features=1), "steps", "numbers")
    assert numbers.steps is steps
    assert len(numbers.numbers) == 2
    assert made(["a"], [("x", "y")], target_kind="labels").label_sets == [("x", "y")]
    assert made(["a"], ["b"], target_kind="text").target_texts == ["b"]


def test_other_kind(made: Make):
    with pytest.raises(DataError, match=r"^made.csv: expected lists of words as inputs, got texts$"):
        _ = made(["a"], ["x"]).words
    with pytest.raises(DataError, match=r"^made.csv: expected a tag for every step as target, got a label each$"):
        _ = made(["a"], ["x"]).tags
    with pytest.raises(DataError, match=r"^made.csv: expected a label each as target, got no targets$"):
        _ = made(["a"]).labels


def test_parts_of_different_lengths(made: Make, arrays: MakeArrays):
    with pytest.raises(DataError, match=r"^made.csv: 2 inputs and 1 targets; give one for each$"):
        made(["a", "b"], ["x"])
    with pytest.raises(DataError, match=r"^made.csv: 1 inputs and 2 groups; give one for each$"):
        made(["a"], ["x"], groups=["g", "h"])
    with pytest.raises(DataError, match=r"^made.csv: row 2: 1 words and 2 tags; give as many$"):
        made([["a"], ["b"]], [["X"], ["X", "Y"]], "words", "tags")
    with pytest.raises(DataError, match=r"^made.csv: row 1: 3 steps and 2 numbers; give as many$"):
        made(arrays(3), arrays(2), "steps", "numbers")


def test_take(numbered: Make):
    times = np.array(["2024-01-02", "2024-01-01", "2024-01-03"], dtype="M8[us]")
    examples = numbered(["x", "y", "z"], groups=["g", "h", "g"], times=times)
    taken = examples.take([2, 0])
    assert (taken.texts, taken.labels, taken.groups) == (["text 2", "text 0"], ["z", "x"], ["g", "g"])
    assert taken.places == ["made.csv: row 3", "made.csv: row 1"]
    assert taken.times is not None
    assert taken.times.tolist() == times[[2, 0]].tolist()
    assert taken.without_targets().targets is None


def test_describe_is_ready_for_json(made: Make, arrays: MakeArrays):
    described = made(["ab", "abcd", ""], [("x",), ("x", "y"), ()], target_kind="labels").describe()
    assert json.loads(json.dumps(described)) == {
        "source": "made.csv",
        "examples": 3,
        "input_kind": "text",
        "target_kind": "labels",
        "lengths": {"unit": "characters", "total": 6, "shortest": 0, "median": 2, "p95": 3, "longest": 4},
        "label_counts": {"x": 2, "y": 1},
        "without_label": 1,
    }
    times = np.array([3, 1])
    described = made(
        arrays(3, 5), arrays(3, 5), "steps", "numbers", groups=["g", "g"], times=times, feature_names=("a", "b")
    ).describe()
    assert described["lengths"] == {"unit": "steps", "total": 8, "shortest": 3, "median": 4, "p95": 4, "longest": 5}
    assert {key: described[key] for key in ("features", "groups", "first_time", "last_time")} == {
        "features": 2,
        "groups": 1,
        "first_time": "1",
        "last_time": "3",
    }
    assert made([], []).describe()["lengths"]["longest"] == 0


def test_label_counts_by_frequency_then_name(made: Make, numbered: Make):
    assert list(numbered(["b", "a", "c", "c"]).label_counts().items()) == [("c", 2), ("a", 1), ("b", 1)]
    assert made([["a", "b"]], [["X", "X"]], "words", "tags").label_counts() == {"X": 2}


def test_some():
    assert some("abc") == "a, b, c"
    assert some("abcdef", 2) == "a, b and 4 more"
