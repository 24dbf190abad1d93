"""The GRU by its equations, in plain torch: the definition that every faster implementation is compared with.

Source: Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio, "Learning Phrase Representations using
RNN Encoder-Decoder for Statistical Machine Translation", 2014, section 2.3, with torch's names, biases and meaning of
z (z = 1 keeps the state).
"""

import torch
from torch import Tensor


def gru_step(
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: str,
) -> Tensor:
    """The state after one step.

    (1) r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)             reset gate: how much of the past the candidate sees
    (2) z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)             update gate: how much of the past is kept
    (3) n = tanh(W_in x + b_in + r * (W_hn h + b_hn))          candidate, reset="after" the recurrent product
    (3) n = tanh(W_in x + b_in + W_hn (r * h) + b_hn)          candidate, reset="before" the recurrent product
    (4) h' = (1 - z) * n + z * h                               new state

    x (B, I): input; h (B, H): state; weight_ih (3H, I), weight_hh (3H, H), bias_ih (3H,), bias_hh (3H,): the rows of
    the gates r, z, n, one below the other. Any floating dtype, any device.
    """
    hidden_size = h.shape[-1]
    x_r, x_z, x_n = torch.nn.functional.linear(x, weight_ih, bias_ih).chunk(3, -1)  # each (B, H)
    w_rz, w_n = weight_hh.split([2 * hidden_size, hidden_size])
    b_rz, b_n = (None, None) if bias_hh is None else bias_hh.split([2 * hidden_size, hidden_size])

    h_r, h_z = torch.nn.functional.linear(h, w_rz, b_rz).chunk(2, -1)
    r = torch.sigmoid(x_r + h_r)  # (1)
    z = torch.sigmoid(x_z + h_z)  # (2)
    if reset == "after":
        n = torch.tanh(x_n + r * torch.nn.functional.linear(h, w_n, b_n))  # (3)
    else:
        n = torch.tanh(x_n + torch.nn.functional.linear(r * h, w_n, b_n))  # (3)
    return (1 - z) * n + z * h  # (4)


def gru(
    x: Tensor,
    h0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: str,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The states of a whole sequence: y (T, B, H), and the last one: hn (B, H).

    x (T, B, I): inputs; h0 (B, H): first state. With `reverse` the steps run from the last to the first; y stays in
    the order of x.
    """
    h, states = h0, [h0] * len(x)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        states[t] = h = gru_step(x[t], h, weight_ih, weight_hh, bias_ih, bias_hh, reset)
    return torch.stack(states), h
