"""Mutated files: each must be read, or be refused by one InputError, in 5 s of processor time and a gigabyte.

    python bench/fuzz_readers.py --reader keras [--count 10000] [--seed 0] [--keep fuzz-failures]

The files are read in a process of its own, which may take a gigabyte of addresses more than it has at its start; one
that dies, or stands still for two minutes, is counted, and another goes on. Prints how many files ended how, the
slowest, and the most memory; exits with 1, and keeps the file, if one ended otherwise. What is read, and what is done
to the files, is in READERS. With --store the counts go to results/fuzz.md.

Keras's files are read by one process more, of HDF5, whose time and memory count, too. It is forked from one that has
imported what it needs, which takes 5 ms instead of 200; with --anew it is started as it is for users.
"""

import argparse
import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from machine import RESULTS, conditions

TESTS = Path(__file__).parents[1] / "tests" / "interchange"
SECONDS, BYTES, WALL_SECONDS = 5.0, 2**30, 120


@dataclass(frozen=True)
class Reader:
    """files: a module beside the tests with originals() and mutated(name, data, random). functions: those that read.

    packages: whose versions are stored.
    """

    files: str
    functions: tuple[str, ...]
    packages: list[str]


READERS = {
    "onnx": Reader(
        "onnx_mutations",
        ("gatewise.interchange.onnx_in:network", "gatewise.interchange.onnx_in:layers"),
        ["onnx", "protobuf"],
    ),
    "keras": Reader("keras_mutations", ("gatewise.interchange.keras_in:network",), ["h5py", "numpy"]),
    "torch": Reader("torch_mutations", ("gatewise.interchange.torch_in:network",), ["torch", "safetensors"]),
}


