"""From a text and a configuration, or from a run that was stopped, to all that a training needs before it goes on."""

import json
import os
import zlib
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
from gatewise.errors import TextError
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.run_folder import RunFolder, atomic_write
from gatewise.training.checkpoint import Checkpoint, load_checkpoint
from gatewise.training.environment import environment
from gatewise.training.observer import Observer
from gatewise.training.resumption import check_unchanged, folder_beside, say_other_threads
from gatewise.training.saved_model import read_model, write_documents, write_job
from gatewise.training.writing import read_prompt


@dataclass(frozen=True)
class PreparedText:
    """A text and the network that is to read it; the checkpoint only if a training goes on with one."""

    tokenizer: Tokenizer
    token_file: TokenFile
    network: LanguageModelNetwork
    checkpoint: Checkpoint | None = None


def start(
    text: str | Path, folder: RunFolder, job: LanguageModelJob, device: torch.device, *, overwrite: bool
) -> PreparedText:
    """A new run. All that can be refused is refused before the folder, or an older run in it, is touched.

    Raises TextError, PromptError, ConfigError, BackendError, RunError.
    """
    folder.check_new(overwrite)
    build_network(2, job.model, device)  # refused before a long text is read
    with folder_beside(folder) as beside:
        tokenizer, token_file = tokenize(text, job.data, beside / folder.tokens.name)
        cut_windows(torch.empty(token_file.length, device="meta"), job)  # the length alone decides
        read_prompt(job.training.sample_prompt, tokenizer, job.data)
        network = build_network(tokenizer.size, job.model, device)
        folder.create(overwrite)
        write_job(folder, job)
        write_documents(folder, {"tokenizer": tokenizer.to_json()})
        about = {"text": Path(text).name, "characters": token_file.characters, "tokens": token_file.length}
        atomic_write(folder.environment, json.dumps(environment(device) | about, indent=2).encode())
        os.replace(token_file.path, folder.tokens)
    return PreparedText(tokenizer, replace(token_file, path=folder.tokens), network)


def resume(
    text: str | Path | None, folder: RunFolder, job: LanguageModelJob, device: torch.device, observer: Observer
) -> PreparedText:
    """The run in the folder, as it was at its last checkpoint.

    text: may be None, for the run has kept its tokens; if it can be read, it must be the same text.
    Raises RunError; ConfigError if `job` differs from the run's own in more than CHANGEABLE; TextError; PromptError.
    """
    stored, documents, _, _ = read_model(folder, job.task)
    tokenizer = Tokenizer.from_json(documents["tokenizer"])
    check_unchanged(folder, stored, job)
    checkpoint = load_checkpoint(folder.checkpoint)
    token_file = TokenFile.from_json(checkpoint.data, folder.tokens)
    if text is not None:
        _check_text(text, folder, job.data, tokenizer, token_file, observer)
    say_other_threads(checkpoint, observer)
    read_prompt(job.training.sample_prompt, tokenizer, job.data)
    network = build_network(tokenizer.size, job.model, device)
    write_job(folder, job)
    folder.truncate_metrics(checkpoint.progress.step)
    return PreparedText(tokenizer, token_file, network, checkpoint)


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
    if job.data.windows == "random":
        windows: TrainingWindows = RandomWindows(training, *sizes, job.training.seed)
    else:
        windows = ConsecutiveWindows(training, *sizes, job.training.seed, job.training.length_variation)
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
