"""Typed configurations: what can be set, its default, range and meaning, once for TOML, command line and Python.

An unknown key is refused with the nearest known one; a wrong value is refused with what is allowed.
TOML has no null: where a key may be left open, both TOML and the command line spell it "none". A key whose default is
"auto" is decided when the data have been read; the configuration that a run keeps has what was decided.
"""

import difflib
import json
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from gatewise.errors import ConfigError

Reset = Literal["after", "before"]
Backend = Literal["auto", "native", "torch", "reference"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["float32", "bf16"]
Auto = Literal["auto"]
Missing = Literal["error", "previous", "linear"]
Cell = Literal["gru", "lstm", "rnn"]
SplitRule = Literal["auto", "random", "stratified", "group", "time"]


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
    if problem["type"] != "extra_forbidden":
        while key and key not in _keys(section):  # of an alternative ("auto" or a number) the place names which one
            key = key.rpartition(".")[0]
        location = key.split(".")
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


def _alternatives(kind: Any) -> list[tuple[Any, list[Any]]]:
    """Each type that a value may have, None aside, with its constraints: of `int | Auto | None` the first two."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    found = []
    for member in members:
        if get_origin(member) is Annotated:
            member, *metadata = get_args(member)
            constraints = [constraint for each in metadata for constraint in getattr(each, "metadata", [each])]
            found.append((member, constraints))
        elif member is not NoneType:
            found.append((member, []))
    return found


def _choices(field: FieldInfo) -> list[str]:
    """The words that a key takes; none for a number or a text."""
    return [
        word for kind, _ in _alternatives(field.annotation) if get_origin(kind) is Literal for word in get_args(kind)
    ]


def _parse(field: FieldInfo, text: Any) -> Any:
    """The number that a command line's text stands for; anything else as it is."""
    for kind, _ in _alternatives(field.annotation):
        if isinstance(text, str) and kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def in_words(kind: Any) -> str:
    """What a value of a type is called: `a whole number`, `one of after, before`, `a number or auto`; None aside."""
    return " or ".join(_in_words(member, []) for member, _ in _alternatives(kind))


def _in_words(kind: Any, constraints: list[Any]) -> str:
    """What a value of one type is called, with its range: `a whole number >= 1`."""
    if get_origin(kind) is Literal:
        words = get_args(kind)
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [
        f"{sign} {getattr(constraint, name)}"
        for constraint in constraints
        for name, sign in signs.items()
        if hasattr(constraint, name)
    ]
    return " ".join(filter(None, [words.get(kind, "a table of keys"), " and ".join(bounds)]))


def _expected(field: FieldInfo) -> str:
    """What a key takes: `a whole number >= 1 or none`."""
    kinds = [_in_words(kind, inner or field.metadata) for kind, inner in _alternatives(field.annotation)]
    return " or ".join([*kinds, "none"] if _optional(field) else kinds)


def _mismatch(field: FieldInfo, value: object) -> str:
    """`expected one of after, before, got "befor"; did you mean "before"?`"""
    near = difflib.get_close_matches(str(value), _choices(field), n=1)
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
