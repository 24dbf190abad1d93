"""The configuration of a classifier."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gatewise.config.examples import ExampleTrainingConfig, Share, SplitConfig, TokenConfig, Whole
from gatewise.config.section import Auto, Backend, Cell, Missing, Reset, Section
from gatewise.config.training import Job


class ClassifierData(SplitConfig, TokenConfig):
    """How a file becomes examples, and a text becomes tokens."""

    text_column: str | None = Field(
        default=None, description="Column of a table that holds the text; none: guessed where it is obvious."
    )
    label_column: str | None = Field(
        default=None, description="Column of a table that holds the label; none: guessed where it is obvious."
    )
    label_separator: str | None = Field(
        default=None, description="Cuts a label's cell into several labels; none: each example has one label."
    )
    labels: Literal["one", "several"] | Auto = Field(
        default="auto", description="How many labels an example has; auto: as the examples are."
    )
    matrix: Literal["features", "steps"] | Auto = Field(
        default="auto",
        description="What the columns of a matrix of numbers are: features of one step, or steps of one feature; auto: "
        "features in memory, steps in a file.",
    )
    group_column: str | None = Field(
        default=None, description="Column of a table whose equal values must not be torn apart by a split."
    )
    time_column: str | None = Field(
        default=None, description="Column of a table with the time, for a split that keeps the latest."
    )
    missing: Missing = Field(
        default="error", description="What becomes of a missing value in a .ts file; error: it is refused."
    )
    standardize: bool = Field(
        default=True, description="Bring each feature to mean 0 and deviation 1, as measured on the training part."
    )


class ClassifierConfig(Section):
    """The network of a classifier."""

    cell: Cell = Field(default="gru", description="Cell of the recurrent layers.")
    reset: Reset = Field(
        default="after",
        description="Where a GRU's reset gate acts: after (torch, cuDNN) or before (Cho 2014) the recurrent product.",
    )
    embedding_size: Whole | Auto = Field(
        default="auto", description="Size of a token's embedding; not used with features; auto: by the examples."
    )
    hidden_size: Whole | Auto = Field(
        default="auto", description="Units of every layer in each direction; auto: by the number of examples."
    )
    num_layers: int = Field(default=1, ge=1, description="Recurrent layers, one on the other.")
    bidirectional: bool = Field(default=True, description="Read from both ends.")
    pooling: Literal["last", "mean", "max", "attention"] = Field(
        default="max",
        description="What of the steps is looked at: the last states, their mean, the largest value of each feature, "
        "or a mean whose weights are learned.",
    )
    dropout: Share | Auto = Field(
        default="auto",
        description="Probability that a value is dropped in training: of embeddings, between layers, of what was "
        "pooled; auto: less where there are more examples.",
    )
    word_dropout: Share | Auto = Field(
        default="auto",
        description="Probability that a token is replaced by the unknown one in training, so that the network learns "
        "what to do without it; 0 with features.",
    )
    weight_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a recurrent weight is dropped for a step of training."
    )
    recurrent_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a unit of the state is hidden from its cell in training."
    )
    backend: Backend = Field(default="auto", description="Which implementation computes the recurrence.")

    @model_validator(mode="after")
    def _agree(self) -> "ClassifierConfig":
        if self.reset != "after" and self.cell != "gru":
            raise ValueError(f'reset = "{self.reset}" needs cell = "gru"; got "{self.cell}"')
        return self


class ClassifierTraining(ExampleTrainingConfig):
    """How the network is trained."""

    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="balanced: in the loss all classes count alike, however rare; none: all examples."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Part of a target's probability that is spread over all classes."
    )


class ClassifierJob(Job):
    """Everything that `gatewise train classifier` needs but the examples themselves."""

    task: ClassVar[str] = "classifier"

    data: ClassifierData = ClassifierData()
    model: ClassifierConfig = ClassifierConfig()
    training: ClassifierTraining = ClassifierTraining()

    @model_validator(mode="after")
    def _agree(self) -> "ClassifierJob":
        if self.training.label_smoothing and self.data.label_separator is not None:
            raise ValueError("training.label_smoothing is for one label an example; leave out data.label_separator")
        return self
