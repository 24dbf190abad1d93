"""Networks as Keras models: Keras loads them and gives the same, and what is read back is what was written."""

import json
import os
import re
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gatewise as gw
from gatewise.config import LanguageModelConfig
from gatewise.errors import ExportError, InputError
from gatewise.interchange import keras_out
from gatewise.interchange.keras_in import network as read
from gatewise.interchange.keras_out import export_keras, write_keras
from gatewise.interchange.parity import evaluate, golden_cases
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.models.sequential import SequentialNetwork, build

pytest.importorskip("h5py", reason="Keras files are HDF5, of the extra `keras`")
pytestmark = [
    pytest.mark.usefixtures("quick_hdf5"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]

TUTORIAL = [
    {"kind": "gru", "input_size": 100, "hidden_size": 256},
    {"kind": "gru", "input_size": 256, "hidden_size": 128},
    {"kind": "linear", "input_size": 128, "output_size": 1},
    {"kind": "activation", "function": "sigmoid"},
]


def randomised(tables, seed=0) -> SequentialNetwork:
    """With random weights that are distinct for every gate, and no small ones."""
    network = build(tables)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, -0.7, 0.7, generator)
    return network.eval()


def assert_keras_gives_the_same(keras, network, path) -> None:
    model = keras.saving.load_model(path)
    for case in golden_cases(network, states=False):
        y = keras.ops.convert_to_numpy(model(case.inputs["x"].swapaxes(0, 1), training=False))
        y = y if network.pools else y.swapaxes(0, 1)
        expected = case.outputs["y"]
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def of_layers(network: SequentialNetwork) -> list[dict[str, torch.Tensor]]:
    """The weights of each layer of each stack, in order, and those of the others, without what the layers are called.

    The two biases as their sum, but for a GRU that needs both.
    """
    found = []
    for layer in network.layers:
        state = layer.state_dict()
        if not state:
            continue
        for number in range(getattr(layer, "num_layers", 1)):
            own = {k.replace(f"_l{number}", ""): v for k, v in state.items() if f"_l{number}" in k or "_l" not in k}
            if not (isinstance(layer, gw.GRU) and layer.reset == "after"):
                for direction in ("", "_reverse"):
                    if f"bias_ih{direction}" in own:
                        own[f"bias_ih{direction}"] = own[f"bias_ih{direction}"] + own.pop(f"bias_hh{direction}")
            found.append(own)
    return found


