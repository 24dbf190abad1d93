"""One step of a stream, from Python, against torch.nn.GRU called with one step under inference_mode.

    python bench/streaming.py [--threads 2] [--rounds 11] [--seconds 0.1] [--shape 1,64,256,1]
                              [--results DIR] [--no-store]

Each contestant runs in a process of its own; they are timed in turn, round after round, and each round gives one ratio.
Quoted are medians over the rounds, and the spread (interquartile range over median). Every contestant's states are
compared with the reference in float64 first; a contestant that is wrong is not timed.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
from rich.console import Console

from record import options, store, stored_steps, table_of_steps
from turns import Contestant, Sizes, Timing, in_turn, median_ms

STEPS = 32  # that are compared, and that are timed together


@dataclass(frozen=True)
class Shape(Sizes):
    """Rows of the batch, inputs, hidden units, layers."""

    B: int
    I: int  # noqa: E741
    H: int
    L: int


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


class Runner:
    """One contestant in a process of its own: makes the steps of a stream, times them."""

    def __init__(self, name: str):
        self._name = name

    def prepare(self, shape: Shape) -> np.ndarray:
        """The states (STEPS, B, H) after each step."""
        layer, x = problem(shape)
        x = [x_t.numpy() for x_t in x] if self._name.endswith("NumPy") else list(x)
        self._step, self._inputs = CONTESTANTS[self._name](layer, shape.B), cycle(x)
        return np.stack([self._step(x_t) for x_t in x])

    def time(self, seconds: float) -> float:
        """Milliseconds of one step."""

        def steps():
            for x_t in islice(self._inputs, STEPS):
                self._step(x_t)

        return median_ms(steps, seconds) / STEPS


def time_shape(shape: Shape, contestants: list[Contestant], rounds: int, seconds: float) -> dict[str, Timing]:
    """Contestant -> timing."""
    import torch

    layer, x = problem(shape)
    with torch.no_grad():
        exact = layer.double()(x.double())[0].numpy()
    for contestant in contestants:
        error = float(np.abs(contestant.ask("prepare", shape) - exact).max())
        if not error < TOLERANCE.get(contestant.name.split()[0], 1e-4):
            sys.exit(f"{contestant.name} is wrong on B, I, H, L = {shape}: error {error:.1e}; no figure")
    return in_turn({contestant.name: partial(contestant.ask, "time", seconds) for contestant in contestants}, rounds)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.1, help="length of one turn")
    parser.add_argument("--shape", action="append", type=Shape.parse, help="B,I,H,L, not the whole list; repeatable")
    chosen = parser.parse_args()
    console = Console(width=150)

    contestants = [Contestant(name, partial(Runner, name), chosen.threads) for name in CONTESTANTS]
    results = {}
    for shape in chosen.shape or SHAPES:
        console.print(f"B, I, H, L = {shape} ...")
        results[shape] = time_shape(shape, contestants, chosen.rounds, chosen.seconds)
    for contestant in contestants:
        contestant.stop()
    table = table_of_steps("B, I, H, L", results)
    console.print(table)
    if not chosen.no_store:
        command = f"python bench/streaming.py --threads {chosen.threads}"
        page = ("One step of a stream, from Python", command, [table], [])
        store(chosen.results / "streaming", chosen.threads, ["torch", "numpy"], stored_steps(results), page=page)


if __name__ == "__main__":
    main()
