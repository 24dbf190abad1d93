"""The layers that are timed: each in a process of its own, so that no contestant's threads disturb another's.

A contestant takes torch's weights, so that all compute the same function; it is checked against the float64 reference
before it is timed.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Shape:
    """Steps, rows of the batch, inputs, hidden units."""

    T: int
    B: int
    I: int  # noqa: E741
    H: int

    def __str__(self) -> str:
        return f"{self.T}, {self.B}, {self.I}, {self.H}"


@dataclass(frozen=True)
class Problem:
    """What all contestants compute, as float32 arrays: inputs, weights as torch keeps them, gradient of the output."""

    x: np.ndarray  # (T, B, I)
    dy: np.ndarray  # (T, B, H)
    weight_ih: np.ndarray  # (3H, I)
    weight_hh: np.ndarray  # (3H, H)
    bias_ih: np.ndarray  # (3H,)
    bias_hh: np.ndarray  # (3H,)

    @classmethod
    def of(cls, shape: Shape) -> "Problem":
        draw = np.random.default_rng(0)
        bound = shape.H**-0.5
        rows = 3 * shape.H

        def uniform(*size: int) -> np.ndarray:
            return draw.uniform(-bound, bound, size).astype(np.float32)

        x = draw.standard_normal((shape.T, shape.B, shape.I)).astype(np.float32)
        dy = draw.standard_normal((shape.T, shape.B, shape.H)).astype(np.float32)
        return cls(x, dy, uniform(rows, shape.I), uniform(rows, shape.H), uniform(rows), uniform(rows))


# What a contestant offers for a problem: inference() -> y, and training() -> the gradient of weight_ih, or None.
Calls = tuple[Callable[[], Any], Callable[[], Any] | None]


def _torch_calls(layer, problem: Problem) -> Calls:
    import torch

    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(layer, f"{name}_l0").copy_(torch.from_numpy(getattr(problem, name)))
    x, dy = torch.from_numpy(problem.x), torch.from_numpy(problem.dy)
    x_trained = x.clone().requires_grad_()
    sources = [x_trained, *layer.parameters()]

    def inference():
        with torch.inference_mode():
            return layer(x)[0].numpy()

    def training():
        return torch.autograd.grad(layer(x_trained)[0], sources, dy)[1].numpy()

    return inference, training


def gatewise(problem: Problem) -> Calls:
    """gw.GRU."""
    import gatewise as gw

    return _torch_calls(gw.GRU(problem.x.shape[2], problem.dy.shape[2], backend="native"), problem)


def gatewise_before(problem: Problem) -> Calls:
    """gw.GRU with reset="before"."""
    import gatewise as gw

    return _torch_calls(gw.GRU(problem.x.shape[2], problem.dy.shape[2], reset="before", backend="native"), problem)


def torch(problem: Problem) -> Calls:
    """torch.nn.GRU."""
    import torch

    return _torch_calls(torch.nn.GRU(problem.x.shape[2], problem.dy.shape[2]), problem)


def onnxruntime(problem: Problem) -> Calls:
    """The GRU operator of ONNX Runtime (inference only)."""
    import onnx
    import onnxruntime as ort

    def zrn(rows: np.ndarray) -> np.ndarray:
        r, z, n = np.split(rows, 3)
        return np.concatenate([z, r, n])[None]

    arrays = {
        "W": zrn(problem.weight_ih),
        "R": zrn(problem.weight_hh),
        "B": np.concatenate([zrn(problem.bias_ih), zrn(problem.bias_hh)], 1),
    }
    hidden_size = problem.dy.shape[2]
    node = onnx.helper.make_node("GRU", ["x", "W", "R", "B"], ["y"], hidden_size=hidden_size, linear_before_reset=1)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "gru",
        [value("x", onnx.TensorProto.FLOAT, problem.x.shape)],
        [value("y", onnx.TensorProto.FLOAT, (problem.x.shape[0], 1, problem.x.shape[1], hidden_size))],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: np.asarray(session.run(None, {"x": problem.x})[0])[:, 0], None


def jax(problem: Problem) -> Calls:
    """A jitted scan in JAX."""
    import jax
    import jax.numpy as jnp

    weights = tuple(map(jnp.asarray, (problem.weight_ih, problem.weight_hh, problem.bias_ih, problem.bias_hh)))
    x, dy = jnp.asarray(problem.x), jnp.asarray(problem.dy)

    def states(x, weight_ih, weight_hh, bias_ih, bias_hh):
        def step(h, projected):
            x_r, x_z, x_n = jnp.split(projected, 3, -1)
            h_r, h_z, h_n = jnp.split(h @ weight_hh.T + bias_hh, 3, -1)
            r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
            n = jnp.tanh(x_n + r * h_n)
            h = n + z * (h - n)
            return h, h

        return jax.lax.scan(step, jnp.zeros(dy.shape[1:]), x @ weight_ih.T + bias_ih)[1]

    infer = jax.jit(states)
    train = jax.jit(jax.grad(lambda *arrays: (states(*arrays) * dy).sum(), argnums=(0, 1, 2, 3, 4)))

    def inference():
        return np.asarray(infer(x, *weights).block_until_ready())

    def training():
        return np.asarray(jax.block_until_ready(train(x, *weights))[1])

    return inference, training


CONTESTANTS = {f.__name__: f for f in (gatewise, gatewise_before, torch, onnxruntime, jax)}
NEEDS = {"onnxruntime": ("onnx", "onnxruntime"), "jax": ("jax",)}


def _samples(call: Callable[[], Any], seconds: float) -> list[float]:
    """Milliseconds of each call within a turn, without those during which the process had to wait for a core."""
    import resource

    time.sleep(
        0.1
    )  # the threads of the one before may still spin: what came first after ONNX Runtime took twice as long
    call()
    calm, waited, end = [], [], time.perf_counter() + seconds
    while len(calm) + len(waited) < 2 or time.perf_counter() < end:
        switches, begin = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, time.perf_counter()
        call()
        took_ms = (time.perf_counter() - begin) * 1e3
        disturbed = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw > switches
        (waited if disturbed else calm).append(took_ms)
    return calm or waited


def serve(name: str, threads: int, connection) -> None:
    """Answer the requests of the bench in a process of one's own: ("prepare", shape), ("time", job, seconds)."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    if hasattr(os, "sched_setaffinity"):  # XLA's pool has no other knob
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    calls: Calls | None = None
    while (request := connection.recv()) is not None:
        if request[0] == "prepare":
            calls = CONTESTANTS[name](Problem.of(request[1]))
            connection.send([None if call is None else call() for call in calls])
            continue
        assert calls is not None
        call = calls[("inference", "training").index(request[1])]
        connection.send(None if call is None else _samples(call, request[2]))
