"""One suite over every model that can be fitted: what holds for all of them, whatever the task.

A model joins with a line in MODELS: small settings, data to fit it to, and how its network is called on a batch.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gatewise as gw
from gatewise.config import (
    ClassifierData,
    ClassifierTraining,
    ForecasterTraining,
    TaggerTraining,
    TextConfig,
    TrainingConfig,
    TranslatorData,
    TranslatorTraining,
)
from gatewise.errors import InputError
from gatewise.models.embeddings import WordBatch
from gatewise.models.forecaster import Window
from gatewise.run_folder import RunFolder
from gatewise.training import estimator
from gatewise.training.estimator import Estimator

TINY = {"batch_size": 8, "log_every": 1, "checkpoint_every": 3, "threads": 1}


@dataclass(frozen=True)
class Case:
    """A small model of a kind.

    fit: fits one to data that it can learn, with some settings of the training, observer and resume; into a run folder.
    rows: some rows of the network's input, and their lengths, given a fitted model: for padding and batches.
    run: of the network the output, (B, ...) or (T, B, ...), of padded rows; per_step: whether the second it is.
    sequential: whether it can be carried to other libraries; learns: the loss that a batch must come below;
    reads_lengths: whether the network knows where rows end;
    ragged: whether its rows may differ in length.
    """

    fit: Callable[..., Any]
    rows: Callable[[Any], list[Tensor]]
    run: Callable[[Any, Tensor, Tensor], Tensor]
    per_step: bool = False
    sequential: bool = True
    learns: float = 0.05
    reads_lengths: bool = True
    ragged: bool = True


def text_file(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("the gate forgets what it reads " * 40)
    return path


def fit_language_model(folder: Path, run: Path, resume=False, observer=None, **training):
    model = gw.LanguageModel(24, embedding_size=8, dropout=training.pop("dropout", 0.2))
    config = TrainingConfig(**{**TINY, "sequence_length": 8, "sample_length": 0, **training})
    return model.fit(text_file(folder), run, data=TextConfig(), training=config, resume=resume, observer=observer)


def regularised_language_model(folder: Path, run: Path, resume=False, observer=None, **training):
    overfits = training.pop("dropout", 0.2) == 0
    dropped = 0.0 if overfits else 0.2
    model = gw.LanguageModel(24, embedding_size=24, tied=True, weight_dropout=dropped, recurrent_dropout=dropped)
    config = TrainingConfig(**{**TINY, "sequence_length": 8, "length_variation": 0.25, "sample_length": 0, **training})
    return model.fit(text_file(folder), run, data=TextConfig(), training=config, resume=resume, observer=observer)


def labelled(examples: int) -> tuple[list[str], list[str]]:
    draw = random.Random(0)
    words = {"food": ["bread", "soup"], "music": ["song", "band"], "sky": ["rain", "sun"]}
    labels = [draw.choice(list(words)) for _ in range(examples)]
    return [
        " ".join(draw.choices([*words[label], "the", "of"], k=draw.randint(2, 7)) + words[label][:1])
        for label in labels
    ], labels


def features(examples: int) -> tuple[list[np.ndarray], list[int]]:
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=examples).tolist()
    return [draw.normal(label, 0.3, size=(draw.integers(2, 9), 3)) for label in labels], labels


def several(examples: int) -> tuple[list[str], list[list[str]]]:
    texts, labels = labelled(examples)
    return [f"{one} {other}" for one, other in zip(texts, reversed(texts), strict=True)], [
        [one, other] for one, other in zip(labels, reversed(labels), strict=True)
    ]


def classifier(data: Callable[[int], tuple[Any, Any]], **model: Any) -> Callable[..., Any]:
    def fit(folder: Path, run: Path, resume=False, observer=None, **training):
        dropout = training.pop("dropout", 0.2)
        settings = {"hidden_size": 16, "embedding_size": 8, "dropout": dropout, "word_dropout": dropout / 2, **model}
        config = ClassifierTraining(**{**TINY, "epochs": 2, "patience": None, **training})
        made = gw.Classifier(**settings, data=ClassifierData(), training=config)
        return made.fit(*data(40), run, resume=resume, observer=observer)

    return fit


def tagged(examples: int) -> tuple[list[list[str]], list[list[str]]]:
    texts, _ = labelled(examples)
    sentences = [text.split() for text in texts]
    return sentences, [["B-x" if word[0] in "bs" else "O" for word in sentence] for sentence in sentences]


def numbered(examples: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    inputs, _ = features(examples)
    return inputs, [(x[:, :2] > 0.5).astype(np.float32) for x in inputs]


def tagger(data: Callable[[int], tuple[Any, Any]], **model: Any) -> Callable[..., Any]:
    def fit(folder: Path, run: Path, resume=False, observer=None, **training):
        settings = {"hidden_size": 16, "embedding_size": 8, "dropout": training.pop("dropout", 0.2), **model}
        config = TaggerTraining(**{**TINY, "epochs": 2, "patience": None, **training})
        made = gw.Tagger(**settings, word_dropout=0.0, training=config)
        return made.fit(*data(40), run, resume=resume, observer=observer)

    return fit


def fit_translator(folder: Path, run: Path, resume=False, observer=None, **training):
    data = TranslatorData(tokenizer="word", vocabulary_size=50)
    sizes = {"hidden_size": 16, "embedding_size": 8, "dropout": training.pop("dropout", 0.2)}
    config = TranslatorTraining(**{**TINY, "epochs": 2, "patience": None, "label_smoothing": 0.0, **training})
    sentences, _ = labelled(40)
    made = gw.Translator(**sizes, data=data, training=config)
    return made.fit(sentences, [sentence.upper() for sentence in sentences], run, resume=resume, observer=observer)


def words(network: Any, x: Tensor, lengths: Tensor) -> Tensor:
    """A tagger that spells: each token's characters are those of its number."""
    if x.is_floating_point():
        return network(x, lengths)
    if not hasattr(network.input, "spelling"):
        return network(WordBatch(x), lengths)
    numbers, known = torch.arange(int(x.max()) + 1), network.input.characters.num_embeddings - 2
    characters = torch.stack([2 + factor * numbers % known for factor in (1, 3, 7)])
    return network(WordBatch(x, x, characters, torch.full((characters.shape[1],), 3)), lengths)


