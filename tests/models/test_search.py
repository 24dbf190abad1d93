"""Beam search against the scores of every possible target, and greedy and drawn ones against the network itself."""

import itertools

import pytest
import torch

import gatewise as gw
from gatewise.errors import InputError
from gatewise.models.search import beam_search, length_penalty, sample
from gatewise.models.translator import TranslatorNetwork

START, END, UNKNOWN = 0, 1, 2
V, LONGEST = 5, 3
LENGTHS = torch.tensor([6, 2])
ASKED = {"start": START, "end": END, "max_length": LONGEST, "forbidden": (UNKNOWN,)}


@pytest.fixture
def network() -> TranslatorNetwork:
    torch.manual_seed(1)
    network = TranslatorNetwork(9, V, make_layer=gw.LSTM, embedding_size=6, hidden_size=5).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)  # far from uniform
    return network


@pytest.fixture
def source():
    torch.manual_seed(2)
    return torch.randint(9, (6, 2))


@torch.no_grad()
def _log_probability(network, source, length, target: tuple[int, ...]) -> float:
    """ln p of a target and its end, where START and UNKNOWN cannot be written, and END not first."""
    tokens = torch.tensor([START, *target]).unsqueeze(1)
    logits, _ = network(source, length, tokens)
    logits[..., [START, UNKNOWN]] = -torch.inf
    logits[0, :, END] = -torch.inf
    return sum(logits[t, 0].log_softmax(-1)[token].item() for t, token in enumerate([*target, END]))


def _all(network, source, b, alpha) -> dict[tuple[int, ...], float]:
    words = [token for token in range(V) if token not in (START, END, UNKNOWN)]
    targets = [t for n in range(1, LONGEST + 1) for t in itertools.product(words, repeat=n)]
    given = source[: LENGTHS[b], b : b + 1], LENGTHS[b : b + 1]
    return {t: _log_probability(network, *given, t) / length_penalty(len(t) + 1, alpha) for t in targets}


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_the_best_of_all(network, source, alpha):
    found = beam_search(network, source, LENGTHS, beams=9, alpha=alpha, **ASKED)
    for b in range(2):
        scores = _all(network, source, b, alpha)
        best = sorted(scores, key=lambda target: -scores[target])[:9]
        assert [tuple(h.tokens) for h in found[b]] == best
        assert [h.score for h in found[b]] == pytest.approx([scores[target] for target in best], rel=1e-4)
        for h in found[b]:
            assert h.weights.shape == (len(h.tokens), LENGTHS[b])
            torch.testing.assert_close(h.weights.sum(-1), torch.ones(len(h.tokens)))


def test_one_beam_without_penalty_is_greedy(network, source):
    greedy = sample(network, source, LENGTHS, **ASKED)
    beams = beam_search(network, source, LENGTHS, beams=1, alpha=0.0, **ASKED)
    for b in range(2):
        assert beams[b][0].tokens == greedy[b].tokens
        assert beams[b][0].log_probability == pytest.approx(greedy[b].log_probability, rel=1e-4)
        torch.testing.assert_close(beams[b][0].weights, greedy[b].weights)


def test_a_source_alone_gives_the_same(network, source):
    together = beam_search(network, source, LENGTHS, beams=4, **ASKED)
    for b, length in enumerate(LENGTHS):
        alone = beam_search(network, source[:length, b : b + 1], LENGTHS[b : b + 1], beams=4, **ASKED)
        assert [h.tokens for h in alone[0]] == [h.tokens for h in together[b]]


def test_draws(network, source):
    for seed in range(20):
        drawn = sample(network, source, LENGTHS, temperature=1.0, seed=seed, **ASKED)
        again = sample(network, source, LENGTHS, temperature=1.0, seed=seed, **ASKED)
        assert [h.tokens for h in drawn] == [h.tokens for h in again]
        for b, h in enumerate(drawn):
            assert not {START, END, UNKNOWN} & {*h.tokens}
            assert 1 <= len(h.tokens) <= LONGEST
            given = source[: LENGTHS[b], b : b + 1], LENGTHS[b : b + 1]
            assert h.log_probability == pytest.approx(_log_probability(network, *given, tuple(h.tokens)), rel=1e-4)


def test_no_beam(network, source):
    with pytest.raises(InputError, match=r"^beams: expected a whole number >= 1, got 0$"):
        beam_search(network, source, LENGTHS, beams=0, **ASKED)
