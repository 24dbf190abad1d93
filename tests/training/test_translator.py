"""Translator: a language of word for word, learned, searched, saved, loaded, resumed."""

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.config import TranslatorData, TranslatorTraining
from gatewise.errors import ConfigError, DataError, InputError
from gatewise.training.loop import TrainingInterrupted
from gatewise.training.observer import Observer

WORDS = {"un": "one", "deux": "two", "trois": "three", "chat": "cat", "chien": "dog", "noir": "black"}
DATA = TranslatorData(tokenizer="word", vocabulary_size=100)
TRAINING = TranslatorTraining(epochs=15, batch_size=16, learning_rate=0.02, label_smoothing=0.0)


@pytest.fixture(autouse=True)
def one_thread():
    """Steps this small are slowed down by threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _pairs(count: int = 200, seed: int = 0) -> tuple[list[str], list[str]]:
    """Sentences, and their words in English, from the last to the first."""
    random = np.random.default_rng(seed)
    known = list(WORDS)
    sources = [[known[i] for i in random.integers(6, size=random.integers(1, 6))] for _ in range(count)]
    return [" ".join(s) for s in sources], [" ".join(WORDS[word] for word in reversed(s)) for s in sources]


def _small(**options) -> gw.Translator:
    sizes = {"hidden_size": 24, "embedding_size": 16, "dropout": 0.0}
    return gw.Translator(**{**sizes, "data": DATA, "training": TRAINING, **options})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> gw.Translator:
    torch.set_num_threads(1)
    return _small().fit(*_pairs(), run=tmp_path_factory.mktemp("runs") / "run")


def test_it_translates(model):
    sources, targets = _pairs(40, seed=1)
    found = model.evaluate(sources, targets)
    assert found.metrics["bleu"].value > 60
    assert found.baseline["bleu"] < 20
    assert model.predict(["deux chien noir"]) == ["black dog two"]


def test_it_looks_where_the_word_stands(model):
    (best, *_) = next(model.translate(["un chat noir chien"]))
    assert best.pieces == ["dog", "black", "cat", "one"]
    assert best.source_pieces == ["un", "chat", "noir", "chien"]
    np.testing.assert_allclose(best.attention.sum(1), 1, atol=1e-5)
    assert best.attention.shape == (4, 4)


def test_beams_draws_and_blanks(model):
    found = list(model.translate(["deux chat", "", "un"], beams=3, alpha=0.0, batch_size=2))
    assert [len(each) for each in found] == [3, 1, 3]
    assert found[1][0].text == ""
    assert [each.log_probability for each in found[0]] == sorted((e.log_probability for e in found[0]), reverse=True)
    drawn = [next(model.translate(["deux chat noir"], temperature=2.0, seed=seed))[0].text for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({*drawn}) > 1
    with pytest.raises(InputError, match=r"^translate: top_k and top_p are for draws; give a temperature, too$"):
        list(model.translate(["un"], top_k=3))
    with pytest.raises(InputError, match=r"^translate: expected beams and batch_size >= 1, got 0 and 32$"):
        list(model.translate(["un"], beams=0))


def test_save_and_load(model, tmp_path):
    model.save(tmp_path / "run")
    loaded = gw.load(tmp_path / "run")
    sources, _ = _pairs(10, seed=2)
    assert loaded.predict(sources) == model.predict(sources)
    (tmp_path / "sentences.txt").write_text("\n".join(sources) + "\n")
    rows = loaded.predict_rows(tmp_path / "sentences.txt")
    assert [row["translation"] for row in rows] == model.predict(sources)


def test_resumed_bit_for_bit(tmp_path):
    class StopEarly(Observer):
        def on_step(self, metrics):
            if metrics["step"] >= 10:
                raise KeyboardInterrupt

    training = TRAINING.model_copy(update={"epochs": 2, "scheduled_sampling": 0.3})
    pairs = _pairs()
    whole = _small(training=training, dropout=0.1).fit(*pairs, run=tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        _small(training=training, dropout=0.1).fit(*pairs, run=tmp_path / "parts", observer=StopEarly())
    parts = _small(training=training, dropout=0.1).fit(None, run=tmp_path / "parts", resume=True)
    for name, parameter in parts.network.state_dict().items():
        assert torch.equal(parameter, whole.network.state_dict()[name]), name


def test_long_pairs_are_left_out_and_counted(tmp_path):
    class Listen(Observer):
        def __init__(self):
            self.messages: list[str] = []

        def on_message(self, message):
            self.messages.append(message)

    listen, training = Listen(), TRAINING.model_copy(update={"epochs": 1, "max_steps": 1})
    data = DATA.model_copy(update={"max_length": 3})
    _small(data=data, training=training).fit(*_pairs(), observer=listen)
    assert any("pairs have more than 3 tokens: left out" in message for message in listen.messages)


def test_what_is_no_sentence():
    training = TRAINING.model_copy(update={"epochs": 1, "max_steps": 1})
    with pytest.raises(DataError, match=r"^X: expected a list of sentences, got list$"):
        _small(training=training).fit([["un"]], ["one"])


def test_paired_files(tmp_path):
    for part, seed in (("train", 0), ("test", 1)):
        for suffix, texts in zip(("fr", "en"), _pairs(40, seed), strict=True):
            (tmp_path / f"{part}.{suffix}").write_text("".join(f"{text}\n" for text in texts))
    data = DATA.model_copy(update={"target_suffix": "en"})
    model = _small(data=data, training=TRAINING.model_copy(update={"max_steps": 2})).fit(tmp_path, run=tmp_path / "run")
    assert model.evaluations["test"].examples == 40
    assert gw.load(tmp_path / "run").evaluate(tmp_path / "test.fr").examples == 40
    assert len(model.predict(tmp_path / "test.fr")) == 40
    with pytest.raises(DataError, match=r"test\.en: its translations are not there: expected a file test\.en "):
        model.evaluate(tmp_path / "test.en")


@pytest.mark.parametrize("key", ["source_column", "target_column", "member"])
def test_paired_files_have_no_columns(key):
    with pytest.raises(ConfigError) as error:
        gw.Translator(data={"target_suffix": "en", key: "a"}).fit("train.fr")
    message = f"{key} is of both languages in one file; leave it out, or target_suffix"
    assert str(error.value) == f"Translator: data: {message}"
