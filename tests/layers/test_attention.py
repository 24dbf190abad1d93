"""Attention against the formulas of its papers, written out for one query and one key at a time."""

import pytest
import torch

from gatewise.errors import InputError
from gatewise.layers.attention import Attention, AttentionPooling

LENGTHS = torch.tensor([5, 1, 3])


def _score(attention: Attention, query, key):
    if attention.score == "multiplicative":
        return query @ (attention.key.weight @ key)
    hidden = torch.tanh(attention.query(query) + attention.key.weight @ key)
    return attention.v.weight[0] @ hidden


@pytest.mark.parametrize("score", ["additive", "multiplicative"])
def test_each_query_and_key(score):
    torch.manual_seed(0)
    attention = Attention(4, 6, score, 7 if score == "additive" else None).double()
    queries, keys = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(5, 3, 6, dtype=torch.float64)
    contexts, weights = attention(queries, keys, LENGTHS)
    assert contexts.shape == (2, 3, 6)
    for t in range(2):
        for b, length in enumerate(LENGTHS):
            scores = torch.stack([_score(attention, queries[t, b], keys[s, b]) for s in range(length)])
            expected = scores.softmax(0)
            torch.testing.assert_close(weights[t, b, :length], expected)
            assert (weights[t, b, length:] == 0).all()
            torch.testing.assert_close(contexts[t, b], expected @ keys[:length, b])


@pytest.mark.parametrize("score", ["additive", "multiplicative"])
def test_projected_keys_and_no_lengths(score):
    attention = Attention(4, 6, score)
    queries, keys = torch.randn(2, 3, 4), torch.randn(5, 3, 6)
    expected = attention(queries, keys, torch.tensor([5, 5, 5]))
    torch.testing.assert_close(attention(queries, keys, None, attention.project(keys)), expected)


def test_padding_gets_no_gradient_whatever_it_holds():
    attention, pooling = Attention(4, 6, "additive"), AttentionPooling(6)
    keys = torch.randn(5, 3, 6, requires_grad=True)
    (attention(torch.randn(2, 3, 4), keys, LENGTHS)[0].sum() + pooling(keys, LENGTHS)[0].sum()).backward()
    assert keys.grad is not None
    for b, length in enumerate(LENGTHS):
        assert (keys.grad[length:, b] == 0).all()
        assert (keys.grad[:length, b] != 0).any()


def test_pooling():
    torch.manual_seed(0)
    pooling, x = AttentionPooling(4, 3), torch.randn(5, 3, 4)
    vectors, weights = pooling(x, LENGTHS)
    for b, length in enumerate(LENGTHS):
        scores = torch.stack([pooling.v.weight[0] @ torch.tanh(pooling.key(x[t, b])) for t in range(length)])
        torch.testing.assert_close(weights[:length, b], scores.softmax(0))
        torch.testing.assert_close(vectors[b], scores.softmax(0) @ x[:length, b])
    alone, _ = pooling(x[:3, 2:])
    torch.testing.assert_close(alone[0], vectors[2])


def test_unknown_score():
    with pytest.raises(InputError, match=r"^Attention: unknown score 'dot'; expected one of additive, multiplicative$"):
        Attention(2, 2, "dot")  # type: ignore[arg-type]
