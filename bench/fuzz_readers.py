"""Mutated files: each must be read, or be refused by one InputError, in 5 s of processor time and a gigabyte.

    python bench/fuzz_readers.py onnx [--count 10000] [--seed 0] [--keep fuzz-failures]

The files are read in a process of its own, which may take a gigabyte of addresses more than it has at its start; one
that dies is counted, and another goes on. Prints how many files ended how, the slowest, and the most memory; exits with
1, and keeps the file, if one ended otherwise. What is read, and what is done to the files, is in FORMATS.
"""

import argparse
import importlib
import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[1] / "tests" / "interchange"
SECONDS, BYTES = 5.0, 2**30
# Of each format a module beside the tests with originals() and mutated(name, data, random); the functions that read.
FORMATS: dict[str, tuple[str, list[str]]] = {
    "onnx": ("onnx_mutations", ["gatewise.interchange.onnx_in:network", "gatewise.interchange.onnx_in:layers"]),
}


def main() -> None:
    """Start readers until every file has been read, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("format", choices=list(FORMATS))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first file; each has the next one")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for files that fail")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    if arguments.worker:
        work(arguments.format, seeds)
        return
    ends: Counter[str] = Counter()
    slowest, most, failures = 0.0, 0, 0
    for result in results(arguments.format, seeds):
        ends[result["end"]] += 1
        slowest, most = max(slowest, result["seconds"]), max(most, result["bytes"])
        if result["end"].startswith("FAILED"):
            failures += 1
            arguments.keep.mkdir(exist_ok=True)
            name, data = mutation(arguments.format, result["seed"])
            (arguments.keep / f"{result['seed']}-{name}").write_bytes(data)
            print(f"seed {result['seed']}: {result['end']}", flush=True)
    for end, count in ends.most_common():
        print(f"{count:6d}  {end}")
    print(f"{arguments.count} files, {failures} failures; slowest {slowest:.2f} s of processor time")
    print(f"most memory beyond that of the start: {most / 1e6:.0f} MB")
    sys.exit(1 if failures else 0)


def results(format: str, seeds: range) -> Iterator[dict[str, Any]]:
    """What came of each file: seed, end, seconds, bytes."""
    while seeds:
        command = [sys.executable, __file__, format, "--worker", "--seed", str(seeds[0]), "--count", str(len(seeds))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            result = json.loads(line)
            seeds = seeds[1:]
            yield result
        code = process.wait()
        if seeds:
            why = "took more than 5 s" if code == -signal.SIGPROF else f"the process ended with {code}"
            yield {"seed": seeds[0], "end": f"FAILED: {why}", "seconds": 0.0, "bytes": 0}
            seeds = seeds[1:]


def mutations(format: str) -> Any:
    """The module that has the files of a format."""
    sys.path.insert(0, str(TESTS))
    return importlib.import_module(FORMATS[format][0])


def mutation(format: str, seed: int, good: dict[str, bytes] | None = None) -> tuple[str, bytes]:
    """The name of a good file, and what a seed makes of it."""
    module = mutations(format)
    files: dict[str, bytes] = good or module.originals()
    random = np.random.default_rng(seed)
    name = list(files)[int(random.integers(len(files)))]
    return name, module.mutated(name, files[name], random)


def work(format: str, seeds: range) -> None:
    """Read the files, and print a line of JSON for each."""
    warnings.simplefilter("ignore")
    readers = [reader(name) for name in FORMATS[format][1]]
    good = mutations(format).originals()
    with tempfile.TemporaryDirectory() as folder:
        for name, data in good.items():  # what is set up once is not counted
            path = Path(folder, name)
            path.write_bytes(data)
            [how_it_ends(read, path) for read in readers]
        addresses, start = _status("VmSize"), _status("VmRSS")
        resource.setrlimit(resource.RLIMIT_AS, (addresses + BYTES, resource.RLIM_INFINITY))
        for seed in seeds:
            name, data = mutation(format, seed, good)
            path = Path(folder, name)
            path.write_bytes(data)
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
            before = time.process_time()
            ends = [how_it_ends(read, path) for read in readers]
            seconds = time.process_time() - before
            signal.setitimer(signal.ITIMER_PROF, 0)
            failed = next((end for end in ends if end.startswith("FAILED")), None)
            peak = max(0, _status("VmHWM") - start)
            line = {"seed": seed, "end": failed or ends[0], "seconds": seconds, "bytes": peak}
            print(json.dumps(line), flush=True)


def reader(name: str) -> Callable[[Path], object]:
    """The function module:name."""
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


def how_it_ends(read: Callable[[Path], object], path: Path) -> str:
    """A line for the table: "read", or what the error says, without names and numbers."""
    from gatewise.errors import InputError

    try:
        read(path)
    except InputError as error:
        text = str(error)
        if "\n" in text or len(text) > 1000 or not text.startswith(f"{path}: "):
            return f"FAILED: not one line that begins with the file: {text[:200]!r}"
        text = re.sub(r"\"[^\"]*\"|'[^']*'|\[.*?\]|\(.*?\)", "...", text.removeprefix(f"{path}: "))
        return re.sub(r"-?\d[\d,.e+]*", "N", text)[:90]
    except Exception as error:
        import traceback

        traceback.print_exc()
        return f"FAILED: {type(error).__name__}: {str(error)[:200]}"
    return "read"


def _status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    return int(re.findall(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


if __name__ == "__main__":
    main()
