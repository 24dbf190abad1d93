"""State dicts in files: what is told of the layers by names, shapes and a description, and what is refused."""

import pickle
import re
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gatewise.errors import ConfigError, InputError
from gatewise.interchange.torch_in import network, read_state_dict
from gatewise.models.sequential import build


class Tagger(nn.Module):
    """What users write: layers as attributes, and a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.encoder = nn.GRU(5, 6, 2, bidirectional=True)
        self.decoder = nn.LSTM(12, 4, bias=False)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        y, _ = self.decoder(self.encoder(self.embedding(x))[0])
        return self.out(y)


def save(path: Path, state) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["tagger.pt", "tagger.pth", "tagger.safetensors"])
def test_a_model_is_told_from_names_and_shapes(tmp_path, name):
    torch.manual_seed(0)
    model = Tagger().eval()
    found, guesses = network(save(tmp_path / name, model.state_dict()))
    assert [table["kind"] for table in found.describe()] == ["embedding", "gru", "lstm", "linear"]
    x = torch.randint(11, (7, 2))
    torch.testing.assert_close(found(x)[0], model(x))
    assert guesses[1] == (
        "encoder.*: taken for gru: input_size = 5, hidden_size = 6, num_layers = 2, bias = true, bidirectional = true, "
        'reset = "after" as in torch'
    )
    assert guesses[-1].startswith("what has no weights (pooling, activations, dropout) cannot be seen")


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_checkpoint_holds_the_state_dict_among_others(tmp_path, wrapper):
    layer = nn.RNN(3, 4)
    state = {f"module.{name}": tensor for name, tensor in layer.state_dict().items()}
    found, _ = network(save(tmp_path / "a.pt", {wrapper: state, "epoch": 3}))
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(found(x)[0], layer(x)[0])


def test_a_cell_is_a_layer(tmp_path):
    cell = nn.LSTMCell(3, 4)
    found, _ = network(save(tmp_path / "a.pt", cell.state_dict()))
    x = torch.randn(1, 2, 3)
    torch.testing.assert_close(found(x)[0][0], cell(x[0])[0])


DESCRIPTION = """
[[layers]]
kind = "one-hot"
vocabulary_size = 5

[[layers]]
kind = "gru"
prefix = "second."
reset = "before"

[[layers]]
kind = "gru"

[[layers]]
kind = "pooling"
pooling = "max"

[[layers]]
kind = "linear"

