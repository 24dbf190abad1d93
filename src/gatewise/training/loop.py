"""The training itself: step after step, with lines of metrics, validations, samples and checkpoints in between.

It knows a task (`training.task`) and a run folder; what the task is about it does not know. It prints nothing.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from gatewise.config import BaseTrainingConfig
from gatewise.errors import NonFiniteLoss
from gatewise.run_folder import RunFolder, append_line, save_tensors
from gatewise.training.checkpoint import Checkpoint, Progress, Sums, restore, save_checkpoint, weights
from gatewise.training.divergence import bad_gradient, bad_parameter, where_it_began
from gatewise.training.observer import Observer
from gatewise.training.optimizers import build_optimizer, learning_rate
from gatewise.training.task import Task

E = TypeVar("E")


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a training after a whole step; the message says where it stands and that it can go on."""


@dataclass(frozen=True)
class TrainingResult(Generic[E]):
    """What came of a training.

    evaluation: of the weights in model.safetensors, on what was kept for validation; without that, the mean over the
        last epoch. Its class is the task's.
    split: "validation" or "train": what the evaluation was made on.
    step: after which the saved weights were; steps: made in all; seconds: that the run lasted, over all its parts.
    unit: what was counted for the speed, units_per_second: "tokens", say.
    step_seconds: of the seconds, those in training steps, making batches aside: forward, backward and update.
    """

    evaluation: E
    split: str
    step: int
    steps: int
    unit: str
    units_per_second: float
    seconds: float
    step_seconds: float

    def to_json(self) -> dict[str, Any]:
        """All but the evaluation, as plain values; the speed under its unit's name, as in `tokens_per_second`."""
        return {
            "split": self.split,
            "step": self.step,
            "steps": self.steps,
            f"{self.unit}_per_second": self.units_per_second,
            "seconds": self.seconds,
            "step_seconds": round(self.step_seconds, 3),
        }


