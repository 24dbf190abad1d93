"""Typed configurations: what can be set, its default, range and meaning, once for TOML, command line and Python.

An unknown key is refused with the nearest known one; a wrong value is refused with what is allowed.
TOML has no null: where a key may be left open, both TOML and the command line spell it "none".
"""

import difflib
import json
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from gatewise.errors import ConfigError

Reset = Literal["after", "before"]
Backend = Literal["auto", "native", "torch", "reference"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["float32", "bf16"]


class Section(BaseModel):
    """A table of a configuration file: immutable, typed, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> object:
        """The value, with "none" read as None where the key may be left open."""
        if isinstance(value, str):
            value.encode()  # a command line can hold bytes that are no text; no TOML file can
        return None if value == "none" and _optional(cls.model_fields[str(info.field_name)]) else value


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


class TrainingConfig(Section):
    """How the network is trained."""

    epochs: int = Field(default=10, ge=1, description="Passes over the training text.")
    max_steps: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this many optimizer steps, whatever the epochs say; none: the epochs decide.",
    )
    batch_size: int = Field(default=32, ge=1, description="Sequences in a batch.")
    sequence_length: int = Field(default=64, ge=1, description="Steps of truncated backpropagation through time.")
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
    sample_length: int = Field(
        default=200, ge=0, description="Tokens of the sample written at each validation; 0: none."
    )
    sample_prompt: str = Field(
        default="", description="What the samples continue; empty: the first characters of the validation text."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of the parameters, batches, dropout and samples.")
    device: Device = Field(default="auto", description="Where to compute; auto: cuda, then mps, then cpu.")
    precision: Precision = Field(
        default="float32",
        description="Arithmetic of the steps; bf16: of 16 bits where torch.autocast holds it safe, weights of 32.",
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="Processor threads; none: as torch chooses.")

    @model_validator(mode="after")
    def _agree(self) -> "TrainingConfig":
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f'momentum needs optimizer = "sgd"; got "{self.optimizer}"')
        return self


class LanguageModelJob(Section):
    """Everything that `gatewise train language-model` needs but the text itself."""

    data: TextConfig = TextConfig()
    model: LanguageModelConfig = LanguageModelConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _agree(self) -> "LanguageModelJob":
        if self.training.patience and not self.data.validation_fraction:
            raise ValueError("training.patience needs data.validation_fraction > 0: without validation it cannot stop")
        return self


S = TypeVar("S", bound=Section)


def load_toml(path: Path | str) -> dict[str, Any]:
    """The tables of a TOML file, not yet validated. ConfigError: missing, a folder, not UTF-8, broken TOML."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except OSError as error:
        what = "is a folder" if path.is_dir() else f"cannot be read: {error.strerror}"
        raise ConfigError(f"{path}: {what}; expected a TOML file") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML at {_place(str(error), text)}") from None


def _place(message: str, text: str) -> str:
    """`line 3, column 7: what is wrong`, from tomllib's `What is wrong (at line 3, column 7)`."""
    what, _, where = message.removesuffix(")").rpartition(" (at ")
    if where == "end of document":
        lines = text.rstrip("\n").split("\n")
        where = f"line {len(lines)}, column {len(lines[-1]) + 1}"
    return f"{where}: {what[:1].lower()}{what[1:]}"


def validate(
    section: type[S],
    mapping: Mapping[str, Any],
    *,
    source: str,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> S:
    """The section with the values of `mapping`; a key that is not named has its default.

    mapping: keys and values as TOML gives them.
    source: what the error names first: a file, a class.
    options: tables of values from the command line, as text. They win over those of `mapping`, and an error in one
        names the option (`--training.epochs`) in place of the source.

    Raises ConfigError, one line: the key, what was expected, what came; for an unknown key the nearest known one.
    """
    options = options or {}
    merged = dict(mapping)
    for name, values in options.items():
        table = merged.get(name, {})
        if values and isinstance(table, Mapping):
            fields = _keys(section)
            merged[name] = {**table, **{key: _parse(fields[f"{name}.{key}"], text) for key, text in values.items()}}
    try:
        return section.model_validate(merged)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        raise ConfigError(f"{source}: {_unknown(section, key)}")
    if len(location) == 2 and location[1] in options.get(location[0], {}):
        where = f"--{key.replace('_', '-')}"
    else:
        where = f"{source}: {key}" if key else source
    if problem["type"] == "value_error":
        raise ConfigError(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
    raise ConfigError(f"{where}: {_mismatch(_keys(section)[key], problem['input'])}")


def _keys(section: type[Section]) -> dict[str, FieldInfo]:
    """Every key of a section by its dotted name, tables included."""
    keys: dict[str, FieldInfo] = {}
    for name, field in section.model_fields.items():
        keys[name] = field
        if table := _table(field):
            keys |= {f"{name}.{key}": inner for key, inner in _keys(table).items()}
    return keys


def _table(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, if it holds one."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _optional(field: FieldInfo) -> bool:
    return NoneType in get_args(field.annotation)


def _kind(field: FieldInfo) -> Any:
    """The type of a field, without its `| None`."""
    return get_args(field.annotation)[0] if _optional(field) else field.annotation


def _parse(field: FieldInfo, text: Any) -> Any:
    """The number that a command line's text stands for; anything else as it is."""
    if isinstance(text, str) and _kind(field) in (int, float):
        try:
            return _kind(field)(text)
        except ValueError:
            return text
    return text


def in_words(kind: Any) -> str:
    """What a value of a type, or of a type `| None`, is called: `a whole number`, `one of after, before`."""
    if NoneType in get_args(kind):
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return words.get(kind, "a table of keys")


def _expected(field: FieldInfo) -> str:
    """What a key takes: `a whole number >= 1 or none`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [
        f"{sign} {getattr(constraint, name)}"
        for constraint in field.metadata
        for name, sign in signs.items()
        if hasattr(constraint, name)
    ]
    return " ".join(
        filter(None, [in_words(field.annotation), " and ".join(bounds), "or none" if _optional(field) else ""])
    )


def _mismatch(field: FieldInfo, value: object) -> str:
    """`expected one of after, before, got "befor"; did you mean "before"?`"""
    choices = get_args(_kind(field)) if get_origin(_kind(field)) is Literal else ()
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    shown = _toml(value)
    return f"expected {_expected(field)}, got {shown if len(shown) <= 80 else shown[:77] + '...'}{hint}"


def _unknown(section: type[Section], key: str) -> str:
    """`unknown key "training.learning_rat"; did you mean "training.learning_rate"?`"""
    keys = list(_keys(section))
    if near := nearest(key, keys):
        return f'unknown key "{key}"; did you mean "{near}"?'
    here = [known.rpartition(".")[2] for known in keys if known.rpartition(".")[0] == key.rpartition(".")[0]]
    return f'unknown key "{key}"; known here: {", ".join(here)}'


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known dotted key that is most likely meant: the same name in any table, else a similar one, here first."""
    table, _, name = key.replace("-", "_").rpartition(".")
    everywhere = {other.rpartition(".")[2]: other for other in known}
    here = [last for last, other in everywhere.items() if other.rpartition(".")[0] == table]
    near = [name] if name in everywhere else difflib.get_close_matches(name, here)
    near = near or difflib.get_close_matches(name, everywhere)
    return everywhere[near[0]] if near else None


def dump_toml(job: Section) -> str:
    """A job (a section of tables) as TOML: every key with its value, so that it loads back to an equal job."""
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table) for name, table in job
    )


def commented_toml(job: type[Section]) -> str:
    """A job's defaults as TOML, each key with its meaning and range in a comment; it loads back to the defaults.

    A key whose default is none stands in a comment itself.
    """
    lines = []
    for name, field in job.model_fields.items():
        table = _table(field) or Section
        lines += [f"# {table.__doc__}", f"[{name}]"]
        for key, inner in table.model_fields.items():
            lines += textwrap.wrap(inner.description or "", 100, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"#   {_expected(inner)}")
            lines += [f"{'# ' if inner.default is None else ''}{key} = {_toml(inner.default)}", ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    """A value as TOML writes it; None as "none"."""
    if isinstance(value, float):
        return repr(value)  # JSON has other words for nan and inf
    text = json.dumps("none" if value is None else value, ensure_ascii=False, default=str)
    return text.replace("\x7f", "\\u007f")  # the one control character that JSON allows in a string and TOML does not
