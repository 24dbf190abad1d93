"""Tagger: fit it to sequences with a tag, or numbers, for each step; evaluate it, predict with it, save it."""

import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gatewise.config import Auto, Backend, Cell, Reset, TaggerData, TaggerJob, TaggerTraining
from gatewise.data.arrays import examples_of
from gatewise.data.examples import Examples
from gatewise.data.ragged import Ragged
from gatewise.data.scaling import Scaler
from gatewise.data.sources import read_to_tag
from gatewise.data.spelled import SpelledWords
from gatewise.data.tagged import tagged
from gatewise.data.vocabulary import LabelSet
from gatewise.errors import DataError
from gatewise.models.crf import forbidden_in_bio
from gatewise.models.embeddings import WordEmbedding
from gatewise.models.recurrent_layers import recurrent_layers
from gatewise.models.tagger import TaggerNetwork
from gatewise.training.baseline import WordTags
from gatewise.training.choices import Choices, by_size
from gatewise.training.example_estimator import ExampleEstimator, Source
from gatewise.training.fitted import Fitted
from gatewise.training.kept_data import Columns, Part
from gatewise.training.loop import TrainingResult
from gatewise.training.parameters import RandomState
from gatewise.training.tagger_task import TaggerTask, are_spans, tag
from gatewise.training.tagging import TaggerEvaluation, evaluate_numbers, evaluate_tags

FEW, MANY = 20_000, 2_000_000  # steps
WIDTH, WIDEST = 4, 512  # hidden units for each number that a step has; most units that this rule gives
SENTENCE = 20  # steps: so many of them make about one example, where batches and epochs are chosen


