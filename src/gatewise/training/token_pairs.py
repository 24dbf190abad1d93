"""What a language model must be better than: a table of how often each token follows each other one."""

import numpy as np

MOST_TOKENS = 1 << 24  # that are counted, so that a text of any length takes seconds and some hundred megabytes


class TokenPairs:
    """Predicts a token by the one before it, as often as it followed that one in training.

    What never did has a share by how many different tokens follow there, divided as the tokens are frequent (Witten,
    Bell, "The Zero-Frequency Problem", 1991, method C, interpolated):

        P(b | a) = (count(a b) + kinds(a) P(b)) / (count(a) + kinds(a)),    P(b) = (count(b) + 1) / (N + K)

    tokens (N,) any integer dtype: the training text; of a longer one the first MOST_TOKENS. size: K different tokens.
    """

    def __init__(self, tokens: np.ndarray, size: int) -> None:
        tokens = tokens[:MOST_TOKENS].astype(np.int64)
        self.size = size
        self.shares = (np.bincount(tokens, minlength=size) + 1) / (len(tokens) + size)
        self.pairs, self.counts = np.unique(tokens[:-1] * size + tokens[1:], return_counts=True)
        self.kinds = np.bincount(self.pairs // size, minlength=size)
        self.totals = np.bincount(tokens[:-1], minlength=size)

    def losses(self, before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """-ln of the probability of tokens (N,) after those before them (N,), any integers; (N,) float64."""
        before, tokens = before.astype(np.int64), tokens.astype(np.int64)
        wanted = before * self.size + tokens
        places = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        counts = np.where(self.pairs[places] == wanted, self.counts[places], 0)
        kinds = self.kinds[before]
        total = self.totals[before] + kinds
        shares = self.shares[tokens]
        return -np.log(np.where(total > 0, (counts + kinds * shares) / np.maximum(total, 1), shares))
