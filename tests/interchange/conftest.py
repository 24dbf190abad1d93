"""What the tests of interchange share: Keras itself, with torch's backend."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for what stands beside the tests and is shared with bench/


@pytest.fixture(scope="session")
def keras() -> Any:
    """The module, which reads its configuration when it is imported."""
    with TemporaryDirectory() as home, mock.patch.dict(os.environ, KERAS_BACKEND="torch", KERAS_HOME=home):
        module = pytest.importorskip("keras", reason="Keras, of the extra `test`, is what these compare with")
    if module.backend.backend() != "torch":
        pytest.skip(f"Keras runs on {module.backend.backend()} here, these tests on torch")
    return module


@pytest.fixture(scope="session")
def _forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from hdf5_forks import Forks

    with Forks(tmp_path_factory.mktemp("hdf5")) as forks:
        yield forks


@pytest.fixture
def quick_hdf5(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading HDF5 in forks, which is ten times as fast as in the new processes of test_keras_files.py."""
    from gatewise.interchange import hdf5

    if hasattr(os, "fork"):
        monkeypatch.setattr(hdf5, "run_program", request.getfixturevalue("_forks").run)
