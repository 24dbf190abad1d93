"""What lengths, resets, gates, checkpoints and directions cost, over the same layer without them.

    python bench/rows.py [--cell gru] [--threads 2] [--rounds 5] [--seconds 0.05] [--shape 35,32,28,256]
                         [--long-shape 10000,8,64,64] [--results DIR] [--no-store]

All variants of a layer live in one process; they are timed in turn, round after round, and each round gives one ratio
to the plain call. Quoted are medians over the rounds, and the spread (interquartile range over median); less is better.
Every variant's output and gradient are compared with the reference in float64 first, with at most 120 steps and 16 rows
of the shape; where one is wrong the bench ends. A variant that the native kernels do not have is named, not timed.

Lengths are drawn in pairs that add up to T, so that half of the steps are padding; a new sequence begins in each row at
four steps, on average.

What checkpoints save is measured on long shapes: the peak memory of training beyond weights and inputs, outputs and
gradients included, each in a fresh process, as bench/growth.py does it.
"""

import copy
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from contestants import CELLS, JOBS, Calls, Problem, Shape
from growth import Point
from record import options, store, table_of
from turns import Contestant, Timing, in_turn, median_ms

SHAPES = [Shape(35, 32, 28, 256), Shape(200, 16, 64, 64), Shape(100, 64, 128, 128)]
LONG_SHAPES = [Shape(10_000, 8, 64, 64), Shape(100_000, 1, 64, 64)]
EVERY = (10, 100, 1000)
CHECKED_STEPS, CHECKED_ROWS = 120, 16
TOLERANCE = 1e-4  # of the largest element
Timings = dict[str, dict[str, Timing]]  # job -> variant


