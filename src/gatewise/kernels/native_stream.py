"""The native step for streams: a stack of layers with its state, one step a call, without autograd and dispatch.

Importing this module fails with ImportError where the package was installed without a compiler.
"""

from collections.abc import Mapping

from torch import Tensor

from gatewise.kernels import _native, native_calls

MOST_INT8_INPUTS = 65_536  # of a row: int32 holds the sum of that many products of bytes

most_threads = native_calls.most_threads


def open_stream(
    parameters: Mapping[str, Tensor | None],
    names: list[str | None],
    sizes: tuple[int, int, int, int],
    *,
    reset: str,
    int8: bool,
    instruction_set: str | None = None,
) -> _native.Stream:
    """A stream over a stack of layers, its state zeros.

    parameters: the dict in which the layer keeps them: contiguous float32 on the CPU.
    sizes: L, B, I, H.
    names: of each layer weight_ih (3H, I), weight_hh (3H, H), bias_ih (3H,), bias_hh (3H,), one after another; None
        where there is no bias.
    instruction_set: one of `_native.stream_instruction_sets()`; if None the best of those that gru() may use, too.
    """
    name = instruction_set or native_calls.float32_instruction_set()
    return _native.Stream(name, *sizes, reset == "before", int8, parameters, names)
