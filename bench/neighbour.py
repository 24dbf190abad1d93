"""What a busy neighbour costs: gw.GRU and torch.nn.GRU on a quiet machine, and beside one spinning process per core.

    python bench/neighbour.py [--threads 2] [--rounds 7] [--seconds 0.15] [--shape 35,32,28,256]
                              [--results DIR] [--no-store]

Both contestants are timed in turn, quiet and busy, round after round. Comes out, for inference and training: median
times, the slowdown of each (busy over quiet, median over the rounds), and gatewise's slowdown over torch's: below 1
gatewise bears the neighbour better. All calls count, also those that waited for a core.
"""

import multiprocessing
import os
from functools import partial

from rich.console import Console
from rich.table import Table

from contestants import CONTESTANTS, JOBS, Runner, Shape
from record import options, store, table_of
from turns import Contestant, Timing, in_turn

SHAPES = [Shape(35, 32, 28, 256), Shape(256, 1, 256, 256), Shape(100, 64, 128, 128)]
NAMES = ("gatewise", "torch")
Timings = dict[tuple[str, str], Timing]  # (contestant, "quiet" or "busy")


def spin(busy) -> None:
    """Keep a core busy while the event is set."""
    while busy.wait():
        for _ in range(100_000):
            pass


def time_job(contestants: list[Contestant], job: str, busy, rounds: int, seconds: float) -> Timings:
    """(contestant, state of the machine) -> timing."""

    def turn(contestant: Contestant, state: str) -> float:
        (busy.set if state == "busy" else busy.clear)()
        try:
            return contestant.ask("time", job, seconds, True)
        finally:
            busy.clear()

    turns = {(c.name, state): partial(turn, c, state) for state in ("quiet", "busy") for c in contestants}
    return in_turn(turns, rounds)


def slowdowns(timings: Timings) -> list[float]:
    """Busy over quiet, for each contestant."""
    return [timings[name, "quiet"].ratio_to(timings[name, "busy"]) for name in NAMES]


def show(results: dict[tuple[Shape, str], Timings]) -> Table:
    """Times, slowdowns, and gatewise's slowdown over torch's."""
    headers = [f"{name} {state}" for name in NAMES for state in ("quiet", "busy", "slowdown")]
    title = "a busy neighbour: ms, spread in %, and busy over quiet"
    table = table_of(title, "T, B, I, H", "job", *headers, "gatewise's slowdown over torch's")
    for (shape, job), timings in results.items():
        slower = slowdowns(timings)
        cells = []
        for name, slowdown in zip(NAMES, slower, strict=True):
            pair = [timings[name, state] for state in ("quiet", "busy")]
            cells += [*(f"{t.median_ms:.2f} ±{t.spread:.0%}" for t in pair), f"{slowdown:.2f}"]
        table.add_row(str(shape), job, *cells, f"{slower[0] / slower[1]:.2f}")
    return table


def stored(results: dict[tuple[Shape, str], Timings]) -> dict[str, dict]:
    """Shape -> job -> timings and slowdowns."""
    found: dict[str, dict] = {}
    for (shape, job), timings in results.items():
        slower = dict(zip(NAMES, slowdowns(timings), strict=True))
        times = {f"{name} {state}": timing.stored() for (name, state), timing in timings.items()}
        found.setdefault(str(shape), {})[job] = {**times, "slowdown": slower}
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.15, help="length of one turn")
    parser.add_argument("--shape", action="append", type=Shape.parse, help="T,B,I,H, not the whole list; repeatable")
    chosen = parser.parse_args()
    console = Console(width=170)

    context = multiprocessing.get_context("spawn")
    busy = context.Event()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for _ in range(cores):
        context.Process(target=spin, args=(busy,), daemon=True).start()
    layers = CONTESTANTS["float32"]
    contestants = [Contestant(n, partial(Runner, *layers[n], "float32"), chosen.threads) for n in NAMES]
    results = {}
    for shape in chosen.shape or SHAPES:
        console.print(f"T, B, I, H = {shape} ...")
        for contestant in contestants:
            contestant.ask("prepare", shape)
        for job in JOBS:
            results[shape, job] = time_job(contestants, job, busy, chosen.rounds, chosen.seconds)
    for contestant in contestants:
        contestant.stop()

    table = show(results)
    console.print(table)
    if not chosen.no_store:
        command = f"python bench/neighbour.py --threads {chosen.threads} --rounds {chosen.rounds}"
        notes = [f"Neighbours: {cores} processes that spin."]
        page = ("Slowdown beside a busy neighbour", command, [table], notes)
        store(chosen.results / "neighbour", chosen.threads, ["torch", "numpy"], stored(results), page=page)


if __name__ == "__main__":
    main()
