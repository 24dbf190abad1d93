"""Translator: fit it to sentences with their translations, evaluate it, translate with it, save it."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gatewise.config import (
    Auto,
    Backend,
    Cell,
    Reset,
    TranslatorData,
    TranslatorJob,
    TranslatorTraining,
)
from gatewise.data.examples import Examples
from gatewise.data.padded_batches import PaddedBatches
from gatewise.data.ragged import Ragged
from gatewise.data.sentences import SentenceTokens
from gatewise.data.sources import read_to_translate
from gatewise.errors import DataError, InputError
from gatewise.models.recurrent_layers import recurrent_layers
from gatewise.models.search import Hypothesis, beam_search, sample
from gatewise.models.translator import TranslatorNetwork
from gatewise.training.choices import Choices, by_size
from gatewise.training.example_estimator import ExampleEstimator, Source
from gatewise.training.fitted import Fitted
from gatewise.training.kept_data import Columns, Part
from gatewise.training.loop import TrainingResult
from gatewise.training.parameters import RandomState
from gatewise.training.translation import Translated, TranslatorEvaluation, evaluate_translations
from gatewise.training.translator_task import TranslatorTask, longest, mean_cost

BATCH = 32  # sentences that are translated at once
FEW, MANY = 10_000, 500_000  # pairs
STEPS = 3_000  # of a training: each scores a whole vocabulary for every word


class Translator(ExampleEstimator[TranslatorJob]):
    """Sentences to their translations: a bidirectional encoder, a decoder that attends to it.

        model = gw.Translator().fit("fra-eng.tsv", run="runs/fra-eng")
        model.predict(["Il fait froid."])

    `fit` takes a file, or two, as `data.sources.read_to_translate` reads them, or N sentences and N translations. The
    validation and test parts are split off by sentence: pairs that share one in either language stay together.

    The arguments are the keys of `TranslatorConfig`, which has their meaning; data, training: how pairs are read and
    split, and how it is trained, sections or dicts of their keys; random_state: a seed in place of `training.seed`.
    They are only stored here; `fit` checks them. Once it has been fitted or loaded, a model has

        network         TranslatorNetwork: the torch module, in eval mode
        source, target  SentenceTokens: the tokens of both languages
        config          TranslatorJob: everything it was trained with, with what was decided by the data
        result, evaluations, choices: only after `fit`
    """

    job_type = TranslatorJob
    _source = "sentences with their translations (a file, or two lists)"

    network = Fitted[TranslatorNetwork]()
    source = Fitted[SentenceTokens]()
    target = Fitted[SentenceTokens]()
    result = Fitted[TrainingResult[TranslatorEvaluation]]()

    def __init__(
        self,
        hidden_size: int | Auto = "auto",
        *,
        cell: Cell = "gru",
        reset: Reset = "after",
        attention: Literal["multiplicative", "additive"] = "multiplicative",
        embedding_size: int | Auto = "auto",
        num_layers: int = 1,
        dropout: float | Auto = "auto",
        tied: bool = True,
        weight_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        backend: Backend = "auto",
        data: TranslatorData | Mapping[str, Any] | None = None,
        training: TranslatorTraining | Mapping[str, Any] | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.hidden_size = hidden_size
        self.cell: Cell = cell
        self.reset: Reset = reset
        self.attention: Literal["multiplicative", "additive"] = attention
        self.embedding_size = embedding_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.tied = tied
        self.weight_dropout = weight_dropout
        self.recurrent_dropout = recurrent_dropout
        self.backend: Backend = backend
        self.data = data
        self.training = training
        self.random_state = random_state

    def score(self, X: Source, y: Any = None) -> float:  # noqa: N803
        """BLEU, from 0 to 100."""
        return self.evaluate(X, y).metrics["bleu"].value

    def predict(self, X: Source, *, beams: int = 5, alpha: float = 0.6) -> list[str]:  # noqa: N803
        """The translation of each sentence, by beam search. X: a file, or N sentences; as in `translate`."""
        self._check_fitted()
        return [found[0].text for found in self.translate(self._without_targets(X).texts, beams=beams, alpha=alpha)]

    def translate(
        self,
        sentences: Iterable[str],
        *,
        beams: int = 5,
        alpha: float = 0.6,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        batch_size: int = BATCH,
    ) -> Iterator[list[Translated]]:
        """Of each sentence its translations, best first, as they come; a blank sentence has a blank one.

        beams: how many are kept open at once, and given at most; 1 takes the likeliest token each time.
        alpha: how much long ones are favoured (`models.search.length_penalty`).
        temperature, top_k, top_p: draw each token instead, by `seed`, as a language model does; one for each sentence.
        batch_size: sentences that are read before any of them is translated.

        Raises InputError.
        """
        self._check_fitted()
        if beams < 1 or batch_size < 1:
            raise InputError(f"translate: expected beams and batch_size >= 1, got {beams} and {batch_size}")
        drawn = None if temperature is None else {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        if drawn is None and (top_k is not None or top_p is not None):
            raise InputError("translate: top_k and top_p are for draws; give a temperature, too")
        held: list[str] = []
        number = 0
        for sentence in sentences:
            held.append(sentence)
            if len(held) == batch_size:
                yield from self._translate(held, beams, alpha, drawn, seed + number)
                held, number = [], number + 1
        if held:
            yield from self._translate(held, beams, alpha, drawn, seed + number)

    def predict_rows(self, source: str | Path) -> list[dict[str, Any]]:
        """Of each sentence of a file its place, itself, its translation, and the ln of that one's probability."""
        examples = self._without_targets(source)
        return [
            {"place": place, "text": text, "translation": found[0].text, "log_probability": found[0].log_probability}
            for place, text, found in zip(examples.places, examples.texts, self.translate(examples.texts), strict=True)
        ]

    def _translate(
        self, sentences: list[str], beams: int, alpha: float, drawn: dict[str, Any] | None, seed: int
    ) -> Iterator[list[Translated]]:
        tokens = [self.source.encode(sentence)[: self.config.data.max_length] for sentence in sentences]
        rows = [row for row, each in enumerate(tokens) if len(each)]
        found: dict[int, list[Translated]] = {}
        if rows:
            device = self.network.output.weight.device
            ragged = Ragged.of([tokens[row] for row in rows])
            batch = PaddedBatches({"source": ragged}, len(rows)).cut(np.arange(len(rows)))
            source, lengths = batch.columns["source"].long().to(device), batch.lengths["source"].to(device)
            asked = {"start": self.target.start, "end": self.target.end, "forbidden": self.target.forbidden}
            asked["max_length"] = longest(int(lengths.max()))
            hypotheses = (
                beam_search(self.network, source, lengths, beams=beams, alpha=alpha, **asked)
                if drawn is None
                else [[each] for each in sample(self.network, source, lengths, seed=seed, **drawn, **asked)]
            )
            for row, best in zip(rows, hypotheses, strict=True):
                found[row] = [self._said(hypothesis, tokens[row]) for hypothesis in best]
        blank = Translated("", 0.0, [], [], np.zeros((0, 0), dtype=np.float32))
        return iter([found.get(row, [blank]) for row in range(len(sentences))])

    def _said(self, hypothesis: Hypothesis, source: np.ndarray) -> Translated:
        return Translated(
            self.target.decode(hypothesis.tokens),
            hypothesis.log_probability,
            self.target.pieces(hypothesis.tokens),
            self.source.pieces(source.tolist()),
            hypothesis.weights.float().cpu().numpy(),
        )

    # What ExampleEstimator asks for.

    def _read(self, source: str | Path, data: TranslatorData, with_targets: bool) -> Examples:
        return read_to_translate(
            source,
            target_suffix=data.target_suffix,
            source_column=data.source_column,
            target_column=data.target_column,
            member=data.member,
            with_targets=with_targets,
        )

    def _ignored(self, data: TranslatorData) -> str | None:
        return data.target_suffix

    def _in_memory(self, inputs: Any, targets: Any, data: TranslatorData, name: str) -> Examples:
        if isinstance(inputs, str) or not all(isinstance(text, str) for text in inputs):
            raise DataError(f"{name}: expected a list of sentences, got {type(inputs).__name__}")
        places = [f"{name}[{row}]" for row in range(len(inputs))]
        if targets is None:
            return Examples(name, "text", list(inputs), "none", None, places)
        return Examples(name, "text", list(inputs), "text", list(targets), places)

    def _choose(self, choices: Choices[TranslatorJob], training: Examples, validates: bool) -> None:
        if training.target_kind != "text":
            raise DataError(f"{training.source}: expected a translation of each sentence, got none")
        pairs = len(training)
        reason = f"{pairs:,} pairs"
        size = by_size(pairs, 128, 256, 512, FEW, MANY)
        choices.choose("model", "hidden_size", size, reason)
        choices.choose("model", "embedding_size", size, reason)
        choices.choose("model", "dropout", by_size(pairs, 0.3, 0.2, 0.1, FEW, MANY), reason)
        if choices.job.data.tokenizer == "char":
            choices.drop("data", "vocabulary_size", 1)
        else:
            choices.choose("data", "vocabulary_size", by_size(pairs, 2_000, 8_000, 16_000, FEW, MANY), reason)
        choices.choose("training", "batch_size", by_size(pairs, 32, 64, 128, FEW, MANY), reason)
        choices.choose_training(pairs, validates, STEPS)

    def _fit_documents(self, training: Examples, job: TranslatorJob) -> None:
        data = job.data
        limits = {"kind": data.tokenizer, "vocabulary_size": int(data.vocabulary_size), "lower_case": data.lower_case}
        self.source = SentenceTokens.fit(training.texts, **limits)
        self.target = SentenceTokens.fit(training.target_texts, **limits)
        self._max_length = data.max_length

    def _documents(self) -> dict[str, str]:
        return {"tokenizer": self.source.to_json(), "target_tokenizer": self.target.to_json()}

    def _read_documents(self, documents: Mapping[str, str], job: TranslatorJob) -> None:
        lower_case = job.data.lower_case
        self.source = SentenceTokens.from_json(documents["tokenizer"], lower_case=lower_case)
        self.target = SentenceTokens.from_json(documents["target_tokenizer"], lower_case=lower_case)
        self._max_length = job.data.max_length

    def _columns(self, examples: Examples) -> Columns:
        sources = self.source.encode_all(examples.texts)
        for tokens, place in zip(sources, examples.places, strict=True):
            if not len(tokens):
                raise DataError(f"{place}: holds no word; leave it out")
        columns: Columns = {"source": Ragged.of(sources)}
        if examples.target_kind != "none":
            columns["target"] = Ragged.of(self.target.encode_all(examples.target_texts), np.int32)
        return columns

    def _remarks(self, parts: Mapping[str, Part]) -> list[str]:
        kept = self._short(parts["training"].columns)
        if kept.all():
            return []
        if not kept.any():
            raise DataError(f"training: every pair has more than data.max_length = {self._max_length} tokens; raise it")
        return [
            f"training: {(~kept).sum():,} of {len(kept):,} pairs have more than {self._max_length} tokens: left out"
        ]

    def _short(self, columns: Columns) -> np.ndarray:
        """Which pairs are short enough for training, (N,) bool."""
        lengths = [column.lengths for column in columns.values() if isinstance(column, Ragged)]
        return np.max(lengths, axis=0) <= self._max_length

    def _network(self, job: TranslatorJob) -> TranslatorNetwork:
        model = job.model
        make_layer = partial(
            recurrent_layers,
            model.cell,
            reset=model.reset,
            backend=model.backend,
            weight_dropout=model.weight_dropout,
            recurrent_dropout=model.recurrent_dropout,
        )
        return TranslatorNetwork(
            self.source.tokenizer.size,
            self.target.size,
            make_layer=make_layer,
            embedding_size=int(model.embedding_size),
            hidden_size=int(model.hidden_size),
            num_layers=model.num_layers,
            attention=model.attention,
            dropout=float(model.dropout),
            tied=model.tied,
        )

    def _task(
        self, network: TranslatorNetwork, job: TranslatorJob, training: Columns, validation: Columns | None
    ) -> TranslatorTask:
        rows = np.flatnonzero(self._short(training)).tolist()
        short = {name: Ragged.of([column[row] for row in rows]) for name, column in training.items()}
        return TranslatorTask(network, short, validation, job.training, self.source, self.target)

    def _judge(self, part: Part) -> TranslatorEvaluation:
        source, target = part.columns["source"], part.columns["target"]
        references = [self.target.decode(tokens.tolist()) for tokens in target]
        sentences = part.texts or []
        order = np.argsort([len(tokens) for tokens in source], kind="stable").tolist()
        found = zip(order, self.translate(sentences[row] for row in order), strict=True)
        written = [best for _, (best, *_) in sorted(found, key=lambda each: each[0])]
        loss, _ = mean_cost(self.network, part.columns, self.target)
        return evaluate_translations(written, references, sentences, part.places, loss)

    def _try(self, network: TranslatorNetwork, columns: Columns, device: torch.device) -> None:
        tokens = torch.as_tensor(np.asarray(columns["source"][0])).long().unsqueeze(1).to(device)
        with torch.no_grad():
            network(tokens, torch.tensor([len(tokens)], device=device), tokens[:1] * 0)