def main() -> None:
    """Start readers until every file has been read, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=list(READERS), required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first file; each has the next one")
    parser.add_argument("--anew", action="store_true", help="start a process of HDF5 for each file of Keras")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for files that fail")
    parser.add_argument("--store", action="store_true", help="write the counts to results/fuzz.md")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    if arguments.worker:
        work(arguments.reader, seeds, arguments.anew)
        return
    ends: Counter[str] = Counter()
    slowest, most, failures = 0.0, 0, 0
    for result in results(arguments.reader, seeds, arguments.anew):
        ends[result["end"]] += 1
        slowest, most = max(slowest, result["seconds"]), max(most, result["bytes"])
        if result["end"].startswith("FAILED"):
            failures += 1
            arguments.keep.mkdir(exist_ok=True)
            name, data = mutation(arguments.reader, result["seed"])
            (arguments.keep / f"{result['seed']}-{name}").write_bytes(data)
            print(f"seed {result['seed']}: {result['end']}", flush=True)
    for end, count in ends.most_common():
        print(f"{count:6d}  {end}")
    print(f"{arguments.count} files, {failures} failures; slowest {slowest:.2f} s of processor time")
    print(f"most memory beyond that of the start: {most / 1e6:.0f} MB")
    if arguments.store:
        result = {"files": arguments.count, "first_seed": arguments.seed, "failures": failures, "read": ends["read"]}
        result |= {"slowest_s": round(slowest, 2), "memory_mb": round(most / 1e6), "kinds_of_errors": len(ends) - 1}
        store(arguments.reader, {**result, "most_frequent": dict(ends.most_common(13))})
    sys.exit(1 if failures else 0)


def results(reader: str, seeds: range, anew: bool) -> Iterator[dict[str, Any]]:
    """What came of each file: seed, end, seconds, bytes."""
    while seeds:
        command = [sys.executable, __file__, "--reader", reader, "--worker", *(["--anew"] if anew else [])]
        command += ["--seed", str(seeds[0]), "--count", str(len(seeds))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            result = json.loads(line)
            seeds = seeds[1:]
            yield result
        code = process.wait()
        if seeds:
            limits = {-signal.SIGPROF: f"took more than {SECONDS:.0f} s", -signal.SIGALRM: "stood still"}
            why = limits.get(code, f"the process ended with {code}")
            yield {"seed": seeds[0], "end": f"FAILED: {why}", "seconds": 0.0, "bytes": 0}
            seeds = seeds[1:]


def mutations(reader: str) -> Any:
    """The module that has the files of a reader."""
    sys.path.insert(0, str(TESTS))
    return importlib.import_module(READERS[reader].files)


def mutation(reader: str, seed: int, good: dict[str, bytes] | None = None) -> tuple[str, bytes]:
    """The name of a good file, and what a seed makes of it."""
    module = mutations(reader)
    files: dict[str, bytes] = good or module.originals()
    random = np.random.default_rng(seed)
    name = list(files)[int(random.integers(len(files)))]
    return name, module.mutated(name, files[name], random)


def work(reader: str, seeds: range, anew: bool) -> None:
    """Read the files, and print a line of JSON for each."""
    warnings.simplefilter("ignore")
    read = [function(name) for name in READERS[reader].functions]
    good = mutations(reader).originals()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        forks = None
        if reader == "keras" and not anew:
            forks = stack.enter_context(_forks(Path(folder)))
        for name, data in good.items():  # what is set up once is not counted
            path = Path(folder, name)
            path.write_bytes(data)
            [how_it_ends(each, path) for each in read]
        addresses, start = _status("VmSize"), _status("VmRSS")
        resource.setrlimit(resource.RLIMIT_AS, (addresses + BYTES, resource.RLIM_INFINITY))
        for seed in seeds:
            name, data = mutation(reader, seed, good)
            path = Path(folder, name)
            path.write_bytes(data)
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
            signal.alarm(WALL_SECONDS)
            before = processor_time()
            if forks:
                forks.seconds, forks.memory = 0.0, 0
            ends = [how_it_ends(each, path) for each in read]
            seconds = processor_time() - before + (forks.seconds if forks else 0.0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            used = max(0, _status("VmHWM") - start)
            used += forks.memory if forks else resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            if seconds > SECONDS:
                ends.append(f"FAILED: took {seconds:.1f} s")
            if used > BYTES:
                ends.append(f"FAILED: took {used / 1e6:.0f} MB")
            failed = next((end for end in ends if end.startswith("FAILED")), None)
            line = {"seed": seed, "end": failed or ends[0], "seconds": seconds, "bytes": used}
            print(json.dumps(line), flush=True)


def _forks(folder: Path) -> Any:
    from hdf5_forks import Forks

    from gatewise.interchange import hdf5

    forks = Forks(folder)
    hdf5.run_program = forks.run
    return forks


def processor_time() -> float:
    """Of this process and those that ended under it, in seconds."""
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def function(name: str) -> Callable[[Path], object]:
    """The function module:name."""
    module, own = name.split(":")
    return getattr(importlib.import_module(module), own)


def how_it_ends(read: Callable[[Path], object], path: Path) -> str:
    """A line for the table: "read", or what the error says, without names and numbers."""
    from gatewise.errors import InputError

    try:
        read(path)
    except InputError as error:
        text = str(error)
        if "\n" in text or len(text) > 1000 or not text.startswith(f"{path}: "):
            return f"FAILED: not one line that begins with the file: {text[:200]!r}"
        text = re.sub(r"\"[^\"]*\"|'[^']*'|\[.*?\]|\(.*?\)|\{.*\}", "...", text.removeprefix(f"{path}: "))
        return re.sub(r"-?\d[\d,.e+]*", "N", text)[:90]
    except BaseException as error:
        import traceback

        traceback.print_exc()
        return f"FAILED: {type(error).__name__}: {str(error)[:200]}"
    return "read"


def _status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    return int(re.findall(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


def store(reader: str, result: dict[str, Any]) -> None:
    """Put the counts of a reader into fuzz.json, in the place of older ones, and all of it into fuzz.md."""
    path = RESULTS / "fuzz.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found[reader] = {"conditions": conditions(os.cpu_count() or 1, READERS[reader].packages), **result}
    found = {name: found[name] for name in READERS if name in found}
    path.write_text(json.dumps(found, indent=1) + "\n")
    lines = [
        "# Mutated files",
        "",
        "`python bench/fuzz_readers.py --reader onnx --store`, and so for each reader. Allowed are 5 s of processor",
        "time, 1 GiB of memory beyond that of the start, and one InputError of one line that begins with the file. A",
        "crash, a hang, any other exception, or more time or memory is a failure.",
        "",
        "| reader | files | failures | read all the same | kinds of errors | slowest, s | memory, MB | commit | of |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        facts = row["conditions"]
        versions = ", ".join(f"{package} {facts[package]}" for package in READERS[name].packages)
        lines.append(
            f"| {name} | {row['files']:,} | {row['failures']} | {row['read']:,} | {row['kinds_of_errors']} | "
            f"{row['slowest_s']} | {row['memory_mb']} | {facts['commit']} | {versions} |"
        )
    for name, row in found.items():
        lines += ["", f"## {name}: the most frequent ends", "", "| files | end |", "|---|---|"]
        lines += [f"| {count:,} | {end.replace('|', '/')} |" for end, count in row["most_frequent"].items()]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
