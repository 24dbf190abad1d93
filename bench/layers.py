"""gw.GRU against torch.nn.GRU, ONNX Runtime and JAX: one layer, inference and training (forward + all gradients).

    python bench/layers.py [--threads 2] [--rounds 9] [--seconds 0.15] [--shape 35,32,28,256]
                           [--without jax] [--no-store]

Each contestant runs in a process of its own; they are timed in turn, round after round, and each round gives one ratio.
Quoted are medians over the rounds, and the spread (interquartile range over median). Every contestant's output and
gradient are compared with the reference in float64 first; a contestant that is wrong is not timed.
"""

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import sys
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.table import Table

from contestants import CONTESTANTS, NEEDS, Problem, Shape, serve
from machine import RESULTS, conditions

SHAPES = [
    Shape(35, 32, 28, 256),
    Shape(100, 64, 128, 128),
    Shape(256, 1, 64, 64),
    Shape(256, 1, 256, 256),
    Shape(1, 1, 256, 256),
    Shape(200, 16, 512, 512),
    Shape(784, 64, 1, 128),
    Shape(100, 256, 64, 64),
    Shape(50, 64, 300, 512),
    Shape(1000, 8, 64, 64),
    Shape(35, 32, 28, 100),
    Shape(64, 16, 64, 33),
    Shape(500, 4, 40, 96),
    Shape(20, 128, 256, 1024),
]
JOBS = ("inference", "training")
TOLERANCE = 1e-4  # of the largest element, for every contestant; gatewise's own tests are stricter


class Contestant:
    """A process that computes one contestant's problem when it is asked to."""

    def __init__(self, name: str, threads: int):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(name, threads, theirs), daemon=True)
        self._process.start()

    def ask(self, *request):
        self._connection.send(request)
        return self._connection.recv()

    def stop(self) -> None:
        self._connection.send(None)
        self._process.join()


