"""The network of a classifier: its pieces, and what it refuses."""

import pytest
import torch

from gatewise.config import ClassifierConfig, validate
from gatewise.errors import ConfigError, InputError
from gatewise.models.classifier import ClassifierNetwork

SMALL = {"hidden_size": 6, "embedding_size": 4, "dropout": 0.0, "word_dropout": 0.0}


def network(**config) -> ClassifierNetwork:
    torch.manual_seed(0)
    return ClassifierNetwork(ClassifierConfig(**{**SMALL, **config}), 3, vocabulary_size=9, unknown=1).eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(9, (5, 4)), torch.tensor([5, 2, 1, 4])


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_it_is_the_recurrence_then_the_pooling_then_a_linear_map(batch, pooling):
    """Row by row, by torch's own operations."""
    found = network(pooling=pooling)
    logits = found(*batch)
    for row, length in enumerate(batch[1]):
        y, _ = found.recurrent(found.input.words(batch[0][:length, row]))  # pyright: ignore[reportOptionalMemberAccess]
        pooled = {"mean": y.mean(0), "max": y.amax(0), "last": torch.cat([y[-1, :6], y[0, 6:]])}[pooling]
        torch.testing.assert_close(logits[row], found.output(pooled))


def test_the_activations_are_those_of_the_forward(batch):
    found = network(dropout=0.5).train()
    names, outputs = zip(*found.activations(*batch), strict=True)
    assert names == ("input", "recurrent", "pooling", "output")
    assert found.training
    torch.testing.assert_close(outputs[-1], found.eval()(*batch))


def test_words_are_dropped_in_training_only(batch):
    found = network(word_dropout=0.9)
    assert torch.equal(found(*batch), found(*batch))
    unknown = found(torch.ones_like(batch[0]), batch[1])
    found.train()
    torch.manual_seed(0)
    assert any(torch.allclose(found(*batch)[2], unknown[2], atol=1e-6) for _ in range(5))


@pytest.mark.parametrize("sizes", [{}, {"vocabulary_size": 9, "features": 3}])
def test_what_it_reads_must_be_said(sizes):
    with pytest.raises(InputError, match="either vocabulary_size or features"):
        ClassifierNetwork(ClassifierConfig(**SMALL), 3, **sizes)


def test_what_is_not_decided_is_refused():
    with pytest.raises(InputError, match=r"expected sizes and dropout to be numbers, .* got \('auto', 6, 0.0, 0.0\)"):
        network(embedding_size="auto")


def test_a_reset_placement_is_for_a_gru():
    with pytest.raises(ConfigError) as error:
        validate(ClassifierConfig, {"cell": "lstm", "reset": "before"}, source="model")
    assert str(error.value) == 'model: reset = "before" needs cell = "gru"; got "lstm"'
