"""TranslatorNetwork: what it computes, and that neither padding nor company changes it."""

from functools import partial

import pytest
import torch

import gatewise as gw
from gatewise.models.translator import TranslatorNetwork

LAYERS = {
    "gru": gw.GRU,
    "before": partial(gw.GRU, reset="before"),
    "lstm": gw.LSTM,
    "rnn": gw.RNN,
}
LENGTHS = torch.tensor([6, 2, 4])


@pytest.fixture(params=LAYERS)
def network(request) -> TranslatorNetwork:
    torch.manual_seed(0)
    sizes = {"embedding_size": 6, "hidden_size": 5, "num_layers": 2, "dropout": 0.3}
    return TranslatorNetwork(9, 8, make_layer=LAYERS[request.param], attention="additive", **sizes).eval()


def test_step_by_step_equals_the_whole(network):
    source, tokens = torch.randint(9, (6, 3)), torch.randint(8, (5, 3))
    logits, weights = network(source, LENGTHS, tokens)
    assert logits.shape == (5, 3, 8)
    assert weights.shape == (5, 3, 6)
    encoded, state = network.encode(source, LENGTHS), None
    for t, read in enumerate(tokens):
        one, state, look = network.decode(read.unsqueeze(0), encoded, state)
        torch.testing.assert_close(one[0], logits[t])
        torch.testing.assert_close(look[0], weights[t])


def test_padding_and_company_change_nothing(network):
    source, tokens = torch.randint(9, (6, 3)), torch.randint(8, (5, 3))
    logits, _ = network(source, LENGTHS, tokens)
    for b, length in enumerate(LENGTHS):
        alone, _ = network(source[:length, b : b + 1], LENGTHS[b : b + 1], tokens[:, b : b + 1])
        torch.testing.assert_close(alone[:, 0], logits[:, b])
    rows = torch.tensor([2, 0, 2])
    chosen, _, _ = network.decode(tokens[:, rows], network.encode(source, LENGTHS).select(rows))
    torch.testing.assert_close(chosen, logits[:, rows])


def test_every_parameter_learns(network):
    network.train()
    source, tokens = torch.randint(9, (6, 3)), torch.randint(8, (5, 3))
    network(source, LENGTHS, tokens, sampled=0.5)[0].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_scheduled_sampling_replaces_what_is_read_but_the_start():
    torch.manual_seed(0)
    network = TranslatorNetwork(9, 8, make_layer=gw.GRU, embedding_size=6, hidden_size=5).eval()
    source, tokens = torch.randint(9, (6, 3)), torch.randint(8, (5, 3))
    with torch.no_grad():
        plain, _ = network(source, LENGTHS, tokens)
        torch.testing.assert_close(network(source, LENGTHS, tokens, sampled=0.0)[0], plain)
        sampled, _ = network(source, LENGTHS, tokens, sampled=1.0)
        other, _ = network(source, LENGTHS, torch.cat([tokens[:1], (tokens[1:] + 1) % 8]), sampled=1.0)
    torch.testing.assert_close(sampled[0], plain[0])
    assert not torch.allclose(sampled[1:], plain[1:])
    assert other.shape == sampled.shape


def test_tied():
    network = TranslatorNetwork(9, 8, make_layer=gw.GRU, embedding_size=6, hidden_size=5, tied=True)
    assert network.output.weight is network.target_embedding.weight
