"""From a text and a configuration, or from a run that was stopped, to all that a training needs before it goes on."""

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gatewise.config import LanguageModelConfig, LanguageModelJob, TextConfig
from gatewise.data import tokenizers
from gatewise.data.batches import (
    ConsecutiveWindows,
    EvaluationWindows,
    RandomWindows,
    TokenFile,
    TrainingWindows,
    split,
    write_tokens,
)
from gatewise.data.text import iter_text
from gatewise.data.tokenizers import Tokenizer
from gatewise.errors import ConfigError, RunError, TextError
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.run_folder import RunFolder, atomic_write
from gatewise.training.checkpoint import Checkpoint, load_checkpoint
from gatewise.training.environment import environment
from gatewise.training.observer import Observer
from gatewise.training.saved_model import read_model, write_job, write_tokenizer
from gatewise.training.writing import read_prompt

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


@dataclass(frozen=True)
class Prepared:
    """What a training starts from; the checkpoint only if it goes on with one."""

    tokenizer: Tokenizer
    token_file: TokenFile
    network: LanguageModelNetwork
    checkpoint: Checkpoint | None = None


def start(
    text: str | Path, folder: RunFolder, job: LanguageModelJob, device: torch.device, *, overwrite: bool
) -> Prepared:
    """A new run. All that can be refused is refused before the folder, or an older run in it, is touched.

    Raises TextError, PromptError, ConfigError, BackendError, RunError.
    """
    folder.check_new(overwrite)
    build_network(2, job.model, device)  # refused before a long text is read
    with _folder_beside(folder) as beside:
        tokenizer, token_file = tokenize(text, job.data, beside / folder.tokens.name)
        cut_windows(torch.empty(token_file.length, device="meta"), job)  # the length alone decides
        read_prompt(job.training.sample_prompt, tokenizer, job.data)
        network = build_network(tokenizer.size, job.model, device)
        folder.create(overwrite)
        write_job(folder, job)
        write_tokenizer(folder, tokenizer)
        about = {"text": Path(text).name, "characters": token_file.characters, "tokens": token_file.length}
        atomic_write(folder.environment, json.dumps(environment(device) | about, indent=2).encode())
        os.replace(token_file.path, folder.tokens)
    return Prepared(tokenizer, replace(token_file, path=folder.tokens), network)


def resume(
    text: str | Path | None, folder: RunFolder, job: LanguageModelJob, device: torch.device, observer: Observer
) -> Prepared:
    """The run in the folder, as it was at its last checkpoint.

    text: may be None, for the run has kept its tokens; if it can be read, it must be the same text.
    Raises RunError; ConfigError if `job` differs from the run's own in more than CHANGEABLE; TextError; PromptError.
    """
    stored, tokenizer, _, _ = read_model(folder)
    _check_unchanged(folder, stored, job)
    checkpoint = load_checkpoint(folder.checkpoint)
    token_file = TokenFile.from_json(checkpoint.text, folder.tokens)
    if text is not None:
        _check_text(text, folder, job.data, tokenizer, token_file, observer)
    if checkpoint.threads != torch.get_num_threads():
        observer.on_message(
            f"the run was trained with {checkpoint.threads} threads and goes on with {torch.get_num_threads()}: "
            "rounding differs, so it is not bit for bit what it would have become"
        )
    read_prompt(job.training.sample_prompt, tokenizer, job.data)
    network = build_network(tokenizer.size, job.model, device)
    write_job(folder, job)
    folder.truncate_metrics(checkpoint.progress.step)
    return Prepared(tokenizer, token_file, network, checkpoint)


def tokenize(text: str | Path, data: TextConfig, path: Path) -> tuple[Tokenizer, TokenFile]:
    """A tokenizer fitted to the text, and the file, at `path`, of the text's tokens. Raises TextError, RunError."""
    tokenizer = tokenizers.fit(iter_text(text, data), data)
    return tokenizer, write_tokens(iter_text(text, data), tokenizer, path)


def cut_windows(tokens: Tensor, job: LanguageModelJob) -> tuple[TrainingWindows, EvaluationWindows | None]:
    """Windows of the training text, and of the validation text if a part is kept for it.

    tokens (N,): the whole text. Raises TextError if a part is too short for one window.
    """
    training, validation = split(tokens, job.data.validation_fraction)
    sizes = job.training.batch_size, job.training.sequence_length
    kinds = {"consecutive": ConsecutiveWindows, "random": RandomWindows}
    windows = kinds[job.data.windows](training, *sizes, job.training.seed)
    if job.data.validation_fraction == 0:
        return windows, None
    if len(validation) < 2:
        raise TextError(
            f"data.validation_fraction = {job.data.validation_fraction} of {len(tokens)} tokens leaves "
            f"{len(validation)} for validation, and it needs 2; raise it, or set it to 0 to do without validation"
        )
    return windows, EvaluationWindows(validation, *sizes)


def build_network(vocabulary_size: int, config: LanguageModelConfig, device: torch.device) -> LanguageModelNetwork:
    """The network with its first weights, from torch's random generator, on the device.

    Raises BackendError now, rather than in the first step, if its backend cannot serve.
    """
    network = LanguageModelNetwork(vocabulary_size, config).to(device)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 1, dtype=torch.int64, device=device))
    return network


@contextmanager
def _folder_beside(folder: RunFolder) -> Iterator[Path]:
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


def _check_unchanged(folder: RunFolder, stored: LanguageModelJob, job: LanguageModelJob) -> None:
    for table, changeable in CHANGEABLE.items():
        was, now = (getattr(source, table).model_dump(exclude=changeable) for source in (stored, job))
        for key in was:
            if was[key] != now[key]:
                raise ConfigError(
                    f"{folder.path}: cannot be resumed with {table}.{key} = {now[key]}: it was started with "
                    f"{was[key]}; leave the key as it was, or start a new run"
                )


def _check_text(
    text: str | Path, folder: RunFolder, data: TextConfig, tokenizer: Tokenizer, kept: TokenFile, observer: Observer
) -> None:
    """TextError if the text's tokens are not those that the run has kept; a message if the text is gone."""
    length = crc32 = 0
    try:
        for piece in iter_text(text, data):
            tokens = tokenizer.encode(piece)
            length, crc32 = length + len(tokens), zlib.crc32(tokens.astype(kept.dtype).tobytes(), crc32)
    except TextError as error:
        observer.on_message(f"{error}; going on with the tokens that {folder.path} has kept")
        return
    if (length, crc32) != (kept.length, kept.crc32):
        raise TextError(
            f"{text}: not the text that {folder.path} is trained on: {length} tokens, the run has "
            f"{'as many, but others' if length == kept.length else kept.length}; resume it with its own text"
        )
