"""The native kernel after a fork, in DataLoader's workers, and the memory that it keeps and gives back."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

import gatewise as gw
from gatewise.kernels import ops

pytestmark = pytest.mark.skipif(not ops.native_status().available, reason=str(ops.native_status().reason))


def gradients(layer: gw.GRU) -> list[torch.Tensor]:
    torch.manual_seed(1)
    y, _ = layer(torch.randn(40, 8, 40))  # few enough numbers that torch's own operations need no threads, either
    return list(torch.autograd.grad(y.square().sum(), list(layer.parameters())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_after_a_fork():
    """OpenMP's threads do not follow into the child, which computes all the same, forward and backward."""
    layer = gw.GRU(40, 96, backend="native")
    expected = gradients(layer)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        close = [torch.allclose(a, b, atol=1e-4) for a, b in zip(gradients(layer), expected, strict=True)]
        os._exit(0 if all(close) else 1)
    assert os.waitpid(child, 0)[1] == 0
    for after, before in zip(gradients(layer), expected, strict=True):
        assert torch.equal(after, before)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_workers_of_a_data_loader(method):
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    layer = gw.GRU(40, 96, backend="native").requires_grad_(False)
    inputs = list(torch.randn(6, 50, 8, 40))
    loader = DataLoader(
        inputs,  # pyright: ignore[reportArgumentType]
        batch_size=None,
        collate_fn=layer,
        num_workers=2,
        multiprocessing_context=method,
    )
    for x, (y, _) in zip(inputs, loader, strict=True):
        torch.testing.assert_close(y, layer(x)[0])


GROWTH = """
import gc
import torch
import gatewise as gw

def resident_mb():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 2**20

def train(layer, x):
    layer(x)[0].sum().backward()

small, large = gw.GRU(8, 16, backend="native"), gw.GRU(256, 512, backend="native")
train(small, torch.randn(3, 2, 8))
before = resident_mb()
x = torch.randn(100, 64, 256)
train(large, x)
with torch.no_grad():
    large(x)
del x, large
gc.collect()
kept = resident_mb() - before
gw.release_memory()
print(kept, resident_mb() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads resident memory from /proc")
def test_memory_is_given_back_on_request():
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    kept_mb, left_mb = map(float, done.stdout.split())
    assert kept_mb > 60  # the saved gates of 6,400 rows, 52 MB, and the weights of a workspace
    assert left_mb < kept_mb - 50
