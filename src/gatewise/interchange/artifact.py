"""The folder of an artifact: it appears whole, or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gatewise.errors import ExportError, InputError


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write an artifact to, which becomes `path` at the end; after an error nothing of it is left.

    Raises InputError if something lies at `path` already, unless `overwrite` lets a folder be replaced; ExportError
    where it cannot be written.
    """
    path = path.absolute()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a folder for the artifact")
    if path.exists() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{path}: exists already; overwrite it, or name another folder for the artifact")
    beside, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    try:
        for left in (beside, old):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        if path.exists():
            path.rename(old)
        beside.rename(path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for left in (beside, old):
            shutil.rmtree(left, ignore_errors=True)
