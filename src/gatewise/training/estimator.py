"""What every model that can be fitted has in common: the way from data to a run folder, and back to a model."""

import json
import tempfile
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import nn

from gatewise.config import Job, validate
from gatewise.errors import GatewiseError, InputError, TrainingError
from gatewise.run_folder import RunFolder, atomic_write, load_tensors, save_tensors
from gatewise.training.checkpoint import Checkpoint, load_weights, weights
from gatewise.training.environment import choose_device, settings
from gatewise.training.fitted import Fitted, not_fitted
from gatewise.training.loop import TrainingInterrupted, TrainingLoop, TrainingResult
from gatewise.training.observer import Observer
from gatewise.training.parameters import Parameters
from gatewise.training.saved_model import model_metadata, write_documents, write_job
from gatewise.training.task import Task

J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Prepared(Generic[J]):
    """What a training starts from.

    job: with everything decided. task: with the network. documents: by name, what the model needs to read its input,
    as JSON. data: which data it reads, for checkpoints. checkpoint: only if it goes on with one.
    """

    job: J
    task: Task
    documents: dict[str, str]
    data: str
    checkpoint: Checkpoint | None = None


class Estimator(Parameters, ABC, Generic[J]):
    """A model that is fitted, saved and loaded. A subclass says how its data become a `Prepared`.

    It is an estimator of scikit-learn, which is not needed for it: it can be cloned, searched over, and put at the end
    of a pipeline.

    Once it has been fitted or loaded, it has

        network     the torch module, in eval mode
        config      everything it was trained with
        result      TrainingResult: what came of the training, only after `fit`
    """

    job_type: ClassVar[type[Job]]
    _source: ClassVar[str] = "data"  # what `fit` expects first, in words

    network = Fitted[nn.Module]()
    config = Fitted[J]()
    result = Fitted[TrainingResult[Any]]()
    evaluations = Fitted[dict[str, Any]]()  # after `fit`, of each part that was judged
    _trained: dict[str, Any]  # step and loss of the network's weights

    @abstractmethod
    def _start(
        self, source: Any, folder: RunFolder, job: J, device: torch.device, overwrite: bool, observer: Observer
    ) -> Prepared[J]:
        """A new run in the folder. What can be refused is refused before the folder, or an older run, is touched."""

    @abstractmethod
    def _resume(self, source: Any, folder: RunFolder, job: J, device: torch.device, observer: Observer) -> Prepared[J]:
        """The run in the folder, as it was at its last checkpoint; source: may be None."""

    @abstractmethod
    def _documents(self) -> dict[str, str]:
        """By name, what the model needs beside its weights to read its input, as JSON: name.json in the folder."""

    def _conclude(self, folder: RunFolder, observer: Observer) -> None:
        """What is to be done with the best weights after a training: an evaluation, say."""

    def _write_evaluations(self, folder: RunFolder) -> None:
        """Write evaluation.json."""
        document = {part: asdict(evaluation) for part, evaluation in self.evaluations.items()}
        atomic_write(folder.evaluation, json.dumps(document, indent=1).encode())

    def _job(self, stored: J | None) -> J:
        """What was given; where a key was not, its default, or that of the run that is resumed. Raises ConfigError."""
        tables = self._tables(stored or self.job_type())  # pyright: ignore[reportCallIssue]
        return validate(self.job_type, tables, source=type(self).__name__)  # pyright: ignore[reportReturnType]

    def _fit(
        self,
        source: Any,
        run: str | Path | None,
        job: J,
        *,
        resume: bool,
        overwrite: bool,
        observer: Observer | None,
    ) -> Self:
        """Train; afterwards this is the model with the best weights, and the run folder has its report.

        source: what to train on, as `_start` takes it; None only where a run is resumed. run: None keeps nothing but
        this object.
        """
        observer = observer or Observer()
        if run is not None:
            folder = RunFolder(run)
            try:
                self._fit_in(folder, source, job, observer, resume, overwrite)
            except (TrainingInterrupted, TrainingError):
                _write_report(folder, observer)
                raise
            _write_report(folder, observer)
            return self
        if resume:
            raise InputError("fit: to resume, give the folder of the run to go on with")
        with tempfile.TemporaryDirectory(prefix="gatewise-", ignore_cleanup_errors=True) as temporary:
            try:
                self._fit_in(RunFolder(Path(temporary) / "run", temporary=True), source, job, observer, False, False)
            except TrainingInterrupted:
                raise TrainingInterrupted("stopped; without a run folder it cannot be resumed") from None
        return self

    def _fit_in(
        self, folder: RunFolder, source: Any, job: J, observer: Observer, resume: bool, overwrite: bool
    ) -> None:
        device = choose_device(job.training.device)
        with settings(job.training, device):
            if resume and folder.checkpoint.exists():
                prepared = self._resume(source, folder, job, device, observer)
            elif source is None:
                raise InputError(f"fit: expected {self._source}, got None")
            else:
                if resume:
                    observer.on_message(f"{folder.path}: stopped before its first checkpoint; it begins anew")
                prepared = self._start(source, folder, job, device, overwrite or resume, observer)
            self._train(folder, prepared, observer)
            self._conclude(folder, observer)

    def _train(self, folder: RunFolder, prepared: Prepared[J], observer: Observer) -> None:
        """Train to the end, or to whatever ends it before, and take the best weights."""
        self.config, self.network = prepared.job, prepared.task.network
        metadata = model_metadata(prepared.job, prepared.documents)
        loop = TrainingLoop(
            prepared.task,
            prepared.job.training,
            folder,
            model_metadata=metadata,
            data=prepared.data,
            observer=observer,
        )
        if prepared.checkpoint is not None:
            loop.restore(prepared.checkpoint)
        try:
            self.result = loop.run()
        finally:
            if folder.model.exists():
                tensors, self._trained = load_tensors(folder.model)
                load_weights(self.network, tensors, folder.model)
            self.network.eval()

    def save(self, run: str | Path, *, overwrite: bool = False) -> None:
        """Write configuration, documents and weights to a run folder, which `load` reads. Raises RunError."""
        self._check_fitted()
        folder = RunFolder(run)
        folder.create(overwrite)
        write_job(folder, self.config)
        documents = self._documents()
        write_documents(folder, documents)
        metadata = {**model_metadata(self.config, documents), **self._trained}
        save_tensors(folder.model, weights(self.network), metadata)

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self)

    # What scikit-learn asks for.

    def __sklearn_is_fitted__(self) -> bool:
        """Whether it can predict."""
        return "network_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may do with it: a `sklearn.utils.Tags`. Its data are no matrices of examples."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            input_tags=InputTags(two_d_array=False),
        )


def _write_report(folder: RunFolder, observer: Observer) -> None:
    """Write report.html; if that fails, the training is not lost."""
    from gatewise.gates.report import write_report

    try:
        write_report(folder.path)
    except (GatewiseError, OSError) as error:
        observer.on_message(f"the report could not be written: {error}")