def attended(network: Any, x: Tensor, lengths: Tensor) -> Tensor:
    """What a translator makes of the source: the logits of the first three tokens, rows first."""
    read = torch.arange(3).unsqueeze(1).expand(3, x.shape[1])
    return network(x, lengths, read)[0].transpose(0, 1)


def tokens(model: Any) -> list[Tensor]:
    sizes = {
        "LanguageModel": lambda: model.tokenizer.size,
        "Classifier": lambda: model.tokens.size,
        "Tagger": lambda: len(model.words.words),
        "Translator": lambda: model.source.tokenizer.size,
    }
    size = sizes[type(model).__name__]()
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(size, (length,), generator=draw) for length in (7, 3, 1, 5)]


def steps(model: Any) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(length, 3, generator=draw) for length in (7, 3, 1, 5)]


def with_lengths(network: Any, x: Tensor, lengths: Tensor) -> Tensor:
    return network(x, lengths)


def forecaster(**model: Any) -> Callable[..., Any]:
    def fit(folder: Path, run: Path, resume=False, observer=None, **training):
        settings = {"hidden_size": 16, "dropout": training.pop("dropout", 0.2), "context": 8, "season": 4, **model}
        config = ForecasterTraining(**{**TINY, "epochs": 2, "patience": None, "validate_every": None, **training})
        values = np.random.default_rng(0).normal(size=(60, 2)).cumsum(0)
        made = gw.Forecaster(3, **settings, training=config)
        return made.fit({"one": values, "other": values[:50]}, run, resume=resume, observer=observer)

    return fit


def histories(model: Any) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(8, 2, generator=draw) for _ in range(4)]


