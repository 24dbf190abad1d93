"""How time and memory grow with the steps T, the batch B and the hidden units H: gatewise and torch.

    python bench/growth.py [--threads 2] [--axis T] [--points 7] [--results DIR] [--no-store]

Every point is measured in a fresh process. Time is the median of a few calls after a first one; a first call that takes
more than 10 s is the figure itself. After a call of more than 20 s the contestant's larger points on that axis are
skipped, and named. Memory is ru_maxrss after the calls minus ru_maxrss before the first, in MB (10^6 bytes): what the
layer takes beyond its weights and inputs, outputs and gradients included. A small problem is computed before that, so
that what a library sets up once is not counted. The slope is that of a straight line through the logarithms of the
upper half of the points: cost grows as n to the power of the slope.
"""

import statistics
import sys
import time
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from contestants import CONTESTANTS, JOBS, Layer, Problem, Shape
from record import options, store, table_of
from turns import Contestant

AXES = {
    "T": [Shape(T, 8, 64, 64) for T in (100, 300, 1000, 3000, 10_000, 30_000, 100_000)],
    "B": [Shape(100, B, 64, 128) for B in (1, 4, 16, 64, 256, 1024)],
    "H": [Shape(50, 16, 64, H) for H in (16, 32, 64, 128, 256, 512, 1024, 2048)],
}
NAMES = ("gatewise", "torch")
COSTS = {"time": "ms", "memory": "MB"}
LAST_FIRST_CALL_S, LONGEST_CALL_S = 10, 20
Points = list[dict[str, Any]]  # axis, contestant, job, size, time, memory or None in place of both


def peak_mb(*, forget: bool = False) -> float:
    """ru_maxrss in MB; on Linux the peak so far can be forgotten first, so that set-up does not hide what follows."""
    import resource

    if forget and sys.platform == "linux":
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass  # not allowed here: then peaks below that of the set-up read as 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


class Point:
    """One contestant in a process of its own, for one point."""

    def __init__(self, layer: Layer):
        self._layer = layer

    def measure(self, shape: Shape, job: str, seconds: float) -> tuple[float, float]:
        """Milliseconds of a call, and MB that the calls took."""
        which = JOBS.index(job)
        small, call = (self._layer(Problem.of(s), "float32")[which] for s in (Shape(2, 2, 8, 8), shape))
        assert small is not None
        assert call is not None
        small()
        before_mb, begin = peak_mb(forget=True), time.perf_counter()
        call()
        first_s = time.perf_counter() - begin
        samples_s: list[float] = []
        while first_s < LAST_FIRST_CALL_S and (not samples_s or sum(samples_s) < seconds):
            begin = time.perf_counter()
            call()
            samples_s.append(time.perf_counter() - begin)
        return statistics.median(samples_s or [first_s]) * 1e3, peak_mb() - before_mb


def measure_axis(axis: str, points: int, threads: int, seconds: float, console: Console) -> tuple[Points, list[str]]:
    """The points of an axis, and a line for each that was skipped."""
    found: Points = []
    skipped = []
    for name in NAMES:
        for job in JOBS:
            stop = ""
            for shape in AXES[axis][:points]:
                point = {"axis": axis, "contestant": name, "job": job, "size": getattr(shape, axis)}
                if not stop:
                    process = Contestant(name, partial(Point, CONTESTANTS["float32"][name][0]), threads)
                    try:
                        point["time"], point["memory"] = process.ask("measure", shape, job, seconds)
                    except (EOFError, ConnectionError):
                        stop = "its process ended"
                    status = process.stop()
                    stop += f" with status {status}" if stop else ""
                if "time" not in point:
                    skipped.append(f"{name}, {job}, {axis} = {point['size']:,}: skipped ({stop})")
                    continue
                found.append(point)
                console.print(f"{name} {job} {axis}={point['size']}: {point['time']:.2f} ms, {point['memory']:.1f} MB")
                if point["time"] > LONGEST_CALL_S * 1e3:
                    stop = f"at {axis} = {point['size']:,} a call took more than {LONGEST_CALL_S} s"
    return found, skipped


def series(points: Points, axis: str, name: str, job: str, cost: str) -> tuple[list[float], list[float], float]:
    """Sizes, costs, and the slope over their upper half; points without a measurable cost are left out."""
    chosen = [p for p in points if (p["axis"], p["contestant"], p["job"]) == (axis, name, job) and p[cost] > 0]
    sizes, costs = [p["size"] for p in chosen], [p[cost] for p in chosen]
    half = len(sizes) // 2
    if len(sizes) - half < 2:
        return sizes, costs, float("nan")
    return sizes, costs, float(np.polyfit(np.log(sizes[half:]), np.log(costs[half:]), 1)[0])


def show(points: Points, axis: str, cost: str) -> Table:
    """One axis and cost: a row per size, a last row with the slopes."""
    rest = {"T": "B, I, H = 8, 64, 64", "B": "T, I, H = 100, 64, 128", "H": "T, B, I = 50, 16, 64"}[axis]
    columns = [(name, job) for name in NAMES for job in JOBS]
    table = table_of(f"{cost} in {COSTS[cost]} over {axis}; {rest}", axis, *map(" ".join, columns))
    values = {(p["size"], p["contestant"], p["job"]): p[cost] for p in points if p["axis"] == axis}
    for size in sorted({size for size, *_ in values}):
        cells = [values.get((size, *column)) for column in columns]
        table.add_row(f"{size:,}", *("-" if value is None else f"{value:,.2f}" for value in cells))
    table.add_row("slope", *(f"{series(points, axis, *column, cost)[2]:.2f}" for column in columns))
    return table


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--axis", action="append", choices=list(AXES), help="not all three; repeatable")
    parser.add_argument("--points", type=int, default=99, help="only the first points of each axis")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of the calls after the first one")
    chosen = parser.parse_args()
    console = Console(width=150)

    axes = chosen.axis or list(AXES)
    points: Points = []
    skipped: list[str] = []
    for axis in axes:
        found, left = measure_axis(axis, chosen.points, chosen.threads, chosen.seconds, console)
        points += found
        skipped += left
    tables = [show(points, axis, cost) for axis in axes for cost in COSTS]
    for table in tables:
        console.print(table)
    console.print("\n".join(skipped), markup=False)
    if not chosen.no_store:
        command = f"python bench/growth.py --threads {chosen.threads}"
        page = ("How cost grows", command, tables, [f"- {line}" for line in skipped])
        store(chosen.results / "growth", chosen.threads, ["torch", "numpy"], points, page=page)


if __name__ == "__main__":
    main()
