"""divergence: the layer and the time step where the first number that is not finite appeared."""

import pytest
import torch

from gatewise.config import LanguageModelConfig
from gatewise.kernels import ops
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.training.divergence import bad_gradient, bad_parameter, where_it_began


@pytest.fixture
def network() -> LanguageModelNetwork:
    torch.manual_seed(0)
    return LanguageModelNetwork(7, LanguageModelConfig(hidden_size=6, embedding_size=4, num_layers=2)).eval()


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randint(7, (8, 3))


def test_in_a_parameter(network, inputs):
    with torch.no_grad():
        network.gru.weight_hh_l1[3, 2] = torch.nan
    assert bad_parameter(network) == "gru.weight_hh_l1"
    assert (
        where_it_began(network, network.activations(inputs, None), None)
        == "in the parameter gru.weight_hh_l1, which the step before left so"
    )


def test_in_the_carried_state(network, inputs):
    state = torch.zeros(2, 3, 6)
    state[1, 2, 0] = torch.inf
    assert (
        where_it_began(network, network.activations(inputs, state), state)
        == "in the state carried from the window before"
    )


def test_in_a_gru_layer(network, inputs, monkeypatch):
    def overflows(x, *arguments, **choice):
        y, hn = gru(x, *arguments, **choice)
        if x.size(-1) == 6:  # of the second layer
            y[3, 1, 2] = torch.nan
        return y, hn

    gru = ops.gru
    monkeypatch.setattr(ops, "gru", overflows)
    assert where_it_began(network, network.activations(inputs, None), None) == "in gru layer 1 at time step 3 of 0 to 7"


def test_in_the_output(network, inputs):
    network.output.register_forward_hook(lambda _, __, output: output.index_fill(0, torch.tensor([2]), torch.nan))
    assert where_it_began(network, network.activations(inputs, None), None) == "in output at time step 2 of 0 to 7"


def test_in_the_embedding(network, inputs):
    network.embedding.register_forward_hook(lambda _, __, output: output.index_fill(0, torch.tensor([6]), torch.inf))
    assert where_it_began(network, network.activations(inputs, None), None) == "in embedding at time step 6 of 0 to 7"


def test_nowhere(network, inputs):
    assert bad_parameter(network) is None
    assert where_it_began(network, network.activations(inputs, None), None) == (
        "nowhere when the batch was run once more without dropout: the values are at the edge of their range"
    )


def test_in_a_gradient(network, inputs):
    """The first on the way back is the last in the network."""
    network(inputs)[0].sum().backward()
    assert bad_gradient(network) is None
    for name in ("embedding.weight", "gru.bias_hh_l0"):
        network.get_parameter(name).grad[0] = torch.nan
    assert bad_gradient(network) == "gru.bias_hh_l0"
