"""One layer against torch's, ONNX Runtime's and JAX's: inference and training (forward + all gradients).

    python bench/layers.py [--cell gru|lstm|rnn] [--precision float32|bf16] [--threads 2] [--rounds 5] [--seconds 0.05]
                           [--shape 35,32,28,256] [--without jax] [--results DIR] [--no-store]

Each contestant runs in a process of its own; they are timed in turn, round after round, and each round gives one ratio.
Quoted are medians over the rounds, and the spread (interquartile range over median). Every contestant's output and
gradient are compared with the reference in float64 first; a contestant that is wrong is not timed. In bf16 the inputs
and weights are numbers that bfloat16 has, so that all contestants, also gatewise in float32, compute the same function.

"% of GEMM" is the rate of gatewise's matrix products over that of torch.mm on 1024 x 1024 matrices of the same
precision, with as many threads, timed once in every round.
"""

import importlib.util
import statistics
import sys
from functools import partial

import numpy as np
from rich.console import Console
from rich.table import Table

from contestants import (
    CELLS,
    CONTESTANTS,
    GEMM_FLOP,
    JOBS,
    NEEDS,
    NOT_OFFERED,
    Problem,
    Runner,
    Shape,
    gatewise_before,
    gemm,
)
from record import options, store, table_of
from turns import Contestant, Timing, in_turn

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
# Of the largest element, for every contestant; gatewise's own tests are stricter. torch keeps its state in bfloat16.
TOLERANCE = {"float32": 1e-4, "bf16": 5e-2}
Timings = dict[Shape, dict[str, dict[str, Timing]]]  # shape -> job -> contestant


def reference(shape: Shape, precision: str, cell: str, definition: str) -> dict[str, np.ndarray]:
    """y and the gradient of weight_ih, in float64 by the equations."""
    import torch

    from gatewise.kernels.reference import recurrent

    problem = Problem.of(shape, precision, cell)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [torch.from_numpy(getattr(problem, name)).double().requires_grad_() for name in names]
    h0 = torch.zeros(shape.B, shape.H, dtype=torch.float64)
    states = (h0,) * problem.cell.states
    y, _, _ = recurrent(definition, torch.from_numpy(problem.x).double(), states, weights)
    (gradient,) = torch.autograd.grad(y, [weights[0]], torch.from_numpy(problem.dy).double())
    return {"inference": y.detach().numpy(), "training": gradient.numpy()}


def right(
    shape: Shape, precision: str, cell: str, contestants: list[Contestant]
) -> tuple[dict[Contestant, list[str]], list[str]]:
    """The jobs of each contestant that computes the shape right, and a line for each peer that does not.

    Where gatewise is wrong the bench ends.
    """
    definitions = {c: "gru_before" if "before" in c.name else CELLS[cell].definition for c in contestants}
    expected = {name: reference(shape, precision, cell, name) for name in set(definitions.values())}
    jobs: dict[Contestant, list[str]] = {}
    wrong = []
    for contestant in contestants:
        contestant.ask("prepare", shape)
        exact = expected[definitions[contestant]]
        found = contestant.ask("results")
        error = max(float(np.abs(found[job] - exact[job]).max() / np.abs(exact[job]).max()) for job in found)
        if error < TOLERANCE[precision]:
            jobs[contestant] = list(found)
            continue
        wrong.append(f"{contestant.name} is wrong on T, B, I, H = {shape}: relative error {error:.1e}; no figure")
        if contestant.name.startswith("gatewise"):
            sys.exit(wrong[-1])
    return jobs, wrong


def time_shape(
    shape: Shape, jobs: dict[Contestant, list[str]], rate: Contestant, rounds: int, seconds: float
) -> dict[str, dict[str, Timing]]:
    """Job -> contestant -> timing; "gemm" stands beside them with the time of the matrix product."""
    turns = {("", "gemm"): partial(rate.ask, "time", "inference", seconds)}
    for job in JOBS:
        for contestant, offered in jobs.items():
            if job in offered:
                turns[job, contestant.name] = partial(contestant.ask, "time", job, seconds)
    timed = in_turn(turns, rounds)
    product = timed.pop(("", "gemm"))
    timings: dict[str, dict[str, Timing]] = {job: {} for job in JOBS}
    for (job, name), timing in timed.items():
        timings[job][name] = timing
    return {job: {**of, "gemm": product} for job, of in timings.items()}


def ratio_cell(ratio: float) -> str:
    return f"{ratio:.2f}{'  loses' if ratio < 1 else ''}"


