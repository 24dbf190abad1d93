"""How tokens enter a network."""

import torch
from torch import Tensor, nn


class OneHot(nn.Module):
    """Tokens (T, B) as vectors (T, B, V) that are 1 at the token's place and 0 elsewhere."""

    one: Tensor

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.register_buffer("one", torch.ones(()), persistent=False)  # takes the network's dtype and device

    def forward(self, tokens: Tensor) -> Tensor:
        """The vectors (T, B, V), of the network's dtype, of tokens (T, B) int64."""
        zeros = torch.zeros(*tokens.shape, self.vocabulary_size, dtype=self.one.dtype, device=tokens.device)
        return zeros.scatter_(-1, tokens.unsqueeze(-1), 1.0)
