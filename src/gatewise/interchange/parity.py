"""The proof of an artifact: golden vectors, what the artifact makes of them, and the verdict, for programs and people.

What a network takes and gives is named so, in every artifact:

    x                                   tokens (T, B) int64, or features (T, B, F) float32
    lengths                             steps of each row, (B,) int64, where the artifact takes them
    state_0_h, state_0_c, state_1_h     first states of each recurrent layer, (L*D, B, H), c of an LSTM only
    y                                   the output, (T, B, F), or (B, F) if the network pools
    new_state_0_h, ...                  last states

Golden outputs are those of the reference in float64.
"""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import gatewise
from gatewise.errors import ExportError
from gatewise.layers.lstm import LSTM
from gatewise.models.sequential import SequentialNetwork
from gatewise.run_folder import atomic_write

Arrays = dict[str, np.ndarray]
Verdict = Literal["passed", "failed", "not run"]


@dataclass(frozen=True)
class Case:
    """Inputs of a network and the outputs that must come of them, in float64, by name."""

    name: str
    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True)
class Parity:
    """How near an artifact comes to the reference.

    artifact: what it is, such as "onnx"; runtime: what ran it, with its version; None if nothing was there to run it.
    errors: of each output the largest error over all cases: |got - expected| / max(1, largest |expected| of the case).
    tolerance: the largest error that passes. cases: their names. versions: of what made it.
    """

    artifact: str
    runtime: str | None
    tolerance: float
    cases: list[str]
    errors: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    why_not_run: str | None = None

    @property
    def verdict(self) -> Verdict:
        """passed, failed, or not run, which is no success."""
        if self.runtime is None:
            return "not run"
        return "passed" if all(error <= self.tolerance for error in self.errors.values()) else "failed"

    def to_json(self) -> dict[str, Any]:
        """The content of parity.json."""
        return {"verdict": self.verdict, **asdict(self)}


def state_names(network: SequentialNetwork) -> list[tuple[str, ...]]:
    """Of each recurrent layer the names of its first states: (state_0_h,), or (state_0_h, state_0_c) of an LSTM."""
    return [
        tuple(f"state_{index}_{part}" for part in ("hc" if isinstance(layer, LSTM) else "h"))
        for index, layer in enumerate(network.recurrent_layers)
    ]


def golden_cases(
    network: SequentialNetwork,
    *,
    shapes: Sequence[tuple[int, int]] = ((1, 1), (13, 7)),
    lengths: bool = False,
    states: bool = True,
    seed: int = 0,
) -> list[Case]:
    """A case for each (T, B), with random inputs; where lengths are taken, half of the rows are shorter than T.

    states: whether first states are given, random ones; otherwise they are zeros and last states are left out. Names
    say what is special: T13-B7, T13-B7-lengths, T13-B7-lengths-zeros.
    """
    random = np.random.default_rng(seed)
    reference = network.reference()
    return [_golden(reference, steps, batch, lengths, states, random) for steps, batch in shapes]


@torch.no_grad()
def _golden(
    network: SequentialNetwork, steps: int, batch: int, lengths: bool, states: bool, random: np.random.Generator
) -> Case:
    inputs: Arrays = {}
    if network.reads_tokens:
        inputs["x"] = random.integers(network.input_size, size=(steps, batch))
    else:
        inputs["x"] = random.standard_normal((steps, batch, network.input_size)).astype(np.float32)
    if lengths:
        inputs["lengths"] = np.where(np.arange(batch) % 2 == 0, steps, random.integers(1, steps + 1, batch))
    names = state_names(network)
    if states:
        for layer, parts in zip(network.recurrent_layers, names, strict=True):
            shape = (layer.num_layers * (2 if layer.bidirectional else 1), batch, layer.hidden_size)
            inputs |= {part: random.uniform(-1, 1, shape).astype(np.float32) for part in parts}
    name = f"T{steps}-B{batch}{'-lengths' if lengths else ''}{'' if states else '-zeros'}"
    return Case(name, inputs, evaluate(network, inputs))


