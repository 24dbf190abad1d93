"""Networks from the weights that torch saved: a state dict in a file, and what its names and shapes say of the layers.

What leaves no weights, and the order of the layers, may be told by a description, a TOML file of tables like those of a
run's config.toml. What a table does not say is taken from the file:

    [[layers]]
    kind = "gru"
    prefix = "encoder.gru."
    reset = "before"

    [[layers]]
    kind = "linear"
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatewise.config import load_toml
from gatewise.errors import ConfigError, InputError
from gatewise.models.sequential import LAYERS, SequentialNetwork, build

RECURRENT = {1: "rnn", 3: "gru", 4: "lstm"}  # by blocks of H rows
_WITH_WEIGHTS = ("embedding", "linear", *RECURRENT.values())
_MOST_TO_ORDER = 8  # layers whose order is looked for
_WRAPPERS = ("state_dict", "model_state_dict", "model")


@dataclass
class _Group:
    """The tensors under one prefix, and the keys of a layer's table that their shapes give."""

    prefix: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    width: int = 0  # of the input, if it is not an embedding

    def table(self, kind: str) -> dict[str, Any]:
        """What is known of the layer, if it is of that kind."""
        if kind in RECURRENT.values():
            layers = [name for name in self.tensors if re.fullmatch(r"weight_ih_l\d+", name)]
            return {
                "kind": kind,
                "input_size": self.width,
                "hidden_size": self.tensors["weight_hh_l0"].shape[1],
                "num_layers": len(layers),
                "bias": any(name.startswith("bias") for name in self.tensors),
                "bidirectional": any(name.endswith("_reverse") for name in self.tensors),
            }
        rows, columns = self.tensors["weight"].shape
        if kind == "embedding":
            return {"kind": kind, "vocabulary_size": rows, "size": columns}
        return {"kind": kind, "input_size": columns, "output_size": rows, "bias": "bias" in self.tensors}

    def output(self, kind: str) -> int:
        """How wide the output is, if it is of that kind."""
        table = self.table(kind)
        if kind in RECURRENT.values():
            return table["hidden_size"] * (2 if table["bidirectional"] else 1)
        return table["size"] if kind == "embedding" else table["output_size"]


def network(path: str | Path, description: str | Path | None = None) -> tuple[SequentialNetwork, list[str]]:
    """The network whose state dict lies in a file, in float32, and what had to be guessed, a line each.

    path: what torch.save wrote of a state dict (.pt, .pth, .bin), or .safetensors. Nothing in it is executed.
    description: a TOML file with a table for each layer; None to guess all from names and shapes.

    Raises InputError: no such file, damaged, not a state dict, weights of an unknown layer; ConfigError: a description
    that does not fit the weights.
    """
    path = Path(path)
    tensors = read_state_dict(path)
    groups = _groups(path, tensors)
    if description is None:
        ordered, guesses = _guessed(path, groups)
        tables, source = [group.table(kind) for group, kind in ordered], str(path)
        owners: list[_Group | None] = [group for group, _ in ordered]
    else:
        tables, owners = _described(Path(description), path, groups)
        guesses, source = [], str(description)
    for position, (table, owner) in enumerate(zip(tables, owners, strict=True)):
        if owner is not None:
            _check_shapes(source, position, table, owner)
    made = build(tables, source=source)
    for layer, owner in zip(made.layers, owners, strict=True):
        if owner is not None:
            layer.load_state_dict(owner.tensors)
    return made.eval(), guesses


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU. InputError: missing, damaged, or more than tensors."""
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; expected a torch state dict")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise InputError(f"{path}: compressed, as torch.save never writes it; refused")
        with warnings.catch_warnings():  # about pickles of other versions: what cannot be read is an error anyway
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        if "weights only" in reason.lower():
            reason = "it holds more than tensors, such as a whole module, and none of that is executed"
        raise InputError(
            f"{path}: cannot be read as a state dict: {reason}; save one with torch.save(model.state_dict(), ...)"
        ) from error
    while isinstance(content, Mapping) and (inner := next((k for k in _WRAPPERS if k in content), None)):
        if not isinstance(content[inner], Mapping):
            break
        content = content[inner]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path}: expected tensors by name, got {_what(content)}; save model.state_dict()")
    return dict(content)


def _what(content: object) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    name, value = next((name, value) for name, value in content.items() if not isinstance(value, Tensor))
    return f"{name}: {type(value).__name__}"


def _groups(path: Path, tensors: Mapping[str, Tensor]) -> list[_Group]:
    """The layers whose weights a file holds, in its order. InputError for a tensor that no known layer has."""
    groups: dict[str, _Group] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"((?:.*\.)?)((weight|bias)(_(ih|hh)(_l\d+(_reverse)?)?)?)", str(name))
        if match is None or not tensor.is_floating_point():
            raise InputError(
                f"{path}: {name} of shape {tuple(tensor.shape)}: not a weight of a known layer (Embedding, GRU, LSTM, "
                f"RNN, Linear), so this network cannot be brought here"
            )
        inner = match[2] + ("_l0" if match[4] and not match[6] else "")  # a cell's weights as a layer's
        groups.setdefault(match[1], _Group(match[1])).tensors[inner] = tensor
    if not groups:
        raise InputError(f"{path}: expected tensors, got none")
    for group in groups.values():
        _recognize(path, group)
    return list(groups.values())


def _recognize(path: Path, group: _Group) -> None:
    """Say what kinds of layer a group can be, by its shapes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in group.tensors.items()}
    where = f"{path}: {group.prefix}*"
    if "weight" in shapes:
        biased = "bias" in shapes
        if len(shapes["weight"]) != 2 or 0 in shapes["weight"] or set(shapes) - {"weight", "bias"}:
            raise InputError(f"{where}: expected a weight (O, I) of Linear or Embedding, got {shapes}")
        group.kinds = ("linear",) if biased else ("embedding", "linear")
        group.width = shapes["weight"][1]
        return
    if "bias" in shapes:
        raise InputError(f"{where}: has a bias and no weight; if it shares that with another layer, save it twice")
    first, second = shapes.get("weight_ih_l0", ()), shapes.get("weight_hh_l0", ())
    if len(first) != 2 or len(second) != 2 or 0 in (*first, *second) or first[0] != second[0]:
        raise InputError(f"{where}: expected weight_ih_l0 (G*H, I) and weight_hh_l0 (G*H, H), got {shapes}")
    blocks, rest = divmod(first[0], second[1])
    if rest or blocks not in RECURRENT:
        raise InputError(
            f"{where}: weight_hh_l0 has {second[0]} rows for {second[1]} units; expected 3 times as many (GRU), 4 "
            f"times (LSTM) or as many (RNN); an LSTM with proj_size is not known here"
        )
    group.kinds, group.width = (RECURRENT[blocks],), first[1]