def distributions(network: Any, x: Tensor, lengths: Tensor) -> Tensor:
    *_, (_, parameters) = network.activations(
        Window(x, torch.zeros(len(x) + 3, x.shape[1], 0), x.new_zeros(len(x[0]), 0))
    )
    return parameters


MODELS = {
    "language-model": Case(
        fit_language_model,
        tokens,
        lambda network, x, _: network(x)[0],
        per_step=True,
        learns=0.6,
        reads_lengths=False,
    ),
    "language-model-regularised": Case(
        regularised_language_model,
        tokens,
        lambda network, x, _: network(x)[0],
        per_step=True,
        learns=0.6,
        reads_lengths=False,
    ),
    "classifier": Case(classifier(labelled), tokens, with_lengths),
    "classifier-last-lstm": Case(classifier(labelled, pooling="last", cell="lstm"), tokens, with_lengths),
    "classifier-mean-rnn": Case(
        classifier(labelled, pooling="mean", cell="rnn", bidirectional=False, num_layers=2), tokens, with_lengths
    ),
    "classifier-attention": Case(
        classifier(labelled, pooling="attention", reset="before"), tokens, with_lengths, sequential=False
    ),
    "classifier-features": Case(classifier(features), steps, with_lengths),
    "classifier-several": Case(classifier(several), tokens, with_lengths),
    "tagger": Case(tagger(tagged, spelling_size=0, output="softmax"), tokens, words, per_step=True),
    "tagger-spelled-crf": Case(tagger(tagged, spelling_size=8), tokens, words, per_step=True, sequential=False),
    "tagger-numbers": Case(tagger(numbered, layer_sizes="16,8", cell="lstm"), steps, words, per_step=True, learns=0.3),
    "translator": Case(fit_translator, tokens, attended, sequential=False, learns=0.3),
    "forecaster": Case(
        forecaster(targets="together"),
        histories,
        distributions,
        per_step=True,
        sequential=False,
        ragged=False,
        learns=-0.2,
    ),
    "forecaster-apart": Case(
        forecaster(targets="apart"),
        histories,
        distributions,
        per_step=True,
        sequential=False,
        ragged=False,
        learns=-0.2,
    ),
    "forecaster-recurrent": Case(
        forecaster(mode="recurrent", likelihood="gaussian", reset="before", targets="together"),
        histories,
        distributions,
        per_step=True,
        sequential=False,
        ragged=False,
        learns=-0.2,
    ),
    "forecaster-quantiles-lstm": Case(
        forecaster(likelihood="quantiles", cell="lstm", num_layers=2, targets="together"),
        histories,
        distributions,
        per_step=True,
        sequential=False,
        ragged=False,
        learns=0.2,
    ),
}


@pytest.fixture(params=MODELS)
def case(request) -> Case:
    return MODELS[request.param]


@pytest.fixture
def fitted(case, tmp_path) -> Any:
    return case.fit(tmp_path, tmp_path / "run", max_steps=4)


@pytest.fixture
def prepared(monkeypatch) -> list[Any]:
    """What each training was prepared with."""
    seen: list[Any] = []
    train = Estimator._train

    def note(model: Any, folder: RunFolder, found: estimator.Prepared, observer: Any) -> None:
        seen.append(found)
        train(model, folder, found, observer)

    monkeypatch.setattr(Estimator, "_train", note)
    return seen


