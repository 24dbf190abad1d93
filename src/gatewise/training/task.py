"""What varies from task to task in a training; the loop knows nothing else of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn


class StepLoss(NamedTuple):
    """What came of one batch.

    loss (): to be differentiated, a mean over its units. units: how many there were, for the speed.
    state: what the next batch starts from, detached; None if nothing is carried.
    """

    loss: Tensor
    units: int
    state: Tensor | None = None


class Task(ABC):
    """A training's batches, loss and validation.

    network: what is trained.
    unit: what the speed counts, as in "tokens".
    loss_name: how lines of metrics call the loss.
    criterion: the metric of a validation that says which weights are the best; higher_is_better: its direction.
        Where two validations are equal in it, the one with the lower loss is the better one.
    """

    network: nn.Module
    unit: ClassVar[str]
    loss_name: ClassVar[str] = "loss_nats"
    criterion: str = "loss_nats"
    higher_is_better: bool = False

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int:
        """How many batches there are in an epoch."""

    @property
    @abstractmethod
    def validates(self) -> bool:
        """Whether something is kept for validation."""

    @abstractmethod
    def batch(self, epoch: int, index: int) -> Any:
        """Batch number `index` of an epoch, on the device of the network: a function of the two and the seed alone."""

    @abstractmethod
    def loss(self, batch: Any, state: Tensor | None) -> StepLoss:
        """The loss of a batch; state: what the batch before gave, None at the start of an epoch."""

    @abstractmethod
    def activations(self, batch: Any, state: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """The name and the output of each layer in the order of computation, to find where a number went wrong.

        What has steps has them first: (T, B, ...); of what has none, (B, ...), B is taken for them.
        """

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """The metrics on what is kept for validation, the loss among them; only called where `validates`."""

    def metrics(self, loss: float) -> dict[str, float]:
        """What a training's line of metrics says of a mean loss."""
        return {self.loss_name: loss}

    def sample(self) -> dict[str, Any] | None:
        """What the network, in eval mode, makes of an example, for a line of samples.jsonl; None for no samples."""
        return None

    @abstractmethod
    def evaluation(self, split: str, metrics: dict[str, float], units: int) -> Any:
        """What the result of a training has as its evaluation.

        split: "validation": metrics are those of the best one; or "train": metrics of the last epoch, of so many units.
        """

    def is_better(self, metrics: dict[str, float], best: dict[str, float] | None) -> bool:
        """Whether a validation is better than the best one so far."""
        return best is None or self._rank(metrics) < self._rank(best)

    def _rank(self, metrics: dict[str, float]) -> tuple[float, float]:
        value = metrics[self.criterion]
        return (-value if self.higher_is_better else value, metrics[self.loss_name])