class Batch:
    """Inputs of a shape, lengths with half of the steps, and marks of new sequences."""

    def __init__(self, shape: Shape):
        import torch

        draw = torch.Generator().manual_seed(0)
        self.x = torch.randn(shape.T, shape.B, shape.I, generator=draw)
        half = torch.randint(1, max(shape.T, 2), ((shape.B + 1) // 2,), generator=draw)
        self.lengths = torch.cat([half, shape.T - half])[torch.randperm(2 * len(half), generator=draw)][: shape.B]
        self.resets = torch.rand(shape.T, shape.B, generator=draw) < 4 / shape.T

    def packed(self):
        """The rows as PackedSequence."""
        from torch.nn.utils.rnn import pack_padded_sequence

        return pack_padded_sequence(self.x, self.lengths, enforce_sorted=False)


@dataclass(frozen=True)
class Variant:
    """A way to make or to call a layer."""

    goal: float | None = None  # the most that it is to cost, in plain calls
    make: dict[str, Any] = field(default_factory=dict)
    call: Callable[[Batch], dict[str, Any]] = lambda batch: {}
    packed: bool = False
    plain_calls: int = 1  # that do the same work
    jobs: tuple[str, ...] = JOBS


def _checkpoints(every: int) -> Variant:
    return Variant(1.4, call=lambda batch: {"checkpoint_every": every}, jobs=("training",))


CHECKPOINTS = {f"checkpoint_every={every}": _checkpoints(every) for every in EVERY}
VARIANTS = {
    "plain": Variant(),
    "lengths": Variant(0.7, call=lambda batch: {"lengths": batch.lengths}),
    "lengths, sorted": Variant(0.7, call=lambda batch: {"lengths": batch.lengths.sort(descending=True).values}),
    "PackedSequence": Variant(0.7, packed=True),
    "resets": Variant(call=lambda batch: {"resets": batch.resets}),
    "return_gates": Variant(call=lambda batch: {"return_gates": True}),
    **CHECKPOINTS,
    "bidirectional, of two": Variant(make={"bidirectional": True}, plain_calls=2),
    "learn_initial_state": Variant(1.5, make={"learn_initial_state": True}, jobs=("training",)),
    "weight_dropout": Variant(1.5, make={"weight_dropout": 0.25}, jobs=("training",)),
}


def layer_class(cell: str) -> Any:
    import gatewise as gw

    return getattr(gw, CELLS[cell].layer)


def offered(cell: str) -> list[str]:
    """The variants that the layer's constructor has an argument for."""
    known = inspect.signature(layer_class(cell)).parameters
    return [name for name, variant in VARIANTS.items() if known.keys() >= variant.make.keys()]


def calls(layer: Any, x: Any, how: dict[str, Any]) -> Calls:
    """inference() -> y, and training() -> the gradient of weight_ih."""
    import torch
    from torch.nn.utils.rnn import PackedSequence

    packed = isinstance(x, PackedSequence)
    leaf = (x.data if packed else x).clone().requires_grad_()
    given = PackedSequence(leaf, *x[1:]) if packed else leaf
    names, parameters = zip(*layer.named_parameters(), strict=True)
    place = 1 + names.index("weight_ih_l0")
    width = layer.hidden_size * (1 + layer.bidirectional)
    dy = torch.randn(*leaf.shape[:-1], width, generator=torch.Generator().manual_seed(1)).to(leaf.dtype)

    def forward():
        y = layer(given, **how)[0]
        return y.data if packed else y

    def inference():
        with torch.inference_mode():
            return forward()

    def training():
        return torch.autograd.grad(forward(), (leaf, *parameters), dy)[place]

    return inference, training


class Runner:
    """The variants of a cell's layer in a process of their own; own: what all of them are made with."""

    variants = VARIANTS

    def __init__(self, cell: str, own: dict[str, Any] | None = None):
        self._cell = cell
        self._own = own or {}

    def _layer(self, name: str, shape: Shape, batch: Batch) -> tuple[Any, Any, dict[str, Any]]:
        """The layer, its input, and the arguments beside it."""
        import torch

        variant = self.variants[name]
        torch.manual_seed(0)
        layer = layer_class(self._cell)(shape.I, shape.H, backend="native", **self._own, **variant.make)
        return layer, batch.packed() if variant.packed else batch.x, variant.call(batch)

    def errors(self, shape: Shape, names: list[str]) -> dict[str, float | None]:
        """Of each variant the relative error of y or of the gradient; None if the native kernels do not have it."""
        import torch

        from gatewise.errors import BackendError

        def result(call: Callable[[], Any]) -> Any:
            torch.manual_seed(0)  # for the masks
            return call()

        batch, found = Batch(shape), {}
        for name in names:
            layer, x, how = self._layer(name, shape, batch)
            exact_layer = copy.deepcopy(layer).double()
            exact_layer.backend = "reference"
            try:
                pairs = list(zip(calls(layer, x, how), calls(exact_layer, x.double(), how), strict=True))
                results = [(result(ours), result(exact)) for ours, exact in pairs if ours and exact]
            except BackendError:
                found[name] = None
                continue
            found[name] = max(float((ours - exact).abs().max() / exact.abs().max()) for ours, exact in results)
        return found

    def prepare(self, shape: Shape, names: list[str]) -> None:
        batch = Batch(shape)
        self._calls: dict[tuple[str, str], Any] = {}
        for name in names:
            for job, call in zip(JOBS, calls(*self._layer(name, shape, batch)), strict=True):
                self._calls[name, job] = call

    def time(self, name: str, job: str, seconds: float) -> float:
        return median_ms(self._calls[name, job], seconds)


def time_shape(
    runner: Contestant,
    cell: str,
    shape: Shape,
    names: list[str],
    jobs: tuple[str, ...],
    rounds: int,
    seconds: float,
    variants: dict[str, Variant] = VARIANTS,
    checked_steps: int = CHECKED_STEPS,
) -> tuple[Timings, list[str]]:
    """Job -> variant -> timing, and a line for each variant that the native kernels do not have."""
    checked = replace(shape, T=min(shape.T, checked_steps), B=min(shape.B, CHECKED_ROWS))
    errors = runner.ask("errors", checked, names)
    for name, error in errors.items():
        if error is not None and not error < TOLERANCE:
            sys.exit(f"{cell}, {name} is wrong on T, B, I, H = {checked}: relative error {error:.1e}; no figure")
    native = [name for name in names if errors[name] is not None]
    runner.ask("prepare", shape, native)
    turns = {(job, name): partial(runner.ask, "time", name, job, seconds)
             for job in jobs for name in native if job in variants[name].jobs}  # fmt: skip
    timings: Timings = {job: {} for job in jobs}
    for (job, name), timing in in_turn(turns, rounds).items():
        timings[job][name] = timing
    return timings, [f"{cell}, {name}: not native" for name in names if errors[name] is None]


def checkpointed(cell: str, every: int | None, problem: Problem, precision: str) -> Calls:
    """The layer on a problem's inputs, for growth.Point."""
    import torch

    layer = layer_class(cell)(*problem.sizes, backend="native")
    return calls(layer, torch.from_numpy(problem.x), {"checkpoint_every": every})


def memory_mb(cell: str, shape: Shape, every: int | None, threads: int) -> float:
    """What a training step takes at its peak."""
    process = Contestant(cell, partial(Point, partial(checkpointed, cell, every)), threads)
    _, mb = process.ask("measure", shape, "training", 0)
    process.stop()
    return mb


def ratio(timings: dict[str, Timing], name: str, variants: dict[str, Variant] = VARIANTS) -> float:
    """Time over that of plain calls that do the same work: median over the rounds."""
    return timings["plain"].ratio_to(timings[name]) / variants[name].plain_calls


def cell_of(timings: dict[str, Timing], name: str, variants: dict[str, Variant] = VARIANTS) -> str:
    """A place in a table: what a variant costs over plain calls, and its time."""
    if name not in timings:
        return "-"
    time = f"{timings[name].median_ms:.3f} ms ±{timings[name].spread:.0%}"
    if name == "plain":
        return time
    cost, goal = ratio(timings, name, variants), variants[name].goal
    return f"{cost:.2f}{'  misses' if goal and cost > goal else ''} ({time})"


def goal_of(name: str) -> str:
    return "" if VARIANTS[name].goal is None else f"at most {VARIANTS[name].goal}"


def show(cell: str, results: dict[Shape, Timings]) -> Table:
    """A row for each variant, a column for each shape and job."""
    columns = [(shape, job) for shape in results for job in JOBS]
    headers = [f"{shape}: {job}" for shape, job in columns]
    table = table_of(
        f"{CELLS[cell].layer}: time over that of the plain call, per T, B, I, H", "variant", "goal", *headers
    )
    for name in offered(cell):
        table.add_row(name, goal_of(name), *(cell_of(results[shape][job], name) for shape, job in columns))
    return table


def show_long(cell: str, timings: dict[Shape, dict[str, Timing]], peaks: dict[Shape, dict[str, float]]) -> Table:
    """A row for each distance of checkpoints, two columns for each shape."""
    headers = [header for shape in timings for header in (f"{shape}: training", "peak MB")]
    table = table_of(f"{CELLS[cell].layer}: long sequences, per T, B, I, H", "variant", "goal", *headers)
    for name in ("plain", *CHECKPOINTS):
        cells = [text for shape, of in timings.items() for text in (cell_of(of, name), f"{peaks[shape][name]:,.1f}")]
        table.add_row(name, goal_of(name), *cells)
    return table


def stored(timings: dict[str, Timing], variants: dict[str, Variant] = VARIANTS) -> dict[str, Any]:
    return {name: {**timing.stored(), "over plain": ratio(timings, name, variants)} for name, timing in timings.items()}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--cell", action="append", choices=list(CELLS), help="not all three; repeatable")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.05, help="length of one turn")
    for option, default in (("--shape", "not the whole list"), ("--long-shape", "the same for checkpoints and memory")):
        parser.add_argument(option, action="append", type=Shape.parse, help=f"T,B,I,H, {default}; repeatable")
    chosen = parser.parse_args()
    console = Console(width=200)

    tables, notes, results = [], [], {}
    for cell in chosen.cell or CELLS:
        runner = Contestant(cell, partial(Runner, cell), chosen.threads)
        measure = partial(time_shape, runner, cell, rounds=chosen.rounds, seconds=chosen.seconds)
        found, long, peaks = {}, {}, {}
        for shape in chosen.shape or SHAPES:
            console.print(f"{cell}: T, B, I, H = {shape} ...")
            found[shape], lacking = measure(shape, offered(cell), JOBS)
            notes += [line for line in lacking if line not in notes]
        for shape in chosen.long_shape or LONG_SHAPES:
            console.print(f"{cell}: T, B, I, H = {shape} ...")
            long[shape] = measure(shape, ["plain", *CHECKPOINTS], ("training",))[0]["training"]
            peaks[shape] = {name: memory_mb(cell, shape, every, chosen.threads)
                            for name, every in zip(("plain", *CHECKPOINTS), (None, *EVERY), strict=True)}  # fmt: skip
        runner.stop()
        tables += [show(cell, found), show_long(cell, long, peaks)]
        results[cell] = {str(shape): {job: stored(of) for job, of in jobs.items()} for shape, jobs in found.items()}
        results[cell]["long"] = {
            str(shape): {"training": stored(of), "peak_mb": peaks[shape]} for shape, of in long.items()
        }
    for table in tables:
        console.print(table)
    console.print("\n".join(notes), markup=False)
    if not chosen.no_store:
        command = f"python bench/rows.py --threads {chosen.threads} --rounds {chosen.rounds}"
        page = ("What lengths, resets, gates and checkpoints cost", command, tables, notes)
        store(chosen.results / "rows", chosen.threads, ["torch", "numpy"], results, page=page)


if __name__ == "__main__":
    main()
