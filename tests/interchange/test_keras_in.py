"""Keras's models, in both of its file formats: what is read gives what Keras gives; what cannot be read is named."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gatewise.errors import InputError
from gatewise.interchange import keras_in
from gatewise.models.sequential import SequentialNetwork

h5py = pytest.importorskip("h5py", reason="Keras files are HDF5, of the extra `keras`")

pytestmark = [
    pytest.mark.usefixtures("quick_hdf5"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),  # Keras's own
    pytest.mark.filterwarnings("error:.*masks steps:UserWarning"),
]
B, T, F, V = 3, 7, 5, 11
FORMATS = ("keras", "h5")


# Layers of models that read features (B, T, F), or tokens where the first one is an Embedding. k: keras.layers.
MODELS: dict[str, Callable[[Any], list[Any]]] = {
    "GRU-after": lambda k: [k.GRU(4, return_sequences=True)],
    "GRU-before": lambda k: [k.GRU(4, return_sequences=True, reset_after=False)],
    "GRU-after-no-bias": lambda k: [k.GRU(4, use_bias=False)],
    "GRU-before-no-bias": lambda k: [k.GRU(4, use_bias=False, reset_after=False)],
    "LSTM": lambda k: [k.LSTM(4, return_sequences=True, unit_forget_bias=False)],
    "LSTM-last": lambda k: [k.LSTM(4, use_bias=False)],
    "SimpleRNN": lambda k: [k.SimpleRNN(4, return_sequences=True)],
    "SimpleRNN-relu": lambda k: [k.SimpleRNN(4, activation="relu")],
    "Bidirectional-GRU": lambda k: [k.Bidirectional(k.GRU(4, return_sequences=True))],
    "Bidirectional-GRU-before-last": lambda k: [k.Bidirectional(k.GRU(4, reset_after=False))],
    "Bidirectional-LSTM": lambda k: [k.Bidirectional(k.LSTM(4, return_sequences=True)), k.Bidirectional(k.LSTM(3))],
    "Bidirectional-given-backward": lambda k: [
        k.Bidirectional(k.SimpleRNN(4), backward_layer=k.SimpleRNN(4, go_backwards=True, name="other"))
    ],
    "stack": lambda k: [
        k.Dense(6, activation="tanh"),
        k.GRU(4, return_sequences=True, dropout=0.1, recurrent_dropout=0.1),
        k.SpatialDropout1D(0.2),
        k.GRU(4, return_sequences=True, reset_after=False),
        k.Dropout(0.2),
        k.LSTM(5, return_sequences=True, stateful=False),
        k.TimeDistributed(k.Dense(3, activation="sigmoid")),
    ],
    "several-of-a-kind": lambda k: [
        *(k.GRU(size, return_sequences=True) for size in (3, 4, 5)),
        *(k.TimeDistributed(k.Dense(size)) for size in (4, 3)),
        *(k.Dense(size, use_bias=False) for size in (5, 2)),
    ],
    "mean": lambda k: [k.GRU(4, return_sequences=True), k.GlobalAveragePooling1D(), k.Dense(3, activation="softmax")],
    "max": lambda k: [k.GRU(4, return_sequences=True), k.GlobalMaxPooling1D(), k.Dense(3, activation="log_softmax")],
    "functions": lambda k: [
        k.GRU(4, return_sequences=True),
        k.TimeDistributed(k.Activation("tanh")),
        k.Activation("linear"),
        k.Dense(3, activation="relu"),
        k.TimeDistributed(k.Dropout(0.1)),
        k.Activation("softmax"),
    ],
    "tokens": lambda k: [k.Embedding(V, F), k.GRU(4, return_sequences=True), k.Dense(V)],
    "no-recurrence": lambda k: [k.Embedding(V, F), k.GlobalAveragePooling1D(), k.Dense(2)],
}


def built(keras: Any, layers: Sequence[Any], *, functional: bool = False, batch_size: int | None = None) -> Any:
    """A model of layers with random weights, biases too, other ones for each gate."""
    tokens = isinstance(layers[0], keras.layers.Embedding)
    start = keras.Input((None,) if tokens else (None, F), batch_size=batch_size, dtype="int32" if tokens else "float32")
    if functional:
        end = start
        for layer in layers:
            end = layer(end)
        model = keras.Model(start, end)
    else:
        model = keras.Sequential([start, *layers])
    random = np.random.default_rng(0)
    model.set_weights([random.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def inputs(keras: Any, model: Any) -> np.ndarray:
    random = np.random.default_rng(1)
    if any(isinstance(layer, keras.layers.Embedding) for layer in model.layers):
        return random.integers(1, V, (B, T))
    return random.normal(size=(B, T, F)).astype(np.float32)


def ours(network: SequentialNetwork, x: np.ndarray, lengths: Sequence[int] | None = None) -> np.ndarray:
    """What a network gives, with the batch first."""
    tensor = torch.from_numpy(x).transpose(0, 1)
    with torch.no_grad():
        y, _ = network(tensor, lengths=None if lengths is None else torch.tensor(lengths))
    return (y if network.pools else y.transpose(0, 1)).numpy()


def assert_same(keras: Any, model: Any, path: Path) -> SequentialNetwork:
    network = keras_in.network(path)
    x = inputs(keras, model)
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(ours(network, x), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    assert not network.training
    return network


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_what_keras_gives(name, file_format, keras, tmp_path):
    functional = file_format == "h5"  # each model both ways: a Sequential in one format, functional in the other
    model = built(keras, MODELS[name](keras.layers), functional=functional)
    path = tmp_path / f"model.{file_format}"
    model.save(path)
    network = assert_same(keras, model, path)
    if not any(kind in name for kind in ("stack", "functions")):  # without a dropout that is within our layers
        own = sum(weights.size for weights in model.get_weights())
        assert own <= sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", ["Bidirectional-LSTM", "several-of-a-kind"])
def test_the_other_way_round(name, file_format, keras, tmp_path):
    model = built(keras, MODELS[name](keras.layers), functional=file_format == "keras")
    model.save(tmp_path / f"model.{file_format}")
    assert_same(keras, model, tmp_path / f"model.{file_format}")


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_tutorial_model(file_format, keras, tmp_path):
    k = keras.layers
    layers = [k.GRU(256, return_sequences=True), k.GRU(128, return_sequences=True)]
    model = keras.Sequential([keras.Input((None, 100)), *layers, k.TimeDistributed(k.Dense(1, activation="sigmoid"))])
    model.save(tmp_path / f"model.{file_format}")
    network = keras_in.network(tmp_path / f"model.{file_format}")
    x = np.random.default_rng(0).normal(size=(2, 50, 100)).astype(np.float32)
    np.testing.assert_allclose(ours(network, x), keras.ops.convert_to_numpy(model(x)), rtol=0, atol=1e-6)
    assert [table["kind"] for table in network.describe()] == ["gru", "gru", "linear", "activation"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_stateful_layer_begins_with_zeros(file_format, keras, tmp_path):
    model = built(keras, [keras.layers.GRU(4, stateful=True, return_sequences=True)], batch_size=B)
    model.save(tmp_path / f"model.{file_format}")
    assert_same(keras, model, tmp_path / f"model.{file_format}")


@pytest.mark.parametrize("dtype", ["float64", "float16", "mixed_float16"])
def test_other_precisions(dtype, keras, tmp_path):
    gru = keras.layers.GRU(4, return_sequences=True, dtype=dtype, recurrent_initializer="zeros")
    layers = [gru, keras.layers.Dense(2, dtype=dtype)]
    model = built(keras, layers)
    model.save(tmp_path / "model.keras")
    network = keras_in.network(tmp_path / "model.keras")
    assert {p.dtype for p in network.parameters()} == {torch.float64 if dtype == "float64" else torch.float32}
    kernel = keras.ops.convert_to_numpy(layers[1].kernel)
    np.testing.assert_array_equal(network.state_dict()["layers.1.weight"].numpy().T, kernel)


def test_no_random_numbers_are_spent(keras, tmp_path):
    built(keras, [keras.layers.GRU(4)]).save(tmp_path / "model.keras")
    before = torch.get_rng_state()
    keras_in.network(tmp_path / "model.keras")
    assert torch.equal(torch.get_rng_state(), before)


MASKED = {
    "last": lambda k: [k.GRU(4, return_sequences=True), k.LSTM(3)],
    "both-last": lambda k: [k.Bidirectional(k.GRU(4, return_sequences=True)), k.Bidirectional(k.LSTM(3)), k.Dense(2)],
    "mean": lambda k: [k.Bidirectional(k.GRU(4, return_sequences=True)), k.Dense(2), k.GlobalAveragePooling1D()],
    "max": lambda k: [k.GRU(4, return_sequences=True), k.LSTM(4, return_sequences=True), k.GlobalMaxPooling1D()],
    "steps": lambda k: [k.Bidirectional(k.GRU(4, return_sequences=True)), k.TimeDistributed(k.Dense(2))],
}


@pytest.mark.parametrize("tokens", [False, True], ids=["Masking", "mask_zero"])
@pytest.mark.parametrize("name", MASKED)
@pytest.mark.filterwarnings("ignore:Layer 'global_max_pooling1d.*does not support masking:UserWarning")
def test_a_mask_is_what_lengths_are(name, tokens, keras, tmp_path):
    k = keras.layers
    first = k.Embedding(V, F, mask_zero=True) if tokens else k.Masking(0.0)
    model = built(keras, [first, *MASKED[name](k)], functional=name in ("mean", "steps"))
    x = inputs(keras, model)
    lengths = [T, 1, 4]
    for row, length in enumerate(lengths):
        x[row, length:] = 0
    path = tmp_path / "model.keras"
    model.save(path)
    message = f"model.keras: layer '{first.name}' masks steps; here no step is masked: pass lengths for rows"
    with pytest.warns(UserWarning, match=re.escape(message)):
        network = keras_in.network(path)
    got, expected = ours(network, x, lengths), keras.ops.convert_to_numpy(model(x))
    for row, length in enumerate(lengths):
        until = slice(None) if network.pools else slice(length)
        np.testing.assert_allclose(got[row][until], expected[row][until], rtol=0, atol=1e-5)


def test_a_layer_that_gives_its_state_too(keras, tmp_path):
    start = keras.Input((None, F))
    y, state = keras.layers.GRU(4, return_sequences=True, return_state=True, name="both")(start)
    keras.Model(start, keras.layers.Dense(2)(y)).save(tmp_path / "steps.keras")
    assert [table["kind"] for table in keras_in.network(tmp_path / "steps.keras").describe()] == ["gru", "linear"]
    keras.Model(start, keras.layers.Dense(2, name="of_state")(state)).save(tmp_path / "state.keras")
    with pytest.raises(InputError, match=r"layer 'of_state' \(Dense\): takes output 1 of call 0 of 'both'; expected"):
        keras_in.network(tmp_path / "state.keras")


def keras_2(
    path: Path, layers: Sequence[Mapping[str, Any]], weights: Mapping[str, Sequence[tuple[str, np.ndarray]]], **how: Any
) -> None:
    """A file as tf.keras 2 writes it. weights: of each layer the names and arrays."""
    listed: Any = [{"class_name": layer["class_name"], "config": dict(layer["config"])} for layer in layers]
    config = {"name": "sequential", "layers": listed}
    if how.get("functional"):
        before = None
        for entry in listed:
            entry["name"] = entry["config"]["name"]
            entry["inbound_nodes"] = [[[before, 0, 0, {}]]] if before else []
            before = entry["name"]
        config |= {"input_layers": [[listed[0]["name"], 0, 0]], "output_layers": [[before, 0, 0]]}
    kind = "Functional" if how.get("functional") else "Sequential"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.11.0", "tensorflow"
        file.attrs["model_config"] = json.dumps(
            {"class_name": kind, "config": listed if how.get("as_list") else config}
        )
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, arrays in weights.items():
            own = group.create_group(layer)
            own.attrs["weight_names"] = [name.encode() for name, _ in arrays]
            for name, array in arrays:
                own.create_dataset(name, data=array)


def _recurrent_2(name: str, units: int, **options: Any) -> dict[str, Any]:
    """The configuration of a GRU as tf.keras 2.11 writes it."""
    config = {
        "name": name, "trainable": True, "dtype": "float32", "return_sequences": True, "return_state": False,
        "go_backwards": False, "stateful": False, "unroll": False, "time_major": False, "units": units,
        "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True,
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}}, "dropout": 0.0,
        "recurrent_dropout": 0.0, "implementation": 2, "reset_after": True,
    }  # fmt: skip
    return {"class_name": "GRU", "config": config | options}


def _input_2(shape: list[int | None], dtype: str = "float32") -> dict[str, Any]:
    config = {"batch_input_shape": shape, "dtype": dtype, "sparse": False, "ragged": False, "name": "input_1"}
    return {"class_name": "InputLayer", "config": config}


@pytest.mark.parametrize("form", ["sequential", "functional", "as_list"])
def test_files_of_keras_2(form, keras, tmp_path):
    k = keras.layers
    layers = [
        k.Embedding(V, F),
        k.GRU(4, return_sequences=True, reset_after=False),
        k.Bidirectional(k.GRU(3, return_sequences=True)),
        k.TimeDistributed(k.Dense(2, activation="sigmoid")),
    ]
    model = built(keras, layers)
    embedding, gru, both, dense = (layer.get_weights() for layer in layers)
    names = ("kernel:0", "recurrent_kernel:0", "bias:0")
    inner = _recurrent_2("gru_1", 3)
    tables = [
        _input_2([None, None]),
        {"class_name": "Embedding", "config": {"name": "embedding", "batch_input_shape": [None, None], "input_dim": V,
         "output_dim": F, "mask_zero": False, "input_length": None}},
        _recurrent_2("gru", 4, reset_after=False),
        {"class_name": "Bidirectional", "config": {"name": "bidirectional", "merge_mode": "concat", "layer": inner}},
        {"class_name": "TimeDistributed", "config": {"name": "time_distributed", "layer": {
            "class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "sigmoid"}}}},
    ]  # fmt: skip
    # The backward half first, as it comes where the forward layer is not trained: names tell them apart, not the order.
    directions = [
        *((f"bidirectional/backward_gru_1/gru_cell_3/{n}", a) for n, a in zip(names, both[3:], strict=True)),
        *((f"bidirectional/forward_gru_1/gru_cell_2/{n}", a) for n, a in zip(names, both[:3], strict=True)),
    ]
    weights = {
        "embedding": [("embedding/embeddings:0", embedding[0])],
        "gru": [(f"gru/gru_cell/{n}", a) for n, a in zip(names, gru, strict=True)],
        "bidirectional": directions,
        "time_distributed": [("time_distributed/kernel:0", dense[0]), ("time_distributed/bias:0", dense[1])],
    }
    keras_2(tmp_path / "model.h5", tables, weights, **{form: True})
    assert_same(keras, model, tmp_path / "model.h5")


def test_older_files_do_not_say_where_the_reset_gate_acts(keras, tmp_path):
    """Then the shape of the bias does."""
    table = _recurrent_2("gru", 4, batch_input_shape=[None, None, F])
    del table["config"]["reset_after"]
    for placement in (False, True):
        model = built(keras, [keras.layers.GRU(4, return_sequences=True, reset_after=placement)])
        names = ("gru/kernel:0", "gru/recurrent_kernel:0", "gru/bias:0")
        keras_2(tmp_path / "model.h5", [table], {"gru": list(zip(names, model.get_weights(), strict=True))})
        network = assert_same(keras, model, tmp_path / "model.h5")
        assert network.describe()[0]["reset"] == ("after" if placement else "before")
    table["config"]["use_bias"] = False
    keras_2(tmp_path / "model.h5", [table], {"gru": [(n, np.ones((F if n == names[0] else 4, 12))) for n in names[:2]]})
    with pytest.raises(InputError, match=r"'gru' \(GRU\): neither a bias nor reset_after: the file does not"):
        keras_in.network(tmp_path / "model.h5")


REFUSED: dict[str, tuple[Callable[[Any], list[Any]], str]] = {
    "Conv1D": (
        lambda k: [k.Conv1D(3, 2)],
        r"layer 'conv1d\w*' \(Conv1D\): a layer of this kind is not read; kn",
    ),
    "Lambda": (
        lambda k: [k.Lambda(lambda x: x, output_shape=(None, F))],
        r"not read: it holds Python code, which i",
    ),
    "sum": (
        lambda k: [k.Bidirectional(k.GRU(3), merge_mode="sum")],
        r"merge_mode 'sum' is not read; expected 'co",
    ),
    "none": (lambda k: [k.Bidirectional(k.LSTM(3), merge_mode="ave")], r"merge_mode 'ave' is not read"),
    "hard_sigmoid": (
        lambda k: [k.GRU(3, recurrent_activation="hard_sigmoid")],
        r"\(GRU\): recurrent_activation 'hard_sigmoid', the default of Keras before 2.3, is another function: expected "
        r"'sigmoid'; build the model with that",
    ),
    "gates": (lambda k: [k.LSTM(3, recurrent_activation="relu")], r"recurrent_activation 'relu' is not read: expected"),
    "relu": (lambda k: [k.GRU(3, activation="relu")], r"activation 'relu' is not read; expected tanh$"),
    "rnn": (lambda k: [k.SimpleRNN(3, activation="elu")], r"activation 'elu' is not read; expected tanh or relu$"),
    "dense": (lambda k: [k.Dense(3, activation="gelu")], r"activation 'gelu' is not read; known are linear, sigmoid"),
    "backwards": (lambda k: [k.GRU(3, go_backwards=True)], r"go_backwards alone is not read; wrap it in Bidirectional"),
    "unlike": (
        lambda k: [k.Bidirectional(k.GRU(3), backward_layer=k.LSTM(3, go_backwards=True))],
        r"its two directions are not alike; expected the same layer forwards and backwards",
    ),
    "keepdims": (
        lambda k: [k.GlobalMaxPooling1D(keepdims=True)],
        r"\(GlobalMaxPooling1D\): expected data_format 'channels_last' and no keepdims",
    ),
    "inner": (
        lambda k: [k.TimeDistributed(k.LayerNormalization())],
        r"expected Dense, Activation or Dropout in it",
    ),
    "masked-max": (
        lambda k: [k.Masking(), k.Bidirectional(k.GRU(3, return_sequences=True)), k.GlobalMaxPooling1D()],
        r"the maximum would be taken over masked steps, too, where Bidirectional writes zeros",
    ),
}


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:Layer 'global_max_pooling1d.*does not support masking:UserWarning")
def test_what_is_not_read_is_named(name, file_format, keras, tmp_path):
    make, message = REFUSED[name]
    path = tmp_path / f"model.{file_format}"
    built(keras, make(keras.layers)).save(path)
    with pytest.raises(InputError, match=message) as caught:
        keras_in.network(path)
    assert str(caught.value).startswith(f"{path}: layer '")


def test_branches_are_named(keras, tmp_path):
    k = keras.layers
    start, other = keras.Input((None, F), name="start"), keras.Input((None, F), name="other")
    x, shared = k.GRU(4, return_sequences=True, name="trunk")(start), k.Dense(4, name="shared")
    branched = {
        r"layer 'meet' \(Concatenate\): takes 2 inputs \('left', 'right'\): here branches of the model meet": (
            start,
            k.Concatenate(name="meet")([k.Dense(2, name="left")(x), k.Dense(2, name="right")(x)]),
        ),
        r"layer 'after' \(Dense\): takes output 0 of call 1 of 'shared'; expected the first": (
            start,
            k.Dense(2, name="after")(shared(shared(x))),
        ),
        r"output_layers: expected one of the layers, for a model in a line, got \['trunk', 'side'\]": (
            start,
            [x, k.Dense(2, name="side")(x)],
        ),
        r"input_layers: expected one of the layers, .* got \['start', 'other'\]": (
            [start, other],
            k.Add(name="add")([x, k.Dense(4)(other)]),
        ),
        r"layer 'given' \(GRU\): takes 2 inputs \('trunk', 'first'\)": (
            start,
            k.GRU(4, name="given")(x, initial_state=k.LSTM(4, name="first")(x)),
        ),
    }
    for message, (inputs, outputs) in branched.items():
        for file_format in FORMATS:
            path = tmp_path / f"model.{file_format}"
            keras.Model(inputs, outputs).save(path)
            with pytest.raises(InputError, match=message):
                keras_in.network(path)


def test_a_mask_of_ones_own_is_refused(keras, tmp_path):
    start = keras.Input((None, F))
    mask = keras.ops.any(keras.ops.not_equal(start, 2.0), axis=-1)
    keras.Model(start, keras.layers.GRU(4)(start, mask=mask)).save(tmp_path / "model.keras")
    with pytest.raises(InputError, match="a mask is given to layers that is not that of an Embedding with mask_zero"):
        keras_in.network(tmp_path / "model.keras")


def test_a_custom_object_is_refused(keras, tmp_path):
    class GRU(keras.layers.GRU):  # of the name of a known one
        pass

    keras.saving.register_keras_serializable("mine", "GRU")(GRU)
    built(keras, [GRU(3)]).save(tmp_path / "model.keras")
    with pytest.raises(InputError, match=r"\(GRU\): a custom object, 'mine>GRU': its code is not in the file"):
        keras_in.network(tmp_path / "model.keras")


def test_wrong_inputs_are_named(keras, tmp_path):
    path = tmp_path / "model.keras"
    k = keras.layers
    for layers, message in (
        ([keras.Input((F,)), k.Dense(3)], r"expected the input to be features \(B, T, F\), got the shape \[None, 5\]"),
        ([keras.Input((None, F)), k.Dense(3), k.Embedding(V, F)], "expected tokens to enter by the first layer"),
        ([keras.Input(()), k.Embedding(V, F)], r"expected the input to be tokens \(B, T\), got the shape \[None\]"),
    ):
        keras.Sequential(layers).save(path)
        with pytest.raises(InputError, match=message):
            keras_in.network(path)


def test_nothing_imports_keras(keras, tmp_path):
    built(keras, [keras.layers.GRU(3)]).save(tmp_path / "model.keras")
    program = (
        "import sys; sys.modules['keras'] = None; from gatewise.interchange import keras_in, keras_out\n"
        "network = keras_in.network(sys.argv[1]); keras_out.write_keras(network, sys.argv[2])\n"
        "print(network.describe()[0]['kind'])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "model.keras"), str(tmp_path / "again.keras")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "gru\n"


def test_without_h5py_the_error_says_what_to_install(keras, tmp_path, monkeypatch):
    built(keras, [keras.layers.GRU(3)]).save(tmp_path / "model.keras")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs h5py, which is not installed; install it with: pip install 'gate"):
        keras_in.network(tmp_path / "model.keras")
