"""How well a network predicts a text."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gatewise.models.language_model import LanguageModelNetwork


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text: the mean over its tokens, but the first, of what each cost.

    loss_nats: -ln of the probability that the model gave to the token that came.
    perplexity: exp(loss_nats); from how many equally likely tokens the model chooses, as it were.
    bits_per_char: bits that coding the text by the model takes per character, comparable across tokenizers.
    tokens: how many were predicted.
    unknown_tokens: how many tokens of the text the model does not know; it reads and predicts them as one and the same.
    """

    loss_nats: float
    perplexity: float
    bits_per_char: float
    tokens: int
    unknown_tokens: int = 0


def perplexity(loss_nats: float) -> float:
    """exp(loss_nats); e^700 for a loss above that, so that it stays a finite number."""
    return math.exp(min(loss_nats, 700.0))


def bits_per_char(loss_nats: float, characters_per_token: float) -> float:
    """Bits per character for a loss per token."""
    return loss_nats / math.log(2) / characters_per_token


def text_metrics(loss_nats: float, characters_per_token: float) -> dict[str, float]:
    """What a mean loss per token means: loss_nats, perplexity, bits_per_char."""
    bits = bits_per_char(loss_nats, characters_per_token)
    return {"loss_nats": loss_nats, "perplexity": perplexity(loss_nats), "bits_per_char": bits}


@torch.inference_mode()
def token_losses(network: LanguageModelNetwork, windows: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
    """Of each window what its targets cost, (T, B) in nats; in eval mode, the state carried from window to window.

    windows: inputs and targets (T, B) int64, each the continuation of the one before.
    """
    device = network.output.weight.device
    was_training = network.training
    network.eval()
    state = None
    for inputs, targets in windows:
        logits, state = network(inputs.to(device), state)
        losses = cross_entropy(logits.flatten(0, 1), targets.to(device).flatten(), reduction="none")
        yield losses.view_as(targets)
    network.train(was_training)


def mean_loss(network: LanguageModelNetwork, windows: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, int]:
    """Mean loss in nats over all targets, and their number; as `token_losses`."""
    total, tokens = 0.0, 0
    for losses in token_losses(network, windows):
        total += losses.sum().item()
        tokens += losses.numel()
    return total / tokens, tokens
