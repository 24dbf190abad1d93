"""Classifier: from files and arrays to labels, what it decides, keeps and refuses."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.config import ClassifierData, ClassifierTraining
from gatewise.errors import ConfigError, DataError, InputError, NonFiniteLoss, RunError
from gatewise.run_folder import RunFolder, load_tensors
from gatewise.training.saved_model import read_job

WORDS = {"food": ["bread", "soup", "cheese"], "music": ["song", "band", "album"], "sky": ["rain", "sun", "cloud"]}


def made(examples: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts of two words of their label among others, and the labels."""
    draw = random.Random(seed)
    labels = [draw.choice(list(WORDS)) for _ in range(examples)]
    texts = [" ".join(draw.sample(["the", "of", "a", "with", *draw.sample(WORDS[label], 2)], k=6)) for label in labels]
    return texts, labels


def classifier(*, data=None, epochs=3, **model) -> gw.Classifier:
    training = {key: model.pop(key) for key in list(model) if key in ClassifierTraining.model_fields}
    settings = {"hidden_size": 12, "embedding_size": 8, "dropout": 0.2, **model}
    config = ClassifierTraining(**{"epochs": epochs, "threads": 1, **training})
    return gw.Classifier(**settings, data=ClassifierData(**(data or {})), training=config)


@pytest.fixture
def train_csv(tmp_path) -> Path:
    path = tmp_path / "train.csv"
    rows = [f"{text},{label}" for text, label in zip(*made(120), strict=True)]
    path.write_text("\n".join(["text,label", *rows, ""]))
    return path


def test_it_learns(train_csv, tmp_path):
    model = classifier(epochs=12, learning_rate=0.02).fit(train_csv, run=tmp_path / "run", test=made(60, seed=1))
    found = model.result.evaluation
    assert model.result.split == "test"
    assert list(model.evaluations) == ["validation", "test"]
    assert found.examples == 60
    assert found.accuracy > 0.95 > 0.5 > found.baseline["accuracy"]
    texts, labels = made(60, seed=2)
    assert model.score(texts, labels) == np.mean([p == t for p, t in zip(model.predict(texts), labels, strict=True)])
    probabilities = model.predict_proba(texts)
    assert model.labels.names == ["food", "music", "sky"]
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert [model.labels.names[k] for k in probabilities.argmax(1)] == list(model.predict(texts))


def test_what_a_run_holds(train_csv, tmp_path, recorder):
    observer = recorder()
    model = gw.Classifier(training=ClassifierTraining(max_steps=3, threads=1))
    model.fit(train_csv, run=tmp_path / "run", observer=observer)
    run = RunFolder(tmp_path / "run")
    assert observer.messages == [
        f'{train_csv}: took the text from column "text" and the label from column "label", of text, label',
        "validation: 12 of the 120 examples, drawn at random with equal shares of each label",
        *[message for message in observer.messages if "repeat" in message or "in training, too" in message],
        "hidden size 64: 108 examples of 6 words",
        "dropout 0.5: 108 examples of 6 words",
        "min count 1: 108 examples of 6 words",
        "embedding size 64: 108 examples of 6 words",
        "word dropout 0.1: 108 examples of 6 words",
        "batch size 16: 108 examples",
        "epochs 100: 7 batches in each, 700 steps in all",
        "validate every 42: 6 epochs of 7 steps",
        "patience 5: a quarter of 17 validations, 5 at least",
    ]
    job = read_job(run)
    assert (job.model.hidden_size, job.training.epochs, job.data.labels) == (64, 100, "one")
    assert {path.name for path in run.path.iterdir()} == {
        *("config.toml", "model.safetensors", "tokenizer.json", "labels.json", "data.json", "evaluation.json"),
        *("environment.json", "metrics.jsonl", "training_state"),
    }
    data = json.loads(run.data.read_text())
    assert data["choices"] == observer.messages[-9:] == model.choices
    assert data["split"]["counts"] == {"training": 108, "validation": 12}
    assert json.loads(run.evaluation.read_text())["validation"]["examples"] == 12
    line = run.read_metrics()[0]
    assert list(line) == ["step", "epoch", "split", "loss_nats", "accuracy", "macro_f1", "seconds"]


def test_the_validation_is_what_an_evaluation_says(train_csv, tmp_path):
    model = classifier().fit(train_csv, run=tmp_path / "run")
    lines = RunFolder(tmp_path / "run").read_metrics()
    best = next(line for line in lines if line["split"] == "validation" and line["step"] == model.result.step)
    for name in ("accuracy", "macro_f1", "loss_nats"):
        assert model.result.evaluation.metrics[name].value == pytest.approx(best[name], rel=1e-5), name


