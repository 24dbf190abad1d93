"""LanguageModelNetwork: one suite over every kind of it."""

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from gatewise.config import LanguageModelConfig
from gatewise.errors import ConfigError
from gatewise.models.embeddings import OneHot
from gatewise.models.language_model import LanguageModelNetwork

V = 11
KINDS = {
    "embedding": {"embedding_size": 5},
    "one-hot": {"input": "one-hot"},
    "before": {"embedding_size": 5, "reset": "before"},
    "tied": {"embedding_size": 12, "tied": True},
    "deep": {"embedding_size": 5, "num_layers": 3, "dropout": 0.3},
}


@pytest.fixture(autouse=True)
def one_thread():
    """Steps this small are slowed down by threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=KINDS)
def network(request) -> LanguageModelNetwork:
    torch.manual_seed(0)
    return LanguageModelNetwork(V, LanguageModelConfig(hidden_size=12, **KINDS[request.param])).eval()


def test_shapes(network):
    logits, state = network(torch.randint(V, (7, 3)))
    assert logits.shape == (7, 3, V)
    assert state.shape == (network.gru.num_layers, 3, 12)


def test_step_by_step_equals_the_whole(network):
    tokens = torch.randint(V, (9, 2))
    whole, last = network(tokens)
    state = None
    for t in range(9):
        step, state = network(tokens[t : t + 1], state)
        torch.testing.assert_close(step[0], whole[t])
    torch.testing.assert_close(state, last)


def test_a_row_alone_equals_the_row_in_a_batch(network):
    tokens = torch.randint(V, (6, 5))
    whole, _ = network(tokens)
    alone, _ = network(tokens[:, 3:4])
    torch.testing.assert_close(alone[:, 0], whole[:, 3])


def test_overfits_one_batch(network):
    tokens = torch.randint(V, (9, 2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.03)
    for _ in range(80):
        loss = cross_entropy(network(tokens[:-1])[0].flatten(0, 1), tokens[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_activations_are_those_of_forward(network):
    tokens = torch.randint(V, (4, 2))
    state = torch.randn(network.gru.num_layers, 2, 12)
    steps = list(network.activations(tokens, state))
    names = [name for name, _ in steps]
    assert names == ["embedding", *(f"gru layer {i}" for i in range(network.gru.num_layers)), "output"]
    torch.testing.assert_close(steps[-1][1], network(tokens, state)[0])
    torch.testing.assert_close(dict(network.activations(tokens))["output"], network(tokens)[0])


def test_the_loss_of_an_untrained_network_is_that_of_guessing(network):
    tokens = torch.randint(V, (50, 8))
    loss = cross_entropy(network(tokens[:-1])[0].flatten(0, 1), tokens[1:].flatten())
    assert abs(loss.item() - torch.tensor(V).log().item()) < 0.4


def test_parameters():
    """Names and shapes are those of the files that users have: they stay."""
    config = LanguageModelConfig(hidden_size=4, embedding_size=3, num_layers=2)
    shapes = {name: tuple(parameter.shape) for name, parameter in LanguageModelNetwork(V, config).named_parameters()}
    assert shapes == {
        "embedding.weight": (11, 3),
        "gru.weight_ih_l0": (12, 3),
        "gru.weight_hh_l0": (12, 4),
        "gru.bias_ih_l0": (12,),
        "gru.bias_hh_l0": (12,),
        "gru.weight_ih_l1": (12, 4),
        "gru.weight_hh_l1": (12, 4),
        "gru.bias_ih_l1": (12,),
        "gru.bias_hh_l1": (12,),
        "output.weight": (11, 4),
        "output.bias": (11,),
    }


def test_one_hot_has_no_embedding():
    network = LanguageModelNetwork(V, LanguageModelConfig(input="one-hot", hidden_size=4))
    assert network.gru.input_size == V
    assert "embedding.weight" not in dict(network.named_parameters())
    tokens = torch.randint(V, (3, 2))
    assert torch.equal(OneHot(V)(tokens), one_hot(tokens, V).float())


def test_tied_weights_are_one_tensor():
    network = LanguageModelNetwork(V, LanguageModelConfig(tied=True, embedding_size=8, hidden_size=8))
    assert network.embedding.weight is network.output.weight
    assert [name for name, _ in network.named_parameters() if not name.startswith("gru")] == [
        "embedding.weight",
        "output.bias",
    ]


@pytest.mark.parametrize(("kind", "size"), [("embedding", 6), ("one-hot", 8)])
def test_tied_weights_need_an_embedding_of_the_same_size(kind, size):
    config = LanguageModelConfig.model_construct(
        **{**LanguageModelConfig().model_dump(), "tied": True, "input": kind, "embedding_size": size, "hidden_size": 8}
    )
    with pytest.raises(ConfigError) as error:
        LanguageModelNetwork(V, config)
    assert str(error.value) == (
        "model.tied: the output can share the weights of an embedding of its size only: expected "
        'model.input = "embedding" and model.embedding_size = model.hidden_size = 8, '
        f'got model.input = "{kind}" and model.embedding_size = {size}'
    )


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    network = LanguageModelNetwork(V, LanguageModelConfig(hidden_size=8, num_layers=2, dropout=0.5))
    tokens = torch.randint(V, (5, 2))
    assert not torch.equal(network(tokens)[0], network(tokens)[0])
    network.eval()
    assert torch.equal(network(tokens)[0], network(tokens)[0])
