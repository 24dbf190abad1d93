"""The layers that are timed, and the matrix product that they are measured by.

A contestant takes torch's weights, so that all compute the same function.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from turns import Sizes, median_ms

JOBS = ("inference", "training")


@dataclass(frozen=True)
class Cell:
    """How the contestants call a cell: "gru", "lstm" or "rnn"."""

    layer: str  # the layer's name in torch.nn, in gatewise and among ONNX's operators
    gates: int  # blocks of H rows that the weights have
    states: int  # h, or h and c
    onnx_order: tuple[int, ...]  # where each of ONNX's blocks is among torch's
    onnx_options: dict[str, int]
    definition: str  # its name in gatewise.kernels.reference
    results: str  # how the names of its results begin


CELLS = {
    "gru": Cell("GRU", 3, 1, (1, 0, 2), {"linear_before_reset": 1}, "gru_after", "layers"),  # z, r, n of r, z, n
    "lstm": Cell("LSTM", 4, 2, (0, 3, 1, 2), {}, "lstm", "layers-lstm"),  # i, o, f, g of i, f, g, o
    "rnn": Cell("RNN", 1, 1, (0,), {}, "rnn_tanh", "layers-rnn"),
}


@dataclass(frozen=True)
class Shape(Sizes):
    """Steps, rows of the batch, inputs, hidden units."""

    T: int
    B: int
    I: int  # noqa: E741
    H: int

    def flop(self, job: str, gates: int) -> int:
        """Operations of the matrix products of a layer; training has three times those of inference."""
        return 2 * self.T * self.B * gates * self.H * (self.I + self.H) * (1 if job == "inference" else 3)


def representable(array: np.ndarray, precision: str) -> np.ndarray:
    """The float32 array, in bf16 with each number rounded to the nearest that bfloat16 has (ties to even)."""
    if precision == "float32":
        return array
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@dataclass(frozen=True)
class Problem:
    """What all contestants compute, as float32 arrays: inputs, weights as torch keeps them, gradient of the output."""

    cell: Cell
    x: np.ndarray  # (T, B, I)
    dy: np.ndarray  # (T, B, H)
    weight_ih: np.ndarray  # (GH, I), of G gates
    weight_hh: np.ndarray  # (GH, H)
    bias_ih: np.ndarray  # (GH,)
    bias_hh: np.ndarray  # (GH,)

    @classmethod
    def of(cls, shape: Shape, precision: str = "float32", cell: str = "gru") -> "Problem":
        """The problem of a shape, with numbers that the precision can represent."""
        draw = np.random.default_rng(0)
        rows = CELLS[cell].gates * shape.H

        def normal(*size: int) -> np.ndarray:
            return representable(draw.standard_normal(size, np.float32), precision)

        def uniform(*size: int) -> np.ndarray:
            return representable((2 * draw.random(size, np.float32) - 1) * np.float32(shape.H**-0.5), precision)

        x, dy = normal(shape.T, shape.B, shape.I), normal(shape.T, shape.B, shape.H)
        weights = uniform(rows, shape.I), uniform(rows, shape.H), uniform(rows), uniform(rows)
        return cls(CELLS[cell], x, dy, *weights)

    @property
    def sizes(self) -> tuple[int, int]:
        """Inputs and hidden units."""
        return self.x.shape[2], self.dy.shape[2]


# What a contestant offers for a problem: inference() -> y, and training() -> the gradient of weight_ih, or None.
Calls = tuple[Callable[[], Any], Callable[[], Any] | None]


def _torch_dtype(precision: str):
    import torch

    return {"float32": torch.float32, "bf16": torch.bfloat16}[precision]


def _torch_calls(layer, problem: Problem, precision: str) -> Calls:
    import torch

    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(layer, f"{name}_l0").copy_(torch.from_numpy(getattr(problem, name)))
    layer = layer.to(_torch_dtype(precision))
    x, dy = (torch.from_numpy(array).to(_torch_dtype(precision)) for array in (problem.x, problem.dy))
    x_trained = x.clone().requires_grad_()
    sources = [x_trained, *layer.parameters()]

    def inference():
        with torch.inference_mode():
            return layer(x)[0]

    def training():
        return torch.autograd.grad(layer(x_trained)[0], sources, dy)[1]

    return inference, training


def gatewise(problem: Problem, precision: str) -> Calls:
    """gw.GRU, gw.LSTM or gw.RNN."""
    import gatewise as gw

    return _torch_calls(getattr(gw, problem.cell.layer)(*problem.sizes, backend="native"), problem, precision)


def gatewise_before(problem: Problem, precision: str) -> Calls:
    """gw.GRU with reset="before"."""
    import gatewise as gw

    return _torch_calls(gw.GRU(*problem.sizes, reset="before", backend="native"), problem, precision)


def torch(problem: Problem, precision: str) -> Calls:
    """torch.nn.GRU, torch.nn.LSTM or torch.nn.RNN."""
    import torch

    return _torch_calls(getattr(torch.nn, problem.cell.layer)(*problem.sizes), problem, precision)


def onnxruntime(problem: Problem, precision: str) -> Calls:
    """The operator of ONNX Runtime: inference in float32 only."""
    import onnx
    import onnxruntime as ort

    cell = problem.cell

    def ordered(rows: np.ndarray) -> np.ndarray:
        blocks = np.split(rows, cell.gates)
        return np.concatenate([blocks[gate] for gate in cell.onnx_order])[None]

    arrays = {
        "W": ordered(problem.weight_ih),
        "R": ordered(problem.weight_hh),
        "B": np.concatenate([ordered(problem.bias_ih), ordered(problem.bias_hh)], 1),
    }
    hidden_size = problem.dy.shape[2]
    options = {"hidden_size": hidden_size, **cell.onnx_options}
    node = onnx.helper.make_node(cell.layer, ["x", "W", "R", "B"], ["y"], **options)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "layer",
        [value("x", onnx.TensorProto.FLOAT, problem.x.shape)],
        [value("y", onnx.TensorProto.FLOAT, (problem.x.shape[0], 1, problem.x.shape[1], hidden_size))],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    threads = ort.SessionOptions()
    threads.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = ort.InferenceSession(model.SerializeToString(), threads, providers=["CPUExecutionProvider"])
    return lambda: np.asarray(session.run(None, {"x": problem.x})[0])[:, 0], None


def jax(problem: Problem, precision: str) -> Calls:
    """A jitted scan in JAX."""
    import jax
    import jax.numpy as jnp

    def gru(x, past, h):
        x_r, x_z, x_n = jnp.split(x, 3, -1)
        h_r, h_z, h_n = jnp.split(past, 3, -1)
        r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
        n = jnp.tanh(x_n + r * h_n)
        return (n + z * (h - n),)

    def lstm(x, past, h, c):
        i, f, g, o = jnp.split(x + past, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    def rnn(x, past, h):
        return (jnp.tanh(x + past),)

    new_states = {"GRU": gru, "LSTM": lstm, "RNN": rnn}[problem.cell.layer]
    dtype = {"float32": jnp.float32, "bf16": jnp.bfloat16}[precision]
    names = ("x", "dy", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
    x, dy, *weights = (jnp.asarray(getattr(problem, name), dtype) for name in names)

    def states(x, weight_ih, weight_hh, bias_ih, bias_hh):
        def step(states, projected):
            states = new_states(projected, states[0] @ weight_hh.T + bias_hh, *states)
            return states, states[0]

        first = (jnp.zeros(dy.shape[1:], dtype),) * problem.cell.states
        return jax.lax.scan(step, first, x @ weight_ih.T + bias_ih)[1]

    infer = jax.jit(states)
    train = jax.jit(jax.grad(lambda *arrays: (states(*arrays) * dy).sum(), argnums=(0, 1, 2, 3, 4)))

    def inference():
        return infer(x, *weights).block_until_ready()

    def training():
        return jax.block_until_ready(train(x, *weights))[1]

    return inference, training


def gemm(problem: Problem, precision: str) -> Calls:
    """torch.mm of two matrices of 1024 x 1024, whatever the problem: the rate at which this machine multiplies."""
    import torch

    draw = np.random.default_rng(0)
    a, b = (torch.from_numpy(draw.standard_normal((1024, 1024), np.float32)) for _ in range(2))
    a, b = a.to(_torch_dtype(precision)), b.to(_torch_dtype(precision))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out), None


GEMM_FLOP = 2 * 1024**3
Layer = Callable[[Problem, str], Calls]
CONTESTANTS: dict[str, dict[str, tuple[Layer, str]]] = {
    "float32": {f.__name__: (f, "float32") for f in (gatewise, gatewise_before, torch, onnxruntime, jax)},
    "bf16": {
        **{f"{f.__name__} bf16": (f, "bf16") for f in (gatewise, gatewise_before, torch, jax)},
        "gatewise float32": (gatewise, "float32"),
    },
}
NOT_OFFERED = {"float32": [], "bf16": ["onnxruntime: not offered (its operators have no bfloat16 on the CPU)"]}
NEEDS = {"onnxruntime": ("onnx", "onnxruntime"), "jax": ("jax",)}


class Runner:
    """One contestant in a process of its own: sets a problem up, computes it, times it."""

    def __init__(self, layer: Layer, precision: str, problems: str, cell: str = "gru"):
        self._layer, self._precision, self._problems, self._cell = layer, precision, problems, cell

    def prepare(self, shape: Shape) -> None:
        calls = self._layer(Problem.of(shape, self._problems, self._cell), self._precision)
        self._calls: dict[str, Callable[[], Any] | None] = dict(zip(JOBS, calls, strict=True))

    def results(self) -> dict[str, np.ndarray]:
        """Job -> y or the gradient of weight_ih, for the jobs that the contestant offers."""
        found = {job: call() for job, call in self._calls.items() if call}
        return {
            job: array.float().numpy() if hasattr(array, "float") else np.asarray(array).astype(np.float32)
            for job, array in found.items()
        }

    def time(self, job: str, seconds: float, with_waits: bool = False) -> float:
        call = self._calls[job]
        assert call is not None
        return median_ms(call, seconds, with_waits=with_waits)
