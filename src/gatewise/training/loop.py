"""The training itself: step after step, with lines of metrics, validations, samples and checkpoints in between.

It knows a network, windows of tokens and a run folder; what the tokens stand for it does not know. It prints nothing.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from gatewise.config import TrainingConfig
from gatewise.data.batches import EvaluationWindows, TrainingWindows
from gatewise.errors import NonFiniteLoss
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.run_folder import RunFolder, append_line, save_tensors
from gatewise.training.checkpoint import Checkpoint, Progress, Sums, restore, save_checkpoint, weights
from gatewise.training.divergence import bad_gradient, bad_parameter, where_it_began
from gatewise.training.evaluation import Evaluation, bits_per_char, mean_loss, perplexity
from gatewise.training.observer import Observer
from gatewise.training.optimizers import build_optimizer, learning_rate


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a training after a whole step; the message says where it stands and that it can go on."""


@dataclass(frozen=True)
class TrainingResult:
    """What came of a training.

    evaluation: of the weights in model.safetensors, on the validation text; without one, the mean over the last epoch.
    split: "validation" or "train": what the evaluation was made on.
    step: after which the saved weights were; steps: made in all; seconds: that the run lasted, over all its parts.
    """

    evaluation: Evaluation
    split: str
    step: int
    steps: int
    tokens_per_second: float
    seconds: float


