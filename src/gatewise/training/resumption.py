"""What a run that is started, or goes on, must agree with, whatever its task."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gatewise.config import Job
from gatewise.errors import ConfigError, RunError
from gatewise.run_folder import RunFolder
from gatewise.training.checkpoint import Checkpoint
from gatewise.training.observer import Observer

CHANGEABLE = {  # when a run is resumed: how it goes on, and for how long, but not what is trained on what
    "model": {"backend"},
    "data": set(),
    "training": {
        "epochs",
        "max_steps",
        "learning_rate",
        "schedule",
        "warmup_steps",
        "weight_decay",
        "clip_norm",
        "validate_every",
        "patience",
        "checkpoint_every",
        "log_every",
        "sample_length",
        "sample_prompt",
        "device",
        "threads",
    },
}


def check_unchanged(folder: RunFolder, stored: Job, job: Job) -> None:
    """ConfigError if the job differs from the one that the run was started with in more than CHANGEABLE."""
    for table, changeable in CHANGEABLE.items():
        was, now = (getattr(source, table).model_dump(exclude=changeable) for source in (stored, job))
        for key in was:
            if was[key] != now[key]:
                raise ConfigError(
                    f"{folder.path}: cannot be resumed with {table}.{key} = {now[key]}: it was started with "
                    f"{was[key]}; leave the key as it was, or start a new run"
                )


def say_other_threads(checkpoint: Checkpoint, observer: Observer) -> None:
    """A message if the checkpoint was made with another number of threads."""
    if checkpoint.threads != torch.get_num_threads():
        observer.on_message(
            f"the run was trained with {checkpoint.threads} threads and goes on with {torch.get_num_threads()}: "
            "rounding differs, so it is not bit for bit what it would have become"
        )


@contextmanager
def folder_beside(folder: RunFolder) -> Iterator[Path]:
    """A temporary folder on the disk of the run, so that a file can be moved into the run by a rename."""
    path = folder.path.absolute()
    beside = path / ".new" if path.is_dir() else path.with_name(f".{path.name}.new")
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{folder.path}: the folder cannot be made: {error.strerror}") from error
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)
