"""Tagger: words, spans and numbers; what is decided by the data; runs that are saved, loaded and resumed."""

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.config import TaggerData, TaggerTraining
from gatewise.data.examples import Examples
from gatewise.errors import ConfigError, DataError
from gatewise.training.loop import TrainingInterrupted
from gatewise.training.observer import Observer
from gatewise.training.tagger_task import are_spans

WORDS = ["a", "the", "dog", "dogs", "run", "runs", "big"]
TRAINING = TaggerTraining(epochs=4, learning_rate=0.02, batch_size=16)


@pytest.fixture(autouse=True)
def one_thread():
    """Steps this small are slowed down by threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class StopEarly(Observer):
    """Ctrl-C in the second epoch."""

    def on_step(self, metrics):
        if metrics["step"] >= 10:
            raise KeyboardInterrupt


def _sentences(count: int = 120, seed: int = 0) -> tuple[list[list[str]], list[list[str]]]:
    random = np.random.default_rng(seed)
    sentences = [[WORDS[i] for i in random.integers(len(WORDS), size=random.integers(1, 8))] for _ in range(count)]
    return sentences, [[_tag(word) for word in sentence] for sentence in sentences]


def _tag(word: str) -> str:
    return "NOUN" if word.startswith("dog") else "VERB" if word.startswith("run") else "DET"


def _spans(sentences: list[list[str]]) -> list[list[str]]:
    """A span is a dog with what stands before it."""
    tags = [["O"] * len(sentence) for sentence in sentences]
    for sentence, row in zip(sentences, tags, strict=True):
        for t, word in enumerate(sentence):
            if word.startswith("dog"):
                row[t] = "B-X"
                if t and row[t - 1] == "O":
                    row[t - 1 : t + 1] = ["B-X", "I-X"]
    return tags


def _small(**options) -> gw.Tagger:
    sizes = {"hidden_size": 16, "embedding_size": 8, "spelling_size": 8, "dropout": 0.1}
    return gw.Tagger(**{**sizes, "training": TRAINING, **options})


def test_words_are_tagged_and_unknown_ones_by_their_spelling(tmp_path):
    model = _small(word_dropout=0.3).fit(*_sentences(), run=tmp_path / "run")
    assert model.score(*_sentences(30, seed=1)) > 0.95
    assert model.predict([["dogz", "runz"]]) == [["NOUN", "VERB"]]
    assert [p.shape for p in model.predict_proba([["a"], ["the", "dog"]])] == [(1, 3), (2, 3)]
    loaded = gw.load(tmp_path / "run")
    assert isinstance(loaded, gw.Tagger)
    assert loaded.predict([["dogz", "runz"]]) == [["NOUN", "VERB"]]
    assert loaded.evaluate(*_sentences(30, seed=1)) == model.evaluate(*_sentences(30, seed=1))
    model.save(tmp_path / "copy")
    assert gw.load(tmp_path / "copy").predict([["dogz"]]) == [["NOUN"]]


def test_spans_are_scored_together_and_never_begin_inside():
    sentences, _ = _sentences()
    model = _small(training=TaggerTraining(epochs=8, learning_rate=0.02, batch_size=16)).fit(
        sentences, _spans(sentences)
    )
    assert model.config.model.output == "crf"
    assert "output crf: the tags are BIO spans" in model.choices
    others, _ = _sentences(40, seed=1)
    found = model.evaluate(others, _spans(others))
    assert found.metrics["span_f1"].value > 0.9
    for row in model.predict(others):
        assert all(tag != "I-X" or (t and row[t - 1] != "O") for t, tag in enumerate(row))
    with pytest.raises(DataError, match=r"^Tagger.predict_proba: a random field scores whole sequences"):
        model.predict_proba(others)


def test_numbers_for_every_step():
    random = np.random.default_rng(0)
    x = [random.standard_normal((random.integers(2, 9), 4)).astype(np.float32) for _ in range(80)]
    y = [np.stack([a[:, 0] > 0, np.cumsum(a[:, 1]) > 0], 1).astype(np.float32) for a in x]
    training = TaggerTraining(epochs=15, learning_rate=0.02, batch_size=16)
    model = _small(data=TaggerData(targets="numbers"), training=training, layer_sizes="16,8", direction="forward").fit(
        x, y
    )
    found = model.evaluate(x, y)
    assert found.accuracy > 0.9
    assert found.metrics["loss_nats"].value < found.baseline["loss_nats"]
    assert np.shape(model.predict(x[:2])[1]) == (len(x[1]), 2)
    kinds = [layer["kind"] for layer in model.network.as_sequential().describe()]
    assert kinds == ["gru", "gru", "linear"]


def test_the_next_step_is_not_read_off():
    rolls = [np.random.default_rng(row).integers(2, size=(9, 3)).astype(np.float32) for row in range(20)]
    examples = Examples(
        "rolls", "steps", [r[:-1] for r in rolls], "numbers", [r[1:] for r in rolls], [str(i) for i in range(20)],
        feature_names=("a", "b", "c"), target_names=("a", "b", "c"),
    )  # fmt: skip
    model = _small(training=TaggerTraining(max_steps=1, epochs=1)).fit(examples)
    assert model.config.model.direction == "forward"
    assert "direction forward: the targets are the next step's input" in model.choices


def test_resumed_bit_for_bit(tmp_path):
    sentences, tags = _sentences()
    whole = _small().fit(sentences, tags, run=tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        _small().fit(sentences, tags, run=tmp_path / "parts", observer=StopEarly())
    parts = _small().fit(None, run=tmp_path / "parts", resume=True)
    for name, parameter in parts.network.state_dict().items():
        assert torch.equal(parameter, whole.network.state_dict()[name]), name


def test_a_file(tmp_path):
    sentences, tags = _sentences(60)
    lines = [
        "".join(f"{i}\t{w}\t_\t{t}\t_\t_\t_\t_\t_\t_\n" for i, (w, t) in enumerate(zip(s, ts, strict=True), 1)) + "\n"
        for s, ts in zip(sentences, tags, strict=True)
    ]
    (tmp_path / "train.conllu").write_text("".join(lines))
    model = _small().fit(tmp_path / "train.conllu")
    rows = model.predict_rows(tmp_path / "train.conllu")
    assert rows[0]["words"] == sentences[0]
    assert len(rows[0]["tags"]) == len(sentences[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spelling_size": 7}, "spelling_size: expected an even number >= 0, got 7"),
        ({"layer_sizes": "8,x"}, 'layer_sizes: expected whole numbers >= 1, as in "256,128", got "8,x"'),
        ({"cell": "lstm", "reset": "before"}, 'reset = "before" needs cell = "gru"; got "lstm"'),
    ],
)
def test_configurations_that_cannot_be(options, message):
    with pytest.raises(ConfigError) as caught:
        _small(**options).fit(*_sentences(20))
    assert message in str(caught.value)


def test_input_that_does_not_go_with_the_model():
    model = _small(training=TaggerTraining(max_steps=1, epochs=1)).fit(*_sentences(20))
    with pytest.raises(DataError, match=r"^X: expected words, as the model was trained on, got no words$"):
        model.predict(np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match=r"^X\[1\] has no word; leave it out$"):
        model.predict([["a"], []])


def test_are_spans():
    assert are_spans(["B-x", "I-x", "O"])
    assert not are_spans(["NOUN", "O"])
    assert not are_spans(["O"])
