"""The configuration of a tagger."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gatewise.config.examples import ExampleTrainingConfig, Share, SplitConfig, Whole
from gatewise.config.section import Auto, Backend, Cell, Reset, Section
from gatewise.config.training import Job


class TaggerData(SplitConfig):
    """How a file becomes sequences with a tag, or numbers, for each step."""

    words_column: str | None = Field(
        default=None,
        description="Column of the words: a name in a table, a number, from 1, in a CoNLL file; none: guessed, or 1.",
    )
    tags_column: str | None = Field(
        default=None,
        description="Column of the tags: a name in a table or in CoNLL-U, a number in a CoNLL file; none: guessed, "
        "upos, or the last one.",
    )
    group_column: str | None = Field(
        default=None, description="Column of a table whose equal values must not be torn apart by a split."
    )
    targets: Literal["tags", "numbers"] | Auto = Field(
        default="auto",
        description="What a step has: one of several tags, or numbers from 0 to 1, each a yes or no; auto: as it is.",
    )
    lower_case: bool = Field(
        default=True, description="Turn words into lower case for their embedding; their spelling is kept as it is."
    )
    vocabulary_size: int = Field(
        default=30_000, ge=2, description="Most different words; what else there is becomes one unknown word."
    )
    min_count: int = Field(default=1, ge=1, description="Words that training has less often are unknown.")
    standardize: bool = Field(
        default=True, description="Bring each feature to mean 0 and deviation 1, as measured on the training part."
    )


class TaggerConfig(Section):
    """The network of a tagger."""

    cell: Cell = Field(default="gru", description="Cell of the recurrent layers.")
    reset: Reset = Field(
        default="after",
        description="Where a GRU's reset gate acts: after (torch, cuDNN) or before (Cho 2014) the recurrent product.",
    )
    embedding_size: Whole | Auto = Field(
        default="auto", description="Size of a word's embedding; not used with features; auto: by the sequences."
    )
    spelling_size: int | Auto = Field(
        default="auto",
        description="Size of what a bidirectional GRU makes of a word's characters; 0: words are not spelled.",
    )
    character_size: int = Field(default=32, ge=1, description="Size of a character's embedding.")
    hidden_size: Whole | Auto = Field(
        default="auto", description="Units of every layer in each direction; auto: by the number of steps."
    )
    num_layers: int = Field(default=1, ge=1, description="Recurrent layers, one on the other.")
    layer_sizes: str | None = Field(
        default=None,
        description='Units of each layer, as in "256,128"; none: hidden_size for all num_layers.',
    )
    direction: Literal["both", "forward"] | Auto = Field(
        default="auto",
        description="both: read from both ends; forward: a step knows nothing of what comes; auto: forward where the "
        "targets are the next step's input.",
    )
    output: Literal["softmax", "crf"] | Auto = Field(
        default="auto",
        description="softmax: each step's tag by itself; crf: a conditional random field scores them together; auto: "
        "crf for BIO spans. Numbers have a sigmoid each.",
    )
    dropout: Share | Auto = Field(
        default="auto",
        description="Probability that a value is dropped in training: of embeddings, after each layer.",
    )
    word_dropout: Share | Auto = Field(
        default="auto",
        description="Probability that a word is replaced by the unknown one in training, so that the network learns "
        "to go by spelling and neighbours; 0 with features.",
    )
    weight_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a recurrent weight is dropped for a step of training."
    )
    recurrent_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a unit of the state is hidden from its cell in training."
    )
    backend: Backend = Field(default="auto", description="Which implementation computes the recurrence.")

    @model_validator(mode="after")
    def _agree(self) -> "TaggerConfig":
        if self.reset != "after" and self.cell != "gru":
            raise ValueError(f'reset = "{self.reset}" needs cell = "gru"; got "{self.cell}"')
        if self.spelling_size != "auto" and (self.spelling_size < 0 or self.spelling_size % 2):
            raise ValueError(f"spelling_size: expected an even number >= 0, got {self.spelling_size}")
        if self.layer_sizes is not None:
            self.sizes()
        return self

    def sizes(self) -> list[int]:
        """The units of each layer, once nothing is "auto"."""
        if self.layer_sizes is None:
            return [int(self.hidden_size)] * self.num_layers
        sizes = [size.strip() for size in self.layer_sizes.split(",")]
        if not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise ValueError(f'layer_sizes: expected whole numbers >= 1, as in "256,128", got "{self.layer_sizes}"')
        return [int(size) for size in sizes]


class TaggerTraining(ExampleTrainingConfig):
    """How the network is trained."""

    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Part of a tag's probability that is spread over all; not with crf."
    )


class TaggerJob(Job):
    """Everything that `gatewise train tagger` needs but the sequences themselves."""

    task: ClassVar[str] = "tagger"

    data: TaggerData = TaggerData()
    model: TaggerConfig = TaggerConfig()
    training: TaggerTraining = TaggerTraining()

    @model_validator(mode="after")
    def _agree(self) -> "TaggerJob":
        if self.training.label_smoothing and (self.model.output == "crf" or self.data.targets == "numbers"):
            raise ValueError("training.label_smoothing needs model.output = softmax, and tags")
        return self