def show(job: str, results: Timings, names: list[str], gates: int) -> tuple[Table, list[str]]:
    """The table of one job: median and spread of each contestant, ratios, share of GEMM; and where gatewise loses."""
    ours, *_ = names
    peers = [name for name in names if not name.startswith("gatewise")]
    besides = [name for name in names if name == "gatewise float32"]
    torch = next((name for name in peers if name.startswith("torch")), None)
    headers = ["over torch", "over the best peer", *(f"over {name}" for name in besides), "% of GEMM"]
    table = table_of(f"{job}: ms, spread in %, and ratios over gatewise", "T, B, I, H", *names, *headers)
    losses = []
    for shape, jobs in results.items():
        timings = jobs[job]
        mine = timings[ours]
        cells = [f"{t.median_ms:.3f} ±{t.spread:.0%}" if (t := timings.get(name)) else "-" for name in names]
        ratios = {name: mine.ratio_to(timings[name]) for name in [*peers, *besides] if name in timings}
        best = min((ratio for name, ratio in ratios.items() if name in peers), default=float("nan"))
        shown = [ratios.get(torch or "", float("nan")), best, *(ratios[name] for name in besides)]
        share = mine.ratio_to(timings["gemm"]) * shape.flop(job, gates) / GEMM_FLOP
        table.add_row(str(shape), *cells, *map(ratio_cell, shown), f"{share:.1%}")
        if lost := [f"{ratio:.2f} over {name}" for name, ratio in ratios.items() if ratio < 1]:
            losses.append(f"- {shape}, {job}: {', '.join(lost)}")
    return table, losses


def store_layers(chosen, results: Timings, tables: list[Table], notes: list[str], packages: list[str]) -> None:
    """Write layers-<precision>-<threads>-threads.json and .md; layers-lstm-... and layers-rnn-... of these."""
    measured = {
        str(shape): {job: {name: timing.stored() for name, timing in of.items()} for job, of in jobs.items()}
        for shape, jobs in results.items()
    }
    threads = f"{chosen.threads} thread{'s' if chosen.threads > 1 else ''}"
    option = "" if chosen.cell == "gru" else f"--cell {chosen.cell} "
    command = f"python bench/layers.py {option}--precision {chosen.precision}"
    command += f" --threads {chosen.threads} --rounds {chosen.rounds}"
    cell = CELLS[chosen.cell]
    path = chosen.results / f"{cell.results}-{chosen.precision}-{chosen.threads}-threads"
    page = (f"One {cell.layer} layer, {chosen.precision}, {threads}", command, tables, notes)
    store(path, chosen.threads, packages, measured, page=page)


def start(precision: str, cell: str, threads: int, without: list[str]) -> tuple[list[Contestant], list[str], list[str]]:
    """The contestants in their processes, the packages they need, and a line for each that is absent."""
    started, packages, absent = [], ["torch", "numpy"], list(NOT_OFFERED[precision])
    for name, (layer, of) in CONTESTANTS[precision].items():
        if layer is gatewise_before and cell != "gru":
            continue
        needs = NEEDS.get(layer.__name__, ())
        missing = [module for module in needs if importlib.util.find_spec(module) is None]
        if layer.__name__ in without:
            absent.append(f"{name}: left out")
        elif missing:
            absent.append(f"{name}: absent ({', '.join(missing)} not installed)")
        else:
            started.append(Contestant(name, partial(Runner, layer, of, precision, cell), threads))
            packages += needs
    return started, packages, absent


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--cell", choices=list(CELLS), default="gru")
    parser.add_argument("--precision", choices=list(CONTESTANTS), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.05, help="length of one turn")
    parser.add_argument("--shape", action="append", type=Shape.parse, help="T,B,I,H, not the whole list; repeatable")
    peers = ("gatewise_before", "torch", "onnxruntime", "jax")
    parser.add_argument("--without", action="append", default=[], choices=peers, help="leave a contestant out")
    chosen = parser.parse_args()
    console = Console(width=170)

    contestants, packages, notes = start(chosen.precision, chosen.cell, chosen.threads, chosen.without)
    rate = Contestant("gemm", partial(Runner, gemm, chosen.precision, chosen.precision), chosen.threads)
    rate.ask("prepare", Shape(1, 1, 1, 1))
    results: Timings = {}
    for shape in chosen.shape or SHAPES:
        console.print(f"T, B, I, H = {shape} ...")
        jobs, wrong = right(shape, chosen.precision, chosen.cell, contestants)
        notes += wrong
        results[shape] = time_shape(shape, jobs, rate, chosen.rounds, chosen.seconds)
    for contestant in [*contestants, rate]:
        contestant.stop()

    names, gates = [contestant.name for contestant in contestants], CELLS[chosen.cell].gates
    shown = [show(job, results, names, gates) for job in JOBS]
    tables, losses = [table for table, _ in shown], [line for _, lines in shown for line in lines]
    rates = [GEMM_FLOP / jobs["inference"]["gemm"].median_ms / 1e6 for jobs in results.values()]
    after = [
        f"GEMM: {statistics.median(rates):.0f} GFLOP/s (median over the shapes).",
        *(f"\n{note}" for note in notes),
    ]
    after += ["", "## Where gatewise loses", "", *(losses or ["Nowhere in this run."])]
    for table in tables:
        console.print(table)
    console.print("\n".join(after), markup=False)
    if not chosen.no_store:
        store_layers(chosen, results, tables, after, packages)


if __name__ == "__main__":
    main()
