"""How the next token is chosen from a language model's logits, and so one after another a text."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from gatewise.errors import InputError
from gatewise.models.language_model import LanguageModelNetwork


def check_decoding(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """InputError unless these can choose a token."""
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise InputError(f"temperature: expected a number >= 0 (0: always the likeliest token), got {temperature}")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k: expected a whole number >= 1, or None for all tokens, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p: expected a number > 0 and <= 1, or None for all tokens, got {top_p}")


def next_token(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """A token drawn from softmax(logits / temperature); int64, without the last axis of logits (..., V).

    temperature: below 1 favours the likely tokens; 0 takes the likeliest.
    top_k: only the k likeliest tokens can be drawn.
    top_p: only the likeliest tokens whose probabilities, largest first, sum to p (Holtzman et al. 2020); the one that
        crosses p is the last of them.
    Raises InputError.
    """
    check_decoding(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # at most 0: a tiny temperature cannot overflow
    if top_k is not None and top_k < logits.size(-1):
        smallest = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        falling, order = probabilities.sort(-1, descending=True)
        before = falling.cumsum(-1) - falling  # probability of all likelier tokens
        probabilities = probabilities.scatter(-1, order, falling.masked_fill(before >= top_p, 0.0))
    drawn = torch.multinomial(probabilities.reshape(-1, logits.size(-1)), 1, generator=generator)
    return drawn.view(probabilities.shape[:-1])


@torch.inference_mode()
def generate(
    network: LanguageModelNetwork,
    prompt: Sequence[int],
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    forbidden: int | None = None,
) -> Iterator[int]:
    """The `length` tokens that continue `prompt`, each as soon as it is drawn.

    The state is carried from token to token, so each costs one step, however long the text has become.
    forbidden: a token that is never drawn. Drawn on the processor: a seed gives the same draws on every device.
    The network must be in eval mode.
    """
    generator = Generator().manual_seed(seed)
    device = network.output.weight.device
    tokens, state = torch.tensor(prompt, device=device).unsqueeze(1), None
    for _ in range(length):
        logits, state = network(tokens, state)
        last = logits[-1, 0].float().cpu()
        if forbidden is not None:
            last[forbidden] = -torch.inf
        drawn = next_token(last, temperature, top_k, top_p, generator)
        yield int(drawn)
        tokens = drawn.view(1, 1).to(device)
