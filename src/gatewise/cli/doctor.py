"""What this installation can do: versions, the native kernel, the backends, threads and devices."""

import importlib.metadata
import os
import platform
from typing import Any

import gatewise
from gatewise.errors import GatewiseError

NATIVE_ADVICE = (
    "The native kernel was not built, so the recurrence runs on torch, which is slower. To get it: install a C++17 "
    "compiler (g++ or clang++; on Windows clang-cl), then gatewise once more from its source: "
    "pip install --force-reinstall --no-deps ."
)


def diagnose() -> dict[str, Any]:
    """The findings, ready for JSON. Without a torch that works, "torch" is null and "problem" says why."""
    found: dict[str, Any] = {
        "gatewise": gatewise.__version__,
        "python": platform.python_version(),
        "torch": None,
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "packages": {name: _version(name) for name in ("numpy", "tokenizers", "safetensors", "matplotlib")},
    }
    try:
        import torch
    except (ImportError, OSError) as error:  # a broken torch raises OSError: a library of its own is missing
        return found | {"problem": f"torch cannot be imported: {error}"}
    from gatewise.kernels import ops

    native = ops.native_status()
    return found | {
        "torch": torch.__version__,
        "native": native.available,
        "instruction_set": native.instruction_set,
        "openmp": native.openmp,
        "native_problem": native.reason,
        "backends": {name: _backend(name) for name in ops.BACKENDS},
        "threads": torch.get_num_threads(),
        "devices": {
            "cpu": True,
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
        },
    }


def rows(found: dict[str, Any]) -> dict[str, str]:
    """The findings of `diagnose` for people: name and value, in order."""
    rows = {
        "gatewise": found["gatewise"],
        "python": found["python"],
        "torch": found["torch"] or found["problem"],
        "packages": ", ".join(f"{name} {version or '(not installed)'}" for name, version in found["packages"].items()),
        "system": f"{found['system']}, {found['processors']} processors",
    }
    if found["torch"] is None:
        return rows
    openmp = "with" if found["openmp"] else "without"
    rows["native kernel"] = (
        f"{found['instruction_set']}, {openmp} OpenMP"
        if found["native"]
        else f"not available: {found['native_problem']}"
    )
    for name, backend in found["backends"].items():
        serves = " and ".join(f'reset = "{reset}"' for reset in backend["serves"]) or "nothing"
        rows[f"backend {name}"] = serves + (f"; {backend['reason']}" if backend["reason"] else "")
    rows["threads"] = str(found["threads"])
    rows["devices"] = ", ".join(f"{name}: {'yes' if here else 'no'}" for name, here in found["devices"].items())
    return rows


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _backend(name: str) -> dict[str, Any]:
    """Which reset placements a backend serves in float32 on the processor, and why not the others: it is tried."""
    import torch

    from gatewise.kernels import ops

    x, h0, weight_ih, weight_hh = (torch.zeros(shape) for shape in [(1, 1, 2), (1, 3), (9, 2), (9, 3)])
    serves, reasons = [], []
    for reset in ops.RESETS:
        try:
            ops.gru(x, h0, weight_ih, weight_hh, None, None, reset=reset, backend=name)
            serves.append(reset)
        except GatewiseError as error:
            reasons.append(str(error))
    return {"serves": serves, "reason": reasons[0] if reasons else None}