def padded(rows: list[Tensor], extra: int = 0) -> tuple[Tensor, Tensor]:
    """The rows side by side, time first, with `extra` steps of padding after the longest; and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    x = torch.zeros(int(lengths.max()) + extra, len(rows), *rows[0].shape[1:], dtype=rows[0].dtype)
    for number, row in enumerate(rows):
        x[: len(row), number] = row
    return x, lengths


def test_it_overfits_one_batch(case, tmp_path, prepared):
    case.fit(tmp_path, tmp_path / "run", max_steps=1, dropout=0.0)
    task = prepared[0].task
    task.network.train()
    batch = task.batch(0, 0)
    optimizer = torch.optim.Adam(task.network.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = task.loss(batch, None).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < case.learns


def test_save_and_load_give_identical_outputs(case, fitted, tmp_path):
    fitted.save(tmp_path / "saved")
    x, lengths = padded(case.rows(fitted))
    with torch.no_grad():
        expected = case.run(fitted.network, x, lengths)
        for run in (tmp_path / "saved", tmp_path / "run"):
            assert torch.equal(case.run(gw.load(run).network, x, lengths), expected)


def test_padding_changes_nothing(case, fitted):
    if not case.ragged:
        pytest.skip("all its windows have one length")
    rows = case.rows(fitted)
    x, lengths = padded(rows)
    with torch.no_grad():
        expected = case.run(fitted.network, x, lengths)
        longer = case.run(fitted.network, padded(rows, extra=4)[0], lengths)
    for row, length in enumerate(lengths):
        one, other = (y[:length, row] if case.per_step else y[row] for y in (expected, longer))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_row_alone_is_the_row_in_the_batch(case, fitted):
    rows = case.rows(fitted)
    with torch.no_grad():
        together = case.run(fitted.network, *padded(rows))
        for number, row in enumerate(rows):
            alone = case.run(fitted.network, *padded([row]))
            one = together[: len(row), number] if case.per_step else together[number]
            torch.testing.assert_close(one, alone[:, 0] if case.per_step else alone[0], rtol=1e-5, atol=1e-6)


def test_a_killed_training_goes_on_as_if_it_never_was(case, tmp_path, recorder, killed, assert_same_run):
    """In the middle of an epoch, with dropout, right after a line of metrics beyond the last checkpoint."""
    case.fit(tmp_path, tmp_path / "whole", max_steps=9)
    with pytest.raises(killed):
        case.fit(tmp_path, tmp_path / "stopped", max_steps=9, observer=recorder(at=4))
    with pytest.raises(killed):
        case.fit(tmp_path, tmp_path / "stopped", max_steps=9, observer=recorder(at=8), resume=True)
    case.fit(tmp_path, tmp_path / "stopped", max_steps=9, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_the_seed_decides(case, tmp_path, assert_same_run):
    for name in ("one", "same"):
        case.fit(tmp_path, tmp_path / name, max_steps=4)
    assert_same_run(tmp_path / "one", tmp_path / "same")
    case.fit(tmp_path, tmp_path / "other", max_steps=4, seed=1)
    weights = [RunFolder(tmp_path / name).model.read_bytes() for name in ("one", "other")]
    assert weights[0] != weights[1]


def test_the_chain_of_layers_gives_what_the_network_gives(case, fitted):
    if not case.sequential:
        with pytest.raises(InputError, match="cannot be carried to other libraries"):
            fitted.network.as_sequential()
        return
    x, lengths = padded(case.rows(fitted))
    chain = fitted.network.as_sequential()
    with torch.no_grad():
        expected = case.run(fitted.network, x, lengths)
        found, _ = chain(x, None, lengths if case.reads_lengths else None)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_backends_agree(case, fitted):
    """The native kernels, torch's and the reference, on the same weights."""
    x, lengths = padded(case.rows(fitted))
    layers = [layer for layer in fitted.network.modules() if hasattr(layer, "backend")]
    outputs = []
    for backend in ("auto", "reference"):
        for layer in layers:
            layer.backend = backend
        with torch.no_grad():
            outputs.append(case.run(fitted.network, x, lengths))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_its_export_is_proven(case, fitted, tmp_path):
    """What is written computes what the model does, on rows of different lengths, or nothing is written."""
    if not case.sequential:
        with pytest.raises(InputError, match="cannot be carried to other libraries"):
            gw.export(tmp_path / "run", "torch", tmp_path / "exported")
        assert not (tmp_path / "exported").exists()
        return
    parity = gw.export(tmp_path / "run", "torch", tmp_path / "exported")
    assert parity.verdict == "passed"
    assert (tmp_path / "exported" / "parity.json").exists()
