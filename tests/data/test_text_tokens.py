"""text_tokens: words, characters and subwords, at least one and at most max_length, the same after a save."""

import pytest

from gatewise.config import TokenConfig
from gatewise.data.text_tokens import TextTokens

TEXTS = ["The gate, it's open.", "the GATE", ["a", "list", "of words"]]


@pytest.mark.parametrize("tokenizer", ["word", "char", "bpe"])
def test_it_comes_back(tokenizer):
    config = TokenConfig(tokenizer=tokenizer, vocabulary_size=300)
    tokens = TextTokens.fit(TEXTS, config)
    again = TextTokens.from_json(tokens.to_json(), config)
    assert again.size == tokens.size
    for text in [*TEXTS, "unseen ✓ text"]:
        assert again.encode(text).tolist() == tokens.encode(text).tolist()
        assert tokens.encode(text).max() < tokens.size


def test_words_and_marks():
    tokens = TextTokens.fit(TEXTS, TokenConfig())
    known = tokens.known.names  # pyright: ignore[reportAttributeAccessIssue]
    assert [known[i] for i in tokens.encode("The gate, it's SHUT.")] == ["the", "gate", ",", "it's", "<unk>", "."]
    assert [known[i] for i in tokens.encode(["list", "of words"])] == ["list", "of words"]
    assert tokens.unknown_id == 1


def test_case_can_be_kept():
    tokens = TextTokens.fit(TEXTS, TokenConfig(lower_case=False))
    assert tokens.encode("the").tolist() != tokens.encode("The").tolist()
    subwords = TextTokens.fit(TEXTS, TokenConfig(tokenizer="bpe", vocabulary_size=260))
    assert subwords.encode("the").tolist() == subwords.encode("THE").tolist()
    assert subwords.unknown_id is None


def test_the_start_of_a_long_text_and_one_token_of_an_empty_one():
    tokens = TextTokens.fit(TEXTS, TokenConfig(max_length=2))
    assert tokens.encode("the gate open gate").tolist() == tokens.encode("the gate").tolist()
    assert tokens.encode(" \t").tolist() == [1]
