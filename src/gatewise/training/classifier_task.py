"""The task of a classifier: padded batches of examples, the cross entropy of their labels."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from gatewise.config import ClassifierTraining
from gatewise.data.padded_batches import PaddedBatch, PaddedBatches
from gatewise.data.ragged import Ragged
from gatewise.models.classifier import ClassifierNetwork
from gatewise.training.classification import confusion_matrix, macro_f1
from gatewise.training.task import StepLoss, Task

EVALUATION_BATCH = 256  # examples; no gradient is kept, so that more fit into the caches
Columns = Mapping[str, Ragged | np.ndarray]  # "inputs": tokens or features; "targets": (N,) int64 or (N, K) float32


class ClassifierTask(Task):
    """To give each example its label, or its labels.

    training, validation: columns; validation None for none. class_weights (K,) float: of each class in the loss.
    """

    unit = "examples"
    criterion = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        network: ClassifierNetwork,
        training: Columns,
        validation: Columns | None,
        config: ClassifierTraining,
        class_weights: np.ndarray | None = None,
    ) -> None:
        self.network: ClassifierNetwork = network
        self.device = network.output.weight.device
        assert config.batch_size != "auto"
        self.batches = PaddedBatches(training, config.batch_size, seed=config.seed)
        self.validation = validation
        self.smoothing = config.label_smoothing
        self.class_weights = None if class_weights is None else torch.from_numpy(class_weights).to(self.device)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches there are in an epoch."""
        return self.batches.batches_per_epoch

    @property
    def validates(self) -> bool:
        """Whether examples are kept for validation."""
        return self.validation is not None

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, lengths and targets of one batch."""
        batch = self.batches.batch(epoch, index)
        return *_inputs(batch, self.device), batch.columns["targets"].to(self.device)

    def loss(self, batch: tuple[Tensor, Tensor, Tensor], state: Tensor | None) -> StepLoss:
        """The mean over the examples, or, of several labels, over examples and labels; weighted by class."""
        x, lengths, targets = batch
        logits = self.network(x, lengths)
        if targets.dim() == 1:
            loss = cross_entropy(logits, targets, self.class_weights, label_smoothing=self.smoothing)
        else:
            loss = binary_cross_entropy_with_logits(logits, targets, pos_weight=self.class_weights)
        return StepLoss(loss, len(targets))

    def activations(self, batch: tuple[Tensor, Tensor, Tensor], state: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """Those of the network."""
        return self.network.activations(batch[0], batch[1])

    def validate(self) -> dict[str, float]:
        """Loss, accuracy and macro F1; the loss without weights and smoothing."""
        assert self.validation is not None
        logits = logits_of(self.network, self.validation)
        targets = torch.as_tensor(self.validation["targets"])
        if targets.dim() == 1:
            loss, predicted = cross_entropy(logits, targets).item(), logits.argmax(1)
            matrix = confusion_matrix(targets.numpy(), predicted.numpy(), logits.shape[1])
            counts = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
            accuracy = (predicted == targets).double().mean().item()
        else:
            loss, predicted, true = binary_cross_entropy_with_logits(logits, targets).item(), logits > 0, targets > 0.5
            counts = tuple(both.sum(0).numpy() for both in (predicted & true, true, predicted))
            accuracy = (predicted == true).all(1).double().mean().item()
        return {"loss_nats": loss, "accuracy": accuracy, "macro_f1": macro_f1(*counts)}

    def evaluation(self, split: str, metrics: dict[str, float], units: int) -> dict[str, float]:
        """The metrics as they are."""
        return metrics


@torch.inference_mode()
def logits_of(network: ClassifierNetwork, columns: Columns) -> Tensor:
    """The logits (N, K) float32, on the CPU, of the examples in the columns, in their order; in eval mode."""
    was_training = network.training
    network.eval()
    device = network.output.weight.device
    inputs = {"inputs": columns["inputs"]}
    logits = torch.empty(len(inputs["inputs"]), network.output.out_features)
    for batch in PaddedBatches(inputs, EVALUATION_BATCH).in_order():
        logits[batch.rows] = network(*_inputs(batch, device)).float().cpu()
    network.train(was_training)
    return logits


def _inputs(batch: PaddedBatch, device: torch.device) -> tuple[Any, Tensor]:
    x = batch.columns["inputs"]
    x = x if x.is_floating_point() else x.long()
    return x.to(device), batch.lengths["inputs"]
