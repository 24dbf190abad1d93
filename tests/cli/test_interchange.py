"""The commands export, import and convert, run as `main([...])` in this process."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import gatewise as gw
from gatewise.cli.main import main
from gatewise.config import TextConfig, TrainingConfig
from gatewise.interchange import torch_out
from gatewise.models.sequential import build
from gatewise.training.network import Network

LAYERS = [
    {"kind": "embedding", "vocabulary_size": 7, "size": 3},
    {"kind": "lstm", "input_size": 3, "hidden_size": 4},
    {"kind": "linear", "input_size": 4, "output_size": 2},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of layers. No test may change it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "net"
    Network(build(LAYERS), source="a test").save(folder)
    return folder


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    training = TrainingConfig(max_steps=2, batch_size=4, sequence_length=8, sample_length=0)
    model = gw.LanguageModel(hidden_size=8, embedding_size=4)
    model.fit(folder / "text.txt", data=TextConfig(), training=training)
    model.save(folder / "run")
    return folder / "run"


# Export


def test_export(run, tmp_path, capsys):
    out = tmp_path / "torch"
    assert main(["export", str(run), "torch", "--out", str(out)]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert re.fullmatch(r"passed: largest error [\d.e-]+, allowed 1e-05", rows["parity"])
    assert rows["model.safetensors"] == f"{(out / 'model.safetensors').stat().st_size:,} bytes"
    assert {"golden.npz", "model.toml", "parity.json", "parity.md"} <= set(rows)


def test_export_json_is_the_parity_report(run, tmp_path, document):
    found = document("export", run, "torch", "--out", tmp_path / "out")
    assert found.pop("folder") == str(tmp_path / "out")
    assert found == json.loads((tmp_path / "out" / "parity.json").read_text())
    assert found["verdict"] == "passed"


def test_export_of_a_language_model_carries_its_tokenizer(language_model, tmp_path, document):
    document("export", language_model, "torch", "--out", tmp_path / "out")
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["task"] == "language-model"
    assert metadata["config"] == (language_model / "config.toml").read_text()
    assert metadata["tokenizer"] == (language_model / "tokenizer.json").read_text()


def test_a_failed_parity_is_a_failed_export(run, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(torch_out, "TOLERANCE", 0.0)
    message = refused("export", run, "torch", "--out", tmp_path / "out", status=1)
    assert message.startswith("torch: the artifact does not give what the model gives: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["RUN", "torsh", "--out", "OUT"], 2, 'FORMAT: expected one of torch, onnx, keras, c, got "torsh"'),
        (["RUN", "torch"], 2, "--out: expected a path after it, got nothing"),
        (["NONE", "torch", "--out", "OUT"], 1, "NONE: no such run folder"),
        (
            ["RUN", "torch", "--out", "RUN"],
            2,
            "RUN: exists already; overwrite it, or name another folder for the artifact",
        ),
        (["RUN", "torch", "--out", "OUT", "--weights=int8"], 2, "export: torch takes weights of float32, got 'int8'"),
    ],
)
def test_export_refuses(run, tmp_path, refused, arguments, status, message):
    places = {"RUN": str(run), "OUT": str(tmp_path / "out"), "NONE": str(tmp_path / "none")}
    found = refused("export", *(places.get(word, word) for word in arguments), status=status)
    for place, path in places.items():
        found = found.replace(path, place)
    assert found == message


# Import


def test_import_of_a_state_dict(run, tmp_path, capsys, document):
    out = tmp_path / "artifact"
    assert main(["export", str(run), "torch", "--out", str(out)]) == 0
    capsys.readouterr()
    found = document("import", out / "model.safetensors", "--description", out / "model.toml", "--out", tmp_path / "a")
    assert found["layers"] == gw.load(run).network.describe()
    assert (found["found"], found["guessed"]) == ("a torch state dict", [])
    x = np.array([[1, 2, 3, 6]])
    np.testing.assert_array_equal(gw.load(tmp_path / "a").predict(x), gw.load(run).predict(x))
    assert main(["import", str(out / "model.safetensors"), "--out", str(tmp_path / "b")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(maxsplit=1) == ["found", "a torch state dict"]
    assert lines[2].startswith("layer 1     lstm: input_size 3, hidden_size 4, num_layers 1, bias true")
    assert [line for line in lines if line.startswith("guessed 1 ")] == [
        "guessed 1   layers.0.*: taken for embedding: vocabulary_size = 7, size = 3"
    ]
    assert "taken for embedding" in gw.load(tmp_path / "b").source
    np.testing.assert_array_equal(gw.load(tmp_path / "b").predict(x), gw.load(run).predict(x))


def test_import_refuses(tmp_path, refused, run):
    assert refused("import", tmp_path / "a.onnx", "--out", tmp_path / "out") == (
        f"{tmp_path / 'a.onnx'}: no such file; expected a model"
    )
    (tmp_path / "a.txt").write_text("text")
    assert refused("import", tmp_path / "a.txt", "--out", tmp_path / "out") == (
        f"{tmp_path / 'a.txt'}: expected a file that ends with one of .onnx, .keras, .h5, .hdf5, .pt, .pth, .bin, "
        ".safetensors"
    )
    torch.save(nn.GRU(3, 4).state_dict(), tmp_path / "a.pt")
    message = refused("import", tmp_path / "a.pt", "--out", run, status=1)
    assert message.startswith(f"{run}: a run lies here already; ")


def test_what_an_imported_network_cannot_do(run, refused, tmp_path):
    rather = "gatewise.load(run).predict(...) computes its outputs"
    for command in ("evaluate", "predict"):
        message = f"{run}: gatewise {command} has nothing for a Network; {rather}"
        assert refused(command, run, "python-topics", status=2) == message
    expected = f"{run}: expected the run of a language-model, got one of a network; {rather}"
    assert refused("generate", run, status=1) == expected


# Convert


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_convert(tmp_path, capsys, suffix):
    layer = gw.GRU(3, 2, reset="before")
    haiku = gw.convert(layer.state_dict(), "gatewise", "haiku", reset="before")
    np.savez(tmp_path / "haiku.npz", **haiku)
    out = tmp_path / f"gatewise{suffix}"
    command = ["convert", str(tmp_path / "haiku.npz"), "--from", "haiku", "--to", "gatewise", "--out", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[0] == "weight_ih_l0  6 x 3"
    read = {
        ".npz": lambda: {name: torch.from_numpy(array) for name, array in np.load(out).items()},
        ".safetensors": lambda: safetensors.torch.load_file(out),
        ".pt": lambda: torch.load(out, weights_only=True),
    }[suffix]()
    assert torch.equal(read["weight_ih_l0"], layer.state_dict()["weight_ih_l0"])
    back = ["convert", str(out), "--from", "gatewise", "--to", "haiku", "--reset", "before", "--out"]
    assert main([*back, str(tmp_path / "back.npz")]) == 0
    again = np.load(tmp_path / "back.npz")
    np.testing.assert_array_equal(again["w_h"], haiku["w_h"])


def test_convert_names_arrays_in_dictionaries_by_the_way_to_them(tmp_path, document):
    torch.save(nn.LSTM(3, 2, bidirectional=True).state_dict(), tmp_path / "a.pt")
    command = ["convert", tmp_path / "a.pt", "--from", "torch", "--to", "haiku", "--out", tmp_path / "b.npz"]
    assert document(*command) == {
        "file": str(tmp_path / "b.npz"),
        "from": "torch",
        "to": "haiku",
        "arrays": {
            "l0/linear/w": [5, 8],
            "l0/linear/b": [8],
            "l0_reverse/linear/w": [5, 8],
            "l0_reverse/linear/b": [8],
        },
    }
    back = ["convert", tmp_path / "b.npz", "--from", "haiku", "--to", "torch", "--out", tmp_path / "c.pt"]
    assert list(document(*back)["arrays"])[-1] == "bias_hh_l0_reverse"


def test_convert_refuses(tmp_path, refused):
    np.savez(tmp_path / "a.npz", w_i=np.zeros((3, 6)), w_h=np.zeros((2, 6)), b=np.zeros(6))

    def convert(*more: object, file: str = "a.npz", to: str = "gatewise", out: str = "b.npz", source: str = "haiku"):
        return refused("convert", tmp_path / file, "--from", source, "--to", to, "--out", tmp_path / out, *more)

    assert convert(to="torch").startswith("convert: the GRU of torch has its reset gate after the recurrent product, ")
    assert convert(source="hiaku").endswith('; did you mean "haiku"?')
    assert convert("--cell", "lstm").startswith("convert: haiku lstm: expected arrays linear/w, linear/b; missing ")
    assert (
        convert(out="b.txt") == f"{tmp_path / 'b.txt'}: expected a name that ends with one of .npz, .safetensors, .pt"
    )
    assert convert(file="c.npz") == f"{tmp_path / 'c.npz'}: no such file; expected arrays"
    assert convert(out="a.npz") == f"{tmp_path / 'a.npz'}: exists already; --overwrite replaces it"
    np.savez(tmp_path / "evil.npz", allow_pickle=True, w=np.array([print], dtype=object))
    assert "Object arrays cannot be loaded when allow_pickle=False" in convert(file="evil.npz")
    (tmp_path / "bad.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    assert "bad.npz: cannot be read as arrays: " in convert(file="bad.npz")
