"""Where a training runs: device, processor, threads, versions."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import gatewise
from gatewise.config import BaseTrainingConfig
from gatewise.errors import BackendError
from gatewise.kernels.ops import native_status


def choose_device(name: str) -> torch.device:
    """The device called "cpu", "cuda" or "mps"; for "auto" the first of cuda, mps and cpu that is here.

    Raises BackendError if the one that was asked for is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, available in here.items() if available)
    if name not in here:
        raise BackendError(f"device: unknown device {name!r}; expected one of auto, {', '.join(here)}")
    if not here[name]:
        others = ", ".join(kind for kind, available in here.items() if available)
        raise BackendError(f"device: {name} was asked for, and torch {torch.__version__} finds none; here: {others}")
    return torch.device(name)


@contextmanager
def settings(training: BaseTrainingConfig, device: torch.device) -> Iterator[None]:
    """torch with the seed and the threads of a training; afterwards its random stream and threads are as before."""
    threads = torch.get_num_threads()
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(training.seed)
        torch.set_num_threads(training.threads or threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def environment(device: torch.device) -> dict[str, Any]:
    """What environment.json holds."""
    native = native_status()
    return {
        "gatewise": gatewise.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "native_kernel": native.instruction_set if native.available else f"none: {native.reason}",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
