"""Networks of ours as Keras models: a `.keras` file, which Keras itself loads and runs before it is handed over."""

import io
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata as distributions
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gatewise
from gatewise.errors import ExportError, InputError
from gatewise.interchange import conventions
from gatewise.interchange.artifact import new_folder
from gatewise.interchange.hdf5 import require_h5py
from gatewise.interchange.keras_files import write_archive
from gatewise.interchange.layouts import from_torch
from gatewise.interchange.parity import Arrays, Case, Parity, check, compare, golden_cases, write_proof
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.models.embeddings import OneHot
from gatewise.models.sequential import ACTIVATIONS, Pooling, SequentialNetwork, describe
from gatewise.run_folder import atomic_write

MODEL = "model.keras"
TOLERANCE = 1e-5
PROGRAM = Path(__file__).with_name("keras_program.py")
NO_KERAS = 3  # what the program ends with
LARGEST_ONE_HOT = 10_000  # tokens: Keras gets a matrix of V * V for them, here 0.4 GB
ELEMENTWISE = ("sigmoid", "tanh", "relu")
CLASSES = {"gru": "GRU", "lstm": "LSTM", "rnn": "SimpleRNN"}
# The oldest Keras whose names of options are written: what it lacks is the default in later ones.
OLDEST_KERAS = "3.0.0"


@dataclass
class _Layer:
    """A layer of Keras that is to be written. arrays: of each of its folders in the file the arrays in order."""

    kind: str
    options: dict[str, Any]
    name: str = ""  # of Keras's usual ones unless given
    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)


