"""ONNX out: the files keep ONNX's rules; ONNX Runtime and ONNX's reference make of them what the network gives."""

import json
import sys
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.config import LanguageModelConfig, TrainingConfig
from gatewise.errors import BackendError, ExportError, InputError
from gatewise.interchange import onnx_out, onnx_recurrent
from gatewise.interchange.onnx_out import export_onnx, run_metadata, to_onnx
from gatewise.interchange.parity import compare, error_of, evaluate, golden_cases
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.models.sequential import SequentialNetwork, build

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")

KINDS: dict[str, dict[str, Any]] = {
    "gru-after": {"kind": "gru"},
    "gru-before": {"kind": "gru", "reset": "before"},
    "lstm": {"kind": "lstm"},
    "rnn": {"kind": "rnn"},
    "rnn-relu": {"kind": "rnn", "nonlinearity": "relu"},
}
POOLINGS = ["steps", "last", "mean", "max"]


def tables(kind: str, pooling: str = "steps", *, tokens: str = "", **options: Any) -> list[dict[str, Any]]:
    """A network of a stack of that kind."""
    width = 6 * (2 if options.get("bidirectional") else 1)
    first = {"embedding": [{"kind": "embedding", "vocabulary_size": 5, "size": 5}]}
    first["one-hot"] = [{"kind": "one-hot", "vocabulary_size": 5}]
    return [
        *first.get(tokens, []),
        {**KINDS[kind], "input_size": 5, "hidden_size": 6, **options},
        {"kind": "dropout", "probability": 0.5},
        {"kind": "activation", "function": "tanh"},
        *([] if pooling == "steps" else [{"kind": "pooling", "pooling": pooling}]),
        {"kind": "linear", "input_size": width, "output_size": 3},
        {"kind": "activation", "function": "log-softmax"},
    ]


def session(model: Any) -> Any:
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is what these compare with")
    return runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_gives_what_the_network_gives(kind, bidirectional, pooling):
    torch.manual_seed(0)
    defaults = (pooling in ("steps", "max")) != bidirectional
    network = build(tables(kind, pooling, bidirectional=bidirectional, num_layers=2, tokens="embedding")).eval()
    model = to_onnx(network, defaults=defaults)
    onnx.checker.check_model(model, full_check=True)
    run, runtime = onnx_out._session(model.SerializeToString(), defaults)
    if run is None:
        pytest.skip("ONNX Runtime is what these compare with")
    cases = [*golden_cases(network, shapes=[(1, 1), (6, 1)]), *golden_cases(network, shapes=[(6, 4)], lengths=True)]
    cases += golden_cases(network, shapes=[(5, 3)], states=False) if defaults else []
    parity = compare("onnx", cases, run, tolerance=1e-6, runtime=runtime)
    assert parity.verdict == "passed", parity.errors


@pytest.mark.parametrize("tokens", ["", "one-hot"])
@pytest.mark.parametrize("function", ["sigmoid", "relu", "softmax"])
def test_other_layers(tokens, function):
    network = build(
        [*tables("gru-after", tokens=tokens, bias=False)[:-1], {"kind": "activation", "function": function}]
    )
    run = session(to_onnx(network))
    for case in golden_cases(network, shapes=[(6, 4)], lengths=True):
        (y,) = run.run(["y"], case.inputs)
        assert error_of(y, case.outputs["y"]) < 1e-6


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rnn-relu"])  # of relu it knows nothing
def test_onnx_s_own_reference_gives_it_too(kind, bidirectional):
    """Without lengths, which its recurrent operators do not read."""
    from onnx.reference import ReferenceEvaluator

    torch.manual_seed(0)
    pooling = POOLINGS[list(KINDS).index(kind)]
    network = build(tables(kind, pooling, bidirectional=bidirectional, num_layers=2)).eval()
    evaluator = ReferenceEvaluator(to_onnx(network, defaults=False))
    for case in golden_cases(network, shapes=[(1, 1), (6, 4)]):
        given = case.inputs | {"lengths": np.full(case.inputs["x"].shape[1], -1)}
        got: Any = evaluator.run(None, given)
        for value, output in zip(got, evaluator.output_names, strict=True):
            assert error_of(value, case.outputs[str(output)]) < 1e-6, output


