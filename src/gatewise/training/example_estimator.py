"""What the models that learn from examples have in common: split, choices, documents, what is kept, evaluation."""

import json
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn

from gatewise.config import Job
from gatewise.data.examples import Examples
from gatewise.data.splits import Split, make_split
from gatewise.errors import DataError
from gatewise.run_folder import RunFolder, atomic_write
from gatewise.training.checkpoint import load_checkpoint
from gatewise.training.choices import Choices, settled
from gatewise.training.environment import choose_device, environment, settings
from gatewise.training.estimator import Estimator, Prepared
from gatewise.training.kept_data import Columns, Part, keep, read_kept, same
from gatewise.training.observer import Observer
from gatewise.training.plan import ExamplePlan, plan_examples
from gatewise.training.resumption import check_unchanged, say_other_threads
from gatewise.training.saved_model import read_model, write_documents, write_job
from gatewise.training.task import Task

J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Given:
    """What a model is fitted to; validation and test are made from `training` where they are None."""

    training: Examples
    validation: Examples | None = None
    test: Examples | None = None


class ExampleEstimator(Estimator[J]):
    """A model that learns from `Examples`. A subclass says what its network reads, and how it is trained and judged."""

    evaluations: dict[str, Any]  # after `fit`, of each part that was kept for it: "validation", "test"; or "train"
    choices: list[str]  # after `fit`: what was decided by the data, with reasons
    _kept: dict[str, Part]  # while it is trained

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
        for message in dict.fromkeys([*notes, *split.report.rules, *split.report.warnings, *choices.reasons]):
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
        document = {name: asdict(evaluation) for name, evaluation in self.evaluations.items()}
        atomic_write(folder.evaluation, json.dumps(document, indent=1).encode())


def _parts_of(split: Split) -> dict[str, Examples]:
    parts = {"training": split.training, "validation": split.validation, "test": split.test}
    return {name: part for name, part in parts.items() if part is not None}


def _read_about(folder: RunFolder) -> dict[str, Any]:
    return json.loads(folder.data.read_text("utf-8")) if folder.data.exists() else {}
