"""Networks from modules of torch that are in memory."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.errors import InputError
from gatewise.layers.accelerate import accelerate
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.models.sequential import Pooling, SequentialNetwork

_STEPS, _BATCH = 5, 3  # of the sequences on which a module is compared with the chain of its layers
_POOLING = ("last", "mean", "max")


def network(module: nn.Module | Sequence[nn.Module]) -> SequentialNetwork:
    """The chain of layers that a module is, with copies of its weights in float32, in eval mode.

    module: one recurrent layer; layers in the order in which they are computed, as a list or nn.Sequential; or a module
        whose attributes are layers, in the order in which it computes them. That a module with a forward of its own
        computes just this chain, or it with the steps pooled after the last recurrent layer, is tried out on random
        inputs.

    Raises InputError: an unknown layer, an option of a layer that has no place here, or a module that computes
    something else than the chain of its layers.
    """
    as_sequential: Callable[[], SequentialNetwork] | None = getattr(module, "as_sequential", None)
    if as_sequential is not None:
        layers = as_sequential().layers  # copied one by one, so that weights that were shared are no longer
        return SequentialNetwork([copy.deepcopy(layer) for layer in layers]).float().eval()
    chain = SequentialNetwork([_known(layer) for layer in _leaves(module)]).cpu().float().eval()
    if not isinstance(module, nn.Module) or isinstance(module, nn.Sequential) or not list(module.children()):
        return chain
    return _tried(module, chain)


def _leaves(module: nn.Module | Sequence[nn.Module]) -> Iterator[nn.Module]:
    """The layers of a module, in order."""
    children = list(module.children()) if isinstance(module, nn.Module) else list(module)
    if isinstance(module, nn.Module) and not children:
        yield module
    for child in children:
        yield from _leaves(child)


def _known(layer: nn.Module) -> nn.Module:
    """A copy of the layer, a recurrent one as gatewise's, time first. InputError for options without a place."""
    name = type(layer).__name__
    layer = copy.deepcopy(layer)
    if isinstance(layer, nn.RNNBase):
        accelerate(layer)
        if not isinstance(layer, RecurrentLayer):
            raise InputError(f"import: {name} cannot be carried: {layer}")
        layer.batch_first = False  # a network is time first; its weights do not depend on it
    if isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.sparse):
        raise InputError("import: Embedding with max_norm or sparse cannot be carried to other libraries")
    if isinstance(layer, nn.Softmax | nn.LogSoftmax) and layer.dim not in (-1, 2):
        raise InputError(f"import: {name}(dim={layer.dim}) cannot be carried; only dim=-1, the features, can")
    return layer


@torch.no_grad()
def _tried(module: nn.Module, chain: SequentialNetwork) -> SequentialNetwork:
    """The chain, with a pooling layer if the module has one. InputError unless it computes what the module does."""
    reference = chain.reference()
    original = copy.deepcopy(module).cpu().float().double().eval()
    batch_first = any(getattr(layer, "batch_first", False) for layer in original.modules())
    random = torch.Generator().manual_seed(0)
    x: Tensor
    if chain.reads_tokens:
        x = torch.randint(chain.input_size, (_STEPS, _BATCH), generator=random)
    else:
        x = torch.randn(_STEPS, _BATCH, chain.input_size, generator=random, dtype=torch.float64)
    try:
        given = original(x.transpose(0, 1) if batch_first else x)
    except Exception as error:
        raise InputError(
            f"import: {type(module).__name__} cannot be tried out on one batch of sequences ({error}); give its layers "
            f"in the order in which they are computed, as a list"
        ) from error
    given = given[0] if isinstance(given, tuple) else given
    for make in (lambda layers: layers, *(_pooled(pooling) for pooling in _POOLING)):
        tried = SequentialNetwork(make(list(reference.layers)))
        y, _ = tried(x)
        y = y.transpose(0, 1) if batch_first and not tried.pools else y
        if isinstance(given, Tensor) and y.shape == given.shape and torch.allclose(y, given, rtol=1e-6, atol=1e-9):
            return SequentialNetwork(make(list(chain.layers))).eval()
    names = ", ".join(type(layer).__name__ for layer in chain.layers)
    raise InputError(
        f"import: {type(module).__name__} computes something else than its layers one after another ({names}), also "
        f"with the last step, the mean or the maximum taken before the layers after the recurrent ones. If there is a "
        f"chain of layers that does what it does, give that as a list"
    )


def _pooled(pooling: Any) -> Callable[[list[nn.Module]], list[nn.Module]]:
    """Puts a pooling layer after the last recurrent one."""

    def insert(layers: list[nn.Module]) -> list[nn.Module]:
        last = max((i for i, layer in enumerate(layers) if isinstance(layer, RecurrentLayer)), default=-1)
        return [*layers[: last + 1], Pooling(pooling), *layers[last + 1 :]]

    return insert
