"""saved_model: configuration, tokenizer and weights come back together, or it is said which of them is wrong."""

import json

import pytest

from gatewise import run_folder
from gatewise.data.tokenizers import Tokenizer
from gatewise.errors import RunError
from gatewise.run_folder import RunFolder, load_tensors, save_tensors
from gatewise.training.runs import load
from gatewise.training.saved_model import read_job, read_model


@pytest.fixture
def run(tmp_path, fit) -> RunFolder:
    fit(tmp_path / "run", max_steps=2)
    return RunFolder(tmp_path / "run")


def edit(path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def test_it_comes_back(run):
    job, documents, tensors, metadata = read_model(run)
    assert job == read_job(run)
    assert job.model.hidden_size == 12
    assert tensors["output.bias"].shape == (Tokenizer.from_json(documents["tokenizer"]).size,)
    assert metadata["task"] == "language-model"
    assert run.config.read_text().startswith("format = 1\n")


@pytest.mark.parametrize("name", ["config", "tokenizer", "model"])
def test_a_missing_file(run, name):
    path = getattr(run, name)
    path.unlink()
    messages = {
        "config": f"{run.path}: not a run folder, or half-written: it holds no config.toml",
        "tokenizer": f"{path}: cannot be read: No such file or directory",
        "model": f"{path}: missing: the run folder is half-written or was not copied whole",
    }
    with pytest.raises(RunError) as error:
        load(run.path)
    assert str(error.value) == messages[name]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "hidden_size = 12",
            "hidden_size = 13",
            "says model.hidden_size = 13, but model.safetensors was trained with 12; undo the change",
        ),
        (
            "lower_case = false",
            "lower_case = true",
            "says data.lower_case = True, but model.safetensors was trained with False; undo the change",
        ),
        (
            "hidden_size = 12",
            "hidden_sizf = 12",
            'unknown key "model.hidden_sizf"; did you mean "model.hidden_size"?; '
            "the run's own configuration is damaged or was edited",
        ),
    ],
)
def test_an_edited_configuration(run, old, new, message):
    edit(run.config, old, new)
    with pytest.raises(RunError) as error:
        load(run.path)
    assert str(error.value) == f"{run.config}: {message}"


def test_the_backend_may_be_edited(run):
    edit(run.config, 'backend = "auto"', 'backend = "torch"')
    assert load(run.path).network.gru.backend == "torch"


def test_another_tokenizer(run):
    document = json.loads(run.tokenizer.read_text())
    document["vocabulary"][1:3] = reversed(document["vocabulary"][1:3])
    run.tokenizer.write_text(json.dumps(document, ensure_ascii=False) + "\n")
    with pytest.raises(RunError) as error:
        load(run.path)
    assert str(error.value) == (
        f"{run.tokenizer}: damaged, or of another run: model.safetensors was trained with another tokenizer"
    )


def test_every_flipped_bit_of_the_tokenizer_is_noticed(run):
    whole = run.tokenizer.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        run.tokenizer.write_bytes(damaged)
        with pytest.raises(RunError):
            read_model(run)


def test_weights_of_another_task(run):
    tensors, metadata = load_tensors(run.model)
    save_tensors(run.model, tensors, {**metadata, "task": "classifier"})
    with pytest.raises(RunError) as error:
        load(run.path)
    assert str(error.value) == f"{run.model}: expected a language-model, got classifier"


def test_a_run_of_a_newer_version(run, monkeypatch):
    edit(run.config, "format = 1", "format = 2")
    with pytest.raises(RunError) as error:
        load(run.path)
    assert str(error.value) == (
        f"{run.config}: written by a newer gatewise (format 2, this one reads 1); upgrade gatewise"
    )
    edit(run.config, "format = 2", "format = 1")
    tensors, metadata = load_tensors(run.model)
    monkeypatch.setattr(run_folder, "FORMAT", 3)
    save_tensors(run.model, tensors, {**metadata, "format": 3})
    monkeypatch.undo()
    with pytest.raises(RunError) as error:
        load(run.path)
    assert str(error.value) == (
        f"{run.model}: written by a newer gatewise (format 3, this one reads 1); upgrade gatewise"
    )