@pytest.mark.parametrize("defaults", [True, False], ids=["defaults", "all-given"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("kind", ["gru-after", "gru-before", "lstm", "rnn"])
def test_a_row_without_steps_keeps_its_state(kind, bidirectional, defaults):
    """As in a stream of several rows, of which some have nothing new."""
    torch.manual_seed(0)
    network = build(tables(kind, bidirectional=bidirectional, num_layers=2)).eval()
    (case,) = golden_cases(network, shapes=[(5, 3)], lengths=True)
    inputs = case.inputs | {"lengths": np.array([5, 0, 2])}
    run = session(to_onnx(network, defaults=defaults))
    names = [output.name for output in run.get_outputs()]
    expected = evaluate(network, inputs)
    for name, got in zip(names, run.run(names, inputs), strict=True):
        assert error_of(got, expected[name]) < 1e-6, name
    np.testing.assert_array_equal(expected["new_state_0_h"][:, 1], inputs["state_0_h"][:, 1])


def test_a_linear_layer_over_both_directions_is_pooled_at_the_last_step():
    bidirectional: list[dict[str, Any]] = [
        {"kind": "gru", "input_size": 3, "hidden_size": 4, "bidirectional": True},
        {"kind": "linear", "input_size": 8, "output_size": 5},
        {"kind": "pooling", "pooling": "last"},
    ]
    network = build(bidirectional).eval()
    x = torch.randn(7, 2, 3)
    steps, _ = SequentialNetwork(list(network.layers[:2]))(x)
    torch.testing.assert_close(network(x)[0], steps[-1])
    (y,) = session(to_onnx(network)).run(["y"], {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), network(x)[0])


def test_one_file_for_all_sizes_with_its_proof(tmp_path):
    network = build(tables("gru-after", tokens="embedding"))
    parity = export_onnx(network, tmp_path / "shipped", metadata={"task": "test", "config": "a = 1"})
    assert parity.verdict == "passed"
    assert parity.runtime is not None
    assert parity.runtime.startswith("onnxruntime ")
    assert {"T1-B1", "T1-B7", "T13-B1", "T200-B1", "T200-B7-lengths", "T13-B7-zeros"} <= set(parity.cases)
    assert max(parity.errors.values()) < 1e-5
    names = sorted(file.name for file in (tmp_path / "shipped").iterdir())
    assert names == ["golden.npz", "model.onnx", "parity.json", "parity.md"]
    assert json.loads((tmp_path / "shipped" / "parity.json").read_text())["verdict"] == "passed"
    assert "T200-B7-lengths/y" in np.load(tmp_path / "shipped" / "golden.npz")
    model = onnx.load(tmp_path / "shipped" / "model.onnx")
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told == {
        "gatewise": gw.__version__,
        "layers": json.dumps(network.describe()),
        "task": "test",
        "config": "a = 1",
    }
    assert (model.producer_name, model.opset_import[0].version) == ("gatewise", 14)
    with pytest.raises(InputError, match="shipped: exists already"):
        export_onnx(network, tmp_path / "shipped")


def quick(monkeypatch):
    for name in ("WHOLE", "OF_LENGTHS", "FROM_ZERO"):
        monkeypatch.setattr(onnx_out, name, [(3, 2)])


def test_an_artifact_that_gives_something_else_is_not_left(tmp_path, monkeypatch):
    quick(monkeypatch)
    monkeypatch.setitem(onnx_recurrent.BLOCKS, "GRU", (0, 1, 2))  # the gates r and z exchanged
    with pytest.raises(ExportError, match=r"^onnx: the artifact does not give what the model gives: .* in onnxruntime"):
        export_onnx(build(tables("gru-after")), tmp_path / "shipped")
    assert not list(tmp_path.iterdir())


def test_without_onnx_runtime_the_verdict_is_not_run(tmp_path, monkeypatch):
    quick(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    parity = export_onnx(build(tables("lstm")), tmp_path / "shipped")
    assert parity.verdict == "not run"
    assert "NOT RUN: onnxruntime is not here" in (tmp_path / "shipped" / "parity.md").read_text()


def test_without_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    message = r"^export_onnx: the package onnx is not installed; install it with: pip install 'gatewise\[onnx\]'$"
    with pytest.raises(BackendError, match=message):
        export_onnx(build(tables("lstm")), tmp_path / "shipped")
    assert not list(tmp_path.iterdir())


def test_metadata_are_texts():
    metadata: Any = {"a": 1}
    with pytest.raises(InputError, match=r"^to_onnx: expected metadata of texts, got 1 for 'a'$"):
        to_onnx(build(tables("lstm")), metadata=metadata)


def test_golden_vectors_of_many_tokens_stay_small(tmp_path, monkeypatch):
    quick(monkeypatch)
    monkeypatch.setattr(onnx_out, "GOLDEN", 1)
    export_onnx(build(tables("lstm")), tmp_path / "shipped")
    assert {name.split("/")[0] for name in np.load(tmp_path / "shipped" / "golden.npz")} == {"T3-B2-zeros"}


def test_shared_weights_are_kept_once():
    network = LanguageModelNetwork(50, LanguageModelConfig(hidden_size=8, embedding_size=8, tied=True)).eval()
    chain = network.as_sequential()
    model = to_onnx(chain)
    assert sum(list(tensor.dims) in ([50, 8], [8, 50]) for tensor in model.graph.initializer) == 1
    tokens = torch.randint(50, (5, 2))
    (y,) = session(model).run(["y"], {"x": tokens.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), chain(tokens)[0])


def test_double_weights_become_single():
    network = build(tables("gru-before")).double().eval()
    model = to_onnx(network)
    assert {tensor.data_type for tensor in model.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    x = torch.randn(4, 2, 5)
    (y,) = session(model).run(["y"], {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), network(x.double())[0].float())


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of a language model that was trained a little."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "text.txt").write_text("the cat sat on the mat. " * 200)
    training = TrainingConfig(max_steps=3, batch_size=4, sequence_length=16)
    gw.LanguageModel(hidden_size=16, num_layers=2).fit(folder / "text.txt", folder / "run", training=training)
    return folder / "run"


def test_a_language_model_runs_elsewhere_and_streams(book, tmp_path, monkeypatch):
    quick(monkeypatch)
    loaded = gw.load(book)
    assert isinstance(loaded, gw.LanguageModel)
    metadata = run_metadata(book)
    export_onnx(loaded.network.as_sequential(), tmp_path / "shipped", metadata=metadata)
    run = session(onnx.load(tmp_path / "shipped" / "model.onnx"))
    tokens = torch.tensor(loaded.tokenizer.encode("the cat sat"), dtype=torch.long).unsqueeze(1)
    expected, _ = loaded.network(tokens)
    logits, _ = run.run(["y", "new_state_0_h"], {"x": tokens.numpy()})
    np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-5)

    state = np.zeros((2, 1, 16), np.float32)
    for step, token in enumerate(tokens.numpy()):
        one, state = run.run(["y", "new_state_0_h"], {"x": token[None], "state_0_h": state})
        np.testing.assert_allclose(one[0], expected[step].detach().numpy(), atol=1e-5)

    told = run.get_modelmeta().custom_metadata_map
    assert told["task"] == "language-model"
    assert told["tokenizer"] == (book / "tokenizer.json").read_text()
    assert told["config"] == (book / "config.toml").read_text()
