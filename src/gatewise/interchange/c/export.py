"""export_c: a trained network as a C99 library that needs nothing, with its proof."""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import get_args

import numpy as np
from torch import nn

from gatewise.errors import ExportError, InputError, ShapeError
from gatewise.interchange.artifact import new_folder
from gatewise.interchange.c import report
from gatewise.interchange.c.builder import program_of
from gatewise.interchange.c.compilers import SANITIZERS, Compiled, Compiler, cross_compiled, finished, host_compiler
from gatewise.interchange.c.program import Program
from gatewise.interchange.c.rounding import (
    Ranges,
    calibrated,
    layer_name,
    layer_outputs,
    rounding,
    with_rounded_weights,
)
from gatewise.interchange.c.source import Weights, write_driver, write_library, write_selftest
from gatewise.interchange.parity import (
    Arrays,
    Case,
    Parity,
    check,
    compare,
    error_of,
    evaluate,
    golden_cases,
    write_proof,
)
from gatewise.models.sequential import SequentialNetwork
from gatewise.run_folder import atomic_write

TOLERANCE = 1e-5
SELFTEST_STEPS = 13
SELFTEST_NUMBERS = 20_000  # that selftest.c holds of outputs at most, unless one step has more
CALIBRATION = (64, 16)  # steps and rows of random inputs, where none are given
# Files of C, which one of such a name would hide.
HEADERS = {
    *("assert", "complex", "ctype", "errno", "fenv", "float", "inttypes", "iso646", "limits", "locale", "math"),
    *("setjmp", "signal", "stdarg", "stdbool", "stddef", "stdint", "stdio", "stdlib", "string", "tgmath", "time"),
    *("wchar", "wctype"),
}


@dataclass(frozen=True)
class LayerError:
    """How far a layer's output is from the model's, by int8, in float64; as `Parity.errors` are.

    weights: for the rounding of the weights; both: for that of what they multiply, too.
    """

    layer: str
    weights: float
    both: float


@dataclass(frozen=True)
class Sizes:
    """What a C artifact takes, in bytes, and what it computes.

    weights: the constant arrays; weights_float32: what they would take in float32; state: of one stream; scratch: of a
    whole sequence, for each of its steps (bidirectional networks only); working: arrays on the stack of a step;
    multiply_accumulates: of one step; multiply_accumulates_after_pooling: once for an output.
    compiled: what it took on the targets whose compilers are here.
    """

    weights: int
    weights_float32: int
    state: int
    scratch: int
    working: int
    multiply_accumulates: int
    multiply_accumulates_after_pooling: int
    compiled: list[Compiled] = field(default_factory=list)


@dataclass(frozen=True)
class CParity(Parity):
    """The proof of a C artifact, and what it takes.

    sanitized: whether its self-test ran under AddressSanitizer and UndefinedBehaviorSanitizer, too. For int8 weights
    `errors` are against the reference with the weights that int8 holds; errors_of_model against the model itself;
    layer_errors come of the first golden case.
    """

    sizes: Sizes | None = None
    sanitized: bool = False
    errors_of_model: dict[str, float] = field(default_factory=dict)
    layer_errors: list[LayerError] = field(default_factory=list)


