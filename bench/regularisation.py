"""What recurrent dropout, zoneout and layer normalisation cost, over the same layer without them.

    python bench/regularisation.py [--layer gru] [--threads 2] [--rounds 5] [--seconds 0.05] [--shape 35,32,28,256]
                                   [--results DIR] [--no-store]

As bench/rows.py: all variants of a layer live in one process and are timed in turn, after each was compared with the
reference in float64; quoted are medians over the rounds. Training draws new masks in each call.
"""

from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from contestants import JOBS, Shape
from record import options, store, table_of
from rows import Runner, Timings, Variant, cell_of, stored, time_shape
from turns import Contestant

SHAPES = [
    Shape(35, 32, 28, 256),
    Shape(100, 64, 128, 128),
    Shape(256, 1, 64, 64),
    Shape(200, 16, 512, 512),
    Shape(100, 256, 64, 64),
    Shape(1000, 8, 64, 64),
]
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gru": ("gru", {}),
    "gru-before": ("gru", {"reset": "before"}),
    "lstm": ("lstm", {}),
    "rnn": ("rnn", {}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "recurrent_dropout": {"recurrent_dropout": 0.25},
    "zoneout": {"zoneout": 0.1},
    "layer_norm": {"layer_norm": True},
}
GOAL = 1.5  # of training
CHECKED_STEPS = 30  # a normalised layer is chaotic: the errors of float32 grow tenfold in 35 steps
VARIANTS = {
    "plain": Variant(),
    **{name: Variant(GOAL, make=make) for name, make in OPTIONS.items()},
    "all three": Variant(GOAL, make={name: value for make in OPTIONS.values() for name, value in make.items()}),
}


class RegularisedRunner(Runner):
    """The variants of a layer in a process of their own."""

    variants = VARIANTS


def show(layer: str, results: dict[Shape, Timings]) -> Table:
    """A row for each shape and job, a column for each variant."""
    table = table_of(f"{layer}: time over that of the plain layer", "T, B, I, H", "job", *VARIANTS)
    for shape, jobs in results.items():
        for job, timings in jobs.items():
            cells = (cell_of(timings, name, VARIANTS) for name in VARIANTS)
            # The goal is one of training.
            table.add_row(
                str(shape), job, *(cells if job == "training" else (c.replace("  misses", "") for c in cells))
            )
    return table


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--layer", action="append", choices=list(LAYERS), help="not all; repeatable")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.05, help="length of one turn")
    parser.add_argument("--shape", action="append", type=Shape.parse, help="T,B,I,H, not the whole list; repeatable")
    chosen = parser.parse_args()
    console = Console(width=200)

    tables, results = [], {}
    for layer in chosen.layer or LAYERS:
        cell, own = LAYERS[layer]
        runner = Contestant(layer, partial(RegularisedRunner, cell, own), chosen.threads)
        found: dict[Shape, Timings] = {}
        for shape in chosen.shape or SHAPES:
            console.print(f"{layer}: T, B, I, H = {shape} ...")
            found[shape], _ = time_shape(
                runner, layer, shape, list(VARIANTS), JOBS, chosen.rounds, chosen.seconds, VARIANTS, CHECKED_STEPS
            )
        runner.stop()
        tables.append(show(layer, found))
        console.print(tables[-1])
        results[layer] = {
            str(shape): {job: stored(timings, VARIANTS) for job, timings in jobs.items()}
            for shape, jobs in found.items()
        }
    if not chosen.no_store:
        command = f"python bench/regularisation.py --threads {chosen.threads} --rounds {chosen.rounds}"
        page = (f"What regularisation costs; at most {GOAL} in training", command, tables, [])
        store(chosen.results / "regularisation", chosen.threads, ["torch", "numpy"], results, page=page)


if __name__ == "__main__":
    main()
