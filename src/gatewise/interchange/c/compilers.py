"""The C compilers of this machine: which there are, and what they make of a library."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gatewise.errors import ExportError

STRICT = [
    "-std=c99",
    *("-Wall", "-Wextra", "-Wpedantic", "-Werror"),
    *("-Wconversion", "-Wdouble-promotion", "-Wshadow", "-Wstrict-prototypes"),
]
SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TARGETS = {
    "Cortex-M4": ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"],
    "RV32IMAC": ["riscv64-unknown-elf-gcc", "-march=rv32imac", "-mabi=ilp32", "--specs=picolibc.specs"],
}
LIMIT_S = 600  # of one compilation or run: GCC takes some seconds for a million weights
_PROBE = '#include <math.h>\n#include <stdio.h>\nint main(void) { return printf("%d", (int)expf(0.0f)) != 1; }\n'


def finished(command: Sequence[str | Path], **how: Any) -> subprocess.CompletedProcess[bytes]:
    """What came of a command, with `how` of subprocess.run. ExportError if it takes too long."""
    try:
        return subprocess.run(command, capture_output=True, timeout=LIMIT_S, **how)
    except subprocess.TimeoutExpired:
        raise ExportError(f"c: {command[0]} took more than {LIMIT_S} s; nothing was left behind") from None


@dataclass(frozen=True)
class Compiled:
    """What a library takes on a target, in bytes, compiled with -O2.

    flash: code and weights; code: without the weights; static_ram: none, if all is right; stack: the most that a call
    takes, without libm's; None if the compiler does not say.
    """

    target: str
    compiler: str
    flash: int
    code: int
    static_ram: int
    stack: int | None


@dataclass(frozen=True)
class Compiler:
    """A command that compiles C, and what it calls itself."""

    command: tuple[str, ...]
    version: str

    def compile(self, sources: list[Path], output: Path, flags: Sequence[str]) -> None:
        """ExportError, with what the compiler said, unless it makes the output of the sources."""
        done = self.try_compile(sources, output, flags)
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").splitlines()
            said = next((line for line in lines if "error" in line), " ".join(lines))
            raise ExportError(f"c: {self.version} does not compile the library: {said}; nothing was left behind")

    def works_with(self, flags: Sequence[str] = (), *, runs: bool = True) -> bool:
        """Whether it compiles with these flags, and, unless that is for another machine, what it makes runs."""
        return _works(self, tuple(flags), runs)

    def try_compile(
        self, sources: list[Path], output: Path, flags: Sequence[str]
    ) -> subprocess.CompletedProcess[bytes]:
        """What came of making the output of the sources."""
        libraries = [] if "-c" in flags else ["-lm"]
        command = [*self.command, *flags, *map(str, sources), "-o", str(output), *libraries]
        return finished(command, cwd=output.parent, env=os.environ | {"LC_ALL": "C"})


@cache
def _works(compiler: Compiler, flags: tuple[str, ...], runs: bool) -> bool:
    with tempfile.TemporaryDirectory(prefix="gatewise-") as folder:
        source, program = Path(folder) / "probe.c", Path(folder) / "probe"
        source.write_text(_PROBE)
        if compiler.try_compile([source], program, flags).returncode != 0:
            return False
        try:
            return not runs or finished([program]).returncode == 0
        except OSError:  # a folder that nothing may be run in
            return False


def find(command: list[str]) -> Compiler | None:
    """The compiler that a command calls; None if there is none."""
    path = shutil.which(command[0]) if command else None
    if path is None:
        return None
    command = [os.path.abspath(path), *command[1:]]  # for it runs in another folder
    try:
        said = finished([*command, "--version"])
    except OSError:
        return None
    first = said.stdout.decode(errors="replace").splitlines()[0] if said.returncode == 0 and said.stdout else command[0]
    return Compiler(tuple(command), first)


def host_compiler() -> tuple[Compiler | None, str]:
    """The compiler for this machine, $CC or cc; if there is none that works, why."""
    asked = os.environ.get("CC")
    try:
        command = shlex.split(asked) if asked else ["cc"]
    except ValueError:  # a quotation mark too few
        command = []
    called = f"CC={asked}" if asked else "cc"
    compiler = find(command)
    if compiler is None:
        return None, f"no C compiler is here ({called} is not found; set CC to one)"
    if not compiler.works_with():
        return None, f"the C compiler here ({called}) cannot make a program that runs; set CC to one that can"
    return compiler, ""


def cross_compiled(source: Path, weight_bytes: int) -> list[Compiled]:
    """What a library takes on each target whose compiler is here. Raises ExportError if one does not compile it."""
    results = []
    for target, command in TARGETS.items():
        compiler = find(command)
        if compiler is None or not compiler.works_with(["-c"], runs=False):
            continue
        with tempfile.TemporaryDirectory(prefix="gatewise-") as folder:
            made = Path(folder) / "library.o"
            compiler.compile([source], made, ["-std=c99", "-O2", "-c", "-fstack-usage"])
            size = finished([command[0].removesuffix("gcc") + "size", made])
            if size.returncode != 0:
                continue
            text, data, bss = (int(number) for number in size.stdout.splitlines()[1].split()[:3])
            stack = _stack(list(Path(folder).glob("*.su")))
        results.append(Compiled(target, compiler.version, text + data, text - weight_bytes, data + bss, stack))
    return results


def _stack(reports: list[Path]) -> int | None:
    """The most stack that a call can take, by GCC's report: of what may be called one from another, the sum."""
    if not reports:
        return None
    usage: dict[str, int] = {}
    for line in reports[0].read_text().splitlines():
        where, size, _ = line.split("\t")
        function = where.rpartition(":")[2].partition(".")[0]  # without what GCC appends to a clone's name
        usage[function] = max(usage.get(function, 0), int(size))

    def most(functions: Iterable[str]) -> int:
        return max((usage[function] for function in functions), default=0)

    # An entry calls advance or answer, that a cell or a map, that some of the inner ones, none of which calls itself.
    entries = {name for name in usage if re.search(r"_(init|step|run)$", name)}
    middle = {"advance", "answer"} & set(usage)
    inner = {"affine", "affine_of_token", "add_product", "set_bias", "quantise", "sigmoid", "largest"} & set(usage)
    return most(entries) + most(middle) + most(set(usage) - entries - middle - inner) + sum(usage[n] for n in inner)