class TrainingLoop:
    """A training of a task's network as it stands; `run()` goes on with it to its end.

    run_folder: where metrics, samples, checkpoints and the best weights go.
    model_metadata: goes into the header of model.safetensors; data: which data it reads, goes into each checkpoint.
    """

    def __init__(
        self,
        task: Task,
        config: BaseTrainingConfig,
        run_folder: RunFolder,
        *,
        model_metadata: dict[str, Any],
        data: str,
        observer: Observer,
    ) -> None:
        self.task, self.network = task, task.network
        self.config, self.run_folder, self.observer = config, run_folder, observer
        self.model_metadata, self.data = model_metadata, data
        self.parameters = list(self.network.parameters())
        self.device = self.parameters[0].device
        self.optimizer = build_optimizer(self.parameters, config)
        self.steps = config.epochs * task.batches_per_epoch
        if config.max_steps is not None:
            self.steps = min(self.steps, config.max_steps)
        self.progress = Progress()
        self.state: Tensor | None = None  # carried from batch to batch
        self.saved_step: int | None = None  # of the last checkpoint
        self.interrupted = False
        self._started = time.perf_counter()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Stand where the checkpoint was made."""
        self.state = restore(checkpoint, self.network, self.optimizer)
        self.progress = checkpoint.progress
        self.saved_step = self.progress.step
        self._started = time.perf_counter() - self.progress.seconds

    def run(self) -> TrainingResult[Any]:
        """Train to the end. Raises TrainingInterrupted (Ctrl-C), NonFiniteLoss, RunError if a file is in trouble."""
        progress = self.progress
        with self._finish_step_on_interrupt():
            self._tell(self.observer.on_start, progress.step, self.steps)
            if self.saved_step is None:
                self._validate()
                self._save()
            elif self._finished():
                self._tell(self.observer.on_message, self._why_finished())
            self.network.train()
            while not (self.interrupted or self._finished()):
                self.step()
                last = progress.step == self.steps
                if progress.step % self.config.log_every == 0 or last:
                    self._log()
                if self._validation_is_due():
                    self._validate()
                    self._save()
                elif progress.step % self.config.checkpoint_every == 0:
                    self._save()
            if self.saved_step != progress.step:
                self._save()
        if self.interrupted and not self._finished():
            raise TrainingInterrupted(
                f"stopped after step {progress.step} of {self.steps}; {self.run_folder.path} holds all that is needed "
                "to resume"
            )
        return self._result()

    def _finished(self) -> bool:
        patience = self.config.patience
        out_of_patience = patience is not None and self.progress.bad_validations >= patience
        return self.progress.step >= self.steps or out_of_patience

    def _why_finished(self) -> str:
        if self.progress.step >= self.steps:
            done, what = f"all {self.steps} steps are done", "training.epochs or training.max_steps"
        else:
            done, what = f"it stopped after {self.progress.step} steps as it got no better", "training.patience"
        return f"{self.run_folder.path}: {done}; raise {what} to train on"

    def arithmetic(self) -> torch.autocast:
        """The precision of the steps, for a with statement."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def step(self) -> None:
        """One batch, forward, backward and the update. Raises NonFiniteLoss before it harms the parameters."""
        start = time.perf_counter()
        progress, config, before = self.progress, self.config, self.state
        if progress.index == 0:
            before, progress.since_epoch = None, Sums()
        batch = self.task.batch(progress.epoch, progress.index)
        batch_seconds = time.perf_counter() - start
        with self.arithmetic():
            loss, units, self.state = self.task.loss(batch, before)
        loss_value = loss.item()
        if not math.isfinite(loss_value):
            with self.arithmetic():
                began = where_it_began(self.network, self.task.activations(batch, before), before)
            raise self._diverged(f"the loss is {loss_value} at training step {progress.step + 1}", began)

        self.optimizer.zero_grad()
        loss.backward()
        total_norm = get_total_norm([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        gradient_norm = total_norm.item()
        if not math.isfinite(gradient_norm):
            what = f"the loss is finite but its gradient's norm is {gradient_norm} at training step {progress.step + 1}"
            raise self._diverged(what, f"in the gradient of {bad_gradient(self.network) or 'all parameters together'}")
        if config.clip_norm is not None and gradient_norm > config.clip_norm:
            clip_grads_with_norm_(self.parameters, config.clip_norm, total_norm)
        rate = learning_rate(progress.step, self.steps, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

        progress.step += 1
        progress.index += 1
        if progress.index == self.task.batches_per_epoch:
            progress.epoch, progress.index = progress.epoch + 1, 0
        step_sums = (units, loss_value, gradient_norm, time.perf_counter() - start, batch_seconds)
        for sums in (progress.since_start, progress.since_epoch, progress.since_line):
            sums.add(*step_sums)

    def _log(self) -> None:
        """Write the means since the last line."""
        sums, self.progress.since_line = self.progress.since_line, Sums()
        line = self._line("train", self.task.metrics(sums.loss / sums.steps)) | {
            f"{self.task.unit}_per_second": round(sums.units / sums.seconds, 1),
            "learning_rate": learning_rate(self.progress.step - 1, self.steps, self.config),
            "gradient_norm": sums.gradient_norm / sums.steps,
            "seconds": self._seconds(),
        }
        append_line(self.run_folder.metrics, line)
        self._tell(self.observer.on_step, line)

    def _validation_is_due(self) -> bool:
        """Without anything to validate on, it is about the sample: at the end, or as often as was asked for."""
        progress, every = self.progress, self.config.validate_every
        if progress.step == self.steps:
            return True
        if every is None:
            return progress.index == 0 and self.task.validates
        return progress.step % every == 0

    def _validate(self) -> None:
        """Write the metrics of a validation, and a sample; keep the weights if they are the best so far."""
        progress, line = self.progress, None
        if self.task.validates:
            self.network.eval()
            with self.arithmetic():
                metrics = self.task.validate()
            loss = metrics[self.task.loss_name]
            if not math.isfinite(loss):
                what = f"the validation loss is {loss} after training step {progress.step}"
                name = bad_parameter(self.network)
                raise self._diverged(what, f"in the parameter {name}" if name else "in the network's activations")
            if self.task.is_better(metrics, progress.best):
                progress.best, progress.best_step, progress.bad_validations = metrics, progress.step, 0
                self._save_model(loss)
            else:
                progress.bad_validations += 1
            line = self._line("validation", metrics) | {"seconds": self._seconds()}
            append_line(self.run_folder.metrics, line)
        self.network.eval()
        sample = self.task.sample()
        if sample is not None:
            sample = {"step": progress.step, "epoch": self._epoch(), **sample}
            append_line(self.run_folder.samples, sample)
        self.network.train()
        self._tell(self.observer.on_validation, line, sample)

    def _save(self) -> None:
        """Write a checkpoint, unless the last step has spoilt the parameters: then the one before it is kept.

        A temporary folder gets none: nothing goes on from it, and of a small training the writing is half the time.
        """
        progress = self.progress
        if name := bad_parameter(self.network):
            raise self._diverged(f"training step {progress.step} left the parameters not finite", f"in {name}")
        if not self.task.validates:
            self._save_model(None)
        progress.seconds = self._seconds()
        if not self.run_folder.temporary:
            save_checkpoint(self.run_folder.checkpoint, self.network, self.optimizer, self.state, progress, self.data)
        self.saved_step = progress.step

    def _save_model(self, loss: float | None) -> None:
        metadata = {**self.model_metadata, "step": self.progress.step, self.task.loss_name: loss}
        save_tensors(self.run_folder.model, weights(self.network), metadata)

    def _line(self, split: str, metrics: dict[str, float]) -> dict[str, Any]:
        return {"step": self.progress.step, "epoch": self._epoch(), "split": split, **metrics}

    def _epoch(self) -> int:
        """The epoch, from 1, that the last step belongs to; 0 before the first step."""
        return self.progress.epoch + (self.progress.index > 0)

    def _seconds(self) -> float:
        return round(time.perf_counter() - self._started, 3)

    def _result(self) -> TrainingResult[Any]:
        progress, start, epoch = self.progress, self.progress.since_start, self.progress.since_epoch
        if self.task.validates and progress.best is not None:
            split, step, metrics = "validation", progress.best_step, progress.best
        else:
            split, step, metrics = "train", progress.step, self.task.metrics(epoch.loss / epoch.steps)
        return TrainingResult(
            self.task.evaluation(split, metrics, epoch.units),
            split,
            step,
            progress.step,
            self.task.unit,
            start.units / start.seconds,
            progress.seconds,
            start.seconds - start.batch_seconds,
        )

    def _diverged(self, what: str, began: str) -> NonFiniteLoss:
        lost = self.saved_step is None or self.run_folder.temporary
        go_on = "start again" if lost else f"resume from the checkpoint of step {self.saved_step}"
        rate, clip = self.config.learning_rate, "none" if self.config.clip_norm is None else self.config.clip_norm
        return NonFiniteLoss(
            f"{what}; it began {began}; {go_on} with a smaller training.learning_rate (now {rate}) or "
            f"training.clip_norm (now {clip})"
        )

    def _tell(self, listener: Callable[..., None], *arguments: Any) -> None:
        """Call the observer; whatever it is at, the training stands between two steps."""
        try:
            listener(*arguments)
        except KeyboardInterrupt:
            self.interrupted = True

    @contextmanager
    def _finish_step_on_interrupt(self) -> Iterator[None]:
        """Ctrl-C lets the step end, for half an update is nothing to go on from; a second Ctrl-C stops at once."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
            yield
            return

        def finish_step(number: int, frame: FrameType | None) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        signal.signal(signal.SIGINT, finish_step)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
