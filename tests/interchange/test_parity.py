"""The proof of an artifact: one that does what the network does passes, another does not, and none is "not run"."""

import json

import numpy as np
import pytest

from gatewise.errors import ExportError, InputError
from gatewise.interchange.artifact import new_folder
from gatewise.interchange.parity import check, compare, error_of, evaluate, golden_cases, write_proof
from gatewise.models.sequential import build

LAYERS = [
    {"kind": "one-hot", "vocabulary_size": 7},
    {"kind": "lstm", "input_size": 7, "hidden_size": 6, "num_layers": 2, "bidirectional": True},
    {"kind": "gru", "input_size": 12, "hidden_size": 3},
]


@pytest.mark.parametrize("lengths", [False, True])
def test_the_network_itself_passes(lengths):
    network = build(LAYERS).eval()
    cases = golden_cases(network, shapes=[(1, 1), (9, 4)], lengths=lengths)
    assert set(cases[0].outputs) == {"y", "new_state_0_h", "new_state_0_c", "new_state_1_h"}
    assert [case.name for case in cases] == [f"{name}{'-lengths' * lengths}" for name in ("T1-B1", "T9-B4")]
    assert cases[1].outputs["y"].dtype == np.float64
    assert cases[1].inputs["state_0_c"].shape == (4, 4, 6)
    parity = compare("network", cases, lambda inputs: evaluate(network, inputs), tolerance=1e-5, runtime="torch")
    assert parity.verdict == "passed"
    assert 0 < parity.errors["y"] < 1e-5
    check(parity)


def test_another_network_fails(tmp_path):
    cases = golden_cases(build(LAYERS))
    other = build(LAYERS)
    parity = compare("network", cases, lambda inputs: evaluate(other, inputs), tolerance=1e-5, runtime="torch 2")
    assert parity.verdict == "failed"
    with pytest.raises(ExportError, match=r"^network: the artifact does not give what the model gives: .* is off by"):
        check(parity)
    write_proof(tmp_path, parity, cases)
    assert "FAILED" in (tmp_path / "parity.md").read_text()
    assert json.loads((tmp_path / "parity.json").read_text())["verdict"] == "failed"


def test_without_a_runtime_the_proof_says_so_loudly(tmp_path):
    cases = golden_cases(build(LAYERS))
    parity = compare("c", cases, None, tolerance=1e-5, runtime="a C compiler", why_not_run="no C compiler is here")
    check(parity)  # the export stands, but
    assert parity.verdict == "not run"
    write_proof(tmp_path, parity, cases)
    assert "**NOT RUN: no C compiler is here.**" in (tmp_path / "parity.md").read_text()
    golden = np.load(tmp_path / "golden.npz")
    np.testing.assert_array_equal(golden["T13-B7/y"], cases[1].outputs["y"])


def test_error_of():
    assert error_of(np.array([1.0, 2.5]), np.array([1.0, 2.0])) == 0.25  # relative to the largest
    assert error_of(np.array([0.1]), np.array([0.2])) == pytest.approx(0.1)  # but not to less than 1
    for wrong in (None, np.zeros(2), np.array([np.nan])):
        assert error_of(wrong, np.zeros(1)) == float("inf")


def _write_half(path, overwrite=False):
    with new_folder(path, overwrite=overwrite) as folder:
        (folder / "half").write_text("half")
        _ = 1 / 0


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "artifact"
    with pytest.raises(ZeroDivisionError):
        _write_half(path)
    assert not list(tmp_path.iterdir())
    with new_folder(path) as folder:
        (folder / "one").write_text("1")
    with pytest.raises(InputError, match=r"artifact: exists already; overwrite it"), new_folder(path):
        pass
    with pytest.raises(ZeroDivisionError):
        _write_half(path, overwrite=True)
    assert [file.name for file in path.iterdir()] == ["one"]
    with new_folder(path, overwrite=True) as folder:
        (folder / "two").write_text("2")
    assert [file.name for file in path.iterdir()] == ["two"]
    assert [file.name for file in tmp_path.iterdir()] == ["artifact"]
