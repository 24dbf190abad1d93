"""Exports to plain torch: proven there, brought back bit for bit, refused where torch has no such layer."""

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gatewise.errors import ExportError, InputError
from gatewise.interchange import torch_in, torch_out
from gatewise.interchange.torch_out import export_torch
from gatewise.models.sequential import build


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """torch's threads wait for each other for a second where processors are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


RECURRENT = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["gru", "lstm", "rnn"]),
        "hidden_size": st.integers(1, 5),
        "num_layers": st.integers(1, 2),
        "bias": st.booleans(),
        "bidirectional": st.booleans(),
    }
)


def chain(recurrent: list[dict], tokens: str | None, ending: list[dict]) -> list[dict]:
    """Tables whose sizes fit."""
    tables, width = [], 3
    if tokens == "embedding":
        tables.append({"kind": "embedding", "vocabulary_size": 6, "size": width})
    elif tokens:
        tables.append({"kind": "one-hot", "vocabulary_size": width})
    for table in recurrent:
        tables.append({**table, "input_size": width})
        width = table["hidden_size"] * (2 if table["bidirectional"] else 1)
    for table in ending:
        tables.append({**table, "input_size": width} if table["kind"] == "linear" else table)
        width = table.get("output_size", width)
    return tables


@settings(max_examples=40, deadline=None)
@given(
    recurrent=st.lists(RECURRENT, min_size=1, max_size=2),
    tokens=st.sampled_from(["embedding", "one-hot", None]),
    pooling=st.sampled_from(["last", "mean", "max", None]),
    function=st.sampled_from(["sigmoid", "tanh", "relu", "softmax", "log-softmax", None]),
    seed=st.integers(0, 2**31),
)
def test_there_and_back(tmp_path_factory, recurrent, tokens, pooling, function, seed):
    ending: list[dict] = [{"kind": "pooling", "pooling": pooling}] if pooling else []
    ending += [{"kind": "dropout", "probability": 0.2}, {"kind": "linear", "output_size": 2, "bias": bool(seed % 2)}]
    ending += [{"kind": "activation", "function": function}] if function else []
    torch.manual_seed(seed)
    network = build(chain(recurrent, tokens, ending)).eval()
    folder = tmp_path_factory.mktemp("torch") / "out"
    parity = export_torch(network, folder)
    assert parity.verdict == "passed"
    assert parity.errors["y"] < 1e-5
    assert len(parity.errors) == 1 + sum(2 if table["kind"] == "lstm" else 1 for table in recurrent)
    back, _ = torch_in.network(folder / "model.safetensors", folder / "model.toml")
    assert back.describe() == network.describe()
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_the_last_step_of_features_that_mix_both_directions(tmp_path):
    ending = [{"kind": "linear", "output_size": 4}, {"kind": "pooling", "pooling": "last"}]
    network = build(chain([{"kind": "gru", "hidden_size": 2, "bidirectional": True}], None, ending))
    assert export_torch(network, tmp_path / "out").verdict == "passed"
    y, _ = network(torch.randn(5, 1, 3))
    assert y.shape == (1, 4)


def test_what_lies_in_the_folder(tmp_path):
    network = build(chain([{"kind": "rnn", "hidden_size": 4, "bidirectional": False}], "embedding", []))
    export_torch(network, tmp_path / "out", metadata={"tokenizer": "all of it"})
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *("golden.npz", "model.safetensors", "model.toml", "parity.json", "parity.md")
    ]
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata()["tokenizer"] == "all of it"
        layer = nn.RNN(3, 4)
        layer.load_state_dict(
            {
                name.removeprefix("layers.1."): file.get_tensor(name)
                for name in [
                    *("layers.1.weight_ih_l0", "layers.1.weight_hh_l0", "layers.1.bias_ih_l0", "layers.1.bias_hh_l0")
                ]
            }
        )
    golden = np.load(tmp_path / "out" / "golden.npz")
    x = network.layers[0](torch.from_numpy(golden["T13-B7/x"]))
    y, _ = layer(x, torch.from_numpy(golden["T13-B7/state_0_h"]))
    np.testing.assert_allclose(y.detach().numpy(), golden["T13-B7/y"], atol=1e-6)
    with pytest.raises(InputError, match="exists already"):
        export_torch(network, tmp_path / "out")
    assert export_torch(network, tmp_path / "out", overwrite=True).verdict == "passed"


def test_torch_has_no_gru_whose_reset_comes_before(tmp_path):
    network = build([{"kind": "gru", "input_size": 3, "hidden_size": 4, "reset": "before"}])
    with pytest.raises(
        ExportError,
        match=r'^torch: layers.0 is a GRU with reset="before", and torch.nn.GRU has its reset gate after the recurrent '
        r"product; these are different functions. ONNX, Keras and C can hold it$",
    ):
        export_torch(network, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_artifact_that_does_something_else_is_not_left(tmp_path, monkeypatch):
    network = build(chain([{"kind": "gru", "hidden_size": 4, "bidirectional": False}], None, []))
    call = torch_out.PlainTorch.__call__
    monkeypatch.setattr(
        torch_out.PlainTorch,
        "__call__",
        lambda self, inputs: {name: array + 0.1 for name, array in call(self, inputs).items()},
    )
    with pytest.raises(ExportError, match=r"^torch: the artifact does not give what the model gives: .* is off by 0.1"):
        export_torch(network, tmp_path / "out")
    assert not list(tmp_path.iterdir())
