"""ONNX's operators GRU, LSTM and RNN, and the layers of ours that compute the same: weights and attributes, both ways.

ONNX keeps W (D, G*H, I), R (D, G*H, H) and B (D, 2*G*H), the input's biases before the recurrent ones, with the gates
in an order of its own. What the gates mean is what ours mean: H_t = (1 - z) * h_t + z * H_(t-1).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import InputError
from gatewise.interchange.onnx_file import OnnxFile
from gatewise.layers.backwards import Backwards
from gatewise.layers.gru import GRU
from gatewise.layers.lstm import LSTM
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.layers.rnn import RNN

if TYPE_CHECKING:
    import onnx

# Where each block of our rows (GRU: r, z, n; LSTM: i, f, g, o; RNN: one) lies among ONNX's (z, r, h; i, o, f, c; one).
BLOCKS = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1), "RNN": (0,)}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
ACTIVATIONS = {"GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "RNN": ("Tanh",)}
DIRECTIONS = ("forward", "reverse", "bidirectional")

Arrays = dict[str, np.ndarray]


def operator(layer: RecurrentLayer) -> str:
    """The name of the operator that computes a layer."""
    return next(name for name, kind in (("GRU", GRU), ("LSTM", LSTM), ("RNN", RNN)) if isinstance(layer, kind))


def node_attributes(layer: RecurrentLayer) -> dict[str, Any]:
    """The attributes of the nodes that compute a layer."""
    attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
    if layer.bidirectional:
        attributes["direction"] = "bidirectional"
    if isinstance(layer, GRU):
        attributes["linear_before_reset"] = int(layer.reset == "after")
    elif isinstance(layer, RNN):
        attributes["activations"] = [str(layer.nonlinearity).capitalize()] * (2 if layer.bidirectional else 1)
    return attributes


def node_weights(layer: RecurrentLayer, index: int) -> Arrays:
    """W, R and, if there are biases, B, float32, of the node that computes the layer at `index` of the stack."""
    directions = [f"l{index}", f"l{index}_reverse"][: 2 if layer.bidirectional else 1]
    order = BLOCKS[operator(layer)]

    def rows(name: str, suffix: str) -> np.ndarray:
        values = getattr(layer, f"{name}_{suffix}").detach().float().cpu().numpy()
        ours = np.split(values, len(order))
        return np.concatenate([ours[order.index(block)] for block in range(len(order))])

    weights = {
        "W": np.stack([rows("weight_ih", suffix) for suffix in directions]),
        "R": np.stack([rows("weight_hh", suffix) for suffix in directions]),
    }
    if layer.bias:
        biases = [(rows("bias_ih", suffix), rows("bias_hh", suffix)) for suffix in directions]
        weights["B"] = np.stack([np.concatenate(both) for both in biases])
    return weights


@dataclass(frozen=True)
class Recurrent:
    """A recurrent node, checked.

    kind: "gru", "lstm", "rnn". sizes: input_size, hidden_size and bias, bidirectional, and reset or nonlinearity: the
    arguments of the layer. backwards: whether it reads each row from its end. tensors: the parameters of a direction
    after the other, each with the names of ours, such as weight_ih_l0, bias_hh_l0_reverse.
    """

    kind: str
    sizes: dict[str, Any]
    backwards: bool
    tensors: Arrays

    @property
    def directions(self) -> int:
        """1, or 2 if it reads from both ends."""
        return 2 if self.sizes["bidirectional"] else 1

    @property
    def output_size(self) -> int:
        """Size of its output of a step."""
        return self.directions * self.sizes["hidden_size"]

    def layer(self, states: Sequence[np.ndarray] = ()) -> RecurrentLayer | Backwards:
        """The layer; states (D, H): h0, and c0 of an LSTM, where the file has first states of its own."""
        kinds: dict[str, Callable[..., RecurrentLayer]] = {"gru": GRU, "lstm": LSTM, "rnn": RNN}
        learned = {"learn_initial_state": True} if states else {}
        layer = kinds[self.kind](**self.sizes, **learned, dtype=parameter_dtype([*self.tensors.values(), *states]))
        tensors = self.tensors | dict(zip(("h0", "c0"), states, strict=False))
        layer.load_state_dict({name: as_tensor(value) for name, value in tensors.items()})
        return Backwards(layer) if self.backwards else layer


def parameter_dtype(arrays: Sequence[np.ndarray]) -> torch.dtype:
    """float64 if an array has it, else float32, which holds all narrower numbers."""
    return torch.float64 if any(array.dtype == np.float64 for array in arrays) else torch.float32


def as_tensor(array: np.ndarray) -> Tensor:
    """A copy of an array, which may lie in the bytes of a file, with numbers in the order of this machine."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def is_recurrent(node: "onnx.NodeProto") -> bool:
    """Whether a node is one of ONNX's recurrent operators."""
    return node.op_type in BLOCKS and node.domain in ("", "ai.onnx")


