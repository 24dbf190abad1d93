"""What gw.GRU and gw.GRUCell alone have: the placement of the reset gate. All else is in the tests of the family."""

import pytest
import torch
from torch import nn

import gatewise as gw
from gatewise.errors import InputError
from gatewise.kernels import ops, reference

T, B, I, H = 6, 4, 5, 7  # noqa: E741


@pytest.mark.parametrize("name", ["GRU", "GRUCell"])
def test_unknown_choices_name_the_known_ones(name):
    with pytest.raises(InputError) as error:
        getattr(gw, name)(I, H, reset="befor")
    assert str(error.value) == f"{name}: unknown reset 'befor'; expected one of after, before"


def test_repr():
    assert repr(gw.GRU(I, H)) == "GRU(5, 7)"
    assert repr(gw.GRU(I, H, reset="before", backend="reference")) == "GRU(5, 7, reset=before, backend=reference)"
    assert repr(gw.GRUCell(I, H)) == "GRUCell(5, 7)"
    assert repr(gw.GRUCell(I, H, reset="before", backend="native")) == "GRUCell(5, 7, reset=before, backend=native)"


@pytest.mark.parametrize("reset", ops.RESETS)
def test_the_placement_is_the_one_asked_for(reset):
    layer, cell = gw.GRU(I, H, reset=reset), gw.GRUCell(I, H, reset=reset)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x, h = torch.randn(T, B, I), torch.randn(B, H)
    expected, last = reference.gru(x, h, *layer.all_weights[0], reset=reset)
    torch.testing.assert_close(layer(x, h[None]), (expected, last[None]), rtol=0, atol=1e-5)
    torch.testing.assert_close(cell(x[0], h), expected[0], rtol=0, atol=1e-5)


def test_the_state_dict_of_one_placement_loads_into_the_other():
    theirs, before = nn.GRU(I, H), gw.GRU(I, H, reset="before")
    before.load_state_dict(theirs.state_dict())
    x = torch.randn(T, B, I)
    assert (before(x)[0] - theirs(x)[0]).abs().max() > 1e-3
