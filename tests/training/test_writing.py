"""writing: prompts that can be read and those that cannot; text that continues them."""

import pytest
import torch

from gatewise.config import LanguageModelConfig, TextConfig
from gatewise.data import tokenizers
from gatewise.errors import PromptError
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.training.writing import read_prompt, write

TEXT = "the gate forgets\nwhat it reads "


def fitted(text: str = TEXT, **config) -> tuple[tokenizers.Tokenizer, TextConfig]:
    data = TextConfig(**config)
    return tokenizers.fit([text], data), data


def test_a_prompt_is_cleaned_as_the_text_was():
    tokenizer, data = fitted("the gate forgets", lower_case=True, letters_only=True)
    assert tokenizer.decode(read_prompt("The... GATE 7", tokenizer, data)) == "the gate "
    tokenizer, data = fitted()
    assert tokenizer.decode(read_prompt("the gate", tokenizer, data)) == "the gate"


def test_characters_that_the_model_never_saw():
    tokenizer, data = fitted()
    with pytest.raises(PromptError) as error:
        read_prompt("the Gate, \u00e9\n", tokenizer, data)
    assert str(error.value) == "prompt: the model never saw 'G', ',', '\u00e9'; leave that out"
    with pytest.raises(PromptError) as error:
        read_prompt("ABCDEFGHIJKLM", tokenizer, data)
    assert str(error.value) == (
        "prompt: the model never saw 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J' and 3 more; leave that out"
    )


def test_words_that_the_model_never_saw():
    tokenizer, data = fitted(tokenizer="word")
    with pytest.raises(PromptError) as error:
        read_prompt("the cell forgets", tokenizer, data)
    assert str(error.value) == "prompt: the model never saw 'cell'; leave that out"


@pytest.mark.parametrize(
    ("text", "config", "begins"),
    [
        ("the gate\nforgets ", {}, "\n"),
        ("the gate forgets", {}, " "),
        ("abbbab", {}, "b"),
        ("the gate forgets the gate", {"tokenizer": "word"}, "gate"),
        ("the gate forgets", {"tokenizer": "bpe", "vocabulary_size": 260}, "\n"),
    ],
    ids=["newline", "space", "most-frequent", "word", "bpe"],
)
def test_an_empty_prompt_begins_as_a_line_does(text, config, begins):
    tokenizer, data = fitted(text, **config)
    assert tokenizer.decode(read_prompt("", tokenizer, data)) == begins


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_pieces_join_to_the_decoded_tokens(kind):
    """Bytes that are no character yet wait for the rest; nothing is written twice."""
    text = "na\u00efve caf\u00e9s \u4e2d\u6587 the gate " * 3
    tokenizer, data = fitted(text, tokenizer=kind, vocabulary_size=270)
    torch.manual_seed(0)
    network = LanguageModelNetwork(tokenizer.size, LanguageModelConfig(hidden_size=8)).eval()
    prompt = read_prompt("caf\u00e9s", tokenizer, data)
    choice = {"temperature": 1.0, "seed": 3}
    pieces = list(write(network, tokenizer, prompt, 40, **choice))
    assert all(pieces)
    written = "".join(pieces)
    assert "<unk>" not in written
    assert written == "".join(write(network, tokenizer, prompt, 40, **choice))
    if kind == "char":
        assert len(written) == 40
    if kind == "word":
        assert not written[:1].isalnum()  # a space, or a mark: the prompt ended with a word
