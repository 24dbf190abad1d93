"""The conditional random field against the sum and the maximum over every sequence of labels."""

import itertools

import pytest
import torch

from gatewise.models.crf import ConditionalRandomField, forbidden_in_bio

LENGTHS = torch.tensor([4, 1, 3])
C = 3


@pytest.fixture
def crf() -> ConditionalRandomField:
    torch.manual_seed(0)
    crf = ConditionalRandomField(C).double()
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    return crf


def _scores(crf, emissions, length) -> dict[tuple[int, ...], torch.Tensor]:
    scores = {}
    for labels in itertools.product(range(C), repeat=length):
        score = crf.start[labels[0]] + crf.end[labels[-1]]
        score = score + sum(emissions[t, label] for t, label in enumerate(labels))
        scores[labels] = score + sum(crf.transitions[a, b] for a, b in itertools.pairwise(labels))
    return scores


def test_likelihood_and_gradients(crf):
    emissions = torch.randn(4, 3, C, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(C, (4, 3))
    parameters = [emissions, *crf.parameters()]
    got = crf.log_likelihood(emissions, targets, LENGTHS)
    expected = []
    for b, length in enumerate(LENGTHS):
        scores = _scores(crf, emissions[:, b], int(length))
        total = torch.logsumexp(torch.stack(list(scores.values())), 0)
        expected.append(scores[tuple(targets[:length, b].tolist())] - total)
    torch.testing.assert_close(got, torch.stack(expected))
    gradients = (torch.autograd.grad(value.sum(), parameters) for value in (got, torch.stack(expected)))
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference)


def test_decode(crf):
    emissions = torch.randn(4, 3, C, dtype=torch.float64)
    labels = crf.decode(emissions, LENGTHS)
    for b, length in enumerate(LENGTHS):
        scores = _scores(crf, emissions[:, b], int(length))
        assert tuple(labels[:length, b].tolist()) == max(scores, key=lambda path: scores[path].item())
        assert (labels[length:, b] == 0).all()


def test_what_cannot_be_is_never_decoded():
    labels = ["O", "B-x", "I-x", "B-y", "I-y"]
    pairs = forbidden_in_bio(labels)
    assert (0, 2) in pairs
    assert (3, 2) in pairs
    assert (-1, 4) in pairs
    assert (1, 2) not in pairs
    assert (2, 2) not in pairs
    crf = ConditionalRandomField(5, pairs)
    torch.manual_seed(0)
    decoded = crf.decode(torch.randn(30, 20, 5), torch.full((20,), 30))
    for row in decoded.T.tolist():
        assert labels[row[0]][0] != "I"
        assert not {*itertools.pairwise(row)} & {*pairs}
    targets = decoded
    assert (crf.log_likelihood(torch.randn(30, 20, 5), targets, torch.full((20,), 30)) > -1000).all()