def constant_weights(
    file: OnnxFile, node: "onnx.NodeProto", known: Mapping[str, object], where: str
) -> dict[str, np.ndarray]:
    """W, R and, where there is one, B of a node. Raises InputError unless they are constants, and for peepholes."""
    given = {name: source for name, source in zip(INPUTS, node.input, strict=False) if source}
    if "P" in given:
        raise InputError(f"{where}: the input P (peepholes) is not supported: our LSTM has none")
    weights: dict[str, np.ndarray] = {}
    for name in ("W", "R", "B"):
        value = known.get(given.get(name, ""))
        if isinstance(value, np.ndarray):
            weights[name] = value
            file.budget.spend(2 * value.nbytes, where)  # our layer's, and the same in another order
        elif name in given or name != "B":
            what = f"{given[name][:80]!r} is computed from an input" if name in given else "there is none"
            raise InputError(f"{where}: expected the weights {name} to be a constant, but {what}")
    return weights


def read_node(operator: str, attributes: Mapping[str, Any], weights: Mapping[str, np.ndarray], where: str) -> Recurrent:
    """What a node with these attributes and weights W, R and maybe B computes. where: how an error names the node.

    Raises InputError, with the name of the attribute or input that our layers have nothing for.
    """
    directions, direction = _direction(attributes, where)
    _check_attributes(operator, attributes, where)
    options: dict[str, Any] = {}
    activations = _activations(operator, attributes, directions, where)
    if operator == "RNN":
        options["nonlinearity"] = activations[0]
    elif operator == "GRU":
        options["reset"] = "after" if attributes.get("linear_before_reset", 0) else "before"
    w, r, b = weights["W"], weights["R"], weights.get("B")
    gates = len(BLOCKS[operator])
    if r.ndim != 3 or w.ndim != 3:
        raise InputError(f"{where}: expected W and R of three axes, got {w.ndim} and {r.ndim}")
    hidden_size, input_size = r.shape[2], w.shape[2]
    stated = attributes.get("hidden_size", hidden_size)
    if stated != hidden_size:
        raise InputError(f"{where}: hidden_size = {stated} does not fit R {r.shape}, whose last axis is hidden_size")
    if hidden_size < 1 or input_size < 1:
        raise InputError(f"{where}: expected at least one unit and one input, got W {w.shape} and R {r.shape}")
    expected: dict[str, tuple[int, ...]] = {
        "W": (directions, gates * hidden_size, input_size),
        "R": (directions, gates * hidden_size, hidden_size),
    }
    if b is not None:
        expected["B"] = (directions, 2 * gates * hidden_size)
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise InputError(f"{where}: expected {name} to be {shape}, got {weights[name].shape}")
        if weights[name].dtype.kind != "f":
            raise InputError(f"{where}: expected {name} of floating point numbers, got {weights[name].dtype}")
    sizes = {
        "input_size": input_size,
        "hidden_size": hidden_size,
        "bias": b is not None,
        "bidirectional": directions == 2,
        **options,
    }
    return Recurrent(operator.lower(), sizes, direction == "reverse", _tensors(operator, w, r, b))


def _tensors(operator: str, w: np.ndarray, r: np.ndarray, b: np.ndarray | None) -> Arrays:
    order = BLOCKS[operator]

    def rows(values: np.ndarray) -> np.ndarray:
        blocks = np.split(values, len(order))
        return np.concatenate([blocks[block] for block in order])

    tensors: Arrays = {}
    for d, suffix in enumerate(("l0", "l0_reverse")[: len(w)]):
        tensors |= {f"weight_ih_{suffix}": rows(w[d]), f"weight_hh_{suffix}": rows(r[d])}
        if b is not None:
            of_input, recurrent = np.split(b[d], 2)
            tensors |= {f"bias_ih_{suffix}": rows(of_input), f"bias_hh_{suffix}": rows(recurrent)}
    return tensors


def _direction(attributes: Mapping[str, Any], where: str) -> tuple[int, str]:
    direction = attributes.get("direction", "forward")
    if direction not in DIRECTIONS:
        raise InputError(f"{where}: expected direction to be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    return (2 if direction == "bidirectional" else 1), direction


def _activations(operator: str, attributes: Mapping[str, Any], directions: int, where: str) -> list[str]:
    """The activations of one direction, in small letters, which are those that our layers have."""
    own = [name.lower() for name in ACTIVATIONS[operator]]
    given = attributes.get("activations")
    given = own * directions if given is None else [str(name).lower() for name in given]
    allowed = [own * directions, *([["relu"] * directions] if operator == "RNN" else [])]
    if given not in allowed:
        known = " or ".join(", ".join(each) for each in allowed)
        raise InputError(
            f"{where}: activations: our layers have {known} (of each direction), the node has "
            f"{', '.join(given)[:80] or 'none'}"
        )
    return given[: len(own)]


def _check_attributes(operator: str, attributes: Mapping[str, Any], where: str) -> None:
    """Refuse by name whatever our layers have nothing for."""
    known = {"hidden_size", "direction", "activations"}
    if operator == "GRU":
        known.add("linear_before_reset")
    for name, value in attributes.items():
        harmless = name in known or (name in ("layout", "input_forget") and value == 0)
        harmless = harmless or (name in ("activation_alpha", "activation_beta") and value == [])
        if not harmless:
            shown = f" = {value}" if isinstance(value, int | float) else ""
            raise InputError(f"{where}: the attribute {name}{shown} is not supported: our layers have nothing like it")
