"""Networks as plain torch has them: a state dict with torch's names, and what layers to load it into.

model.safetensors   the weights: layers.0.weight, layers.1.weight_ih_l0, ...; in its header the metadata
model.toml          the layers in their order, each with the beginning of its weights' names
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gatewise
from gatewise.config import load_toml
from gatewise.errors import ExportError
from gatewise.interchange.artifact import new_folder
from gatewise.interchange.parity import Arrays, Parity, check, compare, golden_cases, write_proof
from gatewise.layers.gru import GRU
from gatewise.models.sequential import SequentialNetwork, tables_as_toml
from gatewise.run_folder import atomic_write

WEIGHTS, DESCRIPTION = "model.safetensors", "model.toml"
TOLERANCE = 1e-5
_RECURRENT: dict[str, type[nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}


def export_torch(
    network: SequentialNetwork,
    folder: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Parity:
    """Write the network for plain torch, and prove it in torch's own layers; how near they came.

    folder: is made, with model.safetensors, model.toml and the proof. metadata: texts by name, which
        `safetensors.safe_open(...).metadata()` gives back.

    Raises ExportError: a GRU with reset="before", which torch does not have, or outputs that differ; InputError: the
    folder exists.
    """
    for position, layer in enumerate(network.layers):
        if isinstance(layer, GRU) and layer.reset != "after":
            raise ExportError(
                f'torch: layers.{position} is a GRU with reset="before", and torch.nn.GRU has its reset gate after the '
                f"recurrent product; these are different functions. ONNX, Keras and C can hold it"
            )
    cases = [*golden_cases(network), *golden_cases(network, shapes=((9, 5),), lengths=True, seed=1)]
    tables = [
        {**table, "prefix": f"layers.{position}."} if list(layer.parameters()) else table
        for position, (table, layer) in enumerate(zip(network.describe(), network.layers, strict=True))
    ]
    with new_folder(Path(folder), overwrite=overwrite) as new:
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        header = {"format": "pt", "gatewise": gatewise.__version__, **(metadata or {})}
        atomic_write(new / WEIGHTS, safetensors.torch.save(tensors, header))
        atomic_write(new / DESCRIPTION, tables_as_toml(tables).encode())
        plain = PlainTorch(new)
        parity = compare("torch", cases, plain, tolerance=TOLERANCE, runtime=f"torch.nn {torch.__version__}")
        check(parity)
        write_proof(new, parity, cases)
    return parity


class PlainTorch:
    """What lies in an artifact's folder, as modules of torch.nn and nothing else: from inputs to outputs, by name."""

    def __init__(self, folder: Path) -> None:
        self.tables: list[dict[str, Any]] = load_toml(folder / DESCRIPTION)["layers"]
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
        self.modules: list[nn.Module | None] = []
        for table in self.tables:
            module = _module(table)
            if module is not None and "prefix" in table:
                prefix = table["prefix"]
                own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
                module.load_state_dict(own)
            self.modules.append(None if module is None else module.eval())

    @torch.no_grad()
    def __call__(self, inputs: Arrays) -> Arrays:
        """y, and the last states if first ones are given; rows of other lengths than T are packed."""
        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        x, last, directions, states = given["x"], {}, 1, 0
        lengths = given.get("lengths", torch.full((x.shape[1],), len(x)))
        for table, module in zip(self.tables, self.modules, strict=True):
            if isinstance(module, nn.RNNBase):
                parts = [f"state_{states}_{part}" for part in ("hc" if table["kind"] == "lstm" else "h")]
                first = [given[part] for part in parts if part in given]
                hx = None if not first else first[0] if len(parts) == 1 else tuple(first)
                packed, hn = module(pack_padded_sequence(x, lengths, enforce_sorted=False), hx)
                x, _ = pad_packed_sequence(packed, total_length=len(x))
                if first:
                    last |= {f"new_{part}": s for part, s in zip(parts, (hn,) if len(parts) == 1 else hn, strict=True)}
                directions, states = 2 if module.bidirectional else 1, states + 1
            elif module is not None:
                x = module(x)
                directions = 1 if isinstance(module, nn.Linear) else directions
            elif table["kind"] == "one-hot":
                x = nn.functional.one_hot(x, table["vocabulary_size"]).float()
            else:
                x = _pooled(x, table["pooling"], lengths, directions)
        return {name: tensor.numpy() for name, tensor in {"y": x, **last}.items()}


def _module(table: Mapping[str, Any]) -> nn.Module | None:
    """The module of torch.nn that a table describes; None for what is a line of code."""
    match table["kind"]:
        case "gru" | "lstm" | "rnn" as kind:
            options = {key: value for key, value in table.items() if key not in ("kind", "prefix", "reset")}
            return _RECURRENT[kind](**options)
        case "embedding":
            return nn.Embedding(table["vocabulary_size"], table["size"])
        case "linear":
            return nn.Linear(table["input_size"], table["output_size"], table["bias"])
        case "dropout":
            return nn.Dropout(table["probability"])
        case "activation":
            name = table["function"]
            kinds = {"sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "relu": nn.ReLU(), "softmax": nn.Softmax(-1)}
            return kinds.get(name, nn.LogSoftmax(-1))
    return None


def _pooled(x: Tensor, pooling: str, lengths: Tensor, directions: int) -> Tensor:
    """One vector a row, row by row."""
    rows = [x[:length, row] for row, length in enumerate(lengths.tolist())]
    if pooling == "last":
        ends = [row.chunk(directions, -1) for row in rows]
        return torch.stack([torch.cat([forward[-1], *(half[0] for half in more)]) for forward, *more in ends])
    return torch.stack([row.mean(0) if pooling == "mean" else row.amax(0) for row in rows])
