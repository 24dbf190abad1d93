"""JSON documents of a run folder that a vocabulary, a label set or a scaler is kept in: read and checked alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gatewise.errors import InputError

T = TypeVar("T")
VERSION = 1


def write_document(kind: str, content: dict[str, Any]) -> str:
    """The document of something of this kind; the same for equal contents."""
    return json.dumps({"kind": kind, "version": VERSION, **content}, ensure_ascii=False) + "\n"


def read_document(kind: str, document: str) -> dict[str, Any]:
    """The contents that `write_document` wrote; InputError: no JSON, of another kind, from a newer version."""
    try:
        content = json.loads(document)
    except json.JSONDecodeError as error:
        raise InputError(f"not a {kind}: no JSON at line {error.lineno}, column {error.colno}") from error
    if not isinstance(content, dict) or content.get("kind") != kind or not isinstance(content.get("version"), int):
        raise InputError(f'not a {kind}: expected a JSON object with "kind": "{kind}" and its version')
    if content["version"] > VERSION:
        raise InputError(
            f"written by a newer gatewise ({kind} version {content['version']}, this one reads {VERSION}); "
            "upgrade gatewise"
        )
    return content


def load_document(kind: str, path: str | Path, from_json: Callable[[str], T]) -> T:
    """What `from_json` makes of a file; InputError, naming the file, if it is missing, damaged or newer."""
    try:
        return from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a {kind}: no UTF-8 at byte {error.start}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
