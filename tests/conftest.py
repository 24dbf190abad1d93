"""What all tests share: where the real data lies."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data sets, which are not part of the project."""
    path = Path(os.environ.get("GATEWISE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set GATEWISE_DATA to its folder")
    return path
