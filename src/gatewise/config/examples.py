"""What the tasks that learn from examples have in common: how the examples are split, how a training is laid out."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gatewise.config.section import Auto, Section, SplitRule
from gatewise.config.training import BaseTrainingConfig

Whole = Annotated[int, Field(ge=1)]  # of a key that may be "auto", where the range must stand with the number
Share = Annotated[float, Field(ge=0, lt=1)]


class SplitConfig(Section):
    """How the examples are split."""

    validation_fraction: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="Part of the examples that is kept for validation where no file is given for it; 0: none.",
    )
    test_fraction: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Part of the examples that is kept for the test at the end where no file is given for it; 0: none.",
    )
    split: SplitRule = Field(
        default="auto",
        description="How those are chosen: with equal shares of each label, at random, whole groups, or the latest; "
        "auto: by time or groups where there are any, else by labels where there are any.",
    )


class TokenConfig(Section):
    """How a text becomes tokens."""

    tokenizer: Literal["word", "char", "bpe"] = Field(
        default="word", description="Unit of a text that one step reads; words are words and single marks."
    )
    lower_case: bool = Field(default=True, description="Turn texts into lower case first.")
    vocabulary_size: int = Field(
        default=30_000, ge=2, description="Most different tokens; what else there is becomes one unknown token."
    )
    min_count: Whole | Auto = Field(
        default="auto",
        description="Words or characters that training has less often are unknown; not used with bpe; auto: more than "
        "once where there are many examples, for one occurrence teaches little.",
    )
    max_length: int | None = Field(
        default=512, ge=1, description="Tokens of a text, or steps, that are read, from its start; none: all."
    )

    @model_validator(mode="after")
    def _agree(self) -> "TokenConfig":
        if self.tokenizer == "bpe" and self.vocabulary_size < 256:
            raise ValueError(
                f"a bpe tokenizer needs vocabulary_size >= 256, one for each byte; got {self.vocabulary_size}"
            )
        return self


class ExampleTrainingConfig(BaseTrainingConfig):
    """How the network is trained."""

    epochs: Whole | Auto = Field(
        default="auto", description="Passes over the training examples; auto: so many that the steps suffice."
    )
    batch_size: Whole | Auto = Field(
        default="auto", description="Examples in a batch; auto: more where there are more of them."
    )
    validate_every: Whole | Auto | None = Field(
        default="auto",
        description="Steps between validations; none: once an epoch; auto: after whole epochs, not too often.",
    )
    patience: Whole | Auto | None = Field(
        default="auto",
        description="Stop after this many validations that were not the best; none: never; auto: by their number.",
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled weight decay (adamw) or L2 penalty (sgd).")