def write_keras(network: SequentialNetwork, path: str | Path, *, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a network to a `.keras` file, which `keras.saving.load_model` of Keras 3 reads with any backend.

    It takes the batch first: tokens (B, T) or features (B, T, F). Stacked layers become one layer of Keras each, with
    Dropout between them. One-hot input becomes an Embedding whose matrix is the identity and not trained. The two
    biases of an LSTM, an RNN and a GRU with reset="before" become one, their sum. The same network gives the same
    bytes. Weights are float32, or float64 if the network's are.

    path: ends with .keras; a file that is there is replaced. metadata: of JSON, goes into the archive's metadata.json.

    Raises InputError for another name, or without h5py; ExportError for what Keras has no layers for; RunError where
    it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise InputError(f"write_keras: {path}: expected a name that ends with .keras, for Keras loads no other")
    require_h5py("write_keras")
    layers = _layers(network)
    double = next((p.dtype for p in network.parameters()), torch.float32) == torch.float64
    dtype = "float64" if double else "float32"
    about = {
        "keras_version": OLDEST_KERAS,
        "date_saved": "1980-01-01@00:00:00",
        "gatewise": {"version": gatewise.__version__, **(metadata or {})},
    }
    atomic_write(path, write_archive(_config(network, layers, dtype), about, _weights(layers, dtype)))


def export_keras(
    network: SequentialNetwork,
    folder: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Parity:
    """Write a network as a Keras model to a folder, with the proof that Keras makes of it what it should.

    In the folder: model.keras (see write_keras), golden.npz, parity.json and parity.md (see `gatewise.interchange.
    parity`). Keras runs in a process of its own, with the backend of KERAS_BACKEND, or torch's; where it is not
    installed the report says "not run".

    Raises ExportError where Keras cannot hold the network or gives something else; then nothing is left. InputError if
    something is in the folder's place, unless `overwrite`.
    """
    with new_folder(Path(folder), overwrite=overwrite) as new:
        write_keras(network, new / MODEL, metadata=metadata)
        cases = golden_cases(network, states=False)
        outputs, words = run_keras(new / MODEL, cases, pools=network.pools)
        given = iter(outputs or [])

        def run(inputs: Arrays) -> Arrays:
            return {"y": next(given)}

        parity = compare(
            "keras",
            cases,
            None if outputs is None else run,
            tolerance=TOLERANCE,
            runtime="Keras" if outputs is None else words,
            versions={"h5py": distributions.version("h5py")},
            why_not_run=words if outputs is None else None,
        )
        check(parity)
        write_proof(new, parity, cases)
    return parity


def keras_version() -> str | None:
    """Which Keras is installed, if any."""
    try:
        return distributions.version("keras")
    except distributions.PackageNotFoundError:
        return None


def run_keras(model: Path, cases: Sequence[Case], *, pools: bool) -> tuple[list[np.ndarray] | None, str]:
    """The output of Keras for each case, time first, and which Keras that was: "Keras 3.15.1 (torch)".

    None, and why, where no Keras can be run. Raises ExportError if Keras cannot load or run the model.
    """
    version = keras_version()
    if version is None:
        return None, "Keras is not installed (pip install keras)"
    if int(version.split(".")[0]) < 3:
        return None, f"Keras {version} is installed; .keras files need Keras 3"
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        xs = {str(number): np.ascontiguousarray(case.inputs["x"].swapaxes(0, 1)) for number, case in enumerate(cases)}
        np.savez(inputs, **xs)  # type: ignore[arg-type]
        environment = {
            "KERAS_BACKEND": "torch",
            **os.environ,
            "KERAS_HOME": folder,  # a configuration file of the user's could set another precision
            "CUDA_VISIBLE_DEVICES": "",  # a GPU may multiply with fewer bits
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        command = [sys.executable, "-P", str(PROGRAM), str(model), str(inputs), str(outputs)]
        process = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
        last = next((line for line in reversed(process.stderr.splitlines()) if line.strip()), "no message")
        if process.returncode == NO_KERAS:
            return None, f"Keras {version} is installed, but cannot be imported: {last[:500]}"
        if process.returncode != 0:
            raise ExportError(f"keras: Keras cannot load or run the artifact: {last[:500]}; nothing was left behind")
        with np.load(outputs) as got:
            ys = [got[str(number)] for number in range(len(cases))]
    return [y if pools else y.swapaxes(0, 1) for y in ys], process.stdout.strip().splitlines()[-1]


def _layers(network: SequentialNetwork) -> list[_Layer]:
    """The layers of Keras that give what the network's give."""
    modules = _pooled_early(list(network.layers))
    layers: list[_Layer] = []
    for module in modules:
        match module:
            case OneHot():
                layers.append(_one_hot(module))
            case nn.Embedding():
                options = {"input_dim": module.num_embeddings, "output_dim": module.embedding_dim}
                layers.append(_Layer("Embedding", options, arrays={"": [_array(module.weight)]}))
            case RecurrentLayer():
                layers += _recurrent(module)
            case Pooling():
                if module.pooling == "last":
                    layers[-1].options["return_sequences"] = False
                else:
                    layers.append(_Layer(f"Global{'Average' if module.pooling == 'mean' else 'Max'}Pooling1D", {}))
            case nn.Linear():
                arrays = [_array(module.weight.T), *([] if module.bias is None else [_array(module.bias)])]
                options = {"units": module.out_features, "activation": "linear", "use_bias": module.bias is not None}
                layers.append(_Layer("Dense", options, arrays={"": arrays}))
            case nn.Dropout():
                layers.append(_Layer("Dropout", {"rate": module.p}))
            case _:
                function = _function(module)
                if layers and layers[-1].kind == "Dense" and layers[-1].options["activation"] == "linear":
                    layers[-1].options["activation"] = function
                else:
                    layers.append(_Layer("Activation", {"activation": function}))
    counts: Counter[str] = Counter()
    for layer in layers:
        usual = layer.name or _folder_name(layer.kind)
        layer.name = f"{usual}_{counts[usual]}" if counts[usual] else usual
        counts[usual] += 1
    return layers


def _folder_name(kind: str) -> str:
    """A class's name as Keras names layers and their folders."""
    names = {"SimpleRNN": "simple_rnn", "TimeDistributed": "time_distributed"}
    names |= {f"Global{p}Pooling1D": f"global_{p.lower()}_pooling1d" for p in ("Average", "Max")}
    return names.get(kind, kind.lower())


def _function(module: nn.Module) -> str:
    return next(name for name, kind in ACTIVATIONS.items() if type(module) is kind).replace("-", "_")


def _array(parameter: Tensor) -> np.ndarray:
    """A parameter as an array of float32, or float64 if it has that."""
    tensor = parameter.detach().cpu()
    return np.ascontiguousarray((tensor if tensor.dtype == torch.float64 else tensor.float()).numpy())


def _pooled_early(modules: list[nn.Module]) -> list[nn.Module]:
    """The layers with a pooling of the last step right after the recurrent layer: only there Keras can take it.

    What stands between works on each step alone, so it may as well come after; but of two directions the last steps
    are different ones, so what mixes their features must not come between. Raises ExportError.
    """
    where = next((i for i, m in enumerate(modules) if isinstance(m, Pooling) and m.pooling == "last"), None)
    if where is None:
        return modules
    recurrent = next((i for i in reversed(range(where)) if isinstance(modules[i], RecurrentLayer)), None)
    if recurrent is None:
        raise ExportError(
            "keras: pooling 'last' without a recurrent layer before it has no layer in Keras; pool by 'mean' or 'max'"
        )
    layer, between = modules[recurrent], modules[recurrent + 1 : where]
    if isinstance(layer, RecurrentLayer) and layer.bidirectional:
        for module in between:
            if not isinstance(module, nn.Dropout) and describe(module).model_dump().get("function") not in ELEMENTWISE:
                raise ExportError(
                    f"keras: {type(module).__name__} stands between a bidirectional layer and pooling 'last'; Keras "
                    "takes the last step of each direction right after the layer, which is another one: pool there"
                )
    return [*modules[: recurrent + 1], modules[where], *between, *modules[where + 1 :]]


def _one_hot(module: OneHot) -> _Layer:
    """Keras's own one-hot layer takes a single step for a whole row, so an Embedding of the identity does it."""
    size = module.vocabulary_size
    if size > LARGEST_ONE_HOT:
        raise ExportError(
            f"keras: one-hot input of {size} tokens would become a matrix of {size} * {size} numbers; expected at most "
            f"{LARGEST_ONE_HOT} tokens: train the model with an embedding"
        )
    options = {"input_dim": size, "output_dim": size, "trainable": False}
    return _Layer("Embedding", options, "one_hot", {"": [np.eye(size, dtype=np.float32)]})


def _recurrent(module: RecurrentLayer) -> list[_Layer]:
    """A layer of Keras for each of a stack, with Dropout between."""
    table = describe(module).model_dump()
    cell, kind = str(table["kind"]), CLASSES[str(table["kind"])]
    options: dict[str, Any] = {"units": module.hidden_size, "use_bias": module.bias, "return_sequences": True}
    options["activation"] = table.get("nonlinearity", "tanh")
    if cell != "rnn":
        options["recurrent_activation"] = "sigmoid"
    if cell == "gru":
        options["reset_after"] = table["reset"] == "after"
    convention = conventions.find("keras", cell, table.get("reset"))
    layers: list[_Layer] = []
    for number in range(module.num_layers):
        arrays = [
            _cell_arrays(module, convention, suffix)
            for suffix in ([f"l{number}", f"l{number}_reverse"] if module.bidirectional else [f"l{number}"])
        ]
        if number and module.dropout:
            layers.append(_Layer("Dropout", {"rate": module.dropout}))
        if module.bidirectional:
            folders = {"forward_layer/cell": arrays[0], "backward_layer/cell": arrays[1]}
            layers.append(_Layer("Bidirectional", {"cell": kind, **options}, arrays=folders))
        else:
            layers.append(_Layer(kind, options.copy(), arrays={"cell": arrays[0]}))
    return layers


def _cell_arrays(module: RecurrentLayer, convention: conventions.Convention, suffix: str) -> list[np.ndarray]:
    """Keras's kernel, recurrent_kernel and, if there is one, bias, of one layer in one direction."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if module.bias else 2]
    arrays = from_torch({name: _array(getattr(module, f"{name}_{suffix}")) for name in names}, convention)
    return [arrays[name] for name in ("kernel", "recurrent_kernel", "bias") if name in arrays]


def _config(network: SequentialNetwork, layers: Sequence[_Layer], dtype: str) -> dict[str, Any]:
    """The content of config.json."""
    shape = [None, None] if network.reads_tokens else [None, None, network.input_size]
    first = {"batch_shape": shape, "dtype": "int32" if network.reads_tokens else dtype, "name": "input_layer"}
    entries = [_entry("InputLayer", first)]
    for layer in layers:
        options = {"name": layer.name, "trainable": True, "dtype": dtype, **layer.options}
        if layer.kind == "Bidirectional":
            options = _bidirectional(options)
        entries.append(_entry(layer.kind, options))
    content = {"name": "sequential", "trainable": True, "dtype": dtype, "layers": entries, "build_input_shape": shape}
    return {**_entry("Sequential", content, module="keras"), "build_config": {"input_shape": shape}}


def _entry(kind: str, options: dict[str, Any], module: str = "keras.layers") -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": options, "registered_name": None}


def _bidirectional(options: dict[str, Any]) -> dict[str, Any]:
    own = {key: options[key] for key in ("name", "trainable", "dtype")}
    kind = str(options["cell"])
    cell = {key: value for key, value in options.items() if key not in ("cell", "name")}
    name = _folder_name(kind)
    both = {
        "layer": _entry(kind, {"name": f"forward_{name}", "go_backwards": False, **cell}),
        "backward_layer": _entry(kind, {"name": f"backward_{name}", "go_backwards": True, **cell}),
    }
    return {**own, "merge_mode": "concat", **both}


def _weights(layers: Sequence[_Layer], dtype: str) -> bytes:
    """The content of model.weights.h5."""
    import h5py

    image = io.BytesIO()
    counts: Counter[str] = Counter()
    with h5py.File(image, "w") as file:
        for layer in layers:
            folder = _folder_name(layer.kind)
            number, counts[folder] = counts[folder], counts[folder] + 1
            for place, arrays in layer.arrays.items():
                own = "/".join(part for part in ("layers", f"{folder}_{number}" if number else folder, place) if part)
                for index, array in enumerate(arrays):
                    file.create_dataset(f"{own}/vars/{index}", data=array.astype(dtype), track_times=False)
    return image.getvalue()