@st.composite
def networks(draw) -> list[dict]:
    """Tables of a network: any input, one or two recurrent layers, perhaps pooling, perhaps an output layer."""
    sizes = st.integers(1, 6)
    tables, width = [], draw(sizes)
    entrance = draw(st.sampled_from(["embedding", "one-hot", "features", "linear"]))
    if entrance == "embedding":
        tables.append({"kind": "embedding", "vocabulary_size": draw(sizes), "size": width})
    elif entrance == "one-hot":
        tables.append({"kind": "one-hot", "vocabulary_size": width})
    elif entrance == "linear":
        tables.append({"kind": "linear", "input_size": draw(sizes), "output_size": width})
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["gru", "lstm", "rnn"]))
        table = {"kind": kind, "input_size": width, "hidden_size": draw(sizes), "num_layers": draw(st.integers(1, 3))}
        table |= {"bias": draw(st.booleans()), "bidirectional": draw(st.booleans())}
        table["dropout"] = draw(st.sampled_from([0.0, 0.3])) if table["num_layers"] > 1 else 0.0
        if kind == "gru":
            table["reset"] = draw(st.sampled_from(["before", "after"]))
        if kind == "rnn":
            table["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
        tables.append(table)
        width = table["hidden_size"] * (2 if table["bidirectional"] else 1)
        if draw(st.booleans()):
            tables.append({"kind": "dropout", "probability": 0.2})
    pooling = draw(st.sampled_from([None, "last", "mean", "max"]))
    if pooling:
        tables.append({"kind": "pooling", "pooling": pooling})
    if draw(st.booleans()):
        tables.append({"kind": "linear", "input_size": width, "output_size": draw(sizes), "bias": draw(st.booleans())})
    if draw(st.booleans()):
        functions = ["sigmoid", "tanh", "relu", "softmax", "log-softmax"]
        tables.append({"kind": "activation", "function": draw(st.sampled_from(functions))})
    return tables


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=networks(), seed=st.integers(0, 99))
def test_out_and_in_again(tables, seed, keras, tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    network = randomised(tables, seed)
    write_keras(network, path)
    assert_keras_gives_the_same(keras, network, path)
    again = read(path)
    for written, found in zip(of_layers(network), of_layers(again), strict=True):
        assert written.keys() == found.keys()
        for name, tensor in written.items():
            assert torch.equal(found[name], tensor), name
    for case in golden_cases(network, states=False):
        np.testing.assert_allclose(evaluate(again, case.inputs)["y"], case.outputs["y"], rtol=1e-6, atol=1e-6)
    kinds = [table["kind"] for table in again.describe() if table["kind"] not in ("gru", "lstm", "rnn", "dropout")]
    assert kinds == [table["kind"] for table in tables if table["kind"] not in ("gru", "lstm", "rnn", "dropout")]


def test_the_tutorial_model_proves_itself(tmp_path):
    network = build(TUTORIAL).eval()
    parity = export_keras(network, tmp_path / "out", metadata={"labels": ["é", "b"]})
    assert parity.verdict == "passed"
    assert parity.errors["y"] < 1e-6
    assert re.fullmatch(r"Keras 3\.\S+ \(torch\)", parity.runtime or "")
    assert sorted(os.listdir(tmp_path / "out")) == ["golden.npz", "model.keras", "parity.json", "parity.md"]
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["verdict"] == "passed"
    with zipfile.ZipFile(tmp_path / "out" / "model.keras") as archive:
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert json.loads(archive.read("metadata.json"))["gatewise"]["labels"] == ["é", "b"]
    again = read(tmp_path / "out" / "model.keras")
    assert [{**table} for table in again.describe()] == network.describe()
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_language_model(keras, tmp_path):
    network = LanguageModelNetwork(11, LanguageModelConfig(hidden_size=8, embedding_size=8, tied=True)).as_sequential()
    write_keras(network, tmp_path / "model.keras")
    assert_keras_gives_the_same(keras, network, tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in model.layers] == ["embedding", "gru", "dense"]


def test_names_of_layers(keras, tmp_path):
    tables = [
        {"kind": "one-hot", "vocabulary_size": 5},
        {"kind": "lstm", "input_size": 5, "hidden_size": 3, "num_layers": 2, "bidirectional": True, "dropout": 0.25},
        {"kind": "gru", "input_size": 6, "hidden_size": 3, "num_layers": 2},
        {"kind": "pooling", "pooling": "mean"},
    ]
    write_keras(build(tables), tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in model.layers] == [
        "one_hot", "bidirectional", "dropout", "bidirectional_1", "gru", "gru_1", "global_average_pooling1d"
    ]  # fmt: skip
    assert model.layers[2].rate == 0.25
    assert not model.layers[0].trainable


def test_training_goes_on_in_keras(keras, tmp_path):
    write_keras(build(TUTORIAL), tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    model.compile("adam", "binary_crossentropy")
    x, y = np.ones((4, 6, 100), np.float32), np.ones((4, 6, 1), np.float32)
    losses = [model.train_on_batch(x, y) for _ in range(3)]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "trained.keras")
    np.testing.assert_allclose(
        evaluate(read(tmp_path / "trained.keras"), {"x": x.swapaxes(0, 1)})["y"].swapaxes(0, 1),
        keras.ops.convert_to_numpy(model(x)),
        rtol=0,
        atol=1e-6,
    )


def test_the_same_network_gives_the_same_bytes(tmp_path):
    network = build(TUTORIAL)
    for name in ("one.keras", "two.keras"):
        write_keras(network, tmp_path / name)
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.keras") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype, keras, tmp_path):
    network = randomised(TUTORIAL).to(dtype)
    write_keras(network, tmp_path / "model.keras")
    again = read(tmp_path / "model.keras")
    assert {p.dtype for p in again.parameters()} == {torch.float64 if dtype == torch.float64 else torch.float32}
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.to(again.state_dict()[name].dtype)), name
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.layers[0].compute_dtype == ("float64" if dtype == torch.float64 else "float32")


