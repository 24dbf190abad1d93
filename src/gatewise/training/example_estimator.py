"""What the models that learn from examples have in common: split, choices, documents, what is kept, evaluation."""

import json
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import nn

from gatewise.config import Job
from gatewise.data.examples import Examples
from gatewise.data.sources import read_parts
from gatewise.data.splits import Split, make_split
from gatewise.errors import DataError, InputError
from gatewise.run_folder import RunFolder, atomic_write
from gatewise.training.checkpoint import load_checkpoint, load_weights
from gatewise.training.choices import Choices, settled
from gatewise.training.environment import choose_device, environment, settings
from gatewise.training.estimator import Estimator, Prepared
from gatewise.training.fitted import Fitted
from gatewise.training.kept_data import Columns, Part, keep, read_kept, same
from gatewise.training.observer import Observer
from gatewise.training.plan import ExamplePlan, plan_examples
from gatewise.training.resumption import check_unchanged, say_other_threads
from gatewise.training.saved_model import read_job, read_model, write_documents, write_job
from gatewise.training.task import Task

J = TypeVar("J", bound=Job)
Source = str | Path | Examples | Any  # a file or folder, or examples in memory


@dataclass(frozen=True)
class Given:
    """What a model is fitted to; validation and test are made from `training` where they are None."""

    training: Examples
    validation: Examples | None = None
    test: Examples | None = None


