"""accelerate(): gatewise's layers in the place of torch's, inside a model that exists."""

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import nn
from torch.nn.modules.rnn import RNNBase, RNNCellBase
from torch.nn.utils.parametrize import is_parametrized

from gatewise.errors import InputError
from gatewise.kernels import ops
from gatewise.layers.cell import RecurrentCell
from gatewise.layers.gru import GRU, GRUCell
from gatewise.layers.lstm import LSTM, LSTMCell
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.layers.rnn import RNN, RNNCell

# torch's class: ours, which has the same attributes and computes the same
_SERVED: dict[type[nn.Module], type[nn.Module]] = {
    nn.GRU: GRU,
    nn.LSTM: LSTM,
    nn.RNN: RNN,
    nn.GRUCell: GRUCell,
    nn.LSTMCell: LSTMCell,
    nn.RNNCell: RNNCell,
}
_RECURRENT = {kind.__name__ for kind in _SERVED}


@dataclass(repr=False)
class Acceleration:
    """What accelerate() did to a model, and the way back: undo(), or the end of a `with` block.

    swapped: the names of the modules that gatewise computes now, as in model.named_modules(); "" is the model itself.
    left: the names of the other recurrent modules, each with the reason why it was left as it is.
    """

    swapped: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    _undoable: list[tuple[str, nn.Module, type[nn.Module]]] = field(default_factory=list)

    def undo(self) -> None:
        """Give every swapped module its class back; parameters, hooks and all else stay as they are now.

        Harmless when repeated. A copy of the model that was made meanwhile stays accelerated. Raises InputError if
        something else has changed a module's class since; the others are restored.
        """
        stuck = []
        for name, module, theirs in self._undoable:
            if _change_class(module, _SERVED[theirs], theirs):
                del module.backend
            else:
                stuck.append((name, module, theirs))
        self._undoable = stuck
        if stuck:
            name, module, theirs = stuck[0]
            raise InputError(
                f"undo: cannot restore {name or 'the model itself'}: expected it to be a {_SERVED[theirs].__name__} of "
                f"gatewise, but its class has become {type(module).__qualname__} since; reverse that, then undo again"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        """One line on what was swapped, and one for each reason to leave modules."""
        names_by_reason: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            names_by_reason.setdefault(reason, []).append(name)
        lines = [f"swapped {_enumerate(self.swapped)}"]
        lines += [f"left {_enumerate(names)}: {reason}" for reason, names in names_by_reason.items()]
        return "\n".join(lines)


def accelerate(model: nn.Module, *, backend: str = "auto") -> Acceleration:
    """Let gatewise compute every GRU, LSTM and RNN of torch.nn in a model, and their cells, in place; says what it did.

    The modules stay the same objects with the same parameters, so that optimizers, tied weights, hooks, state dicts
    and torch's checkpoints keep working. What asks for torch's classes themselves (torch.jit.script, quantization,
    isinstance) no longer finds them: let it do so before, or after undo(). A model pickled whole, rather than by its
    state dict, needs gatewise to load.

    backend: "auto", or the one to insist on, as in gatewise.GRU.
    Raises InputError if model is not a module or backend is unknown; the model is then unchanged.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"accelerate: expected model to be a torch.nn.Module, got {type(model).__name__}")
    if backend not in ops.BACKENDS:
        raise InputError(f"accelerate: unknown backend {backend!r}; expected one of {', '.join(ops.BACKENDS)}")

    done = Acceleration()
    for name, module in model.named_modules():
        theirs = next((kind for kind in _SERVED if isinstance(module, kind)), None)
        if theirs and "forward" not in vars(module) and _change_class(module, theirs, _SERVED[theirs]):
            vars(module)["backend"] = backend
            done.swapped.append(name)
            done._undoable.append((name, module, theirs))
        elif reason := _why_left(module):
            done.left[name] = reason
    return done


def _change_class(module: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> bool:
    """Turn a module of class old into one of class new; False if its class is another."""
    # The object stays and its class changes: old and new derive from the same base and differ in what they compute,
    # not in what they store. Everything that refers to the module or its parameters is right by construction, also
    # where it cannot be found: the caller's own variable for the root, an optimizer, a hook's closure. A new object
    # in the old one's place would have to be brought to all of them, and taken back by undo. Dynamo guards on the
    # class and compiles anew.
    kind = type(module)
    if kind is old:
        module.__class__ = new
    elif is_parametrized(module) and kind.__bases__ == (old,):  # torch made this class, for this one object
        module.__class__ = type(kind.__name__, (new,), dict(vars(kind)))
    else:
        return False
    return True


def _why_left(module: nn.Module) -> str | None:
    """Why a recurrent module cannot be swapped; None if it is not recurrent."""
    kind = type(module)
    name = kind.__name__
    if isinstance(module, RecurrentLayer | RecurrentCell):
        return f"computed by gatewise already, with backend {module.backend!r}"
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted, its code is fixed" if module.original_name in _RECURRENT else None
    if kind.__module__.startswith("torch.ao.nn.quant"):
        return "quantized" if name in _RECURRENT else None
    if isinstance(module, tuple(_SERVED)):
        own = "its forward was replaced" if "forward" in vars(module) else f"{name} is a subclass of torch's"
        return f"{own} and may compute something else"
    return f"{name} is none of torch's layers" if isinstance(module, RNNBase | RNNCellBase) else None


def _enumerate(names: list[str]) -> str:
    shown = ", ".join(name or "the model itself" for name in names)
    return f"{len(names)} ({shown})" if names else "nothing"
