"""evaluation: the mean over every target, whatever the windows."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from gatewise.config import LanguageModelConfig
from gatewise.data.batches import EvaluationWindows
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.training.evaluation import bits_per_char, mean_loss, perplexity


@pytest.mark.parametrize(("length", "steps"), [(2, 5), (17, 4), (41, 40), (41, 7)])
def test_windows_do_not_change_the_loss(length, steps):
    torch.manual_seed(0)
    network = LanguageModelNetwork(9, LanguageModelConfig(hidden_size=8, dropout=0.5, num_layers=2))
    tokens = torch.randint(9, (length,), dtype=torch.uint8)
    loss, targets = mean_loss(network, EvaluationWindows(tokens, 1, steps))
    assert network.training
    logits, _ = network.eval()(tokens[:-1].long().unsqueeze(1))
    assert targets == length - 1
    assert loss == pytest.approx(cross_entropy(logits[:, 0], tokens[1:].long()).item(), rel=1e-5)


def test_every_target_counts_once():
    """Three lanes of 16 or 17 tokens, the last window shorter than the others."""
    network = LanguageModelNetwork(9, LanguageModelConfig(hidden_size=8)).eval()
    tokens = torch.randint(9, (50,))
    windows = EvaluationWindows(tokens, 3, 5)
    loss, targets = mean_loss(network, windows)
    inputs, expected = (torch.cat(parts) for parts in zip(*windows, strict=True))
    logits, _ = network(inputs)
    assert targets == windows.targets == expected.numel()
    assert loss == pytest.approx(cross_entropy(logits.flatten(0, 1), expected.flatten()).item(), rel=1e-5)


def test_perplexity():
    assert perplexity(math.log(28)) == pytest.approx(28)
    assert perplexity(0.0) == 1
    assert math.isfinite(perplexity(1e6))


def test_bits_per_char():
    assert bits_per_char(math.log(2), 1.0) == pytest.approx(1)
    assert bits_per_char(math.log(256), 4.0) == pytest.approx(2)  # a token of four characters, one of 256
