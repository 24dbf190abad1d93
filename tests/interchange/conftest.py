"""What the tests of interchange share: Keras itself, with torch's backend."""

import os
import sys
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
