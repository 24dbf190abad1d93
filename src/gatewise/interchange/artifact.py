"""The folder of an artifact: it appears whole, or not at all; and the packages that artifacts need."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatewise.errors import BackendError, ExportError, InputError

PROOF = "parity.json"  # what every artifact has, and by which its folder is known again


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write an artifact to, which becomes `path` at the end; after an error nothing of it is left.

    Raises InputError if something lies at `path` already, unless `overwrite` lets an artifact be replaced, and nothing
    else; ExportError where it cannot be written.
    """
    path = path.absolute()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a folder for the artifact")
    if path.exists() and any(path.iterdir()):
        if not overwrite:
            raise InputError(f"{path}: exists already; overwrite it, or name another folder for the artifact")
        if not (path / PROOF).is_file():
            raise InputError(
                f"{path}: holds something else than an artifact, which is not overwritten; name another folder"
            )
    missing = [folder for folder in path.parents if not folder.exists()]
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
        for folder in missing if not path.exists() else []:
            with suppress(OSError):  # it is not there, or something else is in it
                folder.rmdir()


def require_package(name: str, extra: str, caller: str) -> None:
    """Raise BackendError unless a package is installed, which the extra of that name brings."""
    try:
        found = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # of one that is only half there
        found = False
    if not found:
        raise BackendError(
            f"{caller}: the package {name} is not installed; install it with: pip install 'gatewise[{extra}]'"
        )
