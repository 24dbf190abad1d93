"""Classifier: fit it to texts or sequences with labels, evaluate it, predict with it, save it."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch

from gatewise.config import (
    Auto,
    Backend,
    Cell,
    ClassifierConfig,
    ClassifierData,
    ClassifierJob,
    ClassifierTraining,
    Reset,
    validate,
)
from gatewise.data.classification import classified, read_classified
from gatewise.data.examples import Examples
from gatewise.data.ragged import Ragged
from gatewise.data.scaling import Scaler
from gatewise.data.sources import read_parts
from gatewise.data.text_tokens import TextTokens
from gatewise.data.vocabulary import LabelSet
from gatewise.errors import DataError, InputError
from gatewise.models.classifier import ClassifierNetwork
from gatewise.run_folder import RunFolder
from gatewise.training.checkpoint import load_weights
from gatewise.training.choices import Choices, by_size
from gatewise.training.classification import ClassifierEvaluation, evaluate_label_sets, evaluate_labels
from gatewise.training.classifier_task import ClassifierTask, logits_of
from gatewise.training.environment import choose_device
from gatewise.training.example_estimator import ExampleEstimator, Given
from gatewise.training.kept_data import Columns, Part
from gatewise.training.loop import TrainingResult
from gatewise.training.observer import Observer
from gatewise.training.plan import ExamplePlan
from gatewise.training.saved_model import read_job, read_model

Source = str | Path | Examples | Any  # a file or folder, or examples in memory


class Classifier(ExampleEstimator[ClassifierJob]):
    """Sequences to labels: texts, lists of words, or sequences of feature vectors, to one label or several.

        model = gw.Classifier().fit("train.csv", run="runs/intents")
        model = gw.Classifier(pooling="mean").fit(texts, labels)
        model.predict(["what will the weather be"])

    The arguments are the keys of `ClassifierConfig`, which has their meaning; data, training: how examples are read
    and split, and how it is trained. They are only stored here; `fit` checks them. Once it has been fitted or loaded,
    a model has

        network     ClassifierNetwork: the torch module, in eval mode
        labels      LabelSet: the labels, in the order of the columns of `predict_proba`
        tokens      TextTokens, or None: texts to tokens
        scaler      Scaler, or None: features to a common scale
        config      ClassifierJob: everything it was trained with, with what was decided by the data
        result, evaluations, choices: only after `fit`
    """

    job_type = ClassifierJob
    _source = "examples (a file or folder, or inputs and labels)"

    network: ClassifierNetwork
    labels: LabelSet
    tokens: TextTokens | None
    scaler: Scaler | None
    several: bool  # whether an example has several labels
    _data: ClassifierData
    result: TrainingResult[ClassifierEvaluation]

    def __init__(
        self,
        hidden_size: int | Auto = "auto",
        *,
        cell: Cell = "gru",
        reset: Reset = "after",
        embedding_size: int | Auto = "auto",
        num_layers: int = 1,
        bidirectional: bool = True,
        pooling: Literal["last", "mean", "max", "attention"] = "max",
        dropout: float | Auto = "auto",
        word_dropout: float | Auto = "auto",
        weight_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        backend: Backend = "auto",
        data: ClassifierData | None = None,
        training: ClassifierTraining | None = None,
    ) -> None:
        self.hidden_size = hidden_size
        self.cell: Cell = cell
        self.reset: Reset = reset
        self.embedding_size = embedding_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.dropout = dropout
        self.word_dropout = word_dropout
        self.weight_dropout = weight_dropout
        self.recurrent_dropout = recurrent_dropout
        self.backend: Backend = backend
        self.data = data
        self.training = training

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
        """Train; afterwards this is the model with the best accuracy on validation (the last one without any).

        X: a file or folder as `data.sources.read_to_classify` reads it, or a folder with one for training and one for
            validation or test; or N texts, N lists of words,
            (N, T, F) numbers, or N arrays (T_i, F).
        y: with inputs in memory, N labels, N collections of labels, or (N, K) of 0 and 1.
        run: the run folder to write; None keeps nothing but this object.
        validation, test: a file or folder, or (inputs, labels); without them, what `data` says is taken from X.
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
        """What `fit` would take, by a few steps, of which nothing is kept. Raises what `fit` would raise at first."""
        job = self._job(None)
        return self._plan(self._given(job, X, y, validation, test), job)

    def evaluate(self, X: Source, y: Any = None) -> ClassifierEvaluation:  # noqa: N803
        """How good the model is on some examples: as X and y of `fit`. Raises DataError."""
        self._check_fitted()
        examples = self._examples(X, y, self.config.data, "X")
        return self._judge(Part.of(examples, self._columns(examples)))

    def score(self, X: Source, y: Any = None) -> float:  # noqa: N803
        """The accuracy on some examples."""
        return self.evaluate(X, y).accuracy

    def predict_proba(self, X: Source) -> np.ndarray:  # noqa: N803
        """The probability of each label, (N, K) float32, in the order of `labels.names`.

        X: as in `fit`; a file needs no labels. Of one label an example they sum to 1, of several each is by itself.
        """
        self._check_fitted()
        logits = logits_of(self.network, self._columns(self._unlabelled(X)))
        return (logits.sigmoid() if self.several else logits.softmax(1)).numpy()

    def predict(self, X: Source) -> list[str] | list[tuple[str, ...]]:  # noqa: N803
        """The likeliest label of each example, N texts; or its labels, N tuples, those with a probability above 1/2."""
        return self._chosen(self.predict_proba(X))

    def predict_rows(self, source: str | Path) -> list[dict[str, Any]]:
        """Of each example of a file its place, its text, the label (or labels), and the probability of every label."""
        examples = self._unlabelled(source)
        probabilities = self.predict_proba(examples)
        rows = []
        shown = Part.of(examples, {})
        for i, chosen in enumerate(self._chosen(probabilities)):
            row: dict[str, Any] = {"place": shown.places[i]}
            if shown.texts is not None:
                row["text"] = shown.texts[i]
            if isinstance(chosen, str):
                row |= {"label": chosen, "probability": float(probabilities[i].max())}
            else:
                row["labels"] = list(chosen)
            row["probabilities"] = dict(zip(self.labels.names, map(float, probabilities[i]), strict=True))
            rows.append(row)
        return rows

    @classmethod
    def from_run(cls, folder: RunFolder, device: str = "auto") -> Self:
        """The best model of the training in a run folder, so far. Raises RunError, BackendError."""
        job, documents, tensors, metadata = read_model(folder, cls.job_type.task)
        model = cls(**job.model.model_dump(), data=job.data, training=job.training)
        model.config, model._trained = job, metadata
        model._read_documents(documents, job)
        model.network = model._network(job).to(choose_device(device)).eval()
        load_weights(model.network, tensors, folder.model)
        return model

    def _job(self, stored: ClassifierJob | None) -> ClassifierJob:
        """What was given; where data or training were not, the defaults, or those of the run that is resumed."""
        defaults = stored or ClassifierJob()
        data, training = self.data or defaults.data, self.training or defaults.training
        model = {key: getattr(self, key) for key in ClassifierConfig.model_fields}
        tables = {"data": data.model_dump(), "model": model, "training": training.model_dump()}
        return validate(ClassifierJob, tables, source=type(self).__name__)

    def _examples(self, X: Source, y: Any, data: ClassifierData, name: str) -> Examples:  # noqa: N803
        if isinstance(X, Examples):
            return X
        if isinstance(X, str | Path):
            return read_classified(X, data)
        if y is None:
            raise InputError(f"{type(self).__name__}: {name} is in memory, so it needs its labels: give y, too")
        return classified(X, y, name)

    def _given(self, job: ClassifierJob, X: Source, y: Any, validation: Any, test: Any) -> Given:  # noqa: N803
        """What `fit` is given, as examples."""
        if isinstance(X, str | Path) and all(
            part is None or isinstance(part, str | Path) for part in (validation, test)
        ):
            found = read_parts(X, lambda source: read_classified(source, job.data), validation=validation, test=test)
            return Given(found["training"], found.get("validation"), found.get("test"))
        others: list[Examples | None] = []
        for name, part in (("validation", validation), ("test", test)):
            inputs, labels = part if isinstance(part, tuple) and len(part) == 2 else (part, None)
            others.append(None if part is None else self._examples(inputs, labels, job.data, name))
        return Given(self._examples(X, y, job.data, "X"), *others)

    def _unlabelled(self, X: Source) -> Examples:  # noqa: N803
        if isinstance(X, Examples):
            return X.without_targets()
        if isinstance(X, str | Path):
            return read_classified(X, self.config.data, with_labels=False)
        return classified(X)

    def _chosen(self, probabilities: np.ndarray) -> Any:
        if not self.several:
            return self.labels.decode(probabilities.argmax(1))
        return [tuple(self.labels.decode(np.flatnonzero(row > 0.5))) for row in probabilities]

    # What ExampleEstimator asks for.

    def _choose(self, choices: Choices[ClassifierJob], training: Examples, validates: bool) -> None:
        if training.target_kind not in ("label", "labels"):
            raise DataError(f"{training.source}: expected a label, or labels, for each example, got none")
        labels = "several" if training.target_kind == "labels" else "one"
        if choices.job.data.labels not in ("auto", labels):
            raise DataError(
                f'{training.source}: has {labels} for each example, but data.labels = "{choices.job.data.labels}"; '
                "leave the key out"
            )
        choices.drop("data", "labels", labels)
        examples, lengths = len(training), training.lengths
        unit = "steps" if training.input_kind == "steps" else "words"
        if training.input_kind == "text":
            lengths = np.array([text.count(" ") + 1 for text in training.texts])
        reason = f"{examples:,} examples of {int(np.median(lengths))} {unit}"
        choices.choose("model", "hidden_size", by_size(examples, 64, 128, 256), reason)
        choices.choose("model", "dropout", by_size(examples, 0.5, 0.5, 0.3), reason)
        if training.input_kind == "steps":
            choices.drop("model", "embedding_size", 1)
            choices.drop("model", "word_dropout", 0.0)
            choices.drop("data", "min_count", 1)
        else:
            choices.choose("data", "min_count", by_size(examples, 1, 2, 3), reason)
            choices.choose("model", "embedding_size", by_size(examples, 64, 100, 200), reason)
            choices.choose("model", "word_dropout", by_size(examples, 0.1, 0.05, 0.02), reason)
        choices.choose_training(examples, validates)

    def _fit_documents(self, training: Examples, job: ClassifierJob) -> None:
        self.several, self._data = job.data.labels == "several", job.data
        self.labels = LabelSet.fit(chain.from_iterable(training.label_sets) if self.several else training.labels)
        self.tokens = self.scaler = None
        if training.input_kind != "steps":
            self.tokens = TextTokens.fit(training.inputs, job.data)
        else:
            self.scaler = Scaler.fit(training.steps, training.feature_names)
            if not job.data.standardize:
                zeros = np.zeros(len(training.feature_names))
                self.scaler = Scaler(zeros, zeros + 1, training.feature_names)

    def _documents(self) -> dict[str, str]:
        documents = {"labels": self.labels.to_json()}
        if self.tokens is not None:
            documents["tokenizer"] = self.tokens.to_json()
        if self.scaler is not None:
            documents["scaler"] = self.scaler.to_json()
        return documents

    def _read_documents(self, documents: Mapping[str, str], job: ClassifierJob) -> None:
        self.several, self._data = job.data.labels == "several", job.data
        self.labels = LabelSet.from_json(documents["labels"])
        self.tokens = TextTokens.from_json(documents["tokenizer"], job.data) if "tokenizer" in documents else None
        self.scaler = Scaler.from_json(documents["scaler"]) if "scaler" in documents else None

    def _columns(self, examples: Examples) -> Columns:
        if (examples.input_kind == "steps") != (self.scaler is not None):
            expected, found = ("feature vectors", "texts") if self.scaler is not None else ("texts", "feature vectors")
            raise DataError(f"{examples.source}: expected {expected}, as the model was trained on, got {found}")
        if self.scaler is not None:
            if examples.steps and examples.steps[0].shape[1] != len(self.scaler.mean):
                raise DataError(
                    f"{examples.source}: expected {len(self.scaler.mean)} features, as the model was trained on, "
                    f"got {examples.steps[0].shape[1]}"
                )
            inputs = Ragged.of([self.scaler.transform(steps[: self._data.max_length]) for steps in examples.steps])
        else:
            assert self.tokens is not None
            inputs = Ragged.of([self.tokens.encode(text) for text in examples.inputs])
        columns: Columns = {"inputs": inputs}
        if examples.target_kind == "none":
            return columns
        if examples.target_kind != ("labels" if self.several else "label"):
            expected = "several labels" if self.several else "one label"
            raise DataError(f"{examples.source}: expected {expected} for each example, as the model was trained")
        place = examples.source
        encode = self.labels.encode_many if self.several else self.labels.encode
        columns["targets"] = encode(examples.targets or [], place)
        return columns

    def _network(self, job: ClassifierJob) -> ClassifierNetwork:
        if self.tokens is not None:
            size, unknown = self.tokens.size, self.tokens.unknown_id
            return ClassifierNetwork(job.model, len(self.labels), vocabulary_size=size, unknown=unknown)
        assert self.scaler is not None
        return ClassifierNetwork(job.model, len(self.labels), features=len(self.scaler.mean))

    def _task(
        self, network: ClassifierNetwork, job: ClassifierJob, training: Columns, validation: Columns | None
    ) -> ClassifierTask:
        weights = None
        if job.training.class_weights == "balanced":
            weights = self.labels.balanced_weights()
            if self.several:  # of those that have the label, against those that have not
                counts = np.asarray(training["targets"]).sum(0)
                weights = ((len(training["targets"]) - counts) / np.maximum(counts, 1)).astype(np.float32)
        return ClassifierTask(network, training, validation, job.training, weights)

    def _judge(self, part: Part) -> ClassifierEvaluation:
        logits = logits_of(self.network, part.columns)
        truth = np.asarray(part.columns["targets"])
        about = self.labels.names, self.labels.counts, part.places, part.texts
        if self.several:
            return evaluate_label_sets(logits.sigmoid().numpy(), truth > 0.5, *about)
        return evaluate_labels(logits.softmax(1).numpy(), truth, *about)

    def _try(self, network: ClassifierNetwork, columns: Columns, device: torch.device) -> None:
        logits_of(network, {"inputs": Ragged.of([columns["inputs"][0]])})