class ExampleEstimator(Estimator[J]):
    """A model that learns from `Examples`. A subclass says what its network reads, and how it is trained and judged."""

    choices = Fitted[list[str]]()  # after `fit`: what was decided by the data, with reasons
    _kept: dict[str, Part]  # while it is trained

    def fit(
        self,
        X: Source | None,  # noqa: N803
        y: Any = None,
        run: str | Path | None = None,
        *,
        validation: Source | tuple[Any, Any] | None = None,
        test: Source | tuple[Any, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        observer: Observer | None = None,
    ) -> Self:
        """Train; afterwards this is the model that was best on validation (the last one without any).

        X: a file or folder, or a folder with one for training and one for validation or test; or N inputs in memory,
            and y their N targets: the class says which.
        run: the run folder to write; None keeps nothing but this object.
        validation, test: a file or folder, or (inputs, targets); without them, what `data` says is taken from X.
        resume: go on from the last checkpoint in `run`, bit for bit as if the training had never been stopped; X may
            be None then, for the run has kept its examples.
        overwrite: replace a run that lies there.
        observer: is told of the progress, of what was guessed and decided.

        Ctrl-C ends the training after the step it is at, with a checkpoint, and raises TrainingInterrupted (a
        KeyboardInterrupt). Raises ConfigError, DataError, RunError, BackendError, NonFiniteLoss.
        """
        job = self._job(read_job(RunFolder(run), self.job_type.task) if resume and run is not None else None)
        source = None if X is None else self._given(job, X, y, validation, test)
        return self._fit(source, run, job, resume=resume, overwrite=overwrite, observer=observer)

    def plan(
        self,
        X: Source,  # noqa: N803
        y: Any = None,
        *,
        validation: Source | tuple[Any, Any] | None = None,
        test: Source | tuple[Any, Any] | None = None,
    ) -> ExamplePlan:
        """What `fit` would take, from a few steps of which nothing is kept. Raises what `fit` would raise first."""
        job = self._job(None)
        return self._plan(self._given(job, X, y, validation, test), job)

    def evaluate(self, X: Source, y: Any = None) -> Any:  # noqa: N803
        """How good the model is on some examples: as X and y of `fit`. Raises DataError."""
        self._check_fitted()
        examples = self._examples(X, y, self.config.data, "X")
        return self._judge(Part.of(examples, self._columns(examples)))

    @classmethod
    def from_run(cls, folder: RunFolder, device: str = "auto") -> Self:
        """The best model of the training in a run folder, so far. Raises RunError, BackendError."""
        job, documents, tensors, metadata = read_model(folder, cls.job_type.task)
        model = cls(**job.model.model_dump(), data=job.data, training=job.training)  # pyright: ignore[reportCallIssue]
        model.config, model._trained = job, metadata
        model._read_documents(documents, job)
        model.network = model._network(job).to(choose_device(device)).eval()
        load_weights(model.network, tensors, folder.model)
        return model

    def _examples(self, X: Source, y: Any, data: Any, name: str) -> Examples:  # noqa: N803
        if isinstance(X, Examples):
            return X
        if isinstance(X, str | Path):
            return self._read(X, data, True)
        if y is None:
            raise InputError(
                f"{type(self).__name__}: {name} is in memory, so it requires y to be passed, but the target y is None"
            )
        return self._in_memory(X, y, data, name)

    def _given(self, job: Any, X: Source, y: Any, validation: Any, test: Any) -> Given:  # noqa: N803
        """What `fit` is given, as examples; of a file or folder also the parts that lie beside its training part."""
        others = {"validation": validation, "test": test}
        if isinstance(X, str | Path):
            files = {name: part for name, part in others.items() if isinstance(part, str | Path)}
            ignored = self._ignored(job.data)
            found = read_parts(X, lambda source: self._read(source, job.data, True), **files, ignored=ignored)
        else:
            found = {"training": self._examples(X, y, job.data, "X")}
        for name, part in others.items():
            if part is not None and name not in found:
                inputs, targets = part if isinstance(part, tuple) and len(part) == 2 else (part, None)
                found[name] = self._examples(inputs, targets, job.data, name)
        return Given(**found)

    def _without_targets(self, X: Source) -> Examples:  # noqa: N803
        """Examples to predict."""
        if isinstance(X, Examples):
            return X.without_targets()
        if isinstance(X, str | Path):
            return self._read(X, self.config.data, False)
        return self._in_memory(X, None, self.config.data, "X")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may do with it: a `sklearn.utils.Tags`."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.string = True
        return tags

    @abstractmethod
    def _read(self, source: str | Path, data: Any, with_targets: bool) -> Examples:
        """The examples of a file or folder."""

    @abstractmethod
    def _in_memory(self, inputs: Any, targets: Any, data: Any, name: str) -> Examples:
        """Examples that are given as lists or arrays; targets None for examples to predict."""

    @abstractmethod
    def _choose(self, choices: Choices[J], training: Examples, validates: bool) -> None:
        """Replace every "auto" of the job."""

    @abstractmethod
    def _fit_documents(self, training: Examples, job: J) -> None:
        """Make what the model needs to read examples: vocabulary, labels, scaler; of the training part alone."""

    @abstractmethod
    def _read_documents(self, documents: Mapping[str, str], job: J) -> None:
        """Take these from the documents that `_documents` gave."""

    @abstractmethod
    def _columns(self, examples: Examples) -> Columns:
        """The examples as the network reads them; with targets if they have any."""

    def _ignored(self, data: Any) -> str | None:
        """The suffix of files in a folder that are no parts by themselves, if there are such."""
        return None

    def _remarks(self, parts: Mapping[str, Part]) -> list[str]:
        """What is to be said of the examples once they are read, such as how many are left out."""
        return []

    @abstractmethod
    def _network(self, job: J) -> nn.Module:
        """The network with its first weights."""

    @abstractmethod
    def _task(self, network: Any, job: J, training: Columns, validation: Columns | None) -> Task:
        """How it is trained."""

    @abstractmethod
    def _judge(self, part: Part) -> Any:
        """The evaluation of the model on a part: a dataclass."""

    @abstractmethod
    def _try(self, network: Any, columns: Columns, device: torch.device) -> None:
        """One batch through the network, so that a backend that cannot serve is refused before anything is written."""

    def _start(
        self, source: Given, folder: RunFolder, job: J, device: torch.device, overwrite: bool, observer: Observer
    ) -> Prepared[J]:
        folder.check_new(overwrite)
        split = self._split(source, job)
        choices = Choices(job)
        self._choose(choices, split.training, split.validation is not None)
        self._fit_documents(split.training, choices.job)
        parts = self._parts(split)
        network = self._network(choices.job).to(device)
        self._try(network, parts["training"].columns, device)
        notes = [note for part in _parts_of(split).values() for note in part.notes]
        remarks = [*notes, *split.report.rules, *split.report.warnings, *choices.reasons, *self._remarks(parts)]
        for message in dict.fromkeys(remarks):
            observer.on_message(message)
        folder.create(overwrite)
        write_job(folder, choices.job)
        write_documents(folder, self._documents())
        about = {
            "parts": {name: part.describe() for name, part in _parts_of(split).items()},
            "split": split.report.to_json(),
            "notes": list(dict.fromkeys(notes)),
            "choices": choices.reasons,
        }
        atomic_write(folder.data, json.dumps(about, indent=1).encode())
        trained_on = {"data": split.training.source, "examples": len(split.training)}
        atomic_write(folder.environment, json.dumps(environment(device) | trained_on, indent=2).encode())
        self.choices = choices.reasons
        return self._prepared(choices.job, network, parts, keep(folder.examples, parts))

    def _resume(
        self, source: Given | None, folder: RunFolder, job: J, device: torch.device, observer: Observer
    ) -> Prepared[J]:
        stored, documents, _, _ = read_model(folder, job.task)
        job = settled(job, stored)
        check_unchanged(folder, stored, job)
        checkpoint = load_checkpoint(folder.checkpoint)
        self._read_documents(documents, job)
        parts = read_kept(folder.examples, checkpoint.data)
        if source is not None and not same(self._parts(self._split(source, job)), parts):
            raise DataError(
                f"{source.training.source}: not the examples that {folder.path} is trained on; resume it with its own, "
                "or with none, for the run has kept them"
            )
        say_other_threads(checkpoint, observer)
        network = self._network(job).to(device)
        self._try(network, parts["training"].columns, device)
        write_job(folder, job)
        folder.truncate_metrics(checkpoint.progress.step)
        self.choices = _read_about(folder).get("choices", [])
        return replace(self._prepared(job, network, parts, checkpoint.data), checkpoint=checkpoint)

    def _plan(self, source: Given, job: J) -> ExamplePlan:
        """What the training will take. Of the few steps that it makes for this nothing is kept."""
        device = choose_device(job.training.device)
        temporary = tempfile.TemporaryDirectory(prefix="gatewise-", ignore_cleanup_errors=True)
        with temporary as folder, settings(job.training, device):
            prepared = self._start(source, RunFolder(folder), job, device, True, Observer())
            del self._kept
            return plan_examples(prepared.task, prepared.job.training, len(source.training), self.choices)

    def _prepared(self, job: J, network: nn.Module, parts: dict[str, Part], identity: str) -> Prepared[J]:
        self._kept = parts
        validation = parts.get("validation")
        task = self._task(network, job, parts["training"].columns, validation and validation.columns)
        return Prepared(job, task, self._documents(), identity)

    def _split(self, source: Given, job: Any) -> Split:
        data = job.data
        return make_split(
            source.training,
            validation=data.validation_fraction if source.validation is None else source.validation,
            test=data.test_fraction if source.test is None else source.test,
            rule=data.split,
            seed=job.training.seed,
        )

    def _parts(self, split: Split) -> dict[str, Part]:
        return {name: Part.of(part, self._columns(part)) for name, part in _parts_of(split).items()}

    def _conclude(self, folder: RunFolder, observer: Observer) -> None:
        """Judge the best weights on what was kept for it, and write evaluation.json."""
        parts = {name: part for name, part in self._kept.items() if name != "training"}
        parts = parts or {"train": self._kept["training"]}
        self.evaluations = {name: self._judge(part) for name, part in parts.items()}
        del self._kept
        last = list(self.evaluations)[-1]  # the test, if there is one
        self.result = replace(self.result, evaluation=self.evaluations[last], split=last)
        self._write_evaluations(folder)


def _parts_of(split: Split) -> dict[str, Examples]:
    parts = {"training": split.training, "validation": split.validation, "test": split.test}
    return {name: part for name, part in parts.items() if part is not None}


def _read_about(folder: RunFolder) -> dict[str, Any]:
    return json.loads(folder.data.read_text("utf-8")) if folder.data.exists() else {}