@torch.no_grad()
def evaluate(network: SequentialNetwork, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """What a network gives, by name; last states only if first ones are among the inputs."""
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float64)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    names = state_names(network)
    given = None
    if names and names[0][0] in inputs:
        given = [tensors[parts[0]] if len(parts) == 1 else tuple(tensors[p] for p in parts) for parts in names]
    y, last = network(tensors["x"], given, tensors.get("lengths"))
    outputs = {"y": y}
    if given is not None:
        for parts, hn in zip(names, last, strict=True):
            outputs |= {f"new_{p}": s for p, s in zip(parts, (hn,) if len(parts) == 1 else hn, strict=True)}
    return {name: output.numpy() for name, output in outputs.items()}


def compare(
    artifact: str,
    cases: Sequence[Case],
    run: Callable[[Arrays], Mapping[str, np.ndarray]] | None,
    *,
    tolerance: float,
    runtime: str,
    versions: Mapping[str, str] | None = None,
    why_not_run: str | None = None,
) -> Parity:
    """Run an artifact on the cases and compare what it gives with what must come of them.

    run: the artifact, inputs to outputs by name; None if nothing here can run it, and then `why_not_run` says why.
    """
    made_with = {"gatewise": gatewise.__version__, "torch": torch.__version__, "python": platform.python_version()}
    made_with |= versions or {}
    names = [case.name for case in cases]
    if run is None:
        return Parity(artifact, None, tolerance, names, {}, made_with, why_not_run or f"{runtime} is not here")
    errors: dict[str, float] = {}
    for case in cases:
        got = run(dict(case.inputs))
        for name, expected in case.outputs.items():
            errors[name] = max(errors.get(name, 0.0), error_of(got.get(name), expected))
    return Parity(artifact, runtime, tolerance, names, errors, made_with)


def error_of(got: np.ndarray | None, expected: np.ndarray) -> float:
    """The largest |got - expected| / max(1, largest |expected|); infinite for a missing, misshapen or NaN output."""
    if got is None or got.shape != expected.shape:
        return float("inf")
    error = np.abs(got.astype(np.float64) - expected).max(initial=0.0) / max(1.0, np.abs(expected).max(initial=0.0))
    return float("inf") if np.isnan(error) else float(error)


def check(parity: Parity) -> None:
    """ExportError unless the artifact passed, or could not be run, which its report says."""
    if parity.verdict == "failed":
        name, error = max(parity.errors.items(), key=lambda item: item[1])
        raise ExportError(
            f"{parity.artifact}: the artifact does not give what the model gives: {name} is off by {error:.2g}, more "
            f"than {parity.tolerance:.2g}, in {parity.runtime}; nothing was left behind"
        )


def write_proof(folder: Path, parity: Parity, cases: Sequence[Case]) -> None:
    """Write golden.npz, parity.json and parity.md into an artifact's folder."""
    arrays = {f"{case.name}/{name}": array for case in cases for name, array in (case.inputs | case.outputs).items()}
    with open(folder / "golden.npz", "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    content = parity.to_json()
    content["errors"] = {name: e if np.isfinite(e) else "infinite" for name, e in parity.errors.items()}
    atomic_write(folder / "parity.json", json.dumps(content, indent=2).encode())
    atomic_write(folder / "parity.md", _in_words(parity).encode())


def _in_words(parity: Parity) -> str:
    """The content of parity.md."""
    lines = [f"# Parity of this {parity.artifact} artifact: {parity.verdict.upper()}", ""]
    if parity.runtime is None:
        lines += [f"**NOT RUN: {parity.why_not_run}.** Nothing is known of how near it comes to the model.", ""]
    else:
        lines += [
            f"Run in {parity.runtime} on {len(parity.cases)} cases ({', '.join(parity.cases)}), whose outputs the "
            "reference computed in float64. Steps T, rows B.",
            "",
            f"| output | largest error | tolerance {parity.tolerance:.2g} |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} | {error:.2e} | {'passed' if error <= parity.tolerance else 'FAILED'} |"
            for name, error in parity.errors.items()
        ]
        lines += ["", "An error is |got - expected| / max(1, largest |expected| of the case).", ""]
    versions = ", ".join(f"{name} {version}" for name, version in parity.versions.items())
    return "\n".join([*lines, f"Made with {versions}. The inputs and outputs are in `golden.npz`.", ""])
