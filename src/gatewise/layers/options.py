"""The options of layers and cells that torch's lack: what they may be, and how repr shows them."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from gatewise.errors import InputError
from gatewise.kernels import arguments


def check_choice(layer: str, name: str, value: str, known: Sequence[str]) -> str:
    """The value; InputError unless it is one of the known ones."""
    if value not in known:
        raise InputError(f"{layer}: unknown {name} {value!r}; expected one of {', '.join(known)}")
    return value


def check_flag(layer: str, name: str, value: bool) -> bool:
    """The value; InputError unless it is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{layer}: expected {name} to be True or False, got {type(value).__name__}")
    return value


def check_probability(layer: str, name: str, value: Any, meaning: str) -> float:
    """The value as a float; InputError unless it is a number from 0 to 1."""
    if not arguments.is_probability(value):
        raise InputError(f"{layer}: expected {name} to be a number from 0 to 1, {meaning}, got {value!r}")
    return float(value)


def check_probabilities(layer: str, name: str, value: Any, meaning: str) -> float | tuple[float, float]:
    """The value as a float, or as two of them for h and c; InputError unless these are numbers from 0 to 1."""
    if arguments.is_probability(value):
        return float(value)
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    if not pair or not all(arguments.is_probability(p) for p in value):
        raise InputError(
            f"{layer}: expected {name} to be a number from 0 to 1, or two of them for h and c, {meaning}, got {value!r}"
        )
    return float(value[0]), float(value[1])


def shown(module: nn.Module, options: Sequence[str]) -> str:
    """ ", name=value" for each option that differs from what it is by default."""
    values = [(name, getattr(module, name)) for name in options]
    return "".join(f", {name}={value}" for name, value in values if value != getattr(type(module), name))
