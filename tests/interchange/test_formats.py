"""export and import_network: any model to any format, and what is no model."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

import gatewise as gw
from gatewise.config import TrainingConfig
from gatewise.errors import InputError
from gatewise.interchange import formats
from gatewise.interchange.formats import format_of
from gatewise.models.sequential import build

LAYERS = [{"kind": "gru", "input_size": 3, "hidden_size": 4}, {"kind": "linear", "input_size": 4, "output_size": 2}]


def test_export_takes_a_run_a_model_a_module_and_layers(tmp_path):
    network = build(LAYERS)
    model = gw.Network(network)
    model.save(tmp_path / "run")
    modules = [nn.GRU(3, 4), nn.Linear(4, 2)]
    for number, what in enumerate([tmp_path / "run", str(tmp_path / "run"), model, network, modules]):
        folder = tmp_path / f"out{number}"
        assert gw.export(what, "torch", folder).verdict == "passed"
        assert (folder / "parity.md").exists()


def test_import_of_a_module_predicts_and_goes_out_again(tmp_path):
    layers = [nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)]
    found = gw.import_network(layers)
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    expected = layers[1](layers[0](torch.from_numpy(x))[0]).detach().numpy()
    np.testing.assert_allclose(found.predict(x), expected, atol=1e-6)
    assert found.source == "a list of torch"
    gw.export(found, "torch", tmp_path / "out")
    again = gw.import_network(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(again.predict(x), found.predict(x))
    assert again.source.startswith("model.safetensors, a torch state dict; layers.0.*: taken for gru: input_size = 3,")


def test_keras_and_back(tmp_path):
    pytest.importorskip("h5py")
    network = gw.Network(build([{"kind": "one-hot", "vocabulary_size": 3}, *LAYERS]))
    gw.export(network, "keras", tmp_path / "out")
    found = gw.import_network(tmp_path / "out" / "model.keras")
    assert found.source == "model.keras, a Keras model"
    assert found.network.describe() == network.network.describe()
    x = np.array([[0, 1, 2, 1]])
    np.testing.assert_array_equal(found.predict(x), network.predict(x))


def test_int8_is_calibrated_on_the_text_of_the_run(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    training = TrainingConfig(max_steps=2, batch_size=4, sequence_length=8, sample_length=0)
    model = gw.LanguageModel(hidden_size=8, embedding_size=4).fit(
        tmp_path / "text.txt", tmp_path / "run", training=training
    )
    given: dict = {}
    writer = types.ModuleType("writer")
    vars(writer)["export_c"] = lambda network, folder, **how: given.update(how)
    monkeypatch.setitem(sys.modules, "writer", writer)
    monkeypatch.setitem(formats._WRITERS, "c", ("writer", "export_c"))
    gw.export(tmp_path / "run", "c", tmp_path / "out", weights="int8")
    tokens = given.pop("calibration")
    assert tokens.shape == (64, 32)
    assert model.tokenizer.decode(tokens[:45, 0].tolist()) == "the quick brown fox jumps over the lazy dog. "
    assert given == {"weights": "int8", "description": "the run run", "overwrite": False}
    own = np.zeros((3, 1), int)
    gw.export(tmp_path / "run", "c", tmp_path / "out", weights="int8", calibration=own)
    assert given["calibration"] is own
    gw.export(model, "c", tmp_path / "out", weights="int8")
    assert given["calibration"] is None
    with pytest.raises(InputError, match=r"^export: calibration is for weights of int8$"):
        gw.export(model, "c", tmp_path / "out", calibration=own)


class Tree:
    """A model whose network is no chain."""

    network = nn.Bilinear(1, 1, 1)


@pytest.mark.parametrize(
    ("model", "format", "message"),
    [
        (build(LAYERS), "tensorflow", "expected format to be one of torch, onnx, keras, c, got 'tensorflow'"),
        (Tree(), "torch", "a Tree is no chain of layers, one after another, so it cannot be exported"),
        (7, "torch", "expected a run, a model or a module, got int"),
        (gw.LanguageModel(), "torch", "expected a run, a model or a module, got LanguageModel; fit it first"),
    ],
)
def test_export_refuses(tmp_path, model, format, message):
    with pytest.raises(InputError, match=f"^export: {message}$"):
        gw.export(model, format, tmp_path / "out")
    with pytest.raises(InputError, match=r"^export: onnx takes weights of float32, got 'int8'$"):
        gw.export(build(LAYERS), "onnx", tmp_path / "out", weights="int8")
    with pytest.raises(InputError, match=r"^export: c takes weights of float32 or int8, got 'int4'$"):
        gw.export(build(LAYERS), "c", tmp_path / "out", weights="int4")


def test_a_description_is_for_state_dicts(tmp_path):
    (tmp_path / "a.keras").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.keras: is a keras file, which describes itself; leave out .*b.toml$"):
        gw.import_network(tmp_path / "a.keras", description=tmp_path / "b.toml")


def test_the_format_of_a_file_without_a_known_name(tmp_path):
    torch.save(nn.GRU(3, 4).state_dict(), tmp_path / "weights")
    assert format_of(tmp_path / "weights") == "torch"
    onnx, h5py = pytest.importorskip("onnx"), pytest.importorskip("h5py")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "none", [], []), producer_name="a"), tmp_path / "model")
    assert format_of(tmp_path / "model") == "onnx"
    h5py.File(tmp_path / "keras", "w").close()
    assert format_of(tmp_path / "keras") == "keras"
