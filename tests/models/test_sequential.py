"""SequentialNetwork: built from tables, described by them, and equal to the layers one by one."""

import pytest
import torch
from torch import nn

import gatewise as gw
from gatewise.config import LanguageModelConfig
from gatewise.errors import ConfigError, InputError, ShapeError
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.models.sequential import Pooling, SequentialNetwork, build

TOKENS = [
    {"kind": "embedding", "vocabulary_size": 7, "size": 5},
    {"kind": "gru", "input_size": 5, "hidden_size": 6, "num_layers": 2, "bidirectional": True, "reset": "before"},
    {"kind": "dropout", "probability": 0.3},
    {"kind": "lstm", "input_size": 12, "hidden_size": 4, "bias": False},
    {"kind": "rnn", "input_size": 4, "hidden_size": 3, "nonlinearity": "relu"},
    {"kind": "pooling", "pooling": "mean"},
    {"kind": "linear", "input_size": 3, "output_size": 2},
    {"kind": "activation", "function": "softmax"},
]
LENGTHS = torch.tensor([9, 1, 4])


def test_describe_gives_what_build_took():
    network = build(TOKENS)
    described = network.describe()
    assert all(table.items() <= full.items() for table, full in zip(TOKENS, described, strict=True))
    again = build(described)
    again.load_state_dict(network.state_dict())
    x = torch.randint(7, (9, 3))
    assert torch.equal(again.eval()(x, lengths=LENGTHS)[0], network.eval()(x, lengths=LENGTHS)[0])


def test_the_layers_one_by_one():
    torch.manual_seed(0)
    network = build(TOKENS).eval()
    x = torch.randint(7, (9, 3))
    y, states = network(x, lengths=LENGTHS)
    embedding, gru, _, lstm, rnn, _, linear, _ = network.layers
    steps, gru_state = gru(embedding(x), lengths=LENGTHS)
    steps, lstm_state = lstm(steps, lengths=LENGTHS)
    steps, rnn_state = rnn(steps, lengths=LENGTHS)
    mean = torch.stack([steps[:length, row].mean(0) for row, length in enumerate(LENGTHS)])
    torch.testing.assert_close(y, linear(mean).softmax(-1))
    torch.testing.assert_close(states, [gru_state, lstm_state, rnn_state])


def test_states_carry_a_sequence_on():
    network = build([*TOKENS[3:5], {"kind": "linear", "input_size": 3, "output_size": 2}]).eval()
    x = torch.randn(8, 2, 12)
    whole, last = network(x)
    first, states = network(x[:3])
    second, states = network(x[3:], states)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(states, last)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("directions", [1, 2])
def test_pooling_reads_the_steps_of_a_row_alone(pooling, directions):
    x = torch.randn(9, 3, 4)
    for row, length in enumerate(LENGTHS):
        steps = x[:length, row]
        half = 4 // directions
        expected = {
            "last": torch.cat([steps[-1, :half], steps[0, half:]]) if directions == 2 else steps[-1],
            "mean": steps.mean(0),
            "max": steps.amax(0),
        }[pooling]
        torch.testing.assert_close(Pooling(pooling)(x, LENGTHS, directions)[row], expected)
        torch.testing.assert_close(Pooling(pooling)(x[:length, row : row + 1], None, directions)[0], expected)


def test_a_linear_layer_is_of_both_directions_and_pooled_at_the_last_step():
    layers = [{**TOKENS[3], "bidirectional": True}, {"kind": "linear", "input_size": 8, "output_size": 5}]
    network = build([*layers, {"kind": "pooling"}]).eval()
    x = torch.randn(9, 3, 12)
    steps, _ = SequentialNetwork(list(network.layers)[:2])(x, lengths=LENGTHS)
    torch.testing.assert_close(network(x, lengths=LENGTHS)[0], steps[LENGTHS - 1, torch.arange(3)])


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_shares_its_parameters(tied):
    network = LanguageModelNetwork(11, LanguageModelConfig(hidden_size=8, embedding_size=8, tied=tied)).eval()
    chain = network.as_sequential()
    tokens = torch.randint(11, (5, 2))
    torch.testing.assert_close(chain(tokens)[0], network(tokens)[0])
    assert {id(p) for p in chain.parameters()} == {id(p) for p in network.parameters()}


def test_reference_is_another_network_in_float64():
    network = build(TOKENS)
    reference = network.reference()
    assert next(reference.parameters()).dtype == torch.float64
    assert next(network.parameters()).dtype == torch.float32
    assert {layer.backend for layer in reference.recurrent_layers} == {"reference"}
    assert {layer.backend for layer in network.recurrent_layers} == {"auto"}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([], "here: SequentialNetwork: expected at least one layer, got none"),
        ([{"kind": "grue"}], "here: layers.0: expected kind to be one of embedding, one-hot, gru, .*, got 'grue'"),
        ([{"kind": "gru", "input_size": 5}], "here: layers.0: hidden_size: expected a whole number >= 1"),
        (
            [TOKENS[0], {"kind": "linear", "input_size": 6, "output_size": 2}],
            "here: layers.1: expected input_size = 5, as the layer before gives, got 6",
        ),
        ([TOKENS[2], TOKENS[0]], "here: SequentialNetwork: layers.1: embedding reads tokens, so it must be the first"),
        (
            [{"kind": "pooling"}, {"kind": "rnn", "input_size": 4, "hidden_size": 3}],
            "here: SequentialNetwork: a recurrent layer cannot follow a pooling layer, which leaves no steps",
        ),
    ],
)
def test_tables_that_make_no_network(tables, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        build(tables, source="here")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv1d(1, 1, 1), "SequentialNetwork: a layer of type Conv1d is not one that can be carried"),
        (gw.GRU(2, 3, layer_norm=True), "SequentialNetwork: GRU with layer_norm cannot be carried"),
        (gw.LSTM(2, 3, proj_size=2), "SequentialNetwork: LSTM with proj_size cannot be carried"),
    ],
)
def test_layers_that_cannot_be_carried(layer, message):
    with pytest.raises(InputError, match=f"^{message}"):
        SequentialNetwork([layer])


def test_states_of_another_number():
    with pytest.raises(ShapeError, match=r"^SequentialNetwork: expected a state for each of 1 layers, got 0$"):
        build([TOKENS[3]])(torch.zeros(1, 1, 12), [])
