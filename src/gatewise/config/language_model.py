"""The configuration of a language model."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gatewise.config.section import Backend, Reset, Section
from gatewise.config.training import BaseTrainingConfig, Job


class TextConfig(Section):
    """How a text becomes tokens, and windows of tokens."""

    tokenizer: Literal["char", "word", "bpe"] = Field(
        default="char", description="Unit of the text that one step reads."
    )
    vocabulary_size: int = Field(default=8192, ge=2, description="Most tokens that a word or bpe tokenizer may hold.")
    lower_case: bool = Field(default=False, description="Turn the text into lower case first.")
    letters_only: bool = Field(
        default=False, description="Replace each run of anything but the letters A to Z by one space."
    )
    max_characters: int | None = Field(
        default=None, ge=1, description="Use only this many characters from the start of the text; none: all."
    )
    validation_fraction: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="Part of the text, its end, kept for validation; 0: none, the last step is kept.",
    )
    windows: Literal["consecutive", "random"] = Field(
        default="consecutive",
        description="consecutive: the state is carried from window to window; random: it starts at zero.",
    )

    @model_validator(mode="after")
    def _agree(self) -> "TextConfig":
        if self.tokenizer == "bpe" and self.vocabulary_size < 256:
            raise ValueError(
                f"a bpe tokenizer needs vocabulary_size >= 256, one for each byte; got {self.vocabulary_size}"
            )
        return self


class LanguageModelConfig(Section):
    """The network of a language model."""

    reset: Reset = Field(
        default="after",
        description="Where the reset gate acts: after (torch, cuDNN) or before (Cho 2014) the recurrent product.",
    )
    input: Literal["embedding", "one-hot"] = Field(
        default="embedding", description="How a token enters the first layer."
    )
    embedding_size: int = Field(default=64, ge=1, description="Size of a token's embedding; not used with one-hot.")
    hidden_size: int = Field(default=256, ge=1, description="Units of every GRU layer.")
    num_layers: int = Field(default=1, ge=1, description="GRU layers, one on the other.")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that an activation between layers is dropped in training."
    )
    weight_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Probability that a recurrent weight is dropped for a step of training (Merity 2017).",
    )
    recurrent_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Probability that a unit of the state is hidden from the recurrent weights in training, one mask "
        "for all steps of a window (Gal 2016).",
    )
    tied: bool = Field(
        default=False, description="Share the embedding with the output; needs embedding_size = hidden_size."
    )
    backend: Backend = Field(default="auto", description="Which implementation computes the recurrence.")

    @model_validator(mode="after")
    def _agree(self) -> "LanguageModelConfig":
        if self.tied and self.input == "one-hot":
            raise ValueError('tied needs input = "embedding": one-hot tokens have no embedding to share')
        if self.tied and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"tied needs embedding_size = hidden_size; got {self.embedding_size} and {self.hidden_size}"
            )
        return self


class TrainingConfig(BaseTrainingConfig):
    """How the network is trained."""

    epochs: int = Field(default=10, ge=1, description="Passes over the training text.")
    sequence_length: int = Field(default=64, ge=1, description="Steps of truncated backpropagation through time.")
    length_variation: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Part of sequence_length by which each window's end is moved at random, so that it is not always "
        "the same steps that gradients do not pass; needs data.windows = consecutive.",
    )
    sample_length: int = Field(
        default=200, ge=0, description="Tokens of the sample written at each validation; 0: none."
    )
    sample_prompt: str = Field(
        default="", description="What the samples continue; empty: the first characters of the validation text."
    )


class LanguageModelJob(Job):
    """Everything that `gatewise train language-model` needs but the text itself."""

    task: ClassVar[str] = "language-model"

    data: TextConfig = TextConfig()
    model: LanguageModelConfig = LanguageModelConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _agree(self) -> "LanguageModelJob":
        if self.training.patience and not self.data.validation_fraction:
            raise ValueError("training.patience needs data.validation_fraction > 0: without validation it cannot stop")
        if self.training.length_variation and self.data.windows != "consecutive":
            raise ValueError("training.length_variation needs data.windows = consecutive: other windows do not go on")
        return self
