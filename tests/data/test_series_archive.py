"""`.ts` files: lengths, dimensions, labels, missing values, and broken lines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatewise.data.examples import Examples
from gatewise.data.missing import fill_missing
from gatewise.data.series_archive import read_series_archive
from gatewise.errors import DataError

HEADER = "# a comment\n@problemName x\n@timeStamps false\n\n@classLabel true a b\n@data\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.ts"


def read(path: Path, text: str, **settings: Any) -> Examples:
    path.write_text(text)
    return read_series_archive(path, **settings)


def error_of(path: Path, text: str, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, text, **settings)
    return str(caught.value).removeprefix(f"{path}: ")


def test_dimensions_and_lengths(path: Path):
    examples = read(path, f"{HEADER}1, 2,3:-1,-2,-3e0:a\n\n4:5: b\n")
    assert [steps.tolist() for steps in examples.steps] == [[[1, -1], [2, -2], [3, -3]], [[4, 5]]]
    assert examples.steps[0].dtype == np.float32
    assert examples.labels == ["a", "b"]
    assert examples.feature_names == ("dimension 1", "dimension 2")
    assert examples.places == [f"{path}: line 7", f"{path}: line 9"]


def test_to_predict(path: Path):
    examples = read(path, f"{HEADER}1,2:?\n", with_labels=False)
    assert examples.steps[0].tolist() == [[1], [2]]
    assert examples.targets is None
    assert read(path, "@classLabel false\n@data\n1,2\n", with_labels=False).steps[0].tolist() == [[1], [2]]


def test_missing_values(path: Path):
    text = f"{HEADER}?,2,?,4:1,1,1,1:a\n"
    assert read(path, text, missing="previous").steps[0][:, 0].tolist() == [2, 2, 2, 4]
    assert read(path, text, missing="linear").steps[0][:, 0].tolist() == [2, 2, 3, 4]
    assert error_of(path, text) == (
        "line 7, step 1, dimension 1: missing; give it, or have it filled with missing = previous or linear"
    )
    assert error_of(path, f"{HEADER}?,?:a\n", missing="linear") == "line 7: dimension 1 is missing at every step"


def test_filled_as_numpy_interpolates():
    values = np.array([[np.nan, 1], [2, np.nan], [np.nan, np.nan], [8, 7]])
    assert fill_missing(values, "linear", ("a", "b"), "x").tolist() == [[2, 1], [2, 3], [5, 5], [8, 7]]
    assert fill_missing(values, "previous", ("a", "b"), "x").tolist() == [[2, 1], [2, 1], [2, 1], [8, 7]]
    assert np.isnan(values[0, 0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HEADER}1,2:3,x:a\n", 'line 7, dimension 2, step 2: expected a finite number, got "x"'),
        (f"{HEADER}1,inf:a\n", 'line 7, dimension 1, step 2: expected a finite number, got "inf"'),
        (f"{HEADER}1,1e39:a\n", 'line 7, dimension 1, step 2: expected a finite number, got "1e39"'),
        (f"{HEADER}1,2:1:a\n", "line 7: dimension 2 has 1 steps, and dimension 1 has 2"),
        (f"{HEADER}1:a\n1:1:a\n", "line 8: 2 dimensions, and 1 in the first case"),
        (f"{HEADER}1:c\n", 'line 7: the label "c" is none of those in the header: a, b'),
        (HEADER, "no case after @data"),
        ("@problemName x\n1,2:a\n", "line 2: expected a header of lines that begin with @, the last of them @data"),
        ("@data\n1,2\n", "its header has no labels; expected a line such as @classLabel true a b"),
        ("@timeStamps true\n@data\n", "its header says @timestamps true, and time stamps are not read from .ts files"),
        (
            "@targetLabel true\n@data\n",
            "its header says @targetlabel true, and numbers to predict are not read from .ts files",
        ),
    ],
)
def test_broken(text: str, expected: str, path: Path):
    assert error_of(path, text) == expected


def test_japanese_vowels(data_dir: Path):
    folder = data_dir / "japanese-vowels"
    training, test = (read_series_archive(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST"))
    assert (len(training), len(test)) == (270, 370)
    assert {len(training.feature_names), len(test.feature_names)} == {12}
    lengths = np.concatenate([training.lengths, test.lengths])
    assert (lengths.min(), lengths.max()) == (7, 29)
    assert set(training.labels) == set(test.labels) == set("123456789")
