"""On what a figure was measured: processor, versions, commit."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    """Commit of the work tree, with a plus sign if something in it is not committed."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True, cwd=RESULTS.parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def conditions(threads: int, packages: list[str]) -> dict[str, str | int]:
    """What to store beside a figure."""
    from gatewise.kernels.ops import native_status

    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "instruction set": native_status().instruction_set or "none",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }
