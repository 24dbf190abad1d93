"""What a training tells while it runs: it prints nothing itself."""

from typing import Any


class Observer:
    """Is told what happens during a training; this one ignores it all. Derive from it and override what you need.

    A method that raises KeyboardInterrupt ends the training as Ctrl-C does: after the step that it is at.
    """

    def on_start(self, step: int, steps: int) -> None:
        """The training is at `step` and will end at `steps`, unless it stops early. Called once, first."""

    def on_step(self, metrics: dict[str, Any]) -> None:
        """A training line of metrics.jsonl was written: every `training.log_every` steps."""

    def on_validation(self, metrics: dict[str, Any] | None, sample: dict[str, Any] | None) -> None:
        """A validation was made; the first one before the first step.

        metrics: its line of metrics.jsonl; None if nothing is kept for validation, and this is about a sample only.
        sample: its line of samples.jsonl: step, epoch, prompt, text; None if no samples are wanted.
        """

    def on_message(self, message: str) -> None:
        """Something worth knowing: one line."""
