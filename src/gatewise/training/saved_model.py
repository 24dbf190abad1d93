"""A model in a run folder: configuration, tokenizer and weights, which must belong together."""

import hashlib
from typing import Any

from torch import Tensor

from gatewise.config import LanguageModelJob, dump_toml, load_toml, validate
from gatewise.data.tokenizers import Tokenizer
from gatewise.errors import ConfigError, InputError, RunError
from gatewise.run_folder import FORMAT, RunFolder, atomic_write, load_tensors

TASK = "language-model"


def write_job(folder: RunFolder, job: LanguageModelJob) -> None:
    """Write config.toml. Raises RunError."""
    atomic_write(folder.config, f'format = {FORMAT}\ntask = "{TASK}"\n\n{dump_toml(job)}'.encode())


def read_job(folder: RunFolder) -> LanguageModelJob:
    """What config.toml holds. RunError: no run here, damaged, newer."""
    task = folder.check_existing()
    if task != TASK:
        hint = "; gatewise.load(run).predict(...) computes its outputs" if task == "network" else ""
        raise RunError(f"{folder.path}: expected the run of a {TASK}, got one of a {task}{hint}")
    try:
        content = load_toml(folder.config)
        content.pop("format")
        content.pop("task", None)
        return validate(LanguageModelJob, content, source=str(folder.config))
    except ConfigError as error:
        raise RunError(f"{error}; the run's own configuration is damaged or was edited") from error


def write_tokenizer(folder: RunFolder, tokenizer: Tokenizer) -> None:
    """Write tokenizer.json. Raises RunError."""
    atomic_write(folder.tokenizer, tokenizer.to_json().encode())


def model_metadata(job: LanguageModelJob, tokenizer: Tokenizer) -> dict[str, Any]:
    """What model.safetensors says of itself, so that it cannot be taken for another run's."""
    return {
        "task": TASK,
        "model": job.model.model_dump(exclude={"backend"}),
        "data": job.data.model_dump(),
        "tokenizer_sha256": hashlib.sha256(tokenizer.to_json().encode()).hexdigest(),
    }


def read_model(folder: RunFolder) -> tuple[LanguageModelJob, Tokenizer, dict[str, Tensor], dict[str, Any]]:
    """Configuration, tokenizer, weights by name, and the weights' metadata.

    Raises RunError: a file is missing, damaged, newer, or not of the same run as the others.
    """
    job = read_job(folder)
    tensors, metadata = load_tensors(folder.model)
    if metadata.get("task") != TASK:
        raise RunError(f"{folder.model}: expected a {TASK}, got {metadata.get('task', 'something else')}")
    try:
        tokenizer = Tokenizer.load(folder.tokenizer)
    except InputError as error:
        raise RunError(str(error)) from error
    expected = model_metadata(job, tokenizer)
    for table in ("model", "data"):
        for key, value in expected[table].items():
            if metadata[table].get(key) != value:
                raise RunError(
                    f"{folder.config}: says {table}.{key} = {value}, but {folder.model.name} was trained with "
                    f"{metadata[table].get(key)}; undo the change"
                )
    if hashlib.sha256(folder.tokenizer.read_bytes()).hexdigest() != metadata["tokenizer_sha256"]:
        raise RunError(
            f"{folder.tokenizer}: damaged, or of another run: {folder.model.name} was trained with another tokenizer"
        )
    return job, tokenizer, tensors, metadata
