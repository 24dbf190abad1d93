"""The task of a translator: padded batches of pairs, and what each next token of a translation costs."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gatewise.config import TranslatorTraining
from gatewise.data.padded_batches import PaddedBatch, PaddedBatches
from gatewise.data.ragged import Ragged
from gatewise.data.sentences import SentenceTokens
from gatewise.models.search import sample
from gatewise.models.translator import TranslatorNetwork
from gatewise.training.evaluation import perplexity
from gatewise.training.task import StepLoss, Task

EVALUATION_BATCH = 128  # pairs
IGNORED = -100  # a target that costs nothing
Columns = Mapping[str, Ragged | np.ndarray]  # "source", "target": tokens without marks
Batch = tuple[
    Tensor, Tensor, Tensor, Tensor, float
]  # source, its lengths, what is read, what is to be written, sampled


class TranslatorTask(Task):
    """To write the translation of each sentence.

    training, validation: columns; validation None for none. source, target: tokens of both languages.
    steps: of the whole training, over which scheduled sampling rises.
    """

    unit = "tokens"

    def __init__(
        self,
        network: TranslatorNetwork,
        training: Columns,
        validation: Columns | None,
        config: TranslatorTraining,
        source: SentenceTokens,
        target: SentenceTokens,
    ) -> None:
        self.network: TranslatorNetwork = network
        self.device = network.output.weight.device
        assert config.batch_size != "auto"
        assert config.epochs != "auto"
        self.batches = PaddedBatches(training, config.batch_size, seed=config.seed, length_of="target")
        self.validation, self.config = validation, config
        self.source, self.target = source, target
        self.all_batches = config.epochs * self.batches.batches_per_epoch

    @property
    def batches_per_epoch(self) -> int:
        """How many batches there are in an epoch."""
        return self.batches.batches_per_epoch

    @property
    def validates(self) -> bool:
        """Whether pairs are kept for validation."""
        return self.validation is not None

    def batch(self, epoch: int, index: int) -> Batch:
        """What is read and written in one batch."""
        part = min(1.0, (epoch * self.batches_per_epoch + index) / self.all_batches)
        batch = self.batches.batch(epoch, index)
        return *_pairs(batch, self.target, self.device), part * self.config.scheduled_sampling

    def loss(self, batch: Batch, state: Tensor | None) -> StepLoss:
        """The mean over the tokens that are to be written, the ends among them."""
        source, lengths, read, written, sampled = batch
        logits, _ = self.network(source, lengths, read, sampled)
        flat = logits.flatten(0, 1), written.flatten()
        loss = cross_entropy(*flat, ignore_index=IGNORED, label_smoothing=self.config.label_smoothing)
        return StepLoss(loss, int((written != IGNORED).sum()))

    def activations(self, batch: Batch, state: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """Those of the network."""
        return self.network.activations(*batch[:3])

    def validate(self) -> dict[str, float]:
        """Loss, without smoothing, and perplexity per token."""
        assert self.validation is not None
        return self.metrics(mean_cost(self.network, self.validation, self.target)[0])

    def metrics(self, loss: float) -> dict[str, float]:
        """Loss and perplexity."""
        return {"loss_nats": loss, "perplexity": perplexity(loss)}

    def sample(self) -> dict[str, Any] | None:
        """The first sentences of the validation part, and their translations, by the likeliest token each time."""
        count = self.config.sample_count
        columns = self.validation
        if columns is None or not count:
            return None
        rows = np.arange(min(count, len(columns["source"])))
        batch = PaddedBatches({"source": columns["source"]}, EVALUATION_BATCH).cut(rows)
        marks = {"start": self.target.start, "end": self.target.end, "forbidden": self.target.forbidden}
        source, lengths = _source(batch, self.device)
        found = sample(self.network, source, lengths, max_length=longest(int(lengths.max())), **marks)
        sentences = [self.source.decode(columns["source"][row].tolist()) for row in rows.tolist()]
        said = [self.target.decode(hypothesis.tokens) for hypothesis in found]
        pairs = zip(sentences, said, strict=True)
        return {"prompt": "", "text": "\n".join(f"{sentence} → {translation}" for sentence, translation in pairs)}

    def evaluation(self, split: str, metrics: dict[str, float], units: int) -> dict[str, float]:
        """The metrics as they are."""
        return metrics


def longest(source_length: int) -> int:
    """Most tokens of a translation of a source of so many."""
    return 2 * source_length + 10


@torch.inference_mode()
def mean_cost(network: TranslatorNetwork, columns: Columns, target: SentenceTokens) -> tuple[float, int]:
    """The mean loss per token in nats, the ends among them, and how many tokens; in eval mode."""
    was_training = network.training
    network.eval()
    device = network.output.weight.device
    total, tokens = 0.0, 0
    for batch in PaddedBatches(columns, EVALUATION_BATCH, length_of="target").in_order():
        source, lengths, read, written = _pairs(batch, target, device)
        logits, _ = network(source, lengths, read)
        total += cross_entropy(logits.flatten(0, 1), written.flatten(), ignore_index=IGNORED, reduction="sum").item()
        tokens += int((written != IGNORED).sum())
    network.train(was_training)
    return total / tokens, tokens


def _source(batch: PaddedBatch, device: torch.device) -> tuple[Tensor, Tensor]:
    return batch.columns["source"].long().to(device), batch.lengths["source"].to(device)


def _pairs(batch: PaddedBatch, tokens: SentenceTokens, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """source (S, B), lengths (B,), what is read, the start and the target, what is written, the target and the end."""
    target, lengths = batch.columns["target"].long(), batch.lengths["target"]
    start = torch.full((1, target.shape[1]), tokens.start)
    read = torch.cat([start, target])
    inside = torch.arange(len(target)).unsqueeze(1) < lengths
    written = torch.cat([torch.where(inside, target, IGNORED), torch.full_like(start, IGNORED)])
    written[lengths, torch.arange(len(lengths))] = tokens.end
    return *_source(batch, device), read.to(device), written.to(device)