def test_features_are_standardised_on_the_training_part(tmp_path):
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=60)
    x = draw.normal(labels[:, None, None] * 50.0 + 1000, 25, size=(60, 8, 2))
    model = classifier(epochs=10, learning_rate=0.02).fit(x[:40], labels[:40], validation=(x[40:], labels[40:]))
    assert model.scaler is not None
    np.testing.assert_allclose(model.scaler.mean, x[:40].astype(np.float32).mean((0, 1)), rtol=1e-5)
    assert model.result.evaluation.accuracy > 0.9
    plain = classifier(max_steps=1, data={"standardize": False}).fit(x, labels)
    assert plain.scaler is not None
    np.testing.assert_array_equal(plain.scaler.transform(x[0]), x[0].astype(np.float32))


def test_several_labels(tmp_path):
    texts, labels = made(120)
    pairs = [f"{a} {b}" for a, b in zip(texts, texts[::-1], strict=True)]
    sets = [{a, b} for a, b in zip(labels, labels[::-1], strict=True)]
    model = classifier(epochs=25, learning_rate=0.02).fit(pairs, sets, tmp_path / "run")
    assert model.several
    assert model.result.evaluation.metrics["micro_f1"].value > 0.9
    again = gw.load(tmp_path / "run")
    assert again.predict(pairs[:5]) == model.predict(pairs[:5])
    assert all(isinstance(found, tuple) for found in again.predict(pairs[:5]))
    assert (again.predict_proba(pairs).sum(1) > 1.2).any()


def test_balanced_weights_find_the_rare_label():
    """One example in ten is of the rare label, and nothing in it says so: only its weight makes the two alike."""
    labels = ["rare" if i % 10 == 0 else "usual" for i in range(200)]
    texts = ["nothing to see"] * 200
    probabilities = []
    for weights in ("none", "balanced"):
        model = classifier(class_weights=weights, epochs=8, learning_rate=0.02, data={"validation_fraction": 0.0})
        probabilities.append(model.fit(texts, labels).predict_proba(texts[:1])[0, 0])
    assert probabilities[0] == pytest.approx(0.1, abs=0.05)
    assert probabilities[1] == pytest.approx(0.5, abs=0.1)


def test_label_smoothing_keeps_it_from_being_too_sure():
    texts, labels = made(100)
    sure = []
    for smoothing in (0.0, 0.3):
        model = classifier(label_smoothing=smoothing, epochs=15, learning_rate=0.02, dropout=0.0).fit(texts, labels)
        sure.append(float(model.predict_proba(texts).max(1).mean()))
    assert sure[0] > 0.95 > sure[1]


def test_without_validation_the_training_part_is_judged(tmp_path):
    model = classifier(data={"validation_fraction": 0.0}).fit(*made(40), tmp_path / "run")
    assert model.result.split == "train"
    assert model.result.evaluation.examples == 40
    assert read_job(RunFolder(tmp_path / "run")).training.patience is None


def test_a_run_goes_on_without_its_file(train_csv, tmp_path, recorder, killed, assert_same_run):
    classifier().fit(train_csv, run=tmp_path / "whole")
    with pytest.raises(killed):
        classifier(log_every=1).fit(train_csv, run=tmp_path / "run", observer=recorder(at=9))
    train_csv.unlink()
    model = classifier(log_every=1).fit(None, run=tmp_path / "run", resume=True)
    assert model.result.steps == 3 * 7
    whole, run = (RunFolder(tmp_path / name) for name in ("whole", "run"))
    (tensors, metadata), (others, of_others) = load_tensors(whole.model), load_tensors(run.model)
    assert metadata == of_others
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    assert whole.evaluation.read_text() == run.evaluation.read_text()


def test_a_run_goes_on_with_what_it_decided(train_csv, tmp_path):
    gw.Classifier(training=ClassifierTraining(max_steps=3)).fit(train_csv, run=tmp_path / "run")
    model = gw.Classifier(training=ClassifierTraining(max_steps=5)).fit(train_csv, run=tmp_path / "run", resume=True)
    assert (model.config.model.hidden_size, model.result.steps) == (64, 5)
    with pytest.raises(ConfigError, match=r"cannot be resumed with model.hidden_size = 9: it was started with 64"):
        gw.Classifier(9).fit(train_csv, run=tmp_path / "run", resume=True)


