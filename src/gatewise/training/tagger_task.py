"""The task of a tagger: padded batches of sequences, and what the labels of their steps cost."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.config import TaggerTraining
from gatewise.data.padded_batches import PaddedBatch, PaddedBatches
from gatewise.data.ragged import Ragged
from gatewise.data.spelled import distinct_spellings
from gatewise.models.embeddings import WordBatch
from gatewise.models.tagger import TaggerNetwork
from gatewise.training.spans import score_spans, spans, summed
from gatewise.training.task import StepLoss, Task

EVALUATION_BATCH = 128  # sequences
# "inputs": tokens or features; "spelling": characters; "targets": (T_i,) int64, -1 for an unknown tag, or (T_i, K)
Columns = Mapping[str, Ragged | np.ndarray]
Batch = tuple[Any, Tensor, Tensor]  # inputs, lengths and targets


class TaggerTask(Task):
    """To give each step its tag, or its numbers.

    training, validation: columns; validation None for none. tags: the names of the classes, None for numbers.
    """

    unit = "labels"

    def __init__(
        self,
        network: TaggerNetwork,
        training: Columns,
        validation: Columns | None,
        config: TaggerTraining,
        tags: list[str] | None,
    ) -> None:
        self.network: TaggerNetwork = network
        self.device = network.output.weight.device
        assert config.batch_size != "auto"
        self.batches = PaddedBatches(training, config.batch_size, seed=config.seed)
        self.validation, self.tags = validation, tags
        self.smoothing = config.label_smoothing
        if tags is not None:
            self.criterion = "span_f1" if are_spans(tags) else "accuracy"
            self.higher_is_better = True

    @property
    def batches_per_epoch(self) -> int:
        """How many batches there are in an epoch."""
        return self.batches.batches_per_epoch

    @property
    def validates(self) -> bool:
        """Whether sequences are kept for validation."""
        return self.validation is not None

    def batch(self, epoch: int, index: int) -> Batch:
        """Inputs, lengths and targets of one batch."""
        batch = self.batches.batch(epoch, index)
        return *inputs_of(batch, self.device), batch.columns["targets"].to(self.device)

    def loss(self, batch: Batch, state: Tensor | None) -> StepLoss:
        """The mean over the steps."""
        x, lengths, targets = batch
        loss = self.network.loss(self.network(x, lengths), targets, lengths, smoothing=self.smoothing)
        return StepLoss(loss, int(lengths.sum()))

    def activations(self, batch: Batch, state: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """Those of the network."""
        return self.network.activations(batch[0], batch[1])

    def validate(self) -> dict[str, float]:
        """The loss; of tags the accuracy, and span F1 where they are spans; of numbers the accuracy of yes or no."""
        assert self.validation is not None
        found = tag(self.network, self.validation)
        truth = self.validation["targets"]
        assert isinstance(truth, Ragged)
        right = found.predicted.values == truth.values
        metrics = {"loss_nats": found.loss, "accuracy": float(right.mean())}
        if self.criterion == "span_f1":
            assert self.tags is not None
            names = [*self.tags, "O"]  # the last one, -1, is a tag that training does not have
            pairs = zip(truth, found.predicted, strict=True)
            scores = (score_spans([names[k] for k in true], [names[k] for k in given]) for true, given in pairs)
            metrics["span_f1"] = summed(scores)[""].f1
        return metrics

    def evaluation(self, split: str, metrics: dict[str, float], units: int) -> dict[str, float]:
        """The metrics as they are."""
        return metrics


def are_spans(tags: list[str]) -> bool:
    """Whether tags are BIO labels of spans: each is O, B-type or I-type, and there is at least one span."""
    return all(name == "O" or name[:2] in ("B-", "I-") for name in tags) and any(spans([name]) for name in tags)


class Tagged:
    """What a network says of sequences.

    predicted: the classes (T_i,) int64, or (T_i, K) bool. scores: logits or emissions (T_i, K) float32. loss: the mean
    over the steps whose tag is known, in nats; NaN without targets.
    """

    def __init__(self, predicted: Ragged, scores: Ragged, loss: float) -> None:
        self.predicted, self.scores, self.loss = predicted, scores, loss


@torch.inference_mode()
def tag(network: TaggerNetwork, columns: Columns) -> Tagged:
    """What the network, in eval mode, says of the sequences in the columns, in their order."""
    was_training = network.training
    network.eval()
    device = network.output.weight.device
    count = len(columns["inputs"])
    predicted: list[Any] = [None] * count
    scores: list[Any] = [None] * count
    total, steps = 0.0, 0
    for batch in PaddedBatches(columns, EVALUATION_BATCH, length_of="inputs").in_order():
        x, lengths = inputs_of(batch, device)
        out = network(x, lengths).float()
        if "targets" in batch.columns:
            cost, known = _cost(network, out, batch.columns["targets"].to(device), lengths)
            total, steps = total + cost * known, steps + known
        classes = network.predict(out, lengths).cpu().numpy()
        values = out.cpu().numpy()
        for b, (row, length) in enumerate(zip(batch.rows.tolist(), lengths.tolist(), strict=True)):
            predicted[row], scores[row] = classes[:length, b], values[:length, b]
    network.train(was_training)
    return Tagged(Ragged.of(predicted), Ragged.of(scores), total / steps if steps else float("nan"))


def _cost(network: TaggerNetwork, scores: Tensor, targets: Tensor, lengths: Tensor) -> tuple[float, int]:
    """The mean loss, and of how many steps. Tags that training does not have are no part of it."""
    if targets.dim() == 3:
        return network.loss(scores, targets, lengths).item(), int(lengths.sum())
    inside = torch.arange(len(scores), device=scores.device).unsqueeze(1) < lengths.to(scores.device)
    known = (targets >= 0) & inside
    if network.crf is not None:  # a sequence with an unknown tag has no likelihood
        rows = (known == inside).all(0).nonzero().squeeze(1)
        if not len(rows):
            return 0.0, 0
        kept = lengths.to(scores.device)[rows]
        return network.loss(scores[:, rows], targets[:, rows], kept).item(), int(kept.sum())
    loss = torch.nn.functional.cross_entropy(scores[known], targets[known], reduction="sum")
    return (loss / known.sum().clamp(min=1)).item(), int(known.sum())


def inputs_of(batch: PaddedBatch, device: torch.device) -> tuple[Any, Tensor]:
    """What the network reads of a batch, and the lengths."""
    x, lengths = batch.columns["inputs"], batch.lengths["inputs"]
    if x.is_floating_point():
        return x.to(device), lengths
    words = WordBatch(x.long())
    if "spelling" in batch.columns:
        words = WordBatch(x.long(), *distinct_spellings(batch.columns["spelling"]))
    return words.to(device), lengths
