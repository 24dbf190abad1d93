"""How a network is trained: the keys that every task has. A task adds its own, or other defaults, in a subclass."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gatewise.config.section import Device, Precision, Section


class BaseTrainingConfig(Section):
    """How the network is trained."""

    epochs: int = Field(default=10, ge=1, description="Passes over the training data.")
    max_steps: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this many optimizer steps, whatever the epochs say; none: the epochs decide.",
    )
    batch_size: int = Field(default=32, ge=1, description="Sequences in a batch.")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="Rule that updates the parameters.")
    learning_rate: float = Field(default=0.002, gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="cosine",
        description="Learning rate after the warm-up: constant, or falling to zero linearly or along a cosine.",
    )
    warmup_steps: int = Field(
        default=0, ge=0, description="Steps over which the learning rate rises linearly from zero."
    )
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay (adamw) or L2 penalty (sgd).")
    clip_norm: float | None = Field(
        default=1.0, gt=0, description="Largest global norm of the gradient; none: not clipped."
    )
    validate_every: int | None = Field(
        default=None, ge=1, description="Steps between validations; none: once an epoch."
    )
    patience: int | None = Field(
        default=None, ge=1, description="Stop after this many validations without a better loss; none: never."
    )
    checkpoint_every: int = Field(
        default=500, ge=1, description="Steps between checkpoints, besides those at validations."
    )
    log_every: int = Field(default=10, ge=1, description="Steps between lines of metrics.jsonl.")
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="Seed of all that is drawn: parameters, splits, batches, dropout, samples.",
    )
    device: Device = Field(default="auto", description="Where to compute; auto: cuda, then mps, then cpu.")
    precision: Precision = Field(
        default="float32",
        description="Arithmetic of the steps; bf16: of 16 bits where torch.autocast holds it safe, weights of 32.",
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="Processor threads; none: as torch chooses.")

    @model_validator(mode="after")
    def _agree(self) -> "BaseTrainingConfig":
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f'momentum needs optimizer = "sgd"; got "{self.optimizer}"')
        return self


class Job(Section):
    """Everything that a training needs but the data themselves: a table each for data, model and training."""

    task: ClassVar[str]  # what the command line and a run folder call it

    data: Section
    model: Section
    training: BaseTrainingConfig
