"""The layers of a Keras model in their order, from its configuration: of a Sequential, or a functional model in a line.

Configurations of Keras 2 and 3 are read; what is refused is named, with its layer. No name in one is ever looked up.
"""

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from gatewise.errors import InputError

LARGEST = 2**31 - 1
MOST_LAYERS = 1000
MASKS = ("NotEqual", "Any")  # operations that stand in a configuration because a layer before them masks steps
DTYPES = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True)
class KerasLayer:
    """A layer as a configuration has it: kind is Keras's name of the class, options its arguments.

    source: the file, which errors name first. inner: whether another layer wraps it.
    """

    source: str
    kind: str
    name: str
    options: dict[str, Any]
    inner: bool = False

    def refuse(self, problem: str) -> NoReturn:
        """Raise InputError with the layer's name and kind before the problem."""
        raise InputError(f"{self.source}: layer {self.name!r} ({self.kind}): {problem}")

    def size(self, key: str) -> int:
        """An argument that is a positive whole number."""
        value = self.options.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
            self.refuse(f"{key}: expected a whole number from 1 to {LARGEST}, got {reprlib.repr(value)}")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """An argument that is true or false."""
        value = self.options.get(key, default)
        if not isinstance(value, bool):
            self.refuse(f"{key}: expected true or false, got {reprlib.repr(value)}")
        return value

    def probability(self, key: str) -> float:
        """An argument from 0 to less than 1; 0 if it is not there."""
        value = self.options.get(key) or 0.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            self.refuse(f"{key}: expected a number from 0 to less than 1, got {reprlib.repr(value)}")
        return float(value)

    def function(self, key: str, default: str = "linear") -> str:
        """An argument that is a function of Keras, by name; custom ones are refused."""
        value = self.options.get(key, default)
        if value is None:
            return "linear"
        if not isinstance(value, str):
            named = value.get("config", value) if isinstance(value, dict) else value
            self.refuse(f"{key}: a custom function, {reprlib.repr(named)}, is Python code, which is never executed")
        return value

    def wrapped(self, key: str) -> "KerasLayer | None":
        """An argument that is a layer."""
        value = self.options.get(key)
        return None if value is None else parse_layer(value, self.source, inner=True)


def parse_layer(entry: Any, source: str, *, inner: bool = False) -> KerasLayer:
    """The layer that an entry of a configuration describes. Raises InputError: malformed, custom, quantised."""
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
        raise InputError(f"{source}: damaged: expected the configuration of a layer, got {reprlib.repr(entry)}")
    options, kind = entry["config"], entry.get("class_name")
    name = options.get("name", entry.get("name", ""))
    if not isinstance(kind, str) or not isinstance(name, str):
        raise InputError(f"{source}: damaged: a layer of class_name {reprlib.repr(kind)}, name {reprlib.repr(name)}")
    layer = KerasLayer(source, kind[:100], name[:200], options, inner)
    module, registered = entry.get("module"), entry.get("registered_name")
    if registered not in (None, kind) or (module is not None and str(module).split(".")[0] != "keras"):
        layer.refuse(
            f"a custom object, {reprlib.repr(registered or module)}: its code is not in the file, and would not be run"
        )
    policy = options.get("dtype")
    if isinstance(policy, dict):
        policy = policy.get("config", {}).get("name") if isinstance(policy.get("config"), dict) else "?"
    if kind not in ("InputLayer", *MASKS) and (
        (policy is not None and policy not in DTYPES) or options.get("quantization_config") is not None
    ):
        layer.refuse(f"dtype {reprlib.repr(policy)}: quantised layers are not read; expected {', '.join(DTYPES)}")
    return layer


def chain(config: Any, source: str) -> list[KerasLayer]:
    """The layers of a model from its input to its output. Raises InputError, with the layer that stands in the way."""
    if not isinstance(config, dict) or "class_name" not in config:
        raise InputError(f"{source}: damaged: expected the configuration of a model, got {reprlib.repr(config)}")
    kind, content = config["class_name"], config.get("config")
    if kind == "Sequential":
        entries = content.get("layers") if isinstance(content, dict) else content  # Keras before 2.2.3 has the list
        layers = [parse_layer(entry, source) for entry in _list(entries, f"{source}: layers")]
    elif kind in ("Functional", "Model") and isinstance(content, dict) and "layers" in content:
        layers = _functional(content, source)
    else:
        raise InputError(
            f"{source}: a model of class {reprlib.repr(kind)}: its structure is Python code, which is not in the file; "
            "expected a Sequential or a functional model"
        )
    names = [layer.name for layer in layers]
    for layer in layers:
        if names.count(layer.name) > 1:
            layer.refuse("another layer has the same name")
    return layers


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{what}: damaged: expected a list, got {reprlib.repr(value)}")
    if len(value) > MOST_LAYERS:
        raise InputError(f"{what}: {len(value)} entries, more than the {MOST_LAYERS} that are read")
    return value


@dataclass(frozen=True)
class _Node:
    """A call of a layer: the tensors that it takes, each a layer's name; masks apart; constants."""

    inputs: list[str]
    masks: list[str]
    constants: list[Any]