def test_a_pooling_that_comes_late_is_put_where_keras_can_take_it(keras, tmp_path):
    linear = {"kind": "linear", "input_size": 4, "output_size": 3}
    last = {"kind": "pooling", "pooling": "last"}
    tables = [{"kind": "gru", "input_size": 5, "hidden_size": 4}, linear, {"kind": "activation", "function": "softmax"}]
    for given_tables in (
        [*tables, last],
        [{**tables[0], "bidirectional": True}, {"kind": "dropout"}, {"kind": "activation", "function": "tanh"}, last],
    ):
        network = randomised(given_tables)
        write_keras(network, tmp_path / "model.keras")
        assert_keras_gives_the_same(keras, network, tmp_path / "model.keras")


REFUSED = {
    r"^keras: pooling 'last' without a recurrent layer before it has no layer in Keras; pool by 'mean' or 'max'$": [
        {"kind": "embedding", "vocabulary_size": 5, "size": 4},
        {"kind": "pooling"},
    ],
    r"^keras: Linear stands between a bidirectional layer and pooling 'last'; Keras takes the last step of each": [
        {"kind": "gru", "input_size": 5, "hidden_size": 4, "bidirectional": True},
        {"kind": "linear", "input_size": 8, "output_size": 4},
        {"kind": "pooling"},
    ],
    r"^keras: one-hot input of 20000 tokens would become a matrix of 20000 \* 20000 numbers; expected at most 10000": [
        {"kind": "one-hot", "vocabulary_size": 20_000},
        {"kind": "rnn", "input_size": 20_000, "hidden_size": 1},
    ],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_keras_cannot_hold_is_refused(message, tmp_path):
    with pytest.raises(ExportError, match=message):
        export_keras(build(REFUSED[message]), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_another_name_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"model\.h5: expected a name that ends with \.keras, for Keras loads"):
        write_keras(build(TUTORIAL), tmp_path / "model.h5")


def test_a_failed_parity_leaves_nothing(tmp_path, monkeypatch):
    kept = tmp_path / "out"

    def zeros(model, cases, pools):
        return [np.zeros(case.outputs["y"].shape) for case in cases], "Keras 3 (torch)"

    monkeypatch.setattr(keras_out, "run_keras", zeros)
    with pytest.raises(ExportError, match=r"^keras: the artifact does not give what the model gives: y is off by"):
        export_keras(randomised(TUTORIAL), kept)
    assert not list(tmp_path.iterdir())
    kept.mkdir()
    (kept / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export_keras(randomised(TUTORIAL), kept)
    with pytest.raises(ExportError):
        export_keras(randomised(TUTORIAL), kept, overwrite=True)
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(kept) == ["mine"]


def test_a_model_that_keras_does_not_load_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_out, "CLASSES", {"gru": "LSTM", "lstm": "LSTM", "rnn": "SimpleRNN"})
    with pytest.raises(ExportError, match=r"^keras: Keras cannot load or run the artifact: .*; nothing was left"):
        export_keras(build(TUTORIAL), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", [None, "2.15.0"])
def test_without_keras_the_proof_says_so(version, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_out, "keras_version", lambda: version)
    parity = export_keras(build(TUTORIAL), tmp_path / "out")
    assert parity.verdict == "not run"
    why = "Keras is not installed (pip install keras)" if version is None else "Keras 2.15.0 is installed; .keras files"
    assert f"**NOT RUN: {why}" in (tmp_path / "out" / "parity.md").read_text()


def test_a_keras_that_cannot_be_imported_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    parity = export_keras(build(TUTORIAL), tmp_path / "out")
    assert parity.verdict == "not run"
    assert re.match(
        r"Keras 3\.\S+ is installed, but cannot be imported: \w+Error: .*nonsense", parity.why_not_run or ""
    )
