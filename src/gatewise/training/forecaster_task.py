"""The task of a forecaster: windows of series, and what the values that came cost."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gatewise.data.series_windows import SeriesBatch, SeriesWindows
from gatewise.models.forecaster import ForecasterNetwork, Window
from gatewise.training.task import StepLoss, Task

Batch = tuple[Window, Tensor]  # what a forecast is made from, and what came


class ForecasterTask(Task):
    """To forecast the steps after each window.

    training, validation: windows; validation None for none. The loss is the head's: nats of the scaled values, of
    quantiles their pinball loss.
    """

    unit = "windows"
    loss_name = "loss"
    criterion = "loss"

    def __init__(self, network: ForecasterNetwork, training: SeriesWindows, validation: SeriesWindows | None) -> None:
        self.network: ForecasterNetwork = network
        self.device = next(network.parameters()).device
        self.training, self.validation = training, validation

    @property
    def batches_per_epoch(self) -> int:
        """How many batches there are in an epoch."""
        return self.training.batches_per_epoch

    @property
    def validates(self) -> bool:
        """Whether windows are kept for validation."""
        return self.validation is not None

    def batch(self, epoch: int, index: int) -> Batch:
        """The windows of one batch, and what came after them."""
        return self._moved(self.training.batch(epoch, index))

    def loss(self, batch: Batch, state: Tensor | None) -> StepLoss:
        """The mean over windows, steps and targets."""
        window, future = batch
        return StepLoss(self.network.loss(window, future), future.shape[1])

    def activations(self, batch: Batch, state: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """Those of the network."""
        return self.network.activations(batch[0])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The mean loss over all windows of the validation."""
        assert self.validation is not None
        total = 0.0
        for batch in self.validation.in_order():
            window, future = self._moved(batch)
            total += self.network.loss(window, future).item() * future.shape[1]
        return {"loss": total / len(self.validation.origins)}

    def evaluation(self, split: str, metrics: dict[str, float], units: int) -> dict[str, float]:
        """The metrics as they are."""
        return metrics

    def _moved(self, batch: SeriesBatch) -> Batch:
        return window_of(batch, self.device), batch.future.to(self.device)


def window_of(batch: SeriesBatch, device: torch.device) -> Window:
    """What a forecast is made from, on the device."""
    return Window(batch.past.to(device), batch.known.to(device), batch.static.to(device))
