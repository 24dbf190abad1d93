"""A model in a run folder: configuration, documents and weights, which must belong together.

The documents are JSON files that a model reads its input with: a tokenizer or vocabulary, labels, a scaler.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gatewise.config import JOBS, Job, dump_toml, load_toml, validate
from gatewise.errors import ConfigError, RunError
from gatewise.run_folder import FORMAT, RunFolder, atomic_write, load_tensors

_SHA256 = "_sha256"  # of document NAME the header of model.safetensors has NAME_sha256


def write_job(folder: RunFolder, job: Job) -> None:
    """Write config.toml. Raises RunError."""
    atomic_write(folder.config, f'format = {FORMAT}\ntask = "{job.task}"\n\n{dump_toml(job)}'.encode())


def read_job(folder: RunFolder, task: str | None = None) -> Any:
    """What config.toml holds: the job of the run's task, which must be `task` if that is given.

    Raises RunError: no run here, damaged, newer, of another task, of a model that was imported.
    """
    found = folder.check_existing()
    if found not in JOBS or task not in (None, found):
        wanted = task or f"task that is trained ({', '.join(JOBS)})"
        hint = "; gatewise.load(run).predict(...) computes its outputs" if found == "network" else ""
        raise RunError(f"{folder.path}: expected the run of a {wanted}, got one of a {found}{hint}")
    try:
        content = load_toml(folder.config)
        content.pop("format")
        content.pop("task", None)
        return validate(JOBS[found], content, source=str(folder.config))
    except ConfigError as error:
        raise RunError(f"{error}; the run's own configuration is damaged or was edited") from error


def write_documents(folder: RunFolder, documents: Mapping[str, str]) -> None:
    """Write each document to its file. Raises RunError."""
    for name, document in documents.items():
        atomic_write(folder.document(name), document.encode())


def model_metadata(job: Job, documents: Mapping[str, str]) -> dict[str, Any]:
    """What model.safetensors says of itself, so that it cannot be taken for another run's."""
    return {
        "task": job.task,
        "model": job.model.model_dump(exclude={"backend"}),
        "data": job.data.model_dump(),
        **{name + _SHA256: hashlib.sha256(document.encode()).hexdigest() for name, document in documents.items()},
    }


def read_model(
    folder: RunFolder, task: str | None = None
) -> tuple[Any, dict[str, str], dict[str, Tensor], dict[str, Any]]:
    """The job of the run's task, its documents by name, weights by name, and the weights' metadata.

    Raises RunError: a file is missing, damaged, newer, or not of the same run as the others.
    """
    job: Job = read_job(folder, task)
    tensors, metadata = load_tensors(folder.model)
    if metadata.get("task") != job.task:
        raise RunError(f"{folder.model}: expected a {job.task}, got {metadata.get('task', 'something else')}")
    names = [key.removesuffix(_SHA256) for key in metadata if key.endswith(_SHA256)]
    documents = {name: _read_document(folder, name, metadata[name + _SHA256]) for name in names}
    expected = model_metadata(job, {})
    for table in ("model", "data"):
        for key, value in expected[table].items():
            if metadata[table].get(key, value) != value:  # an older version may not have had the key
                raise RunError(
                    f"{folder.config}: says {table}.{key} = {value}, but {folder.model.name} was trained with "
                    f"{metadata[table][key]}; undo the change"
                )
    return job, documents, tensors, metadata


def _read_document(folder: RunFolder, name: str, sha256: str) -> str:
    path = folder.document(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        another = "other labels" if name == "labels" else f"another {name}"
        raise RunError(f"{path}: damaged, or of another run: {folder.model.name} was trained with {another}")
    return data.decode()
