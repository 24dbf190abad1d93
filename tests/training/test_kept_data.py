"""kept_data: the examples of a run come back as they were, or it is said that they are not those."""

import numpy as np
import pytest

from gatewise.data.examples import Examples
from gatewise.data.ragged import Ragged
from gatewise.errors import RunError
from gatewise.training.kept_data import Part, keep, read_kept, same


@pytest.fixture
def parts() -> dict[str, Part]:
    words = Examples("f", "words", [["a", "b"], ["ü"]], "label", ["x", "y"], ["f: row 1", "f: row 2"])
    steps = Examples("g", "steps", [np.ones((2, 3), np.float32)], "label", ["x"], ["g[0]"])
    return {
        "training": Part.of(words, {"inputs": Ragged.of([[1, 2], [3]], np.int32), "targets": np.array([0, 1])}),
        "validation": Part.of(steps, {"inputs": Ragged.of(steps.steps), "targets": np.array([[0.0, 1.0]], np.float32)}),
    }


def test_they_come_back(tmp_path, parts):
    identity = keep(tmp_path / "data.safetensors", parts)
    found = read_kept(tmp_path / "data.safetensors", identity)
    assert same(found, parts)
    assert list(found) == ["training", "validation"]
    assert found["training"].texts == ["a b", "ü"]
    assert found["training"].places == ["f: row 1", "f: row 2"]
    assert found["validation"].texts is None
    assert [row.tolist() for row in found["training"].columns["inputs"]] == [[1, 2], [3]]
    assert np.asarray(found["validation"].columns["targets"]).dtype == np.float32


def test_others_are_refused(tmp_path, parts):
    path = tmp_path / "data.safetensors"
    keep(path, {"training": parts["training"]})
    other = keep(tmp_path / "other.safetensors", parts)
    with pytest.raises(RunError) as error:
        read_kept(path, other)
    assert str(error.value) == f"{path}: damaged, or of another run: the checkpoint was made with other examples"
    changed = Part(parts["training"].columns | {"targets": np.array([1, 1])}, *([], None))
    assert not same({"training": changed}, {"training": parts["training"]})
