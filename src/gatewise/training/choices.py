"""What is decided by the data where a configuration says "auto": sizes, epochs; each with its reason.

The rules know nothing but how many examples there are, and of what length. They were set so that a training of a few
thousand steps, which two cores make in minutes, uses what the data can teach, and no more than that: with few examples
a small network, strongly regularised, that sees them often.
"""

from typing import Any, Generic, TypeVar

from gatewise.config import Job

J = TypeVar("J", bound=Job)

FEW, MANY = 1_000, 100_000  # examples
STEPS = 4_000  # of a training: within a few minutes on two cores
EPOCHS = (3, 100)
BETWEEN = 40  # steps between validations at least: with few examples, an epoch of three is no progress to judge


class Choices(Generic[J]):
    """A job whose "auto" values are replaced one by one; `reasons` tells them, a sentence each."""

    def __init__(self, job: J) -> None:
        self.job = job
        self.reasons: list[str] = []

    def choose(self, table: str, key: str, value: Any, reason: str) -> Any:
        """The value of the key: what the user gave, or, where that is "auto", this one, for this reason."""
        section = getattr(self.job, table)
        if getattr(section, key) != "auto":
            return getattr(section, key)
        self.job = self.job.model_copy(update={table: section.model_copy(update={key: value})})
        shown = "none" if value is None else f"{value:,}" if isinstance(value, int) else value
        self.reasons.append(f"{key.replace('_', ' ')} {shown}: {reason}")
        return value

    def drop(self, table: str, key: str, value: Any) -> None:
        """Replace "auto" by a value that has no effect; nothing to tell."""
        section = getattr(self.job, table)
        if getattr(section, key) == "auto":
            self.job = self.job.model_copy(update={table: section.model_copy(update={key: value})})

    def choose_training(self, examples: int, validates: bool, steps: int = STEPS) -> None:
        """Batch size, epochs and patience of a training on so many examples, of about so many steps."""
        size = 16 if examples < FEW else 32 if examples < MANY else 64
        size = self.choose("training", "batch_size", size, f"{examples:,} examples")
        batches = -(-examples // size)
        epochs = min(max(-(-steps // batches), EPOCHS[0]), EPOCHS[1])
        epochs = self.choose(
            "training", "epochs", epochs, f"{batches:,} batches in each, {batches * epochs:,} steps in all"
        )
        self.choose_validations(batches, epochs, validates)

    def choose_validations(self, batches: int, epochs: int, validates: bool) -> None:
        """How often a training of so many epochs of so many batches is validated, and its patience."""
        apart = -(-BETWEEN // batches)
        if not validates:
            self.drop("training", "patience", None)
        if not validates or apart == 1:
            self.drop("training", "validate_every", None)
        else:
            self.choose("training", "validate_every", apart * batches, f"{apart} epochs of {batches:,} steps")
        if validates:
            validations = -(-epochs * batches // (self.job.training.validate_every or batches))
            patience = max(5, validations // 4)
            self.choose("training", "patience", patience, f"a quarter of {validations} validations, 5 at least")


def by_size(size: int, few: Any, some: Any, many: Any, less: int = FEW, more: int = MANY) -> Any:
    """One of three values, for a size below `less`, below `more`, or above: of examples, unless it is of something."""
    return few if size < less else some if size < more else many


def settled(job: J, stored: Job) -> J:
    """The job with the values of `stored`, which a run was started with, where it says "auto"."""
    tables = {}
    for table in ("data", "model", "training"):
        section = getattr(job, table)
        decided = {key: getattr(getattr(stored, table), key) for key, value in section if value == "auto"}
        tables[table] = section.model_copy(update=decided)
    return job.model_copy(update=tables)
