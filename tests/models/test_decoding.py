"""decoding: what may be drawn, how often, and that a text costs one step a token."""

import pytest
import torch

from gatewise.config import LanguageModelConfig
from gatewise.errors import InputError
from gatewise.models.decoding import generate, next_token
from gatewise.models.language_model import LanguageModelNetwork

PROBABILITIES = torch.tensor([0.1, 0.4, 0.2, 0.3])


def drawn_shares(n: int = 20_000, **choice) -> torch.Tensor:
    """How often each of the four tokens is drawn."""
    generator = torch.Generator().manual_seed(0)
    tokens = next_token(PROBABILITIES.log().expand(n, 4), **choice, generator=generator)
    return tokens.bincount(minlength=4) / n


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0}, [0, 1, 0, 0]),
        ({"temperature": 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
        ({"temperature": 1e-6}, [0, 1, 0, 0]),
        ({"temperature": 1e9}, [0.25, 0.25, 0.25, 0.25]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 100}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.01}, [0, 1, 0, 0]),
        ({"top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.85}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 2, "temperature": 0.5}, [0, 16 / 25, 0, 9 / 25]),
    ],
    ids=str,
)
def test_distribution(choice, expected):
    torch.testing.assert_close(drawn_shares(**choice), torch.tensor(expected).float(), atol=0.015, rtol=0)


def test_shape_of_what_is_drawn():
    assert next_token(torch.zeros(5)).shape == ()
    assert next_token(torch.zeros(2, 3, 5)).shape == (2, 3)
    assert next_token(torch.zeros(2, 3, 5), temperature=0).shape == (2, 3)


def test_impossible_tokens_are_never_drawn():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, -5.0]).expand(1000, 4)
    assert set(next_token(logits).tolist()) <= {1, 3}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"temperature": -1},
            "temperature: expected a number >= 0 (0: always the likeliest token), got -1",
        ),
        (
            {"temperature": float("nan")},
            "temperature: expected a number >= 0 (0: always the likeliest token), got nan",
        ),
        ({"top_k": 0}, "top_k: expected a whole number >= 1, or None for all tokens, got 0"),
        ({"top_p": 0}, "top_p: expected a number > 0 and <= 1, or None for all tokens, got 0"),
        ({"top_p": 1.5}, "top_p: expected a number > 0 and <= 1, or None for all tokens, got 1.5"),
    ],
)
def test_choices_out_of_range(choice, message):
    with pytest.raises(InputError) as error:
        next_token(torch.zeros(4), **choice)
    assert str(error.value) == message


@pytest.fixture
def network() -> LanguageModelNetwork:
    torch.manual_seed(0)
    return LanguageModelNetwork(9, LanguageModelConfig(hidden_size=8, num_layers=2)).eval()


def test_greedy_text_is_that_of_reading_everything_again(network):
    written = list(generate(network, [3, 1], 10, temperature=0))
    text = [3, 1]
    for _ in range(10):
        logits, _ = network(torch.tensor(text).unsqueeze(1))
        text.append(int(logits[-1, 0].argmax()))
    assert written == text[2:]


def test_own_output_is_read_once(network):
    lengths = []
    network.register_forward_pre_hook(lambda _, arguments: lengths.append(len(arguments[0])))
    list(generate(network, [3, 1, 4, 1, 5], 6))
    assert lengths == [5, 1, 1, 1, 1, 1]


def test_seeds(network):
    texts = [list(generate(network, [3], 30, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_generation_leaves_the_random_stream_of_torch_alone(network):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(generate(network, [3], 10))
    assert torch.equal(torch.rand(3), expected)


def test_a_forbidden_token_is_never_drawn(network):
    assert 4 in list(generate(network, [3], 300, temperature=2.0))
    assert 4 not in list(generate(network, [3], 300, temperature=2.0, forbidden=4))


def test_no_tokens_are_asked_for(network):
    assert list(generate(network, [3], 0)) == []
