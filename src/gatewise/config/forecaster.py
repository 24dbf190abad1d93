"""The configuration of a forecaster."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from gatewise.config.examples import ExampleTrainingConfig, Share, Whole
from gatewise.config.section import Auto, Backend, Cell, Reset, Section
from gatewise.config.training import Job

Amount = Annotated[float, Field(ge=0)]


class ForecasterData(Section):
    """How a table becomes series, and how they are split by time."""

    target_columns: str | None = Field(
        default=None,
        description='Columns to forecast, as in "sales,price"; none: y, target or value, else every column of numbers '
        "that serves for nothing else.",
    )
    time_column: str | None = Field(
        default=None, description="Column of the times; none: guessed; where there is none, each row is a step."
    )
    time_format: str | None = Field(
        default=None, description='How times are written, as in "%d.%m.%Y %H:%M"; none: recognised.'
    )
    id_column: str | None = Field(
        default=None, description="Column that says which series a row belongs to; none: guessed, else there is one."
    )
    known_columns: str | None = Field(
        default=None,
        description="Columns of numbers that are known of the time to come, too (holidays, prices), with commas "
        "between them; in the rows of that time the targets are empty.",
    )
    static_columns: str | None = Field(
        default=None,
        description="Columns that are the same in every row of a series, numbers or labels, with commas between them.",
    )
    frequency: str | None = Field(
        default=None, description='Distance from one time to the next, as in "1 hour"; none: as most rows have it.'
    )
    missing: Literal["error", "previous", "linear"] = Field(
        default="error",
        description="What becomes of missing values and times: refused, filled with the value before, or on the line "
        "between the ones around them.",
    )
    calendar: Literal["on", "off"] | Auto = Field(
        default="auto",
        description="Whether the network reads the time of day, of the week and of the year; auto: each of them where "
        "the frequency has it and training has seen two of its turns.",
    )
    training_steps: int | None = Field(
        default=None,
        ge=1,
        description="First steps of each series to train on; what is left after validation and test is not used; "
        "none: all steps before those.",
    )
    validation: Amount | Auto = Field(
        default="auto",
        description="Steps of each series after training that the best weights are chosen by: a share below 1, or a "
        "number; 0: none; auto: by the horizon and the length.",
    )
    test: Amount = Field(
        default=0.0,
        description="Steps of each series at the end that the model is judged on: a share below 1, or a number.",
    )


class ForecasterConfig(Section):
    """The network of a forecaster."""

    horizon: Whole | Auto = Field(
        default="auto", description="Steps to forecast; auto: one season, or 10 where there is none."
    )
    context: Whole | Auto = Field(
        default="auto", description="Steps that are read before a forecast; auto: by season, horizon and length."
    )
    season: Whole | Auto | None = Field(
        default="auto",
        description="Steps after which the series repeat themselves, so that a forecast begins with the values of one "
        "season before; none: they do not; auto: what predicts the training part best.",
    )
    mode: Literal["direct", "recurrent"] = Field(
        default="direct",
        description="direct: all steps of the horizon at once; recurrent: one after the other, each draw fed back.",
    )
    targets: Literal["together", "apart"] | Auto = Field(
        default="auto",
        description="Several targets: together: each is forecast from what all of them have been; apart: each from its "
        "own history, by one network; auto: by which tells more of the end of the training part.",
    )
    likelihood: Literal["gaussian", "student-t", "negative-binomial", "quantiles"] | Auto = Field(
        default="auto",
        description="What is said of a value to come: a distribution, or quantiles; auto: negative-binomial for small "
        "counts, else student-t.",
    )
    cell: Cell = Field(default="gru", description="Cell of the recurrent layers.")
    reset: Reset = Field(
        default="after",
        description="Where a GRU's reset gate acts: after (torch, cuDNN) or before (Cho 2014) the recurrent product.",
    )
    hidden_size: Whole | Auto = Field(
        default="auto", description="Units of every layer; auto: by the number of values to learn from."
    )
    num_layers: int = Field(default=1, ge=1, description="Recurrent layers, one on the other.")
    dropout: Share | Auto = Field(
        default="auto",
        description="Probability that a value is dropped in training: of the history, between layers, of what the last "
        "one gives; auto: less where there are more values.",
    )
    backend: Backend = Field(default="auto", description="Which implementation computes the recurrence.")

    @model_validator(mode="after")
    def _agree(self) -> "ForecasterConfig":
        if self.reset != "after" and self.cell != "gru":
            raise ValueError(f'reset = "{self.reset}" needs cell = "gru"; got "{self.cell}"')
        if isinstance(self.season, int) and isinstance(self.context, int) and self.context < self.season:
            raise ValueError(f"context = {self.context}: expected at least one season, {self.season} steps")
        return self


class ForecasterTraining(ExampleTrainingConfig):
    """How the network is trained."""

    epochs: Whole | Auto = Field(
        default="auto", description="Passes over the training windows; auto: so many that the steps suffice."
    )
    batch_size: Whole | Auto = Field(
        default="auto", description="Windows in a batch; auto: more where there are more of them."
    )


class ForecasterJob(Job):
    """Everything that `gatewise train forecaster` needs but the series themselves."""

    task: ClassVar[str] = "forecaster"

    data: ForecasterData = ForecasterData()
    model: ForecasterConfig = ForecasterConfig()
    training: ForecasterTraining = ForecasterTraining()

    @model_validator(mode="after")
    def _agree(self) -> "ForecasterJob":
        for key in ("validation", "test"):
            value = getattr(self.data, key)
            if value != "auto" and value >= 1 and value != int(value):
                raise ValueError(f"data.{key}: expected a share below 1 or a whole number of steps, got {value}")
        return self


def columns_of(listed: str | None) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(name.strip() for name in listed.split(",") if name.strip()) if listed else ()
