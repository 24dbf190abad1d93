"""One step of a stream, from Python, against torch.nn.GRU called with one step under inference_mode.

    python bench/streaming.py [--threads 2] [--rounds 15] [--seconds 0.1] [--shape 1,64,256,1] [--no-store]

Each contestant runs in a process of its own; they are timed in turn, round after round, and each round gives one ratio.
Quoted are medians over the rounds, and the spread (interquartile range over median). Every contestant's states are
compared with the reference in float64 first; a contestant that is wrong is not timed.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from layers import Timing
from machine import RESULTS, conditions

STEPS = 32  # that are compared, and that are timed together


@dataclass(frozen=True)
class Shape:
    """Rows of the batch, inputs, hidden units, layers."""

    B: int
    I: int  # noqa: E741
    H: int
    L: int

    def __str__(self) -> str:
        return f"{self.B}, {self.I}, {self.H}, {self.L}"


SHAPES = [
    Shape(1, 64, 256, 1),
    Shape(1, 16, 64, 1),
    Shape(1, 64, 128, 1),
    Shape(1, 63, 255, 1),
    Shape(1, 256, 256, 1),
    Shape(1, 64, 512, 1),
    Shape(1, 64, 1024, 1),
    Shape(1, 64, 256, 3),
    Shape(4, 64, 256, 1),
    Shape(16, 64, 256, 1),
]
TOLERANCE = {"int8": 2e-2}  # 1e-4 in float32
Step = Callable[[Any], Any]


def problem(shape: Shape) -> tuple[Any, Any]:
    """The same torch.nn.GRU in every process, and inputs (STEPS, B, I)."""
    import torch

    torch.manual_seed(0)
    return torch.nn.GRU(shape.I, shape.H, shape.L), torch.randn(STEPS, shape.B, shape.I)


def torch_step(layer, batch_size: int) -> Step:
    import torch

    state = torch.zeros(layer.num_layers, batch_size, layer.hidden_size)

    def step(x_t):
        nonlocal state
        with torch.inference_mode():
            y, state = layer(x_t.unsqueeze(0), state)
        return y[0]

    return step


def gatewise_step(layer, batch_size: int, weights: str) -> Step:
    import gatewise as gw

    ours = gw.GRU(layer.input_size, layer.hidden_size, layer.num_layers, backend="native")
    ours.load_state_dict(layer.state_dict())
    return ours.stream(batch_size, weights=weights)  # pyright: ignore[reportArgumentType]


CONTESTANTS: dict[str, Callable[[Any, int], Step]] = {
    "torch": torch_step,
    "float32": lambda layer, batch_size: gatewise_step(layer, batch_size, "float32"),
    "float32 NumPy": lambda layer, batch_size: gatewise_step(layer, batch_size, "float32"),
    "int8": lambda layer, batch_size: gatewise_step(layer, batch_size, "int8"),
    "int8 NumPy": lambda layer, batch_size: gatewise_step(layer, batch_size, "int8"),
}


def serve(name: str, threads: int, connection) -> None:
    """Answer ("prepare", shape) with the states, and ("time", seconds) with the microseconds of a step."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    step: Step | None = None
    inputs = cycle([0])
    while (request := connection.recv()) is not None:
        if request[0] == "prepare":
            layer, x = problem(request[1])
            x = [x_t.numpy() for x_t in x] if name.endswith("NumPy") else list(x)
            step, inputs = CONTESTANTS[name](layer, request[1].B), cycle(x)
            connection.send(np.stack([step(x_t) for x_t in x]))
            continue
        assert step is not None
        samples_us, end = [], time.perf_counter() + request[1]
        while time.perf_counter() < end:
            batch = list(islice(inputs, STEPS))
            begin = time.perf_counter()
            for x_t in batch:
                step(x_t)
            samples_us.append((time.perf_counter() - begin) * 1e6 / STEPS)
        connection.send(statistics.median(samples_us))


class Contestant:
    """A process that makes one contestant's steps when it is asked to."""

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


def time_shape(shape: Shape, contestants: list[Contestant], rounds: int, seconds: float) -> dict[str, Timing]:
    """contestant -> timing, in microseconds."""
    import torch

    layer, x = problem(shape)
    with torch.no_grad():
        exact = layer.double()(x.double())[0].numpy()
    for contestant in contestants:
        error = float(np.abs(contestant.ask("prepare", shape) - exact).max())
        if not error < TOLERANCE.get(contestant.name.split()[0], 1e-4):
            sys.exit(f"{contestant.name} is wrong on B, I, H, L = {shape}: error {error:.1e}; no figure")
    timings = {contestant.name: Timing() for contestant in contestants}
    for _ in range(rounds):
        for contestant in contestants:
            timings[contestant.name].rounds_ms.append(contestant.ask("time", seconds) / 1e3)
    return timings


def show(results: dict[Shape, dict[str, Timing]]) -> Table:
    """Median and spread of each contestant, and how many times as long torch takes."""
    table = Table(title="one step: us, spread in %, and torch's time over it", title_justify="left")
    table.add_column("B, I, H, L")
    for name in CONTESTANTS:
        table.add_column(name, justify="right")
    for shape, timings in results.items():
        cells = []
        for timing in timings.values():
            ratio = timing.ratio_to(timings["torch"])
            times = "" if timing is timings["torch"] else f"  {ratio:.1f}x{' loses' if ratio < 1 else ''}"
            cells.append(f"{timing.median_ms * 1e3:.1f} ±{timing.spread:.0%}{times}")
        table.add_row(str(shape), *cells)
    return table


def store(results: dict[Shape, dict[str, Timing]], threads: int) -> None:
    """Write results/streaming.json."""
    measured = [
        {
            **asdict(shape),
            "median_us": {name: timing.median_ms * 1e3 for name, timing in timings.items()},
            "spread": {name: timing.spread for name, timing in timings.items()},
            "ratio_to_torch": {name: timing.ratio_to(timings["torch"]) for name, timing in timings.items()},
        }
        for shape, timings in results.items()
    ]
    RESULTS.mkdir(exist_ok=True)
    stored = {"conditions": conditions(threads, ["torch", "numpy"]), "results": measured}
    (RESULTS / "streaming.json").write_text(json.dumps(stored, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.1, help="length of one turn")
    parser.add_argument("--shape", action="append", help="B,I,H,L instead of the whole list; may be repeated")
    parser.add_argument("--no-store", action="store_true", help="do not write bench/results")
    options = parser.parse_args()
    shapes = [Shape(*map(int, text.split(","))) for text in options.shape] if options.shape else SHAPES
    console = Console(width=150)

    contestants = [Contestant(name, options.threads) for name in CONTESTANTS]
    results = {}
    for shape in shapes:
        console.print(f"B, I, H, L = {shape} ...")
        results[shape] = time_shape(shape, contestants, options.rounds, options.seconds)
    for contestant in contestants:
        contestant.stop()
    console.print(show(results))
    if not options.no_store:
        store(results, options.threads)


if __name__ == "__main__":
    main()
