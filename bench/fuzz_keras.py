"""Mutated Keras files: each must be a network, or be refused by one InputError, within 5 s and a gigabyte.

    python bench/fuzz_keras.py --count 10000 --seed 0

Prints how many ended how, the slowest, and the most memory; exits with 1, and keeps the file, if one ended otherwise.
The process that reads HDF5 is forked from one that has imported what it needs, which takes 5 ms instead of 200; with
--anew it is started as it is for users.
"""

import argparse
import re
import resource
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "interchange"))

from gatewise.errors import InputError
from gatewise.interchange import hdf5, keras_in

SECONDS, BYTES = 5.0, 1_000_000_000


def main() -> None:
    """Make, read and count."""
    from hdf5_forks import Forks
    from keras_mutations import mutated, originals

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first file; each has the next one")
    parser.add_argument("--anew", action="store_true", help="start a process for each file")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for files that fail")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    good = originals()
    ends: Counter[str] = Counter()
    failures, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder, Forks(Path(folder)) as forks:
        if not arguments.anew:
            hdf5.run_program = forks.run
        for seed in range(arguments.seed, arguments.seed + arguments.count):
            random = np.random.default_rng(seed)
            name = list(good)[int(random.integers(len(good)))]
            path = Path(folder, name)
            path.write_bytes(mutated(name, good[name], random))
            start = processor_time()
            forks.seconds = 0.0
            end = how_it_ends(path)
            seconds = processor_time() - start + forks.seconds
            slowest = max(slowest, seconds)
            ends[end] += 1
            if end.startswith("FAILED") or seconds > SECONDS:
                failures += 1
                arguments.keep.mkdir(exist_ok=True)
                (arguments.keep / f"{seed}-{name}").write_bytes(path.read_bytes())
                print(f"seed {seed}: {end}, {seconds:.1f} s", flush=True)
    for end, count in ends.most_common():
        print(f"{count:6d}  {end}")
    memory = [resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    memory[1] = max(memory[1], forks.memory)
    print(f"{arguments.count} files, {failures} failures; slowest {slowest:.2f} s of processor time")
    print(f"most memory: {memory[0] / 1e6:.0f} MB, and {memory[1] / 1e6:.0f} MB in the process that reads HDF5")
    sys.exit(1 if failures or sum(memory) > BYTES else 0)


def how_it_ends(path: Path) -> str:
    """A line for the table: "a network", or what the error says, without names and numbers."""
    try:
        keras_in.network(path)
    except InputError as error:
        text = str(error).removeprefix(str(path))
        if "\n" in text or not text.startswith(":"):
            return f"FAILED: not one line that begins with the file: {str(error)[:200]!r}"
        text = re.sub(r"'.*'|\[.*\]|\(.*\)|\{.*\}", "...", text)
        return re.sub(r"-?\d[\d.e+]*", "N", text)[:70]
    except BaseException as error:
        traceback.print_exc()
        return f"FAILED: {type(error).__name__}: {error}"
    return "a network"


def processor_time() -> float:
    """Of this process and those that ended under it, in seconds."""
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


if __name__ == "__main__":
    main()