def _guessed(path: Path, groups: list[_Group]) -> tuple[list[tuple[_Group, str]], list[str]]:
    """The layers in an order in which each takes what the one before gives, and what was guessed."""
    if path.suffix == ".safetensors":  # which holds its tensors in no order
        rank = {"embedding": 0, "linear": 2}
        groups = sorted(groups, key=lambda group: rank.get(group.kinds[0], 1))
    found = _chain(groups, None) if len(groups) <= _MOST_TO_ORDER else None
    if found is None:
        sizes = ", ".join(f"{g.prefix or '(no prefix)'} {' or '.join(g.kinds)} of {g.width}" for g in groups)
        raise InputError(f"{path}: the order of the layers cannot be told from their sizes ({sizes}); describe them")
    guesses = [_in_words(group, kind) for group, kind in found]
    guesses.append("what has no weights (pooling, activations, dropout) cannot be seen; a description can add it")
    return found, guesses


def _chain(left: list[_Group], width: int | None) -> list[tuple[_Group, str]] | None:
    """The groups that are left, as layers each of which fits the one before; the given order first."""
    if not left:
        return []
    for group in left:
        for kind in group.kinds:
            fits = width is None if kind == "embedding" else width in (None, group.width)
            if fits:
                rest = _chain([other for other in left if other is not group], group.output(kind))
                if rest is not None:
                    return [(group, kind), *rest]
    return None


def _in_words(group: _Group, kind: str) -> str:
    table = {key: value for key, value in group.table(kind).items() if key != "kind"}
    taken = {"gru": ', reset = "after" as in torch', "rnn": ', nonlinearity = "tanh", torch\'s default'}.get(kind, "")
    said = ", ".join(f"{key} = {str(value).lower()}" for key, value in table.items())
    return f"{group.prefix}*: taken for {kind}: {said}{taken}"


def _described(file: Path, path: Path, groups: list[_Group]) -> tuple[list[dict[str, Any]], list[_Group | None]]:
    """The tables of a description, filled up from the weights that each belongs to."""
    content = load_toml(file)
    tables = content.pop("layers", None)
    if content or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{file}: expected tables [[layers]] and nothing else")
    filled: list[dict[str, Any]] = []
    owners: list[_Group | None] = []
    left = list(groups)
    for position, table in enumerate(tables):
        where = f"{file}: layers.{position}"
        kind, prefix = table.get("kind"), table.pop("prefix", None)
        if kind not in LAYERS:
            raise ConfigError(f"{where}: expected kind to be one of {', '.join(LAYERS)}, got {kind!r}")
        owner = None
        if kind in _WITH_WEIGHTS:
            able = [group for group in left if kind in group.kinds and prefix in (None, group.prefix)]
            if not able:
                names = ", ".join(f"{group.prefix}* ({' or '.join(group.kinds)})" for group in left) or "none"
                named = "" if prefix is None else f" named {prefix}*"
                raise ConfigError(f"{where}: {path} holds no weights of a {kind}{named}; left are {names}")
            owner = able[0]
            left = [group for group in left if group is not owner]
            known = owner.table(kind)
            for key, value in known.items():
                if table.get(key, value) != value:
                    raise ConfigError(
                        f"{where}: {kind}: expected {key} = {str(value).lower()}, as the weights {owner.prefix}* are, "
                        f"got {str(table[key]).lower()}"
                    )
            table = {**known, **table}
        elif prefix is not None:
            raise ConfigError(f"{where}: a layer of kind {kind} has no weights, so it takes no prefix")
        filled.append(table)
        owners.append(owner)
    if left:
        raise ConfigError(f"{file}: no layer takes the weights {', '.join(f'{group.prefix}*' for group in left)}")
    return filled, owners


def _check_shapes(source: str, position: int, table: Mapping[str, Any], group: _Group) -> None:
    """ConfigError unless the layer that a table describes has the group's tensors: names and shapes."""
    with torch.device("meta"):  # takes no memory, whatever sizes are asked for
        (layer,) = build([table], source=f"{source}: layers.{position}").layers
    expected = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in group.tensors.items()}
    for name in dict.fromkeys([*expected, *found]):
        if expected.get(name) != found.get(name):
            raise ConfigError(
                f"{source}: layers.{position}: {table['kind']}: expected {group.prefix}{name} of shape "
                f"{expected.get(name, 'nothing')}, got {found.get(name, 'nothing')}"
            )