def test_other_examples_are_refused(train_csv, tmp_path):
    classifier(max_steps=2).fit(train_csv, run=tmp_path / "run")
    train_csv.write_text(train_csv.read_text().replace("bread", "butter"))
    with pytest.raises(DataError) as error:
        classifier(max_steps=4).fit(train_csv, run=tmp_path / "run", resume=True)
    assert str(error.value) == (
        f"{train_csv}: not the examples that {tmp_path / 'run'} is trained on; resume it with its own, or with none, "
        "for the run has kept them"
    )


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (list("abcdefghij"), ["a"] * 10, 'X: training has one class only, the label "a"; there is nothing to learn'),
        (
            ["one", "two"],
            None,
            "Classifier: X is in memory, so it requires y to be passed, but the target y is None",
        ),
        (None, None, "fit: expected examples (a file or folder, or inputs and labels), got None"),
        ("missing.csv", None, "missing.csv: no such file"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, inputs, labels, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        classifier().fit(inputs, labels, tmp_path / "run")
    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


def test_a_label_that_only_the_test_has(tmp_path):
    with pytest.raises(DataError, match=r'the label "sea" of test is not in training, which has [a-z, ]*; correct it'):
        classifier().fit(*made(60), tmp_path / "run", test=(["waves"], ["sea"]))
    assert not (tmp_path / "run").exists()


def test_what_it_cannot_read_once_it_is_fitted(tmp_path):
    model = classifier(max_steps=1).fit(*made(40))
    with pytest.raises(DataError) as error:
        model.predict(np.zeros((2, 3, 4)))
    assert str(error.value) == "X: expected texts, as the model was trained on, got feature vectors"
    with pytest.raises(DataError, match='X: the label "sea" is not one that was trained: food, music, sky'):
        model.evaluate(["waves"], ["sea"])
    features = classifier(max_steps=1).fit(np.random.default_rng(0).normal(size=(20, 3, 2)), [0, 1] * 10)
    with pytest.raises(DataError) as error:
        features.predict(np.zeros((1, 3, 5)))
    assert str(error.value) == "X: expected 2 features, as the model was trained on, got 5"


def test_before_it_is_fitted():
    with pytest.raises(InputError) as error:
        gw.Classifier().predict(["one"])
    assert str(error.value) == ("Classifier: not trained yet; call fit() first, or load a run with gatewise.load()")


def test_wrong_settings_are_said_when_it_is_fitted():
    with pytest.raises(ConfigError) as error:
        gw.Classifier(0).fit(*made(20))
    assert str(error.value) == "Classifier: model.hidden_size: expected a whole number >= 1 or auto, got 0"


def test_labels_of_another_run(train_csv, tmp_path):
    classifier(max_steps=1).fit(train_csv, run=tmp_path / "run")
    path = tmp_path / "run" / "labels.json"
    path.write_text(path.read_text().replace("food", "mood"))
    with pytest.raises(RunError) as error:
        gw.load(tmp_path / "run")
    assert str(error.value) == f"{path}: damaged, or of another run: model.safetensors was trained with other labels"


def test_what_a_training_would_take(train_csv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = classifier()
    planned = model.plan(train_csv)
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]
    model.fit(train_csv, run=tmp_path / "run")
    assert planned.parameters == sum(parameter.numel() for parameter in model.network.parameters())
    assert (planned.examples, planned.steps) == (120, model.result.steps)
    assert planned.choices == model.choices
    assert planned.memory_bytes > 4 * 4 * planned.parameters
    assert planned.seconds_estimated > 0


def test_a_loss_that_is_not_finite_says_where(train_csv, tmp_path, monkeypatch):
    from gatewise.models.classifier import ClassifierNetwork

    forward = ClassifierNetwork.forward

    def overflow(network, x, lengths):
        with torch.no_grad():
            network.output.weight[0] = torch.nan
        return forward(network, x, lengths)

    monkeypatch.setattr(ClassifierNetwork, "forward", overflow)
    with pytest.raises(NonFiniteLoss, match=r"it began in the parameter output.weight"):
        classifier().fit(train_csv, run=tmp_path / "run")


def test_without_a_run_folder_nothing_is_kept_to_go_on_from(monkeypatch):
    from gatewise.training import loop
    from gatewise.training.classifier_task import ClassifierTask

    saved = []
    monkeypatch.setattr(loop, "save_checkpoint", lambda *_: saved.append(1))
    classifier().fit(*made(40))
    assert saved == []
    batch, calls = ClassifierTask.batch, []

    def overflow(task, epoch, index):
        calls.append(index)
        x, lengths, targets = batch(task, epoch, index)
        if len(calls) == 6:
            with torch.no_grad():
                task.network.output.weight[0] = torch.nan
        return x, lengths, targets

    monkeypatch.setattr(ClassifierTask, "batch", overflow)
    with pytest.raises(NonFiniteLoss, match=r"; start again with a smaller training.learning_rate"):
        classifier().fit(*made(40))
