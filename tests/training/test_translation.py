"""The evaluation of translations: sacrebleu's own scores, and which translations are shown."""

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from gatewise.training.translation import Translated, evaluate_translations

REFERENCES = ["It is cold today.", "I am hungry, and you?", "The cat is on the mat.", "She was born in Paris."]
WRITTEN = ["It is cold today.", "I am hungry.", "A cat is on the mat.", "Bananas."]
SOURCES = ["Il fait froid.", "J'ai faim, et toi ?", "Le chat est sur le tapis.", "Elle est née à Paris."]


def _translated(texts: list[str]) -> list[Translated]:
    return [Translated(text, -1.0, text.split(), ["a", "b"], np.full((len(text.split()), 2), 0.5)) for text in texts]


def test_scores_and_examples():
    found = evaluate_translations(_translated(WRITTEN), REFERENCES, SOURCES, ["a", "b", "c", "d"], 0.5)
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        assert found.metrics[name].value == pytest.approx(metric.corpus_score(WRITTEN, [REFERENCES]).score)
        assert found.metrics[name].low <= found.metrics[name].value <= found.metrics[name].high + 10
        assert found.baseline[name] < found.metrics[name].value
    assert found.metrics["perplexity"].value == pytest.approx(1.6487, abs=1e-3)
    assert found.worst[0].written == "Bananas."
    assert found.worst[0].place == "d"
    assert "tok:13a" in found.signature
    assert found.looks[0].weights[0] == [0.5, 0.5]
    assert found == evaluate_translations(_translated(WRITTEN), REFERENCES, SOURCES, ["a", "b", "c", "d"], 0.5)


def test_one_sentence():
    found = evaluate_translations(_translated(WRITTEN[:1]), REFERENCES[:1], SOURCES[:1], ["a"], 0.5)
    assert found.metrics["bleu"].value == pytest.approx(100)


def test_draws_without_a_match():
    """Of sacrebleu's draws some have no common word, and others have."""
    written = ["Bananas."] * 3 + WRITTEN[:1]
    found = evaluate_translations(_translated(written), ["x"] * 3 + REFERENCES[:1], SOURCES, ["a", "b", "c", "d"], 0.5)
    assert 0 <= found.metrics["bleu"].low < found.metrics["bleu"].value < found.metrics["bleu"].high <= 100
    assert all(type(bound) is float for bound in (found.metrics["chrf"].low, found.metrics["chrf"].high))
