"""The kernels' own test programs, in C++: exact buffers, hostile scratch memory, and each instruction set at once."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gatewise.kernels import ops

FOLDER = Path(__file__).parent / "native"
COMPILER = os.environ.get("CXX", "c++")


@pytest.mark.skipif(not ops.native_status().available, reason=str(ops.native_status().reason))
@pytest.mark.skipif(os.name != "posix", reason="the programs guard their memory with mmap")
def test_native_programs() -> None:
    for tool in ("make", COMPILER):
        if not shutil.which(tool):
            pytest.skip(f"no {tool} to build the programs with")
    done = subprocess.run(
        ["make", "--directory", str(FOLDER), "plain", f"CXX={COMPILER}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