class Tagger(ExampleEstimator[TaggerJob]):
    """Sequences to a tag for each step: words to parts of speech or spans; feature vectors to tags, or to numbers.

        model = gw.Tagger().fit("train.conllu", run="runs/pos", validation="dev.conllu")
        model.predict([["dogs", "bark"]])

    `fit` takes a file or folder as `data.sources.read_to_tag` reads it; or N lists of words, or N arrays (T_i, F), with
    N lists of tags, or N arrays (T_i, K) of numbers from 0 to 1.

    The arguments are the keys of `TaggerConfig`, which has their meaning; data, training: how sequences are read and
    split, and how it is trained, sections or dicts of their keys; random_state: a seed in place of `training.seed`.
    They are only stored here; `fit` checks them. Once it has been fitted or loaded, a model has

        network     TaggerNetwork: the torch module, in eval mode
        tags        LabelSet: the tags; of numbers, their names
        words       SpelledWords, or None: words to tokens and characters
        scaler      Scaler, or None: features to a common scale
        config      TaggerJob: everything it was trained with, with what was decided by the data
        result, evaluations, choices: only after `fit`
    """

    job_type = TaggerJob
    _source = "sequences (a file or folder, or inputs and tags)"

    network = Fitted[TaggerNetwork]()
    tags = Fitted[LabelSet]()
    words = Fitted[SpelledWords | None]()
    scaler = Fitted[Scaler | None]()
    numbers = Fitted[bool]()  # whether a step has numbers instead of a tag
    _baseline: WordTags
    result = Fitted[TrainingResult[TaggerEvaluation]]()

    def __init__(
        self,
        hidden_size: int | Auto = "auto",
        *,
        cell: Cell = "gru",
        reset: Reset = "after",
        embedding_size: int | Auto = "auto",
        spelling_size: int | Auto = "auto",
        character_size: int = 32,
        num_layers: int = 1,
        layer_sizes: str | None = None,
        direction: Literal["both", "forward"] | Auto = "auto",
        output: Literal["softmax", "crf"] | Auto = "auto",
        dropout: float | Auto = "auto",
        word_dropout: float | Auto = "auto",
        weight_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        backend: Backend = "auto",
        data: TaggerData | Mapping[str, Any] | None = None,
        training: TaggerTraining | Mapping[str, Any] | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.hidden_size = hidden_size
        self.cell: Cell = cell
        self.reset: Reset = reset
        self.embedding_size = embedding_size
        self.spelling_size = spelling_size
        self.character_size = character_size
        self.num_layers = num_layers
        self.layer_sizes = layer_sizes
        self.direction = direction
        self.output = output
        self.dropout = dropout
        self.word_dropout = word_dropout
        self.weight_dropout = weight_dropout
        self.recurrent_dropout = recurrent_dropout
        self.backend: Backend = backend
        self.data = data
        self.training = training
        self.random_state = random_state

    def score(self, X: Source, y: Any = None) -> float:  # noqa: N803
        """The part of the steps that are right."""
        return self.evaluate(X, y).accuracy

    def predict(self, X: Source) -> list[list[str]] | list[np.ndarray]:  # noqa: N803
        """The tags of each sequence; of numbers, arrays (T_i, K) bool of those whose probability is above 1/2."""
        self._check_fitted()
        predicted = tag(self.network, self._columns(self._without_targets(X))).predicted
        return list(predicted) if self.numbers else [self.tags.decode(classes) for classes in predicted]

    def predict_proba(self, X: Source) -> list[np.ndarray]:  # noqa: N803
        """The probability of each tag at each step by itself: arrays (T_i, K) float32, in the order of `tags.names`.

        Raises DataError for a model with a random field, whose tags have no probability by themselves.
        """
        self._check_fitted()
        if self.network.crf is not None:
            raise DataError("Tagger.predict_proba: a random field scores whole sequences; train with output = softmax")
        scores = torch.from_numpy((found := tag(self.network, self._columns(self._without_targets(X)))).scores.values)
        probabilities = scores.sigmoid() if self.numbers else scores.softmax(1)
        return list(Ragged(probabilities.numpy(), found.scores.offsets))

    def predict_rows(self, source: str | Path) -> list[dict[str, Any]]:
        """Of each sequence of a file its place, its words if there are any, and its tags; of numbers the yeses."""
        examples = self._without_targets(source)
        rows = []
        for place, given, said in zip(examples.places, examples.inputs, self.predict(examples), strict=True):
            row: dict[str, Any] = {"place": place}
            if examples.input_kind == "words":
                row["words"] = list(given)
            if self.numbers:
                said = [",".join(self.tags.decode(np.flatnonzero(step))) for step in said]
            rows.append({**row, "tags": list(said)})
        return rows

    # What ExampleEstimator asks for.

    def _read(self, source: str | Path, data: TaggerData, with_targets: bool) -> Examples:
        return read_to_tag(
            source,
            words_column=data.words_column,
            tags_column=data.tags_column,
            group_column=data.group_column,
            target_kind=None if data.targets == "auto" else data.targets,
            with_tags=with_targets,
        )

    def _in_memory(self, inputs: Any, targets: Any, data: TaggerData, name: str) -> Examples:
        first = next(iter(inputs), None) if hasattr(inputs, "__len__") else None
        if isinstance(first, list | tuple) and first and isinstance(first[0], str):
            return tagged(inputs, targets, name)
        kinds = {"auto": None, "tags": "tags", "numbers": "numbers"}
        kind = kinds[data.targets] if targets is not None else None
        return examples_of(inputs, targets, target_kind=kind, name=name)  # pyright: ignore[reportArgumentType]

    def _choose(self, choices: Choices[TaggerJob], training: Examples, validates: bool) -> None:
        if training.target_kind not in ("tags", "numbers"):
            raise DataError(f"{training.source}: expected a tag, or numbers, for each step, got none")
        steps = int(training.lengths.sum())
        reason = f"{len(training):,} sequences of {steps:,} steps"
        kind = training.target_kind
        if choices.choose("data", "targets", kind, f"{training.source} has them") != kind:
            raise DataError(f"{training.source}: has {kind} for each step, but data.targets says otherwise")
        if kind == "tags" and are_spans(list(training.label_counts())):
            choices.choose("model", "output", "crf", "the tags are BIO spans")
        else:
            choices.drop("model", "output", "softmax")
        if _are_next_steps(training):
            choices.choose("model", "direction", "forward", "the targets are the next step's input")
        else:
            choices.drop("model", "direction", "both")
        size = by_size(steps, 64, 128, 256, FEW, MANY)
        numbers = 0 if kind == "tags" else training.numbers[0].shape[-1]
        if WIDTH * numbers > size:
            wide = min(2 ** math.ceil(math.log2(WIDTH * numbers)), WIDEST)
            choices.choose("model", "hidden_size", wide, f"{numbers:,} numbers at each step")
        else:
            choices.choose("model", "hidden_size", size, reason)
        choices.choose("model", "dropout", 0.3 if steps >= MANY else 0.4 if numbers > 1 else 0.5, reason)
        if training.input_kind == "words":
            choices.choose("model", "embedding_size", size, reason)
            choices.choose("model", "spelling_size", by_size(steps, 32, 64, 128, FEW, MANY), reason)
            choices.choose("model", "word_dropout", by_size(steps, 0.1, 0.05, 0.02, FEW, MANY), reason)
        else:
            for key, nothing in (("embedding_size", 1), ("spelling_size", 0), ("word_dropout", 0.0)):
                choices.drop("model", key, nothing)
        choices.choose_training(len(training), validates)

    def _fit_documents(self, training: Examples, job: TaggerJob) -> None:
        self.numbers = job.data.targets == "numbers"
        self.words = self.scaler = None
        if training.input_kind == "words":
            limits = {"min_count": job.data.min_count, "max_size": job.data.vocabulary_size}
            spelled = job.model.spelling_size != 0
            self.words = SpelledWords.fit(training.words, lower_case=job.data.lower_case, spelled=spelled, **limits)
        else:
            self.scaler = Scaler.fit(training.steps, training.feature_names)
            if not job.data.standardize:
                zeros = np.zeros(len(training.feature_names))
                self.scaler = Scaler(zeros, zeros + 1, training.feature_names)
        if self.numbers:
            yes = np.concatenate(training.numbers).sum(0)
            self.tags = LabelSet(training.target_names, [int(count) for count in yes])
            self._baseline = WordTags({}, 0, int(training.lengths.sum()))
        else:
            self.tags = LabelSet.fit(chain.from_iterable(training.tags))
            words = self._columns(training.without_targets())["inputs"] if self.words else None
            classes = self.tags.encode(chain.from_iterable(training.tags))
            self._baseline = WordTags.fit(None if words is None else words.values, classes)  # pyright: ignore[reportAttributeAccessIssue]

    def _documents(self) -> dict[str, str]:
        documents = {"labels": self.tags.to_json(), "baseline": self._baseline.to_json()}
        if self.words is not None:
            documents["words"] = self.words.to_json()
        if self.scaler is not None:
            documents["scaler"] = self.scaler.to_json()
        return documents

    def _read_documents(self, documents: Mapping[str, str], job: TaggerJob) -> None:
        self.numbers = job.data.targets == "numbers"
        self.tags = LabelSet.from_json(documents["labels"])
        self._baseline = WordTags.from_json(documents["baseline"])
        self.words = SpelledWords.from_json(documents["words"]) if "words" in documents else None
        self.scaler = Scaler.from_json(documents["scaler"]) if "scaler" in documents else None

    def _columns(self, examples: Examples) -> Columns:
        if (examples.input_kind == "words") != (self.words is not None):
            expected, found = ("words", "no words") if self.words is not None else ("feature vectors", "none")
            raise DataError(f"{examples.source}: expected {expected}, as the model was trained on, got {found}")
        columns: Columns = {}
        if self.words is not None:
            columns |= self.words.encode(examples.words)
        else:
            assert self.scaler is not None
            columns["inputs"] = Ragged.of([self.scaler.transform(steps) for steps in examples.steps])
        if examples.target_kind == "none":
            return columns
        if examples.target_kind != ("numbers" if self.numbers else "tags"):
            expected = "numbers" if self.numbers else "a tag"
            raise DataError(f"{examples.source}: expected {expected} for each step, as the model was trained")
        if self.numbers:
            columns["targets"] = Ragged.of(examples.numbers, np.float32)
        else:
            columns["targets"] = Ragged.of([self.tags.encode_known(tags) for tags in examples.tags], np.int64)
        return columns

    def _network(self, job: TaggerJob) -> TaggerNetwork:
        model = job.model
        words = None
        if self.words is not None:
            spelled = self.words.characters
            words = WordEmbedding(
                len(self.words.words),
                int(model.embedding_size),
                characters=None if spelled is None else len(spelled),
                character_size=model.character_size,
                spelling_size=int(model.spelling_size),
                word_dropout=float(model.word_dropout),
                unknown=self.words.words.unknown_id,
                backend=model.backend,
            )
        assert words is not None or self.scaler is not None
        size = words.size if words is not None else len(self.scaler.mean)  # pyright: ignore[reportOptionalMemberAccess]
        layers, both = [], model.direction == "both"
        for hidden_size in model.sizes():
            layers.append(
                recurrent_layers(
                    model.cell,
                    size,
                    hidden_size,
                    bidirectional=both,
                    weight_dropout=model.weight_dropout,
                    recurrent_dropout=model.recurrent_dropout,
                    reset=model.reset,
                    backend=model.backend,
                )
            )
            size = hidden_size * (2 if both else 1)
        crf = model.output == "crf" and not self.numbers
        names = self.tags.names
        return TaggerNetwork(
            words,
            layers,
            len(names),
            dropout=float(model.dropout),
            exclusive=not self.numbers,
            crf=crf,
            forbidden=forbidden_in_bio(names) if crf and are_spans(names) else (),
        )

    def _task(
        self, network: TaggerNetwork, job: TaggerJob, training: Columns, validation: Columns | None
    ) -> TaggerTask:
        tags = None if self.numbers else self.tags.names
        return TaggerTask(network, training, validation, job.training, tags)

    def _judge(self, part: Part) -> TaggerEvaluation:
        found = tag(self.network, part.columns)
        truth, inputs = part.columns["targets"], part.columns["inputs"]
        assert isinstance(truth, Ragged)
        assert isinstance(inputs, Ragged)
        if self.numbers:
            rates = np.array(self.tags.counts) / self._baseline.steps
            return evaluate_numbers(found.scores, truth, rates, part.places, self.tags.names)
        unknown = None
        words = inputs.values
        if self.words is not None:
            unknown = Ragged(words == self.words.words.unknown_id, inputs.offsets)
        baseline = Ragged(self._baseline.predict(words), truth.offsets)
        return evaluate_tags(
            found.predicted,
            truth,
            baseline,
            self.tags.names,
            found.loss,
            part.places,
            part.texts,
            unknown_words=unknown,
            of_spans=are_spans(self.tags.names),
        )

    def _try(self, network: TaggerNetwork, columns: Columns, device: torch.device) -> None:
        first = {name: Ragged.of([column[0]]) for name, column in columns.items() if name != "targets"}
        tag(network, first)


def _are_next_steps(examples: Examples) -> bool:
    """Whether each step's target is the step after it: read backwards, it would be read off."""
    if examples.target_kind != "numbers" or examples.input_kind != "steps":
        return False
    pairs = zip(examples.steps[:100], examples.numbers[:100], strict=True)
    return all(len(x) > 1 and x.shape == y.shape and np.array_equal(x[1:], y[:-1]) for x, y in pairs)
