"""One step of an exported C library, against torch.nn.GRU called with one step under inference_mode.

    python bench/c_step.py [--rounds 11] [--seconds 0.1] [--shape 64,256,1] [--results DIR] [--no-store]

The library is compiled with $CC or cc and -O3 -march=native, with -O3 alone, and, of int8 weights, with the former.
A function of C calls its step many times, so that it is timed as C calls it, not as Python does. torch has one thread.
Contestants run in processes of their own and are timed in turn, round after round, and each round gives one ratio.
Every library has passed its proof; the states of 32 steps are compared with the reference in float64 once more here.
"""

import ctypes
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from record import options, store, stored_steps, table_of_steps
from turns import Contestant, Sizes, Timing, in_turn, median_ms

STEPS = 32
TOLERANCE = {"float32": 1e-5, "int8": 3e-2}


@dataclass(frozen=True)
class Shape(Sizes):
    """Inputs, hidden units, layers."""

    I: int  # noqa: E741
    H: int
    L: int


SHAPES = [Shape(64, 256, 1), Shape(8, 16, 1), Shape(16, 64, 1), Shape(64, 128, 2), Shape(64, 512, 1)]
CONTESTANTS = {
    "torch": None,
    "C -O3 -march=native": ("float32", ["-O3", "-march=native"]),
    "C -O3": ("float32", ["-O3"]),
    "C int8 -O3 -march=native": ("int8", ["-O3", "-march=native"]),
}
TIMER = """
#include "model.h"
static model_state state;
static float outputs[{steps} * MODEL_OUTPUT_SIZE];
void begin(void) {{ model_init(&state); }}
const float *steps(const float *x) {{
    for (size_t t = 0; t < {steps}; t++)
        model_step(&state, x + t * MODEL_INPUT_SIZE, outputs + t * MODEL_OUTPUT_SIZE);
    return outputs;
}}
"""


def problem(shape: Shape) -> tuple[Any, np.ndarray]:
    """The same torch.nn.GRU in every process, and inputs (STEPS, I)."""
    import torch

    torch.manual_seed(0)
    return torch.nn.GRU(shape.I, shape.H, shape.L), torch.randn(STEPS, shape.I).numpy()


class Runner:
    """One contestant in a process of its own."""

    def __init__(self, name: str):
        self._name = name

    def prepare(self, shape: Shape) -> np.ndarray:
        """The top layer's states (STEPS, H) after each step."""
        layer, self._x = problem(shape)
        return self._prepare_torch(layer) if self._name == "torch" else self._prepare_c(layer, shape)

    def _prepare_torch(self, layer) -> np.ndarray:
        import torch

        xs = [torch.from_numpy(x).reshape(1, 1, -1) for x in self._x]

        def steps():
            state, outputs = None, []
            with torch.inference_mode():
                for x in xs:
                    y, state = layer(x, state)
                    outputs.append(y)
            return outputs

        self._steps = steps
        return np.stack([y.numpy()[0, 0] for y in steps()])

    def _prepare_c(self, layer, shape: Shape) -> np.ndarray:
        import gatewise as gw
        from gatewise.interchange.c import compilers, export_c
        from gatewise.models.sequential import SequentialNetwork

        weights, flags = CONTESTANTS[self._name] or ("float32", [])
        ours = gw.GRU(shape.I, shape.H, shape.L)
        ours.load_state_dict(layer.state_dict())
        compiler, why_not = compilers.host_compiler()
        if compiler is None:
            sys.exit(why_not)
        self._folder = tempfile.TemporaryDirectory(prefix="gatewise-")
        folder = Path(self._folder.name) / "c"
        export_c(SequentialNetwork([ours]), folder, weights=weights)  # pyright: ignore[reportArgumentType]
        (folder / "timer.c").write_text(TIMER.format(steps=STEPS))
        sources = [folder / "model.c", folder / "timer.c"]
        compiler.compile(sources, folder / "timed.so", ["-std=c99", *flags, "-shared", "-fPIC"])
        library = ctypes.CDLL(str(folder / "timed.so"))
        library.steps.restype = ctypes.POINTER(ctypes.c_float)
        x = np.ascontiguousarray(self._x).ctypes.data_as(ctypes.c_void_p)
        self._steps = partial(library.steps, x)
        library.begin()
        return np.ctypeslib.as_array(self._steps(), (STEPS, shape.H)).copy()

    def time(self, seconds: float) -> float:
        """Milliseconds of one step."""
        return median_ms(self._steps, seconds) / STEPS


def time_shape(shape: Shape, contestants: list[Contestant], rounds: int, seconds: float) -> dict[str, Timing]:
    """Contestant -> timing."""
    import torch

    layer, x = problem(shape)
    with torch.no_grad():
        exact = layer.double()(torch.from_numpy(x).double())[0].numpy()
    for contestant in contestants:
        error = float(np.abs(contestant.ask("prepare", shape) - exact).max())
        if not error < TOLERANCE["int8" if "int8" in contestant.name else "float32"]:
            sys.exit(f"{contestant.name} is wrong on I, H, L = {shape}: error {error:.1e}; no figure")
    return in_turn({contestant.name: partial(contestant.ask, "time", seconds) for contestant in contestants}, rounds)


def main() -> None:
    parser = options(__doc__, threads=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.1, help="length of one turn")
    parser.add_argument("--shape", action="append", type=Shape.parse, help="I,H,L, not the whole list; repeatable")
    chosen = parser.parse_args()
    console = Console(width=150)
    from gatewise.interchange.c import compilers

    compiler, why_not = compilers.host_compiler()
    if compiler is None:
        sys.exit(why_not)
    begun = time.time()
    contestants = [Contestant(name, partial(Runner, name), chosen.threads) for name in CONTESTANTS]
    results = {}
    for shape in chosen.shape or SHAPES:
        console.print(f"I, H, L = {shape} ...")
        results[shape] = time_shape(shape, contestants, chosen.rounds, chosen.seconds)
    for contestant in contestants:
        contestant.stop()
    table = table_of_steps("I, H, L", results)
    console.print(table, f"{compiler.version}; {time.time() - begun:.0f} s")
    if not chosen.no_store:
        page = ("One step of an exported C library", "python bench/c_step.py", [table], [compiler.version])
        store(chosen.results / "c-step", chosen.threads, ["torch", "numpy"], stored_steps(results), page=page)


if __name__ == "__main__":
    main()
