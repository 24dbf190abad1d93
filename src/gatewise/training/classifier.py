"""Classifier: fit it to texts or sequences with labels, evaluate it, predict with it, save it."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gatewise.config import (
    Auto,
    Backend,
    Cell,
    ClassifierData,
    ClassifierJob,
    ClassifierTraining,
    Reset,
)
from gatewise.data.arrays import unnamed
from gatewise.data.classification import check_features, classified, read_classified
from gatewise.data.examples import Examples
from gatewise.data.ragged import Ragged
from gatewise.data.scaling import Scaler
from gatewise.data.text_tokens import TextTokens
from gatewise.data.vocabulary import LabelSet
from gatewise.errors import DataError
from gatewise.models.classifier import ClassifierNetwork
from gatewise.training.choices import Choices, by_size
from gatewise.training.classification import ClassifierEvaluation, evaluate_label_sets, evaluate_labels
from gatewise.training.classifier_task import ClassifierTask, logits_of
from gatewise.training.example_estimator import ExampleEstimator, Source
from gatewise.training.fitted import Fitted
from gatewise.training.kept_data import Columns, Part
from gatewise.training.loop import TrainingResult
from gatewise.training.parameters import RandomState


class Classifier(ExampleEstimator[ClassifierJob]):
    """Sequences to labels: texts, lists of words, or sequences of feature vectors, to one label or several.

        model = gw.Classifier().fit("train.csv", run="runs/intents")
        model = gw.Classifier(pooling="mean").fit(texts, labels)
        model.predict(["what will the weather be"])

    `fit` takes a file or folder as `data.sources.read_to_classify` reads it; or N texts, N lists of words,
    (N, T, F) numbers, or N arrays (T_i, F), with N labels, N collections of labels, or (N, K) of 0 and 1.

    A matrix (N, F), such as scikit-learn's transformers give, is read row by row, each as one step of F features, so
    that each column has a scale of its own: tables of unlike columns are learned far better so than with F steps of
    one feature. That is for series; `data.matrix = "steps"`, N arrays (T_i,) or an array (N, T, 1) ask for it.

    The arguments are the keys of `ClassifierConfig`, which has their meaning; data, training: how examples are read
    and split, and how it is trained, sections or dicts of their keys; random_state: a seed in place of `training.seed`.
    They are only stored here; `fit` checks them. Once it has been fitted or loaded, a model has

        network     ClassifierNetwork: the torch module, in eval mode
        classes_    (K,): the labels as they were given, in the order of the columns of `predict_proba`
        n_features_in_, feature_names_in_: of numbers, how many a step has; what their columns were called, if anything
        labels      LabelSet: the labels as texts, with their counts
        tokens      TextTokens, or None: texts to tokens
        scaler      Scaler, or None: features to a common scale
        config      ClassifierJob: everything it was trained with, with what was decided by the data
        result, evaluations, choices: only after `fit`
    """

    job_type = ClassifierJob
    _source = "examples (a file or folder, or inputs and labels)"

    network = Fitted[ClassifierNetwork]()
    labels = Fitted[LabelSet]()
    tokens = Fitted[TextTokens | None]()
    scaler = Fitted[Scaler | None]()
    several = Fitted[bool]()  # whether an example has several labels
    _data: ClassifierData
    result = Fitted[TrainingResult[ClassifierEvaluation]]()

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
        data: ClassifierData | Mapping[str, Any] | None = None,
        training: ClassifierTraining | Mapping[str, Any] | None = None,
        random_state: RandomState = None,
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
        self.random_state = random_state

    @property
    def classes_(self) -> np.ndarray:
        """The K labels, (K,) of the type that they were given in."""
        return self.labels.values

    @property
    def n_features_in_(self) -> int:
        """How many numbers a step has; AttributeError of texts."""
        return len(self._features().mean)

    @property
    def feature_names_in_(self) -> np.ndarray:
        """What the columns of the matrix were called, (F,) of texts; AttributeError if they had no names."""
        names = self._features().names
        if names == unnamed(len(names)):
            raise AttributeError("Classifier: it was trained on features without names")
        return np.array(names, dtype=object)

    def score(self, X: Source, y: Any = None) -> float:  # noqa: N803
        """The accuracy on some examples: the part of them whose label is right, or all of whose labels are."""
        self._check_fitted()
        columns = self._columns(self._examples(X, y, self.config.data, "X"))
        logits, truth = logits_of(self.network, columns).numpy(), np.asarray(columns["targets"])
        right = ((logits > 0) == (truth > 0.5)).all(1) if self.several else logits.argmax(1) == truth
        return float(right.mean())

    def predict_proba(self, X: Source) -> np.ndarray:  # noqa: N803
        """The probability of each label, (N, K) float32, in the order of `classes_`.

        X: as in `fit`; a file needs no labels. Of one label an example they sum to 1, of several each is by itself.
        """
        self._check_fitted()
        logits = logits_of(self.network, self._columns(self._without_targets(X)))
        return (logits.sigmoid() if self.several else logits.softmax(1)).numpy()

    def predict(self, X: Source) -> Any:  # noqa: N803
        """The likeliest label of each example: an array (N,) of the type of `classes_`.

        Of several labels an example its labels, a list of N tuples: those with a probability above 1/2.
        """
        probabilities = self.predict_proba(X)
        if not self.several:
            return self.classes_[probabilities.argmax(1)]
        return [tuple(self.classes_[row > 0.5].tolist()) for row in probabilities]

    def predict_rows(self, source: str | Path) -> list[dict[str, Any]]:
        """Of each example of a file its place, its text, the label (or labels), and the probability of every label."""
        examples = self._without_targets(source)
        probabilities = self.predict_proba(examples)
        rows = []
        shown = Part.of(examples, {})
        for i, found in enumerate(probabilities):
            row: dict[str, Any] = {"place": shown.places[i]}
            if shown.texts is not None:
                row["text"] = shown.texts[i]
            if self.several:
                row["labels"] = self.labels.decode(np.flatnonzero(found > 0.5))
            else:
                row |= {"label": self.labels.names[found.argmax()], "probability": float(found.max())}
            row["probabilities"] = dict(zip(self.labels.names, map(float, found), strict=True))
            rows.append(row)
        return rows

    def _read(self, source: str | Path, data: ClassifierData, with_targets: bool) -> Examples:
        return read_classified(source, data, with_labels=with_targets)

    def _in_memory(self, inputs: Any, targets: Any, data: ClassifierData, name: str) -> Examples:
        return classified(inputs, targets, name, matrix=data.matrix)

    def _features(self) -> Scaler:
        if self.scaler is None:
            raise AttributeError("Classifier: it was trained on texts, which have no features")
        return self.scaler

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may do with it: a `sklearn.utils.Tags`."""
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        tags.input_tags.two_d_array = tags.input_tags.three_d_array = True
        return tags

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
        choices.drop("data", "matrix", "features" if training.matrix else "steps")
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
        labels = chain.from_iterable(training.label_sets) if self.several else training.labels
        self.labels = LabelSet.fit(labels, training.label_dtype)
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
            check_features(examples, self.scaler.names)
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
