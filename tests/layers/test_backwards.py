"""Backwards: what the second direction of a bidirectional layer gives."""

import pytest
import torch

import gatewise as gw
from gatewise.errors import InputError
from gatewise.layers.backwards import Backwards


@pytest.mark.parametrize("lengths", [None, torch.tensor([7, 0, 3])], ids=["whole", "lengths"])
@pytest.mark.parametrize("kind", [gw.GRU, gw.LSTM, gw.RNN])
def test_it_is_the_second_direction(kind, lengths):
    torch.manual_seed(0)
    both, one = kind(4, 5, bidirectional=True), kind(4, 5)
    one.load_state_dict(
        {name.removesuffix("_reverse"): w for name, w in both.state_dict().items() if "reverse" in name}
    )
    x, hx = torch.randn(7, 3, 4), torch.randn(2, 3, 5)
    hx = (hx, hx + 1) if kind is gw.LSTM else hx
    expected, last = both(x, hx, lengths=lengths)
    backwards = tuple(state[1:] for state in hx) if isinstance(hx, tuple) else hx[1:]
    y, hn = Backwards(one)(x, backwards, lengths=lengths)
    torch.testing.assert_close(y, expected[..., 5:])
    torch.testing.assert_close(hn, tuple(state[1:] for state in last) if isinstance(last, tuple) else last[1:])


@pytest.mark.parametrize("option", [{"bidirectional": True}, {"batch_first": True}, {"num_layers": 2}], ids=str)
def test_layers_that_it_cannot_turn_round(option):
    with pytest.raises(
        InputError, match=r"^Backwards: expected a layer of one direction, not stacked and without batch"
    ):
        Backwards(gw.GRU(2, 3, **option))
