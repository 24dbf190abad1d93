"""LanguageModel: the class that people use, from a text to text."""

import inspect
import json
import math
import os
from pathlib import Path

import pytest
import torch

import gatewise as gw
import gatewise.gates.report
from gatewise.config import LanguageModelConfig, TextConfig, TrainingConfig
from gatewise.errors import BackendError, ConfigError, InputError, PromptError, RunError, TextError
from gatewise.run_folder import RunFolder, load_tensors
from gatewise.training.language_model import LanguageModel
from gatewise.training.runs import load


@pytest.fixture(scope="module")
def run(tmp_path_factory, text):
    """A run that is only read."""
    folder = tmp_path_factory.mktemp("run") / "run"
    training = TrainingConfig(batch_size=4, sequence_length=8, max_steps=60, learning_rate=0.02)
    LanguageModel(16, embedding_size=8).fit(text, folder, training=training)
    return folder


def test_public_names():
    assert gw.LanguageModel is LanguageModel
    assert gw.load is load


def test_the_constructor_only_stores():
    model = LanguageModel(hidden_size=-3, reset="sideways")  # type: ignore[arg-type]
    assert (model.hidden_size, model.reset) == (-3, "sideways")
    assert not hasattr(model, "network")


def test_the_constructor_takes_the_keys_of_the_configuration():
    parameters = inspect.signature(LanguageModel).parameters
    fields = LanguageModelConfig.model_fields
    given = {name: parameter.default for name, parameter in parameters.items()}
    for name in ("data", "training", "random_state"):  # what all models take
        assert given.pop(name) is None
    assert given == {name: field.default for name, field in fields.items()}


def test_fit_checks_what_the_constructor_stored(tmp_path, text):
    with pytest.raises(ConfigError) as error:
        LanguageModel(hidden_size=-3).fit(text, tmp_path / "run")
    assert str(error.value) == "LanguageModel: model.hidden_size: expected a whole number >= 1, got -3"
    with pytest.raises(ConfigError) as error:
        LanguageModel(tied=True).fit(text, tmp_path / "run")
    assert str(error.value) == "LanguageModel: model: tied needs embedding_size = hidden_size; got 64 and 256"
    assert not (tmp_path / "run").exists()


def test_what_a_run_holds(run):
    folder = RunFolder(run)
    assert sorted(path.relative_to(run).as_posix() for path in run.rglob("*")) == [
        "config.toml",
        "environment.json",
        "evaluation.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "samples.jsonl",
        "tokenizer.json",
        "training_state",
        "training_state/last.safetensors",
        "training_state/tokens.bin",
    ]
    environment = json.loads(folder.environment.read_text())
    assert (environment["text"], environment["characters"], environment["tokens"]) == ("small.txt", 1500, 1500)
    assert [path.name for path in run.parent.iterdir()] == ["run"]  # nothing lies beside it


def test_same_seed_same_run(tmp_path, fit, assert_same_run):
    job = {"epochs": 1, "model": {"dropout": 0.2}, "data": {"windows": "random"}}
    torch.manual_seed(1)
    fit(tmp_path / "one", **job)
    torch.manual_seed(2)
    fit(tmp_path / "other", **job)
    assert_same_run(tmp_path / "one", tmp_path / "other")


def test_another_seed_another_run(tmp_path, fit):
    losses = [fit(tmp_path / str(seed), max_steps=5, seed=seed).result.evaluation.loss_nats for seed in (0, 1)]
    assert losses[0] != losses[1]


def test_fit_leaves_the_caller_s_random_stream_and_threads(tmp_path, fit):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(tmp_path / "run", max_steps=3, threads=2, model={"dropout": 0.5})
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 1


def test_fit_without_a_run_keeps_the_model_only(fit, text, reports):
    model = fit(None, max_steps=5)
    assert model.generate("the", 5, seed=0)
    assert model.evaluate(text).tokens == 1499
    assert not model.network.training
    assert reports == []


def test_ctrl_c_without_a_run_keeps_the_model_so_far(text, recorder):
    model = LanguageModel(12)
    training = TrainingConfig(batch_size=4, sequence_length=8, log_every=1)
    with pytest.raises(KeyboardInterrupt, match=r"^stopped; without a run folder it cannot be resumed$"):
        model.fit(text, training=training, observer=recorder(at=3, stop=KeyboardInterrupt))
    assert model.generate("the", 5, seed=0)