def export_c(
    network: SequentialNetwork,
    folder: str | Path,
    *,
    name: str = "model",
    weights: Weights = "float32",
    calibration: np.ndarray | None = None,
    description: str = "",
    documents: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> CParity:
    """The proof of a C99 library of the network, which it writes to a folder and runs there, with its sizes.

    The folder holds NAME.h, NAME.c, README.md (how to compile and call it), selftest.c, golden.npz, parity.json and
    parity.md. Names in it begin with NAME, so that several can be linked into one program.

    weights: int8 rounds each row of a matrix to whole numbers up to 127 times a scale, and what it multiplies to as
        many levels as 32-bit sums allow (see `gatewise.interchange.c.rounding`); states and gates stay in float32.
    calibration: for int8, inputs like those to come, tokens (T, B) or features (T, B, F); random ones if None.
    description: what the files say of the model. documents: texts by the names of the files that they are put into.

    The proof: compiled with $CC or cc, it must come within 1e-5 of the reference in float64, whole and step by step;
    with int8 weights within 1e-5 and twice of what the same rounding does to the reference with these weights in
    float64. Its self-test must pass under AddressSanitizer and UndefinedBehaviorSanitizer, where the compiler has them.
    Without a compiler the verdict is "not run".

    Raises InputError, ShapeError (calibration), ExportError (it does not compile, or not give what the model gives:
    then nothing is left).
    """
    calibration = None if calibration is None else np.asarray(calibration)
    _check_arguments(network, name, weights, calibration)
    model = network.reference().cpu()
    ranges: Ranges | None = None
    reference = model
    if weights == "int8":
        reference = with_rounded_weights(network)
        ranges = calibrated(reference, _calibration(model) if calibration is None else calibration)
    program = program_of(reference, ranges)
    cases = _cases(reference, program, calibration)
    tolerance = TOLERANCE
    layer_errors: list[LayerError] = []
    if ranges is not None:
        tolerance += 2 * max(_error_of_rounding(reference, ranges, case) for case in cases)
        layer_errors = _layer_errors(model, reference, ranges, cases[0])
    layer_lines = [_in_words(network, index) for index in range(len(network.layers))]
    with new_folder(Path(folder), overwrite=overwrite) as new:
        write_library(new, name, program, weights, layer_lines, description)
        write_selftest(new, name, program, cases[-1], tolerance)
        proof, sanitized, errors_of_model = _prove(new, name, program, model, cases, tolerance, weights)
        compiled = cross_compiled(new / f"{name}.c", program.weight_bytes)
        parity = CParity(
            **{part.name: getattr(proof, part.name) for part in fields(proof)},
            sizes=_sizes(program, compiled),
            sanitized=sanitized,
            errors_of_model=errors_of_model,
            layer_errors=layer_errors,
        )
        check(parity)
        for file, text in (documents or {}).items():
            atomic_write(new / file, text.encode())
        write_proof(new, parity, cases, notes=report.in_words(parity))
    return parity


def _check_arguments(network: SequentialNetwork, name: str, weights: str, calibration: np.ndarray | None) -> None:
    if not isinstance(network, SequentialNetwork):
        raise InputError(
            f"export_c: expected a SequentialNetwork, got {type(network).__name__}; the networks of gatewise's models "
            "give one by as_sequential()"
        )
    if weights not in get_args(Weights):
        raise InputError(f"export_c: expected weights to be one of {', '.join(get_args(Weights))}, got {weights!r}")
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", name) is None:
        raise InputError(
            "export_c: expected name to begin C identifiers: a letter, then up to 39 letters, digits and underscores, "
            f"got {name!r}"
        )
    if name.lower() in HEADERS | {"selftest"}:
        raise InputError(f"export_c: name {name!r} is that of a file of C or of the artifact; take another")
    for key, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(f"export_c: {key} holds an infinity or NaN; a C library of it would be of no use")
    if calibration is not None:
        _check_calibration(network, weights, calibration)


def _check_calibration(network: SequentialNetwork, weights: str, calibration: np.ndarray) -> None:
    if weights != "int8":
        raise InputError("export_c: calibration is for weights='int8' only")
    size, shape = network.input_size, np.shape(calibration)
    if network.reads_tokens:
        if len(shape) != 2 or not np.issubdtype(calibration.dtype, np.integer) or 0 in shape:
            raise ShapeError(
                f"export_c: expected calibration (T, B) of whole numbers, got {shape} of {calibration.dtype}"
            )
        if calibration.min() < 0 or calibration.max() >= size:
            raise InputError(
                f"export_c: expected tokens of 0 to {size - 1} in calibration, got {calibration.min()} to "
                f"{calibration.max()}"
            )
        return
    if len(shape) != 3 or shape[2] != size or 0 in shape:
        raise ShapeError(f"export_c: expected calibration (T, B, {size}), got {shape}")
    if not np.isfinite(calibration).all():
        raise InputError("export_c: calibration holds an infinity or NaN")


def _calibration(network: SequentialNetwork) -> np.ndarray:
    """Random inputs: tokens, or normal features."""
    random = np.random.default_rng(1)
    if network.reads_tokens:
        return random.integers(network.input_size, size=CALIBRATION)
    return random.standard_normal((*CALIBRATION, network.input_size)).astype(np.float32)


def _cases(reference: SequentialNetwork, program: Program, x: np.ndarray | None) -> list[Case]:
    """Golden cases; the last one, of one row, is the self-test's."""
    steps = SELFTEST_STEPS
    if not program.pools:
        steps = min(steps, max(1, SELFTEST_NUMBERS // program.output_size))
    return golden_cases(reference, shapes=list(dict.fromkeys([(13, 7), (1, 1), (steps, 1)])), x=x)


def _error_of_rounding(reference: SequentialNetwork, ranges: Ranges, case: Case) -> float:
    """The largest error, of all outputs of a case, by rounding what the weights multiply, in float64."""
    outputs, last = layer_outputs(reference, case.inputs, rounding(ranges))
    got = [outputs[-1], *last]
    return max(error_of(a.numpy(), b) for a, b in zip(got, case.outputs.values(), strict=True))


def _layer_errors(
    model: SequentialNetwork, reference: SequentialNetwork, ranges: Ranges, case: Case
) -> list[LayerError]:
    exact, _ = layer_outputs(model, case.inputs)
    rounded_weights, _ = layer_outputs(reference, case.inputs)
    rounded, _ = layer_outputs(reference, case.inputs, rounding(ranges))
    return [
        LayerError(layer_name(model, index), error_of(w.numpy(), e.numpy()), error_of(b.numpy(), e.numpy()))
        for index, (e, w, b) in enumerate(zip(exact, rounded_weights, rounded, strict=True))
    ]


def _prove(
    folder: Path,
    name: str,
    program: Program,
    model: SequentialNetwork,
    cases: list[Case],
    tolerance: float,
    weights: Weights,
) -> tuple[Parity, bool, dict[str, float]]:
    """The parity, whether the sanitizers agree, and the errors against the model itself if weights are int8."""
    compiler, why_not = host_compiler()
    what = f"c ({weights})"
    if compiler is None:
        return compare(what, cases, None, tolerance=tolerance, runtime="a C compiler", why_not_run=why_not), False, {}
    with tempfile.TemporaryDirectory(prefix="gatewise-") as made:
        driver = _built_driver(Path(made), folder, name, program, compiler)
        results: list[Arrays] = []

        def run(inputs: Arrays) -> Arrays:
            got = _run(driver, program, inputs, stepwise=False)
            if not program.sequence:
                steps = _run(driver, program, inputs, stepwise=True)
                differing = [key for key in got if not np.array_equal(got[key], steps[key], equal_nan=True)]
                if differing:
                    raise ExportError(f"c: {differing[0]} differs between run and step; nothing was left behind")
            results.append(got)
            return got

        runtime = f"a program of {compiler.version}, -std=c99 -O2"
        proof = compare(what, cases, run, tolerance=tolerance, runtime=runtime, versions={"compiler": compiler.version})
        check(proof)
        sanitized = _run_selftest(Path(made), folder, name, compiler)
    of_model: dict[str, float] = {}
    if weights == "int8":
        for case, got in zip(cases, results, strict=True):
            for key, expected in evaluate(model, case.inputs).items():
                of_model[key] = max(of_model.get(key, 0.0), error_of(got[key], expected))
    return proof, sanitized, of_model


def _built_driver(made: Path, folder: Path, name: str, program: Program, compiler: Compiler) -> Path:
    source, driver = made / "driver.c", made / "driver"
    write_driver(source, name, program)
    compiler.compile([folder / f"{name}.c", source], driver, ["-std=c99", "-O2", f"-I{folder}"])
    return driver


def _run_selftest(made: Path, folder: Path, name: str, compiler: Compiler) -> bool:
    """Whether there are sanitizers. ExportError unless the self-test passes, with them if there are."""
    sanitized = compiler.works_with(SANITIZERS)
    selftest = made / "selftest"
    sources = [folder / f"{name}.c", folder / "selftest.c"]
    compiler.compile(sources, selftest, ["-std=c99", "-O1", *(SANITIZERS if sanitized else [])])
    # Leaks there are none without malloc, and their search fails where a process is traced.
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    done = finished([selftest], env=environment)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").splitlines()
        said = next((line for line in lines if "rror" in line), done.stdout.decode(errors="replace").strip()[-300:])
        raise ExportError(f"c: selftest.c ends with status {done.returncode}: {said}; nothing was left behind")
    return sanitized


def _run(driver: Path, program: Program, inputs: Arrays, *, stepwise: bool) -> Arrays:
    """What the library gives for the inputs, by name."""
    x = inputs["x"].astype(np.int32 if program.reads_tokens else np.float32)
    steps, rows = x.shape[:2]
    states = [part for part in program.fields if part.name]
    data = bytearray()
    for row in range(rows):
        for part in states:
            data += inputs[part.name or ""][:, row].astype(np.float32).tobytes()
        data += np.ascontiguousarray(x[:, row]).tobytes()
    done = finished([driver, str(rows), str(steps), str(int(stepwise))], input=bytes(data))
    if done.returncode != 0:
        raise ExportError(f"c: the compiled library ends with status {done.returncode}; nothing was left behind")
    y_shape = (program.output_size,) if program.pools else (steps, program.output_size)
    sizes = [int(np.prod(y_shape)), *(part.numbers for part in states)]
    table = np.frombuffer(done.stdout, np.float32).reshape(rows, sum(sizes))
    y, *last = np.split(table, np.cumsum(sizes)[:-1], axis=1)
    outputs = {"y": np.moveaxis(y.reshape(rows, *y_shape), 0, -2)}
    for part, values in zip(states, last, strict=True):
        outputs[f"new_{part.name}"] = np.moveaxis(values.reshape(rows, *part.shape), 0, 1)
    return outputs


def _sizes(program: Program, compiled: list[Compiled]) -> Sizes:
    return Sizes(
        weights=program.weight_bytes,
        weights_float32=program.weight_bytes_float32,
        state=program.state_bytes,
        scratch=4 * program.scratch_floats if program.sequence else 0,
        working=program.working_bytes,
        multiply_accumulates=program.macs_per_step,
        multiply_accumulates_after_pooling=program.macs_per_answer,
        compiled=compiled,
    )


def _in_words(network: SequentialNetwork, index: int) -> str:
    """A layer as a line of the header: its name and what it is."""
    table = network.describe()[index]
    del table["kind"]
    if isinstance(network.layers[index], nn.Dropout):
        return f"{layer_name(network, index)}: nothing is dropped here"
    table.pop("dropout", None)
    parts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in table.items())
    return f"{layer_name(network, index)}" + (f": {parts}" if parts else "")