@dataclass
class Timing:
    """Milliseconds of one contestant at one job and shape: the median of each round."""

    rounds_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.rounds_ms)

    @property
    def spread(self) -> float:
        """Interquartile range over median."""
        low, _, high = statistics.quantiles(self.rounds_ms, n=4)
        return (high - low) / self.median_ms

    def ratio_to(self, other: "Timing") -> float:
        """How many times as long the other one takes: median over the rounds."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.rounds_ms, other.rounds_ms, strict=True))


def reference(shape: Shape, reset: str) -> tuple[np.ndarray, np.ndarray]:
    """y and the gradient of weight_ih, in float64 by the equations."""
    import torch

    from gatewise.kernels.reference import gru

    problem = Problem.of(shape)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [torch.from_numpy(getattr(problem, name)).double().requires_grad_() for name in names]
    h0 = torch.zeros(shape.B, shape.H, dtype=torch.float64)
    y, _ = gru(torch.from_numpy(problem.x).double(), h0, *weights, reset=reset)
    (gradient,) = torch.autograd.grad(y, [weights[0]], torch.from_numpy(problem.dy).double())
    return y.detach().numpy(), gradient.numpy()


def error(found: np.ndarray | None, expected: np.ndarray) -> float:
    """Largest error over the largest element; 0 for what a contestant does not offer."""
    return 0.0 if found is None else float(np.abs(found - expected).max() / np.abs(expected).max())


def time_shape(
    shape: Shape, contestants: list[Contestant], rounds: int, seconds: float
) -> dict[str, dict[str, Timing]]:
    """job -> contestant -> timing."""
    expected = {reset: reference(shape, reset) for reset in ("after", "before")}
    for contestant in contestants:
        right = expected["before" if contestant.name.endswith("before") else "after"]
        found = contestant.ask("prepare", shape)
        worst = max(error(*pair) for pair in zip(found, right, strict=True))
        if not worst < TOLERANCE:
            sys.exit(f"{contestant.name} is wrong on T, B, I, H = {shape}: relative error {worst:.1e}; no figure")
    timings: dict[str, dict[str, Timing]] = {job: {} for job in JOBS}
    for job in JOBS:
        for _ in range(rounds):
            for contestant in contestants:
                samples = contestant.ask("time", job, seconds)
                if samples is not None:
                    timings[job].setdefault(contestant.name, Timing()).rounds_ms.append(statistics.median(samples))
    return timings


def show(job: str, results: dict[Shape, dict[str, dict[str, Timing]]], names: list[str]) -> Table:
    """The table of one job: median and spread of each contestant, ratios, and where gatewise loses."""
    peers = [name for name in names if not name.startswith("gatewise")]
    table = Table(title=f"{job}: ms, spread in %, and ratios over gatewise", title_justify="left")
    table.add_column("T, B, I, H")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("over torch", justify="right")
    table.add_column("over the best peer", justify="right")
    for shape, jobs in results.items():
        timings = jobs[job]
        ours = timings["gatewise"]
        cells = [f"{t.median_ms:.3f} ±{t.spread:.0%}" if (t := timings.get(name)) else "-" for name in names]
        ratios = {name: ours.ratio_to(timings[name]) for name in peers if name in timings}
        best = min(ratios.values(), default=float("nan"))
        mark = "  loses" if best < 1 else ""
        table.add_row(str(shape), *cells, f"{ratios.get('torch', float('nan')):.2f}", f"{best:.2f}{mark}")
    return table


def store(
    results: dict[Shape, dict[str, dict[str, Timing]]], tables: list[Table], threads: int, packages: list[str]
) -> None:
    """Write results/layers-float32-<threads>.json and .md."""
    measured = {
        str(shape): {
            job: {
                name: {"median_ms": t.median_ms, "spread": t.spread, "rounds_ms": t.rounds_ms} for name, t in of.items()
            }
            for job, of in jobs.items()
        }
        for shape, jobs in results.items()
    }
    facts = conditions(threads, packages)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"layers-float32-{threads}-threads"
    path.with_suffix(".json").write_text(json.dumps({"conditions": facts, "results": measured}, indent=1) + "\n")
    lines = [f"# One GRU layer, float32, {threads} threads", "", f"`python bench/layers.py --threads {threads}`", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    for table in tables:
        lines += ["", f"## {table.title}", ""]
        rows = zip(*(column.cells for column in table.columns), strict=True)
        lines += ["| " + " | ".join(str(column.header) for column in table.columns) + " |"]
        lines += ["|" + "---|" * len(table.columns)]
        lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.15, help="length of one turn")
    parser.add_argument("--shape", action="append", help="T,B,I,H instead of the whole list; may be repeated")
    parser.add_argument(
        "--without", action="append", default=[], choices=list(CONTESTANTS), help="leave a contestant out"
    )
    parser.add_argument("--no-store", action="store_true", help="do not write bench/results")
    options = parser.parse_args()
    shapes = [Shape(*map(int, text.split(","))) for text in options.shape] if options.shape else SHAPES
    console = Console(width=150)

    names, packages = [], ["torch", "numpy"]
    for name in CONTESTANTS:
        if name in options.without:
            continue
        needs = NEEDS.get(name, ())
        if absent := [module for module in needs if importlib.util.find_spec(module) is None]:
            console.print(f"{name}: absent ({', '.join(absent)} not installed)")
            continue
        names.append(name)
        packages += needs
    contestants = [Contestant(name, options.threads) for name in names]
    results = {}
    for shape in shapes:
        console.print(f"T, B, I, H = {shape} ...")
        results[shape] = time_shape(shape, contestants, options.rounds, options.seconds)
    for contestant in contestants:
        contestant.stop()

    tables = [show(job, results, names) for job in JOBS]
    for table in tables:
        console.print(table)
    if not options.no_store:
        store(results, tables, options.threads, packages)


if __name__ == "__main__":
    main()
