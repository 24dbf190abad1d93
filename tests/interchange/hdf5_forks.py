"""hdf5_program.py many times over: in forks of a process that has imported what it needs, 5 ms each instead of 200."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from gatewise.interchange import hdf5


class Forks:
    """Runs hdf5_program.py in forks of a process that has imported it. seconds: of the last; memory: most of all."""

    def __init__(self, folder: Path) -> None:
        self.input, self.output = folder / "input", folder / "output"
        self.seconds, self.memory = 0.0, 0
        command = [sys.executable, "-c", SERVER, str(hdf5.PROGRAM.parent), str(self.input), str(self.output)]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
        self.server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.communicate()

    def run(self, data: bytes, memory: int, seconds: int) -> tuple[int, bytes]:
        """In the place of hdf5.run_program."""
        self.input.write_bytes(data)
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(memory, seconds, file=self.server.stdin, flush=True)
        status, took, most = self.server.stdout.readline().split()
        self.seconds, self.memory = float(took), max(self.memory, int(most) * 1024)
        return os.waitstatus_to_exitcode(int(status)), self.output.read_bytes()


SERVER = """
import os, sys
sys.path.append(sys.argv[1])
import hdf5_program
for line in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(os.open(sys.argv[2], os.O_RDONLY), 0)
        os.dup2(os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
        sys.argv[1:] = line.split()
        try:
            hdf5_program.main()
        finally:
            os._exit(1)
    _, status, usage = os.wait4(child, 0)
    print(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, flush=True)
"""
