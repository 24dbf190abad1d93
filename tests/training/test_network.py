"""Network: saved, loaded and asked for predictions."""

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.errors import InputError, RunError
from gatewise.models.sequential import build
from gatewise.run_folder import RunFolder
from gatewise.training.network import Network

LAYERS = [
    {"kind": "gru", "input_size": 5, "hidden_size": 6, "reset": "before"},
    {"kind": "linear", "input_size": 6, "output_size": 2},
    {"kind": "activation", "function": "sigmoid"},
]


def test_a_run_gives_the_same_network(tmp_path):
    network = Network(build(LAYERS), source='a "file"')
    network.save(tmp_path / "run")
    loaded = gw.load(tmp_path / "run")
    assert isinstance(loaded, gw.Network)
    assert loaded.source == 'a "file"'
    x = np.random.default_rng(0).standard_normal((3, 9, 5))
    lengths = np.array([9, 2, 5])
    np.testing.assert_array_equal(loaded.predict(x, lengths=lengths), network.predict(x, lengths=lengths))
    assert loaded.predict(x).shape == (3, 9, 2)


def test_tokens_are_checked():
    network = Network(build([{"kind": "one-hot", "vocabulary_size": 4}, {**LAYERS[0], "input_size": 4}]))
    assert network.predict(torch.tensor([[0, 1, 3]])).shape == (1, 3, 6)
    with pytest.raises(InputError, match=r"^Network.predict: expected tokens from 0 to 3, got 0 to 4$"):
        network.predict(torch.tensor([[0, 4]]))
    with pytest.raises(InputError, match=r"^Network.predict: expected x to be tokens \(B, T\), got \(3,\)$"):
        network.predict(torch.tensor([0, 1, 3]))


def test_a_run_of_another_task(tmp_path):
    Network(build(LAYERS)).save(tmp_path / "run")
    with pytest.raises(RunError, match=r"expected the run of a language-model, got one of a network; gatewise.load"):
        gw.LanguageModel.from_run(RunFolder(tmp_path / "run"))
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace('task = "network"', 'task = "weather"'))
    with pytest.raises(RunError, match=r"expected task to be one of language-model, .*, network, got 'weather'$"):
        gw.load(tmp_path / "run")
    config.write_text(config.read_text().replace("weather", "network").replace("hidden_size = 6", "hidden_size = 7"))
    with pytest.raises(RunError, match=r"config.toml: layers.1: expected input_size = 7, .*damaged or was edited$"):
        gw.load(tmp_path / "run")