class TrainingLoop:
    """A training of `network` as it stands; `run()` goes on with it to its end.

    windows: the training text; validation: the text to validate on, None for none.
    run_folder: where metrics, samples, checkpoints and the best weights go.
    characters_per_token: of the text, for bits per character.
    sample: gives a prompt and what the network, in eval mode, writes after it; None for no samples.
    model_metadata: goes into the header of model.safetensors; text: goes into each checkpoint.
    """

    def __init__(
        self,
        network: LanguageModelNetwork,
        windows: TrainingWindows,
        validation: EvaluationWindows | None,
        config: TrainingConfig,
        run_folder: RunFolder,
        *,
        characters_per_token: float,
        sample: Callable[[], tuple[str, str]] | None,
        model_metadata: dict[str, Any],
        text: str,
        observer: Observer,
    ) -> None:
        self.network, self.windows, self.validation = network, windows, validation
        self.config, self.run_folder, self.observer = config, run_folder, observer
        self.characters_per_token, self.sample = characters_per_token, sample
        self.model_metadata, self.text = model_metadata, text
        self.parameters = list(network.parameters())
        self.device = self.parameters[0].device
        self.optimizer = build_optimizer(self.parameters, config)
        self.steps = config.epochs * windows.batches_per_epoch
        if config.max_steps is not None:
            self.steps = min(self.steps, config.max_steps)
        self.progress = Progress()
        self.state: Tensor | None = None  # (L, B, H), carried from window to window
        self.saved_step: int | None = None  # of the last checkpoint
        self.interrupted = False
        self._started = time.perf_counter()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Stand where the checkpoint was made."""
        self.state = restore(checkpoint, self.network, self.optimizer)
        self.progress = checkpoint.progress
        self.saved_step = self.progress.step
        self._started = time.perf_counter() - self.progress.seconds

    def run(self) -> TrainingResult:
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
        """One window, forward, backward and the update. Raises NonFiniteLoss before it harms the parameters."""
        start = time.perf_counter()
        progress, config = self.progress, self.config
        if progress.index == 0:
            self.state, progress.since_epoch = None, Sums()
        inputs, targets = (tokens.to(self.device) for tokens in self.windows.batch(progress.epoch, progress.index))
        with self.arithmetic():
            logits, state = self.network(inputs, self.state)
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss_nats = loss.item()
        if not math.isfinite(loss_nats):
            with self.arithmetic():
                began = where_it_began(self.network, inputs, self.state)
            raise self._diverged(f"the loss is {loss_nats} at training step {progress.step + 1}", began)

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

        self.state = state.detach() if self.windows.carries_state else None
        progress.step += 1
        progress.index += 1
        if progress.index == self.windows.batches_per_epoch:
            progress.epoch, progress.index = progress.epoch + 1, 0
        step_sums = (targets.numel(), loss_nats, gradient_norm, time.perf_counter() - start)
        for sums in (progress.since_start, progress.since_epoch, progress.since_line):
            sums.add(*step_sums)

    def _log(self) -> None:
        """Write the means since the last line."""
        sums, self.progress.since_line = self.progress.since_line, Sums()
        line = self._line("train", sums.loss_nats / sums.steps) | {
            "tokens_per_second": round(sums.tokens / sums.seconds, 1),
            "learning_rate": learning_rate(self.progress.step - 1, self.steps, self.config),
            "gradient_norm": sums.gradient_norm / sums.steps,
            "seconds": self._seconds(),
        }
        append_line(self.run_folder.metrics, line)
        self._tell(self.observer.on_step, line)

    def _validation_is_due(self) -> bool:
        """Without a text to validate on, it is about the sample: at the end, or as often as was asked for."""
        progress, every = self.progress, self.config.validate_every
        if progress.step == self.steps:
            return True
        if every is None:
            return progress.index == 0 and self.validation is not None
        return progress.step % every == 0

    def _validate(self) -> None:
        """Write the loss on the validation text and a sample; keep the weights if they are the best so far."""
        progress, line, sample = self.progress, None, None
        if self.validation is not None:
            with self.arithmetic():
                loss_nats, _ = mean_loss(self.network, self.validation)
            if not math.isfinite(loss_nats):
                what = f"the validation loss is {loss_nats} after training step {progress.step}"
                name = bad_parameter(self.network)
                raise self._diverged(what, f"in the parameter {name}" if name else "in the network's activations")
            if progress.best_loss_nats is None or loss_nats < progress.best_loss_nats:
                progress.best_loss_nats, progress.best_step, progress.bad_validations = loss_nats, progress.step, 0
                self._save_model(loss_nats)
            else:
                progress.bad_validations += 1
            line = self._line("validation", loss_nats) | {"seconds": self._seconds()}
            append_line(self.run_folder.metrics, line)
        if self.sample is not None:
            self.network.eval()
            prompt, text = self.sample()
            sample = {"step": progress.step, "epoch": self._epoch(), "prompt": prompt, "text": text}
            append_line(self.run_folder.samples, sample)
        self.network.train()
        self._tell(self.observer.on_validation, line, sample)

    def _save(self) -> None:
        """Write a checkpoint, unless the last step has spoilt the parameters: then the one before it is kept."""
        progress = self.progress
        if name := bad_parameter(self.network):
            raise self._diverged(f"training step {progress.step} left the parameters not finite", f"in {name}")
        if self.validation is None:
            self._save_model(None)
        progress.seconds = self._seconds()
        save_checkpoint(self.run_folder.checkpoint, self.network, self.optimizer, self.state, progress, self.text)
        self.saved_step = progress.step

    def _save_model(self, loss_nats: float | None) -> None:
        metadata = {**self.model_metadata, "step": self.progress.step, "loss_nats": loss_nats}
        save_tensors(self.run_folder.model, weights(self.network), metadata)

    def _line(self, split: str, loss_nats: float) -> dict[str, Any]:
        return {
            "step": self.progress.step,
            "epoch": self._epoch(),
            "split": split,
            "loss_nats": loss_nats,
            "perplexity": perplexity(loss_nats),
            "bits_per_char": bits_per_char(loss_nats, self.characters_per_token),
        }

    def _epoch(self) -> int:
        """The epoch, from 1, that the last step belongs to; 0 before the first step."""
        return self.progress.epoch + (self.progress.index > 0)

    def _seconds(self) -> float:
        return round(time.perf_counter() - self._started, 3)

    def _result(self) -> TrainingResult:
        progress, start, epoch = self.progress, self.progress.since_start, self.progress.since_epoch
        if self.validation is not None and progress.best_loss_nats is not None:
            split, step = "validation", progress.best_step
            loss_nats, tokens = progress.best_loss_nats, self.validation.targets
        else:
            split, step = "train", progress.step
            loss_nats, tokens = epoch.loss_nats / epoch.steps, epoch.tokens
        bits = bits_per_char(loss_nats, self.characters_per_token)
        evaluation = Evaluation(loss_nats, perplexity(loss_nats), bits, tokens)
        return TrainingResult(evaluation, split, step, progress.step, start.tokens / start.seconds, progress.seconds)

    def _diverged(self, what: str, began: str) -> NonFiniteLoss:
        go_on = "start again" if self.saved_step is None else f"resume from the checkpoint of step {self.saved_step}"
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
