"""Sentences to tokens and back, with the marks behind the tokenizer's own tokens."""

import pytest

from gatewise.data.sentences import SentenceTokens

SENTENCES = ["Il fait froid.", "J'ai faim, et toi ?", "Il fait chaud."]


@pytest.mark.parametrize("kind", ["word", "char", "bpe"])
@pytest.mark.parametrize("lower_case", [False, True])
def test_there_and_back(kind, lower_case):
    tokens = SentenceTokens.fit(SENTENCES, kind, 400, lower_case=lower_case)
    again = SentenceTokens.from_json(tokens.to_json(), lower_case=lower_case)
    for sentence in SENTENCES:
        encoded = tokens.encode(sentence)
        assert encoded.max() < tokens.start == tokens.end - 1 == tokens.size - 2
        assert tokens.decode(encoded.tolist()) == (sentence.lower() if lower_case else sentence)
        assert again.encode(sentence).tolist() == encoded.tolist()
        assert len(tokens.pieces(encoded.tolist())) == len(encoded)
    assert tokens.forbidden == (() if kind == "bpe" else (0,))
