"""The configuration of a translator."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gatewise.config.examples import ExampleTrainingConfig, Share, SplitConfig, Whole
from gatewise.config.section import Auto, Backend, Cell, Reset, Section
from gatewise.config.training import Job


class TranslatorData(SplitConfig):
    """How a file becomes sentences with their translations, and a sentence becomes tokens."""

    source_column: str | None = Field(
        default=None, description="Column of the sentences: a name, or, without a header, a number; none: the first."
    )
    target_column: str | None = Field(
        default=None, description="Column of the translations: a name, or, without a header, a number; none: the next."
    )
    target_suffix: str | None = Field(
        default=None,
        description='Where the translations lie, line by line, in a file of their own, the end of its name: "en" for '
        "train.en beside train.fr; none: both languages are in one file.",
    )
    member: str | None = Field(default=None, description="File in a zip; none: the only one, or by far the largest.")
    tokenizer: Literal["word", "char", "bpe"] = Field(
        default="bpe", description="Unit of a sentence that one step reads or writes; bpe knows every text."
    )
    vocabulary_size: Whole | Auto = Field(
        default="auto", description="Most tokens of each language; auto: by the number of pairs. Not used with char."
    )
    lower_case: bool = Field(default=False, description="Turn both languages into lower case.")
    max_length: int = Field(
        default=100, ge=1, description="Tokens of a sentence or translation; longer pairs are left out of training."
    )

    @model_validator(mode="after")
    def _agree(self) -> "TranslatorData":
        if self.target_suffix is not None:
            for key in ("source_column", "target_column", "member"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} is of both languages in one file; leave it out, or target_suffix")
        return self


class TranslatorConfig(Section):
    """The network of a translator."""

    cell: Cell = Field(default="gru", description="Cell of the recurrent layers.")
    reset: Reset = Field(
        default="after",
        description="Where a GRU's reset gate acts: after (torch, cuDNN) or before (Cho 2014) the recurrent product.",
    )
    attention: Literal["multiplicative", "additive"] = Field(
        default="multiplicative",
        description="How a state of the decoder and one of the encoder are compared: multiplicative (Luong 2015), "
        "additive (Bahdanau 2015).",
    )
    embedding_size: Whole | Auto = Field(default="auto", description="Size of a token's embedding; auto: by the pairs.")
    hidden_size: Whole | Auto = Field(
        default="auto", description="Units of every layer, in the encoder in each direction; auto: by the pairs."
    )
    num_layers: int = Field(default=1, ge=1, description="Recurrent layers of encoder and decoder each.")
    dropout: Share | Auto = Field(
        default="auto",
        description="Probability that a value is dropped in training: of embeddings, between layers, before the "
        "output; auto: less where there are more pairs.",
    )
    tied: bool = Field(default=True, description="Share the embedding of the translations with the output.")
    weight_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a recurrent weight is dropped for a step of training."
    )
    recurrent_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a unit of the state is hidden from its cell in training."
    )
    backend: Backend = Field(default="auto", description="Which implementation computes the recurrence.")

    @model_validator(mode="after")
    def _agree(self) -> "TranslatorConfig":
        if self.reset != "after" and self.cell != "gru":
            raise ValueError(f'reset = "{self.reset}" needs cell = "gru"; got "{self.cell}"')
        return self


class TranslatorTraining(ExampleTrainingConfig):
    """How the network is trained."""

    label_smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="Part of a token's probability that is spread over all tokens."
    )
    scheduled_sampling: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability that the decoder reads a token of its own in place of the true one, at the end of "
        "training; it rises linearly from 0.",
    )
    sample_count: int = Field(
        default=3, ge=0, description="Sentences of the validation part that are translated at each validation."
    )


class TranslatorJob(Job):
    """Everything that `gatewise train translator` needs but the sentences themselves."""

    task: ClassVar[str] = "translator"

    data: TranslatorData = TranslatorData()
    model: TranslatorConfig = TranslatorConfig()
    training: TranslatorTraining = TranslatorTraining()

    @model_validator(mode="after")
    def _agree(self) -> "TranslatorJob":
        size = self.data.vocabulary_size
        if self.data.tokenizer == "bpe" and size != "auto" and size < 256:
            raise ValueError(f"a bpe tokenizer needs data.vocabulary_size >= 256, one for each byte; got {size}")
        return self