[[layers]]
kind = "activation"
function = "softmax"
"""


def test_a_description_says_what_the_weights_do_not(tmp_path):
    made = build(
        [
            {"kind": "one-hot", "vocabulary_size": 5},
            {"kind": "gru", "input_size": 5, "hidden_size": 4, "reset": "before"},
            {"kind": "gru", "input_size": 4, "hidden_size": 3},
            {"kind": "pooling", "pooling": "max"},
            {"kind": "linear", "input_size": 3, "output_size": 2, "bias": False},
            {"kind": "activation", "function": "softmax"},
        ]
    ).eval()
    names = {"1": "second", "2": "first", "4": "out"}
    state = {re.sub(r"^layers\.(\d)", lambda m: names[m[1]], k): v for k, v in made.state_dict().items()}
    file = save(tmp_path / "weights.safetensors", state)
    (tmp_path / "model.toml").write_text(DESCRIPTION)
    found, guesses = network(file, tmp_path / "model.toml")
    assert guesses == []
    assert found.describe() == made.describe()
    x = torch.randint(5, (7, 2))
    torch.testing.assert_close(found(x)[0], made(x)[0])


def test_other_precisions_become_float32(tmp_path):
    layer = nn.GRU(3, 4).bfloat16()
    found, _ = network(save(tmp_path / "a.pt", layer.state_dict()))
    assert torch.equal(found.state_dict()["layers.0.weight_hh_l0"], layer.state_dict()["weight_hh_l0"].float())


# What is refused


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "expected tensors, got none"),
        (
            {"norm.weight": torch.zeros(3)},
            "norm.*: expected a weight (O, I) of Linear or Embedding, got {'weight': (3,)}",
        ),
        (
            {"a.weight": torch.zeros(3, 2), "b.bias": torch.zeros(3)},
            "b.*: has a bias and no weight; if it shares that with another layer, save it twice",
        ),
        (
            {"conv.kernel": torch.zeros(3)},
            "conv.kernel of shape (3,): not a weight of a known layer (Embedding, GRU, LSTM, RNN, Linear), so this "
            "network cannot be brought here",
        ),
        (
            nn.LSTM(3, 4, proj_size=2).state_dict(),
            "weight_hr_l0 of shape (2, 4): not a weight of a known layer (Embedding, GRU, LSTM, RNN, Linear), so this "
            "network cannot be brought here",
        ),
        (
            {"weight_ih_l0": torch.zeros(8, 3), "weight_hh_l0": torch.zeros(8, 4)},
            "*: weight_hh_l0 has 8 rows for 4 units; expected 3 times as many (GRU), 4 times (LSTM) or as many (RNN); "
            "an LSTM with proj_size is not known here",
        ),
        (
            {"weight_ih_l0": torch.zeros(6, 3), "weight_hh_l0": torch.zeros(6)},
            "*: expected weight_ih_l0 (G*H, I) and weight_hh_l0 (G*H, H), got "
            "{'weight_ih_l0': (6, 3), 'weight_hh_l0': (6,)}",
        ),
        (
            {**nn.GRU(3, 4).state_dict(), "bias_ih_l7": torch.zeros(12)},
            "layers.0: gru: expected bias_ih_l7 of shape nothing, got (12,)",
        ),
        (
            {"a.weight": torch.zeros(3, 2), "a.bias": torch.zeros(3), "b.weight": torch.zeros(9, 8)}
            | {"b.bias": torch.zeros(9)},
            "the order of the layers cannot be told from their sizes (a. linear of 2, b. linear of 8); describe them",
        ),
        ({"epoch": 3, "w": torch.zeros(2)}, "expected tensors by name, got epoch: int; save model.state_dict()"),
        ([torch.zeros(2)], "expected tensors by name, got list; save model.state_dict()"),
    ],
)
def test_weights_of_unknown_layers_are_named(tmp_path, state, message):
    file = save(tmp_path / "a.pt", state)
    with pytest.raises(InputError, match=f"^{re.escape(f'{file}: {message}')}$"):
        network(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected tables [[layers]] and nothing else"),
        ("[[layers]]\nkind = 'gru'\n[more]\n", "expected tables [[layers]] and nothing else"),
        ("[[layers]]\nkind = 'grue'\n", "layers.0: expected kind to be one of embedding, .*, got 'grue'"),
        ("[[layers]]\nkind = 'lstm'\n", "layers.0: .* holds no weights of a lstm; left are a.* (gru), out.* (linear)"),
        (
            "[[layers]]\nkind = 'gru'\nprefix = 'b.'\n",
            "layers.0: .* holds no weights of a gru named b.*; left are a.* (gru), out.* (linear)",
        ),
        ("[[layers]]\nkind = 'gru'\n", "no layer takes the weights out.*"),
        (
            "[[layers]]\nkind = 'gru'\n[[layers]]\nkind = 'linear'\ninput_size = 5\n",
            "layers.1: linear: expected input_size = 4, as the weights out.* are, got 5",
        ),
        (
            "[[layers]]\nkind = 'gru'\nhidden_size = 1000000000\n[[layers]]\nkind = 'linear'\n",
            "layers.0: gru: expected hidden_size = 4, as the weights a.* are, got 1000000000",
        ),
        (
            "[[layers]]\nkind = 'dropout'\nprefix = 'a.'\n",
            "layers.0: a layer of kind dropout has no weights, so it takes no prefix",
        ),
        ("[[layers]]\nkind = 'gru'\nrest = 'before'\n[[layers]]\nkind = 'linear'\n", '.*did you mean "reset"?'),
    ],
)
def test_descriptions_that_do_not_fit(tmp_path, text, message):
    state = {f"a.{k}": v for k, v in nn.GRU(3, 4).state_dict().items()}
    file = save(tmp_path / "a.pt", state | {f"out.{k}": v for k, v in nn.Linear(4, 2).state_dict().items()})
    (tmp_path / "a.toml").write_text(text)
    pattern = re.escape(message).replace(r"\.\*", ".*").replace("\\ ", " ")
    with pytest.raises(ConfigError, match=pattern):
        network(file, tmp_path / "a.toml")


class Evil:
    """What a pickle could do."""

    def __reduce__(self):
        return (open, ("/nowhere/evil", "w"))


def test_nothing_in_a_file_is_executed(tmp_path):
    for name, write in {
        "whole.pt": lambda file: torch.save(nn.GRU(3, 4), file),
        "evil.pt": lambda file: torch.save({"w": Evil()}, file),
        "raw.pt": lambda file: file.write_bytes(pickle.dumps(Evil())),
    }.items():
        write(tmp_path / name)
        with pytest.raises(InputError, match=r"cannot be read as a state dict: it holds more than tensors, such as"):
            network(tmp_path / name)


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"none.pt: no such file; expected a torch state dict$"):
        network(tmp_path / "none.pt")
    with pytest.raises(InputError, match=r": is a folder; expected a torch state dict$"):
        network(tmp_path)
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1 << 20))
    with pytest.raises(InputError, match=r"bomb.pt: compressed, as torch.save never writes it; refused$"):
        network(tmp_path / "bomb.pt")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".pt", ".safetensors"]))
def test_damaged_files_are_one_clear_error(tmp_path_factory, data, suffix):
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(save(folder / f"a{suffix}", nn.GRU(3, 4).state_dict()).read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 5))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = folder / f"b{suffix}"
    file.write_bytes(content)
    message = ""
    try:
        network(file)  # where only numbers were changed
    except InputError as error:
        message = str(error)
    assert "\n" not in message


def test_read_state_dict_names_the_file(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"no tensors")
    with pytest.raises(
        InputError, match=r"a.safetensors: cannot be read as a state dict: .*; save one with torch.save"
    ):
        read_state_dict(tmp_path / "a.safetensors")