def test_load_gives_the_same_model(tmp_path, fit):
    model = fit(tmp_path / "run", max_steps=30, model={"tied": True, "embedding_size": 12, "num_layers": 2})
    again = load(tmp_path / "run")
    assert again.config == model.config
    for (name, one), other in zip(model.network.named_parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert again.generate("the gate", 50, seed=4) == model.generate("the gate", 50, seed=4)
    assert not again.network.training


def test_save_gives_the_same_model(tmp_path, run):
    model = load(run)
    model.save(tmp_path / "saved")
    assert load(tmp_path / "saved").generate("it", 50, seed=4) == model.generate("it", 50, seed=4)
    left, right = (load_tensors(RunFolder(path).model)[1] for path in (run, tmp_path / "saved"))
    assert left == right
    with pytest.raises(RunError, match="a run lies here already"):
        model.save(tmp_path / "saved")
    model.save(tmp_path / "saved", overwrite=True)


def test_evaluate(run, text, tmp_path):
    """On the text as a whole: one lane of 1,500 tokens, the first of which is not predicted."""
    model = load(run)
    evaluation = model.evaluate(text)
    assert (evaluation.tokens, evaluation.unknown_tokens) == (1499, 0)
    assert evaluation.perplexity == pytest.approx(math.exp(evaluation.loss_nats))
    assert evaluation.bits_per_char == pytest.approx(evaluation.loss_nats / math.log(2))
    tokens = torch.tensor(model.tokenizer.encode(text.read_text())).long()
    logits, _ = model.network(tokens[:-1].unsqueeze(1))
    expected = torch.nn.functional.cross_entropy(logits[:, 0], tokens[1:]).item()
    assert evaluation.loss_nats == pytest.approx(expected, rel=1e-5)


def test_evaluate_reads_the_whole_text_whatever_the_training_read(tmp_path, fit, text):
    model = fit(tmp_path / "run", max_steps=2, data={"max_characters": 700})
    assert model.evaluate(text).tokens == 1499


def test_evaluate_counts_what_it_does_not_know(run, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the GATE forgets")
    assert load(run).evaluate(path).unknown_tokens == 4


def test_evaluate_knows_no_token(run, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("0123456789")
    with pytest.raises(TextError) as error:
        load(run).evaluate(path)
    assert str(error.value) == (
        f"{path}: the model knows none of its 10 tokens; evaluate it on a text like the one that it was trained on"
    )


def test_evaluate_needs_two_tokens(run, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("t")
    with pytest.raises(TextError):
        load(run).evaluate(path)
    path.write_text("th")
    assert load(run).evaluate(path).tokens == 1


def test_generate_is_the_stream_joined(run):
    model = load(run)
    pieces = list(model.stream("the ", 30, temperature=0.7, top_k=5, top_p=0.9, seed=1))
    assert len(pieces) == 30
    assert "".join(pieces) == model.generate("the ", 30, temperature=0.7, top_k=5, top_p=0.9, seed=1)


def test_generate_without_a_seed_differs_each_time(run):
    model = load(run)
    assert model.generate("the", 60) != model.generate("the", 60)


def test_generate_from_nothing(run):
    assert len(load(run).generate(length=10, seed=0)) == 10
    assert load(run).generate("the", 0) == ""


def test_stream_checks_at_the_call(run):
    model = load(run)
    with pytest.raises(PromptError, match=r"^prompt: the model never saw 'Q'; leave that out$"):
        model.stream("Q")
    with pytest.raises(InputError, match=r"^temperature: expected"):
        model.stream("the", temperature=-1)
    with pytest.raises(InputError) as error:
        model.stream("the", -1)
    assert str(error.value) == "length: expected a whole number >= 0, got -1"


@pytest.mark.parametrize("call", [lambda model: model.generate("x"), lambda model: model.evaluate("x")])
def test_an_unfitted_model(call):
    with pytest.raises(InputError) as error:
        call(LanguageModel())
    assert str(error.value) == "LanguageModel: not trained yet; call fit() first, or load a run with gatewise.load()"


def test_an_existing_run_is_kept(tmp_path, fit, assert_same_run):
    for name in ("run", "same"):
        fit(tmp_path / name, max_steps=5)
    with pytest.raises(RunError) as error:
        fit(tmp_path / "run", max_steps=6)
    assert str(error.value) == (
        f"{tmp_path / 'run'}: a run lies here already; resume it, overwrite it, or name another folder for the new one"
    )
    assert_same_run(tmp_path / "run", tmp_path / "same")


def test_overwrite(tmp_path, fit, assert_same_run):
    fit(tmp_path / "run", epochs=1)
    fit(tmp_path / "run", max_steps=5, overwrite=True)
    fit(tmp_path / "same", max_steps=5)
    assert_same_run(tmp_path / "run", tmp_path / "same")


SHORT = "the training text has 19 tokens, and one batch of 4 windows of 8 steps needs 33"


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        ({"data": {"max_characters": 21}}, TextError, SHORT),
        ({"sample_prompt": "Q"}, PromptError, "prompt: the model never saw 'Q'"),
        (
            {"data": {"validation_fraction": 0.0007}},
            TextError,
            "data.validation_fraction = 0.0007 of 1500 tokens leaves 1 ",
        ),
        ({"model": {"backend": "torch", "reset": "before"}}, BackendError, "gru"),
        ({"patience": 2, "data": {"validation_fraction": 0}}, ConfigError, "LanguageModel: training.patience needs"),
    ],
    ids=["short", "prompt", "validation", "backend", "patience"],
)
def test_what_is_refused_leaves_no_trace(tmp_path, fit, assert_same_run, job, error, message):
    """Neither a new folder, nor a changed old one that was to be overwritten."""
    for name in ("run", "same"):
        fit(tmp_path / name, max_steps=5)
    for name, overwrite in (("new", False), ("run", True)):
        with pytest.raises(error) as raised:
            fit(tmp_path / name, overwrite=overwrite, **job)
        assert str(raised.value).startswith(message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "same"]
    assert_same_run(tmp_path / "run", tmp_path / "same")


def test_a_folder_on_another_disk_takes_a_run(tmp_path, fit, monkeypatch):
    """A link, or a mounted disk: nothing can be moved into it from beside it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to("elsewhere")
    replace = os.replace

    def replace_on_one_disk(source, target):
        on_other_disk = [tmp_path / "run" in Path(path).parents for path in (source, target)]
        if on_other_disk[0] != on_other_disk[1]:
            raise OSError(18, os.strerror(18))
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_on_one_disk)
    fit(tmp_path / "run", max_steps=2)
    assert not (tmp_path / "elsewhere" / ".new").exists()


def test_a_text_that_is_missing(tmp_path, fit):
    with pytest.raises(TextError):
        fit(tmp_path / "run", tmp_path / "missing.txt")
    with pytest.raises(InputError) as error:
        fit(tmp_path / "run", None)
    assert str(error.value) == "fit: expected a text (a path, or the name of a corpus), got None"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path, fit):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as error:
        fit(tmp_path / "file" / "run")
    assert str(error.value) == f"{tmp_path / 'file' / 'run'}: the folder cannot be made: Not a directory"


def test_a_report_that_fails_does_not_cost_the_training(tmp_path, fit, recorder, monkeypatch):
    def fail(_):
        raise RunError("no room")

    monkeypatch.setattr(gatewise.gates.report, "write_report", fail)
    observer = recorder()
    model = fit(tmp_path / "run", max_steps=3, observer=observer)
    assert model.result.steps == 3
    assert observer.messages == ["the report could not be written: no room"]


def test_samples(tmp_path, fit):
    """They continue the first characters of the validation text, or the prompt that was asked for."""
    model = fit(tmp_path / "run", max_steps=3)
    text = model.tokenizer.decode(
        torch.from_file(str(RunFolder(tmp_path / "run").tokens), size=1500, dtype=torch.uint8).tolist()
    )
    samples = RunFolder(tmp_path / "run").read_samples()
    assert [sample["prompt"] for sample in samples] == [text[1350:1370]] * 2
    assert all(len(sample["text"]) == 12 for sample in samples)
    fit(tmp_path / "asked", max_steps=3, sample_prompt="what it ")
    assert [sample["prompt"] for sample in RunFolder(tmp_path / "asked").read_samples()] == ["what it "] * 2


def test_an_overfitted_text_is_written_by_heart(tmp_path):
    text = "the gate forgets what it reads, and keeps what it must. "
    (tmp_path / "text.txt").write_text(text * 8)
    training = TrainingConfig(batch_size=2, sequence_length=28, epochs=60, learning_rate=0.02, sample_length=0)
    model = LanguageModel(48, embedding_size=16).fit(
        tmp_path / "text.txt", training=training, data=TextConfig(validation_fraction=0)
    )
    assert model.result.evaluation.perplexity < 1.1
    assert model.generate("the gate ", 47, temperature=0) == text[9:]
