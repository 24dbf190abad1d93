"""Arrays: from Python and from files, targets of every kind, and what is ragged, no number, not finite."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatewise.data.arrays import examples_of, next_steps, read_arrays, read_matlab, read_matlab_parts
from gatewise.errors import DataError

CUBE = np.arange(24.0).reshape(2, 4, 3)


def error_of(*arguments: Any, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        examples_of(*arguments, **settings)
    return str(caught.value)


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, allow_pickle=True, **{key: np.asarray(value) for key, value in arrays.items()})
    return path


def lists_of(arrays: list[np.ndarray]) -> list[Any]:
    return [array.tolist() for array in arrays]


# Inputs


def test_cube():
    examples = examples_of(CUBE, [1, 2])
    assert lists_of(examples.steps) == CUBE.tolist()
    assert examples.steps[0].dtype == np.float32
    assert examples.labels == ["1", "2"]
    assert examples.places == ["X[0]", "X[1]"]
    assert examples.feature_names == ("feature 0", "feature 1", "feature 2")


def test_lengths():
    examples = examples_of(CUBE, lengths=[2, 4], feature_names=["a", "b", "c"], groups=[7, 8])
    assert examples.lengths.tolist() == [2, 4]
    assert examples.feature_names == ("a", "b", "c")
    assert examples.groups == ["7", "8"]


def test_end_to_end():
    flat = np.arange(10.0).reshape(5, 2)
    examples = examples_of(flat, np.array([1, 0, 1, 1, 0]), lengths=[2, 3])
    assert lists_of(examples.steps) == [flat[:2].tolist(), flat[2:].tolist()]
    assert examples.tags == [["1", "0"], ["1", "1", "0"]]


def test_lists_and_one_feature():
    assert lists_of(examples_of([[[1, 2]], [[3, 4], [5, 6]]]).steps) == [[[1, 2]], [[3, 4], [5, 6]]]
    assert lists_of(examples_of([[1, 2], [3]]).steps) == [[[1], [2]], [[3]]]
    assert lists_of(examples_of(np.array([[1, 2], [3, 4]])).steps) == [[[1], [2]], [[3], [4]]]
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.ones((1, 2)), np.ones((3, 2))]
    assert examples_of(ragged).lengths.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("inputs", "lengths", "expected"),
    [
        ([], None, "X: no example"),
        (np.zeros((0, 2, 3)), None, "X: no example"),
        ([np.zeros((1, 2)), np.zeros((1, 3))], None, "X[1] has 3 features, and X[0] has 2"),
        ([np.zeros((1, 2)), np.zeros((0, 2))], None, "X[1] has no step"),
        ([[[1, 2], [3]]], None, "X[0]: ragged: its rows have different lengths; give a list of arrays (T, F)"),
        ([[[1, "x"]]], None, "X[0]: expected numbers, got <U21"),
        ([np.array([["a"]])], None, "X[0]: expected numbers, got <U1"),
        ([np.array([[None, {}]])], None, "X[0]: expected numbers, got Python objects such as None"),
        ([np.array([[1.0, np.nan]])], None, "X[0, 0, 1] is nan; expected a finite number"),
        ([np.array([[1.0]]), np.array([[1.0], [-np.inf]])], None, "X[1, 1, 0] is -inf; expected a finite number"),
        ([np.array([[1e300]])], None, "X[0, 0, 0] is inf; expected a finite number"),
        ([np.zeros((1, 2, 3))], None, "X[0]: expected (T, F), got shape (1, 2, 3)"),
        (np.zeros(3), None, "X: expected (N, T, F) or (N, T), or a list of arrays (T, F), got shape (3,)"),
        (CUBE, [2], "X: expected (N, T, F) with N lengths, got shape (2, 4, 3) with 1 lengths"),
        (CUBE, [2, 5], "X: lengths[1] is 5; expected 0 to 4, the steps there are"),
        (CUBE, [2, 0], "X[1] has no step"),
    ],
)
def test_wrong_inputs(inputs: Any, lengths: Any, expected: str):
    assert error_of(inputs, lengths=lengths) == expected


def test_wrong_names():
    assert error_of(CUBE, feature_names=["a"]) == "X: 3 features and 1 names for them; give as many"


# Targets


@pytest.mark.parametrize(
    ("targets", "kind", "expected"),
    [
        (["a", " b "], "label", ["a", "b"]),
        (np.array([1.0, 2.5]), "label", ["1", "2.5"]),
        ([True, np.False_], "label", ["true", "false"]),
        ([["x", "a"], []], "labels", [("a", "x"), ()]),
        (np.array([[0, 1], [1, 1]]), "labels", [("1",), ("0", "1")]),
        (np.array([[1, 0, 1, 9], [0, 0, 1, 1]]), "tags", [["1", "0", "1"], ["0", "0", "1", "1"]]),
        ([["a", "b", "c"], ["a"] * 4], "tags", [["a", "b", "c"], ["a"] * 4]),
        (np.ones((2, 4)), "numbers", [[[1]] * 3, [[1]] * 4]),
        (np.ones((2, 4, 2)), "numbers", [[[1, 1]] * 3, [[1, 1]] * 4]),
    ],
)
def test_targets(targets: Any, kind: str, expected: list[Any]):
    examples = examples_of(CUBE, targets, lengths=[3, 4])
    assert examples.target_kind == kind
    assert examples.targets is not None
    assert [target.tolist() if kind == "numbers" else target for target in examples.targets] == expected
    assert len(examples.target_names) == (len(expected[0][0]) if kind == "numbers" else 0)


def test_kind_that_is_given():
    tags = np.array([[1.0, 0, 1, 9], [0, 0, 1, 1]])
    assert examples_of(CUBE, tags, target_kind="tags").tags[0] == ["1", "0", "1", "9"]
    assert examples_of(CUBE, tags.astype(int), target_kind="numbers").target_kind == "numbers"


@pytest.mark.parametrize(
    ("targets", "kind", "expected"),
    [
        ([1], None, "y has 1 targets for 2 sequences; give one for each"),
        ([1, np.nan], None, "y[1] is nan; expected a label"),
        (["a", " "], None, "y[1] is empty; expected a label"),
        ([[1, 2, 3], [1]], "tags", "y[1] has 1 steps, and its sequence has 4"),
        ([1, 2], "tags", "y[0] has 1 steps, and its sequence has 3"),
        ([np.ones((3, 1)), np.ones((4, 2))], None, "y[1] has 2 numbers a step, and y[0] has 1"),
        ([np.ones(3), np.full(4, np.nan)], None, "y[1, 0, 0] is nan; expected a finite number"),
        (np.array([[0, 2], [1, 1]]), None, "y: several labels as an array (N, K) are 0 or 1; it holds other values"),
        ([("a",), "b"], "labels", "y[1]: expected a collection of labels, got 'b'"),
        ([1, 2], "text", "target_kind: expected label, labels, tags or numbers, got text"),
    ],
)
def test_wrong_targets(targets: Any, kind: Any, expected: str):
    assert error_of(CUBE, targets, lengths=[3, 4], target_kind=kind) == expected


def test_next_steps():
    examples = next_steps(examples_of(CUBE))
    assert lists_of(examples.steps) == CUBE[:, :-1].tolist()
    assert lists_of(examples.numbers) == CUBE[:, 1:].tolist()
    with pytest.raises(DataError, match=r"^X\[1\] has 1 step, and a next step to predict needs 2$"):
        next_steps(examples_of(CUBE, lengths=[2, 1]))


# Files


def test_npz(tmp_path: Path):
    path = save(tmp_path / "a.npz", X=CUBE, y=["a", "b"], lengths=[2, 4], feature_names=["p", "q", "r"], groups=[1, 1])
    examples = read_arrays(path)
    assert examples.labels == ["a", "b"]
    assert examples.lengths.tolist() == [2, 4]
    assert examples.feature_names == ("p", "q", "r")
    assert examples.groups == ["1", "1"]
    assert examples.places[1] == f"{path}: X[1]"
    assert read_arrays(path, with_targets=False).targets is None


def test_npy(tmp_path: Path):
    for name, array in (("x.npy", CUBE), ("y.npy", np.array([3, 4]))):
        np.save(tmp_path / name, array)
    assert read_arrays(tmp_path / "x.npy", tmp_path / "y.npy").labels == ["3", "4"]
    assert read_arrays(tmp_path / "x.npy", with_targets=False).targets is None


def test_broken_files(tmp_path: Path):
    def said(path: Path, *others: Path, **settings: Any) -> str:
        with pytest.raises(DataError) as caught:
            read_arrays(path, *others, **settings)
        return str(caught.value).removeprefix(f"{path}: ")

    path = save(tmp_path / "a.npz", X=CUBE, y=["a"])
    assert said(path) == "y has 1 targets for 2 sequences; give one for each"
    save(path, X=CUBE * np.nan)
    assert said(path, with_targets=False) == "X[0, 0, 0] is nan; expected a finite number"
    assert said(path) == ("no targets in it: expected an array y or Y or targets or target or labels or label, found X")
    save(path, Z=CUBE)
    assert said(path) == "no inputs in it: expected an array X or x or inputs or data or features, found Z"
    ragged = np.array([[1], [1, 2]], dtype=object)
    save(path, X=ragged)
    assert said(path) == (
        "holds Python objects, which are not read from files: they could run any code; "
        "save plain arrays, ragged ones end to end with their lengths"
    )
    whole = save(path, X=CUBE).read_bytes()
    for data, expected in (
        (whole[:-10], "damaged: file is not a zip file"),
        (b"PK\3\4", "damaged: file is not a zip file"),
        (b"hello", "no .npy or .npz file: it begins with neither's mark"),
        (b"\x93NUMPY\1\0", "damaged: EOF: reading array header length, expected 2 bytes got 0"),
    ):
        path.write_bytes(data)
        assert said(path) == expected


def matlab(path: Path, **variables: Any) -> Path:
    from scipy.io import savemat

    savemat(path, variables)
    return path


def cells(*arrays: np.ndarray) -> np.ndarray:
    made = np.empty((1, len(arrays)), dtype=object)
    made[0, :] = arrays
    return made


def test_matlab(tmp_path: Path):
    path = matlab(tmp_path / "a.mat", traindata=cells(CUBE[0], CUBE[1][:2]), testdata=cells(CUBE[0]))
    examples = read_matlab(path, "traindata")
    assert lists_of(examples.steps) == [CUBE[0].tolist(), CUBE[1][:2].tolist()]
    assert {part: len(examples) for part, examples in read_matlab_parts(path).items()} == {"training": 2, "test": 1}
    with pytest.raises(DataError) as caught:
        read_matlab(path, "x")
    assert str(caught.value) == f"{path}: no variable x in it; there is traindata, testdata"
    matlab(path, x=cells(CUBE[0]))
    with pytest.raises(DataError) as caught:
        read_matlab_parts(path)
    assert str(caught.value) == f"{path}: no variable traindata in it; there is x"
    path.write_bytes(b"hello" * 40)
    with pytest.raises(DataError) as caught:
        read_matlab(path, "x")
    assert str(caught.value) == f"{path}: damaged .mat file: unknown mat file type, version 111, 104"


def test_matlab_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = matlab(tmp_path / "a.mat", x=cells(CUBE[0]))
    imported = builtins.__import__

    def without_scipy(name: str, *others: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return imported(name, *others)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(DataError) as caught:
        read_matlab(path, "x")
    assert str(caught.value) == f"{path}: needs SciPy to be read: pip install 'gatewise[matlab]'"


def test_chorales(data_dir: Path):
    parts = read_matlab_parts(data_dir / "jsb-chorales" / "JSB_Chorales.mat")
    assert {part: len(examples) for part, examples in parts.items()} == {"training": 229, "validation": 76, "test": 77}
    assert all(steps.shape[1] == 88 for examples in parts.values() for steps in examples.steps)
    assert all(set(np.unique(steps)) == {0, 1} for steps in parts["test"].steps)
