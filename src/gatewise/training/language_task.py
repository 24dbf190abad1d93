"""The task of a language model: windows of tokens, the cross entropy of each next token, samples of what it writes."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from gatewise.data.batches import EvaluationWindows, TrainingWindows
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.training.evaluation import Evaluation, mean_loss, text_metrics
from gatewise.training.task import StepLoss, Task

Windows = tuple[Tensor, Tensor]  # inputs and targets, (T, B) int64


class LanguageTask(Task):
    """To predict each next token of a text.

    windows: the training text; validation: the text to validate on, None for none.
    characters_per_token: of the text, for bits per character.
    sample_text: gives a prompt and what the network, in eval mode, writes after it; None for no samples.
    """

    unit = "tokens"

    def __init__(
        self,
        network: LanguageModelNetwork,
        windows: TrainingWindows,
        validation: EvaluationWindows | None,
        *,
        characters_per_token: float = 1.0,
        sample_text: Callable[[], tuple[str, str]] | None = None,
    ) -> None:
        self.network: LanguageModelNetwork = network
        self.windows, self.validation = windows, validation
        self.characters_per_token, self.sample_text = characters_per_token, sample_text
        self.device = network.output.weight.device

    @property
    def batches_per_epoch(self) -> int:
        """How many windows there are in an epoch."""
        return self.windows.batches_per_epoch

    @property
    def validates(self) -> bool:
        """Whether a part of the text is kept for validation."""
        return self.validation is not None

    def batch(self, epoch: int, index: int) -> Windows:
        """Inputs and targets of one window."""
        inputs, targets = self.windows.batch(epoch, index)
        return inputs.to(self.device), targets.to(self.device)

    def loss(self, batch: Windows, state: Tensor | None) -> StepLoss:
        """Mean over the targets; the state is carried on where the next window continues this one."""
        inputs, targets = batch
        logits, last = self.network(inputs, state)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        return StepLoss(loss, targets.numel(), last.detach() if self.windows.carries_state else None)

    def activations(self, batch: Windows, state: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """Those of the network."""
        return self.network.activations(batch[0], state)

    def validate(self) -> dict[str, float]:
        """Loss, perplexity and bits per character of the validation text."""
        assert self.validation is not None
        return self.metrics(mean_loss(self.network, self.validation)[0])

    def metrics(self, loss: float) -> dict[str, float]:
        """Loss, perplexity, bits per character."""
        return text_metrics(loss, self.characters_per_token)

    def sample(self) -> dict[str, Any] | None:
        """A prompt and what the network writes after it."""
        if self.sample_text is None:
            return None
        prompt, text = self.sample_text()
        return {"prompt": prompt, "text": text}

    def evaluation(self, split: str, metrics: dict[str, float], units: int) -> Evaluation:
        """What the loss means, over the tokens that were predicted."""
        of_validation = split == "validation" and self.validation is not None
        tokens = self.validation.targets if of_validation and self.validation else units
        return Evaluation(**self.metrics(metrics["loss_nats"]), tokens=tokens, unknown_tokens=0)
