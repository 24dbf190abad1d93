"""text evaluation: the loss that validation has, an interval around it, the passages in the text's own order."""

import math
import random

import numpy as np
import pytest
import torch

from gatewise.config import LanguageModelConfig, TextConfig
from gatewise.data import tokenizers
from gatewise.data.batches import EvaluationWindows
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.training.evaluation import mean_loss
from gatewise.training.text_evaluation import PASSAGE, PASSAGES, evaluate_text
from gatewise.training.token_pairs import TokenPairs

TEXT = "".join(random.Random(0).choices("abcdefg äöü\n", k=1300))  # no passage comes twice


@pytest.fixture(scope="module")
def judged():
    torch.manual_seed(0)
    tokenizer = tokenizers.fit([TEXT], TextConfig(tokenizer="char"))
    tokens = torch.from_numpy(tokenizer.encode(TEXT))
    network = LanguageModelNetwork(tokenizer.size, LanguageModelConfig(hidden_size=8)).eval()
    windows = EvaluationWindows(tokens, 3, 17)
    pairs = TokenPairs(tokens.numpy(), tokenizer.size)
    return network, windows, tokenizer, evaluate_text(network, windows, pairs, tokenizer, 1.0)


def test_loss_and_interval(judged):
    network, windows, _, found = judged
    loss, targets = mean_loss(network, windows)
    metrics = found.metrics
    assert found.examples == targets
    assert metrics["loss_nats"].value == pytest.approx(loss, rel=1e-6)
    assert metrics["loss_nats"].low < loss < metrics["loss_nats"].high
    assert metrics["perplexity"].high == pytest.approx(math.exp(metrics["loss_nats"].high))
    assert metrics["bits_per_char"].value == pytest.approx(loss / math.log(2), rel=1e-6)


def test_baseline_reads_the_same_targets(judged):
    _, windows, tokenizer, found = judged
    pairs = TokenPairs(windows.tokens.numpy(), tokenizer.size)
    inputs, targets = (torch.cat(parts).numpy().ravel() for parts in zip(*windows, strict=True))
    assert found.baseline["loss_nats"] == pytest.approx(pairs.losses(inputs, targets).mean())


def test_surprises_are_passages_of_the_text(judged):
    found = judged[3].surprises
    assert 0 < len(found) <= PASSAGES
    means = [np.mean(passage.nats) for passage in found]
    assert means == sorted(means, reverse=True)
    for passage in found:
        assert passage.before + "".join(passage.tokens) in TEXT
        assert len(passage.before) == len(passage.tokens) == len(passage.nats) == PASSAGE


def test_each_token_has_its_own_cost(judged):
    network, windows, tokenizer, found = judged
    for passage in found.surprises:
        wanted = passage.before + "".join(passage.tokens)
        lane = next(lane for row in range(3) if wanted in tokenizer.decode((lane := windows.lane(row)).tolist()))
        with torch.inference_mode():
            logits, _ = network(lane[:-1, None].long())
        costs = -logits[:, 0].log_softmax(1).gather(1, lane[1:, None].long())[:, 0]
        start = tokenizer.decode(lane.tolist()).index(wanted) + PASSAGE - 1
        assert passage.nats == pytest.approx(costs[start : start + PASSAGE].tolist(), abs=0.006)


def test_a_short_text_has_no_passages():
    tokenizer = tokenizers.fit([TEXT], TextConfig(tokenizer="char"))
    tokens = torch.from_numpy(tokenizer.encode(TEXT[:50]))
    network = LanguageModelNetwork(tokenizer.size, LanguageModelConfig(hidden_size=4))
    found = evaluate_text(network, EvaluationWindows(tokens, 1, 9), TokenPairs(tokens.numpy(), 30), tokenizer, 1.0)
    assert found.surprises == []
    assert found.metrics["loss_nats"].low == found.metrics["loss_nats"].high