def _functional(content: dict[str, Any], source: str) -> list[KerasLayer]:
    entries = _list(content["layers"], f"{source}: layers")
    layers = [parse_layer(entry, source) for entry in entries]
    # In a functional model a layer's name stands beside its configuration, too, and the nodes speak of that.
    named = {
        str(entry.get("name", layer.name)): (layer, _nodes(entry, layer))
        for entry, layer in zip(entries, layers, strict=True)
    }
    (first,) = _ends(content, "input_layers", named, source)
    (last,) = _ends(content, "output_layers", named, source)
    line: list[str] = []
    name = last
    while name != first:
        layer, nodes = named[name]
        if len(nodes) != 1:
            layer.refuse(f"is called {len(nodes)} times; expected a model in a line, where each layer is called once")
        inputs = nodes[0].inputs
        if len(set(inputs)) != 1 or inputs[0] not in named:
            layer.refuse(
                f"takes {len(inputs)} inputs ({', '.join(map(repr, inputs))[:200]}): here branches of the model meet; "
                "expected a model in a line"
            )
        if len(inputs) != 1:
            layer.refuse("takes one input several times; expected a model in a line")
        line.insert(0, name)
        if len(line) > len(named):
            layer.refuse("damaged: the layers form a ring")
        name = inputs[0]
    line.insert(0, first)
    rest = [pair for name, pair in named.items() if name not in line]
    for layer, nodes in rest:
        if layer.kind not in MASKS:
            before = next((repr(name) for node in nodes for name in node.inputs), "nothing")
            layer.refuse(f"a branch that begins at {before}; expected a model in a line")
    in_line = [named[name] for name in line]
    _check_masks([layer for layer, _ in in_line], [node for _, nodes in (*in_line, *rest) for node in nodes])
    return [layer for layer, _ in in_line]


def _ends(content: dict[str, Any], key: str, named: dict[str, Any], source: str) -> list[str]:
    """The one layer at which a functional model begins or ends: ["name", 0, 0], perhaps in a list."""
    value = _list(content.get(key), f"{source}: {key}")
    ends = [value] if value and isinstance(value[0], str) else value
    names = [end[0] if isinstance(end, list) and end else None for end in ends]
    if len(names) != 1 or names[0] not in named:
        raise InputError(
            f"{source}: {key}: expected one of the layers, for a model in a line, got {reprlib.repr(names)}"
        )
    if any(ends[0][1:]):
        raise InputError(f"{source}: {key}: expected the first tensor of the layer's first call, got {ends[0][:3]!r}")
    return [str(names[0])]


def _nodes(entry: dict[str, Any], layer: KerasLayer) -> list[_Node]:
    nodes = _list(entry.get("inbound_nodes", []), f"{layer.source}: layer {layer.name!r}: inbound_nodes")
    return [_node(node, layer) for node in nodes]


def _node(node: Any, layer: KerasLayer) -> _Node:
    """A call as Keras 3 has it, {"args", "kwargs"}, or as Keras 2 has it, [["name", 0, 0, {}], ...]."""
    inputs: list[str] = []
    masks: list[str] = []
    constants: list[Any] = []
    if isinstance(node, dict) and isinstance(node.get("kwargs", {}), dict):
        for value in node.get("args", []) if isinstance(node.get("args", []), list) else [None]:
            found = list(_tensors(value, layer))
            inputs += found
            constants += [] if found else [value]
        for key, value in node.get("kwargs", {}).items():
            found = list(_tensors(value, layer))
            (masks if key == "mask" else inputs).extend(found)
    elif isinstance(node, list):
        for tensor in [node] if node and isinstance(node[0], str) else node:
            if not isinstance(tensor, list) or len(tensor) < 3 or not isinstance(tensor[0], str):
                layer.refuse(f"damaged: inbound_nodes: {reprlib.repr(tensor)}")
            inputs.append(_first_tensor(tensor[:3], layer))
            options = tensor[3] if len(tensor) > 3 and isinstance(tensor[3], dict) else {}
            inputs += [str(key) for key, value in options.items() if isinstance(value, list) and key != "training"]
    else:
        layer.refuse(f"damaged: inbound_nodes: {reprlib.repr(node)}")
    return _Node(inputs, masks, constants)


def _tensors(value: Any, layer: KerasLayer) -> Iterator[str]:
    """The layers whose outputs stand in an argument: a tensor, or a list of tensors."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict) and item.get("class_name") == "__keras_tensor__":
            history = item["config"].get("keras_history") if isinstance(item.get("config"), dict) else None
            if not isinstance(history, list) or len(history) != 3 or not isinstance(history[0], str):
                layer.refuse(f"damaged: keras_history {reprlib.repr(history)}")
            yield _first_tensor(history, layer)
        elif isinstance(item, list | dict):
            layer.refuse(f"takes an argument that is not read: {reprlib.repr(item)}")


def _first_tensor(history: list[Any], layer: KerasLayer) -> str:
    name, call, tensor = history
    if call != 0 or tensor != 0:
        layer.refuse(
            f"takes output {reprlib.repr(tensor)} of call {reprlib.repr(call)} of {name[:200]!r}; "
            "expected the first output (no state) of its only call"
        )
    return name


def _check_masks(line: list[KerasLayer], nodes: list[_Node]) -> None:
    """Refuse a mask that none of the masking layers gives: which steps it leaves out cannot be said by lengths."""
    given: list[Any] = [0 for layer in line if layer.kind == "Embedding" and layer.flag("mask_zero")]
    given += [layer.options.get("mask_value", 0.0) for layer in line if layer.kind == "Masking"]
    compared = [value for node in nodes for value in node.constants if value is not None]
    if any(node.masks for node in nodes) and (not given or any(value not in given for value in compared)):
        layer = line[0]
        raise InputError(
            f"{layer.source}: a mask is given to layers that is not that of an Embedding with mask_zero or a Masking "
            "layer; give lengths to the network in its place"
        )
