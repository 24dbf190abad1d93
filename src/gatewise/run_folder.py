"""The folder of a run: the names of its files, how they are written so that none is ever half-written, and checks.

    config.toml                       the resolved configuration; its first line is the format of the folder
    tokenizer.json                    text to tokens and back
    labels.json  scaler.json          classes to labels; features to a common scale
    series.json                       columns, frequency and scales of series
    data.json                         what the training read, how it was split, what was decided by it
    evaluation.json                   how good the model is, in full
    model.safetensors                 the best weights by validation (the last ones, if nothing is validated)
    metrics.jsonl  samples.jsonl      a line a log step or validation; a line a sample
    training_state/last.safetensors   all that a training goes on from, bit for bit
    training_state/tokens.bin         the text as tokens
    training_state/data.safetensors   the examples, as the network reads them
    environment.json  report.html     where it was trained; what came of it

A whole file is written to a temporary name, flushed to the disk and renamed: whatever stops the process, a name holds
either the old contents or the new ones.
"""

import contextlib
import hashlib
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gatewise.config import JOBS
from gatewise.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
# What a model may need, beside its weights, to read its input and to judge its output.
DOCUMENTS = ("tokenizer", "target_tokenizer", "words", "labels", "scaler", "series", "baseline")
TASKS = (*JOBS, "network")  # what a run can be of; a config.toml that names none is of the first


class RunFolder:
    """Where the files of a run lie; temporary: they are gone after the training, so that none can go on from them."""

    def __init__(self, path: str | Path, *, temporary: bool = False) -> None:
        self.path = Path(path)
        self.temporary = temporary
        self.config = self.path / "config.toml"
        self.tokenizer = self.document("tokenizer")
        self.data = self.path / "data.json"
        self.evaluation = self.path / "evaluation.json"
        self.model = self.path / "model.safetensors"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples.jsonl"
        self.environment = self.path / "environment.json"
        self.report = self.path / "report.html"
        self.training_state = self.path / "training_state"
        self.checkpoint = self.training_state / "last.safetensors"
        self.tokens = self.training_state / "tokens.bin"
        self.examples = self.training_state / "data.safetensors"

    def document(self, name: str) -> Path:
        """Where a model's document of that name lies: what it needs to read its input."""
        return self.path / f"{name}.json"

    def check_new(self, overwrite: bool = False) -> None:
        """RunError if a run lies here that must not be overwritten, or no folder can be made here."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: is a file; name a folder for the run")
        if not overwrite and any(file.exists() for file in self._files()):
            raise RunError(
                f"{self.path}: a run lies here already; resume it, overwrite it, or name another folder for the new one"
            )

    def create(self, overwrite: bool = False) -> None:
        """Make the folder, without any file of an earlier run; other files in it stay. Raises RunError."""
        self.check_new(overwrite)
        try:
            self.training_state.mkdir(parents=True, exist_ok=True)
            for file in self._files():
                file.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{self.path}: the folder cannot be made: {error.strerror}") from error

    def check_existing(self) -> str:
        """The task of the run that lies here. RunError unless this version can read it."""
        if not self.path.exists():
            raise RunError(f"{self.path}: no such run folder")
        if not self.path.is_dir():
            raise RunError(f"{self.path}: is a file; expected the folder of a run")
        if not self.config.exists():
            raise RunError(f"{self.path}: not a run folder, or half-written: it holds no {self.config.name}")
        try:
            content = tomllib.loads(self.config.read_bytes().decode())
        except (ValueError, OSError) as error:
            raise RunError(f"{self.config}: damaged: {error}") from error
        _check_format(self.config, content.get("format"))
        task = content.get("task", TASKS[0])
        if task not in TASKS:
            raise RunError(f"{self.config}: expected task to be one of {', '.join(TASKS)}, got {task!r}")
        return task

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, oldest first. RunError if one is damaged."""
        return read_lines(self.metrics)

    def read_samples(self) -> list[dict[str, Any]]:
        """The lines of samples.jsonl, oldest first. RunError if one is damaged."""
        return read_lines(self.samples)

    def truncate_metrics(self, step: int) -> None:
        """Drop the metrics and samples of the steps after `step`: a training that goes on from there repeats them."""
        for path in (self.metrics, self.samples):
            if path.exists():
                kept = [line for line in read_lines(path) if line["step"] <= step]
                atomic_write(path, b"".join(map(_json_line, kept)))

    def _files(self) -> list[Path]:
        """Every file of a run; the weights first, so that what is left of a broken removal is no whole run."""
        state = [self.checkpoint, self.model, self.tokens, self.examples]
        documents = [self.document(name) for name in DOCUMENTS]
        about = [self.data, self.evaluation, self.metrics, self.samples, self.environment, self.report]
        return [*state, *documents, *about, self.config]


def _check_format(path: Path, written: object) -> None:
    if not isinstance(written, int) or written < 1:
        raise RunError(f"{path}: damaged: expected format = {FORMAT}, got {written!r}")
    if written > FORMAT:
        raise RunError(
            f"{path}: written by a newer gatewise (format {written}, this one reads {FORMAT}); upgrade gatewise"
        )


def atomic_write(path: Path, data: bytes) -> None:
    """Make `data` the contents of `path`, or leave it as it is and raise RunError (the disk is full, say)."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` at the end: whole, or, after an error, not at all.

    Raises RunError where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        kept = "; what it held before is kept" if path.exists() else ""
        raise RunError(f"{path}: cannot be written: {error.strerror or error}{kept}") from error


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append `line` to a file of JSON lines. Raises RunError."""
    try:
        with open(path, "ab") as file:
            file.write(_json_line(line))
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines: none if there is no file, without a last line that was cut off in writing.

    Raises RunError for a damaged line.
    """
    if not path.exists():
        return []
    *whole, _cut_off = path.read_bytes().split(b"\n")
    lines = []
    for number, text in enumerate(whole, 1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise RunError(f"{path}: line {number} is damaged: {error}") from error
    return lines


def _json_line(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def save_tensors(path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, Any]) -> None:
    """Write a safetensors file whose header holds `metadata` (as JSON), the format and a SHA-256 over everything.

    Raises RunError if it cannot be written; the file that was there before is kept.
    """
    import safetensors.torch

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": FORMAT, **metadata}
    metadata["sha256"] = _sha256(tensors, metadata)
    header = {"format": "pt", "gatewise": json.dumps(metadata)}
    atomic_write(path, safetensors.torch.save(tensors, header))


def load_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """The tensors and the metadata that save_tensors wrote.

    Raises RunError: missing, truncated, changed since it was written, of a newer format.
    """
    import safetensors.torch

    metadata = read_header(path)
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: damaged: {error}") from error
    if metadata.pop("sha256") != _sha256(tensors, metadata):
        raise RunError(f"{path}: damaged: its contents do not agree with its SHA-256")
    return tensors, metadata


def read_header(path: Path) -> dict[str, Any]:
    """The metadata that save_tensors wrote, "format" and "sha256" among them; reads no tensor. Raises RunError."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = file.read(min(size, path.stat().st_size))
        metadata = json.loads(json.loads(header)["__metadata__"]["gatewise"])
        written, _ = metadata["format"], metadata["sha256"]
    except FileNotFoundError:
        raise RunError(f"{path}: missing: the run folder is half-written or was not copied whole") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: damaged: its header cannot be read") from error
    _check_format(path, written)
    return metadata


def _sha256(tensors: "dict[str, Tensor]", metadata: dict[str, Any]) -> str:
    """SHA-256 over the metadata and every tensor's name, type, shape and bytes."""
    import torch

    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
