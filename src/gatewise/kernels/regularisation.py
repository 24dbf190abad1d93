"""What regularises a cell from within: recurrent dropout, zoneout and layer normalisation.

Sources:

- Recurrent dropout: Gal, Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks",
  2016, with tied weights: one mask for all gates and all steps of a sequence.
- Zoneout: Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017. The state h of
  an LSTM comes from the cell as it would be without zoneout: h' = k_h * h + (1 - k_h) * o * tanh(f * c + i * g).
- Layer normalisation: Ba, Kiros, Hinton, "Layer Normalization", 2016, with the equations that its supplementary
  material gives for LSTM and GRU: the products of the input and of the state are normalised each by itself, and of an
  LSTM the cell before its tanh. The paper's shifts are here the biases that the cell has anyway. Its plain RNN
  normalises the sum of both products; here the RNN takes the form of the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

EPSILON = 1e-5  # of layer normalisation, as torch's


@dataclass(frozen=True, eq=False)
class Regularisation:
    """Masks, probabilities and gains of one layer in one direction; each is None where nothing is regularised by it.

    dropout (B, R) of x's dtype: the mask m, 0 or 1 / (1 - p): m * h is what the recurrent weights read of h.
    zoneout_h, zoneout_c: k, a mask (T, B, R), of c (T, B, H), packed (sum of lengths, ...), bool, True where the old
        value is kept; or the probability of that, for the expectation: k * old + (1 - k) * new.
    norm_ih, norm_hh (G*H,): gains of the normalised products W_i x and W_h h, G blocks of H rows as the weights have.
    norm_c, norm_c_bias (H,): gain and shift of the normalised cell of an LSTM.
    """

    dropout: Tensor | None = None
    zoneout_h: Tensor | float | None = None
    zoneout_c: Tensor | float | None = None
    norm_ih: Tensor | None = None
    norm_hh: Tensor | None = None
    norm_c: Tensor | None = None
    norm_c_bias: Tensor | None = None

    def with_masks(self, function: Callable[[Tensor], Tensor]) -> "Regularisation":
        """The same, with the function's value in the place of each mask that differs from step to step."""
        h, c = (function(k) if isinstance(k, Tensor) else k for k in (self.zoneout_h, self.zoneout_c))
        return replace(self, zoneout_h=h, zoneout_c=c)

    def gains(self) -> dict[str, Tensor | None]:
        """Gains and shift by name: what of it has gradients."""
        return {
            "norm_ih": self.norm_ih,
            "norm_hh": self.norm_hh,
            "norm_c": self.norm_c,
            "norm_c_bias": self.norm_c_bias,
        }

    def widened(self) -> "Regularisation":
        """The same in float32."""
        numbers = {"dropout": self.dropout, **self.gains()}
        return replace(self, **{name: value.float() for name, value in numbers.items() if value is not None})

    def read(self, h: Tensor) -> Tensor:
        """What the recurrent weights read of a state (B, R)."""
        return h if self.dropout is None else self.dropout * h


NONE = Regularisation()


def kept(k: Tensor | float | None, old: Tensor, new: Tensor) -> Tensor:
    """k * old + (1 - k) * new, for a mask or a number; new if there is none."""
    if k is None:
        return new
    return torch.where(k, old, new) if isinstance(k, Tensor) else k * old + (1 - k) * new


def product(
    x: Tensor, weight: Tensor, bias: Tensor | None, gain: Tensor | None, blocks: Sequence[int] | None = None
) -> Tensor:
    """W x + b, or with a gain LN(W x) * gain + b."""
    return linear(x, weight, bias) if gain is None else normalised(linear(x, weight), gain, bias, blocks)


def normalised(sums: Tensor, gain: Tensor, shift: Tensor | None = None, blocks: Sequence[int] | None = None) -> Tensor:
    """LN(sums) * gain + shift, computed in float32 or wider.

    sums (B, N); gain, shift (N,). blocks: how many neighbours make each block that is normalised by itself, in order;
    all of them one if None.
    """
    wide = torch.promote_types(sums.dtype, torch.float32)
    blocks = [sums.shape[-1]] if blocks is None else list(blocks)
    shifts = [None] * len(blocks) if shift is None else shift.to(wide).split(blocks)
    parts = zip(blocks, sums.to(wide).split(blocks, -1), gain.to(wide).split(blocks), shifts, strict=True)
    return torch.cat([layer_norm(part, (n,), g, b, EPSILON) for n, part, g, b in parts], -1).to(sums.dtype)
