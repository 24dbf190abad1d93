"""Modules of torch in memory: those that are chains of known layers, found out by trying, and those that are not."""

import re

import pytest
import torch
from torch import nn

import gatewise as gw
from gatewise.config import LanguageModelConfig
from gatewise.errors import InputError
from gatewise.interchange.torch_modules import network
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.models.sequential import Pooling


class Classifier(nn.Module):
    """A GRU over features, batch first, and a linear layer over what `take` makes of its outputs."""

    def __init__(self, take, bidirectional=False, cell=nn.GRU) -> None:
        super().__init__()
        self.rnn = cell(3, 4, 2, batch_first=True, bidirectional=bidirectional, dropout=0.5)
        self.out = nn.Linear(8 if bidirectional else 4, 2)
        self.take = take

    def forward(self, x):
        y, hn = self.rnn(x)
        return self.out(self.take(y, hn))


@pytest.mark.parametrize(
    ("take", "pooling"),
    [
        (lambda y, hn: y, None),
        (lambda y, hn: y[:, -1], "last"),
        (lambda y, hn: hn[-1], "last"),
        (lambda y, hn: y.mean(1), "mean"),
        (lambda y, hn: y.amax(1), "max"),
    ],
)
def test_what_a_forward_computes_is_found_out(take, pooling):
    module = Classifier(take).double()
    found = network(module)
    tables = found.describe()
    assert [table["pooling"] for table in tables if table["kind"] == "pooling"] == ([pooling] if pooling else [])
    x = torch.randn(6, 5, 3)
    expected = module.float().eval()(x.transpose(0, 1))
    expected = expected if pooling else expected.transpose(0, 1)
    torch.testing.assert_close(found(x)[0], expected)
    assert isinstance(module.rnn, nn.GRU)
    assert type(module.rnn) is nn.GRU  # the original is untouched
    assert module.training is False or module.train() is module


def test_both_directions_end_where_they_end():
    found = network(Classifier(lambda y, hn: torch.cat([hn[-2], hn[-1]], -1), bidirectional=True))
    assert found.pools
    with pytest.raises(InputError, match=r"^import: Classifier computes something else than its layers one after an"):
        network(Classifier(lambda y, hn: y[:, -1], bidirectional=True))  # the backward one's first step


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model(tied):
    module = LanguageModelNetwork(7, LanguageModelConfig(embedding_size=4, hidden_size=4, tied=tied))
    found = network(module)
    x = torch.randint(7, (5, 2))
    torch.testing.assert_close(found(x)[0], module.eval()(x)[0])
    assert len(list(found.parameters())) == 7  # none is shared, so that a run can be saved
    assert not {id(p) for p in found.parameters()} & {id(p) for p in module.parameters()}


def test_layers_in_a_list_are_taken_as_they_are():
    layers = [nn.Embedding(5, 3), nn.LSTM(3, 4, batch_first=True), nn.Dropout(0.1), Pooling("mean"), nn.Softmax(-1)]
    found = network(layers)
    assert [table["kind"] for table in found.describe()] == ["embedding", "lstm", "dropout", "pooling", "activation"]
    assert network(nn.Sequential(*layers)).describe() == found.describe()
    assert network(nn.GRU(3, 4)).describe()[0]["hidden_size"] == 4
    x = torch.randint(5, (6, 2))
    torch.testing.assert_close(found(x)[0], layers[1](layers[0](x.T))[0].mean(1).softmax(-1))


class Odd(nn.Module):
    """Takes two arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 3)

    def forward(self, x, more):
        return self.rnn(x)[0] + more


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ([nn.Conv1d(1, 1, 1)], "SequentialNetwork: a layer of type Conv1d is not one that can be carried"),
        ([nn.Embedding(3, 2, max_norm=1.0)], "import: Embedding with max_norm or sparse cannot be carried"),
        ([nn.Softmax(dim=0)], "import: Softmax(dim=0) cannot be carried; only dim=-1, the features, can"),
        ([nn.LSTM(3, 4, proj_size=2)], "SequentialNetwork: LSTM with proj_size cannot be carried"),
        (gw.GRU(3, 4, layer_norm=True), "SequentialNetwork: GRU with layer_norm cannot be carried"),
        (Odd(), "import: Odd cannot be tried out on one batch of sequences (Odd.forward() missing 1 required"),
    ],
)
def test_what_is_no_chain(module, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        network(module)
