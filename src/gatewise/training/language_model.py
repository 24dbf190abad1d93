"""LanguageModel: fit it to a text, evaluate it, let it write, save it."""

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from gatewise.config import Backend, LanguageModelJob, Reset, TextConfig, TrainingConfig
from gatewise.data.batches import EvaluationWindows, open_tokens, write_tokens
from gatewise.data.text import iter_text
from gatewise.data.tokenizers import Tokenizer
from gatewise.errors import InputError, TextError
from gatewise.models.decoding import check_decoding
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.run_folder import RunFolder
from gatewise.training import preparation
from gatewise.training.checkpoint import load_weights
from gatewise.training.environment import choose_device
from gatewise.training.estimator import Estimator, Prepared
from gatewise.training.evaluation import Evaluation, mean_loss, text_metrics
from gatewise.training.fitted import Fitted
from gatewise.training.language_task import LanguageTask
from gatewise.training.loop import TrainingResult
from gatewise.training.observer import Observer
from gatewise.training.parameters import RandomState
from gatewise.training.preparation import PreparedText, build_network, cut_windows
from gatewise.training.saved_model import read_job, read_model
from gatewise.training.text_evaluation import TextEvaluation, evaluate_text
from gatewise.training.token_pairs import TokenPairs
from gatewise.training.writing import read_prompt, write

LANE = 10_000  # tokens that a lane of an evaluation reads at least, so that its start from a zero state hardly counts
SAMPLE_PROMPT_LENGTH = 20  # tokens
SAMPLE_TEMPERATURE = 0.8


class LanguageModel(Estimator[LanguageModelJob]):
    """A GRU language model of characters, words or subwords.

        model = gw.LanguageModel(hidden_size=256).fit("book.txt", "runs/book")
        model.generate("The time traveller ")

    The arguments are the keys of `LanguageModelConfig`, which has their meaning; data, training: how the text is read,
    and how it is trained, sections or dicts of their keys; random_state: a seed in place of `training.seed`. They are
    only stored here; `fit` checks them. Once it has been fitted or loaded, a model has

        network     LanguageModelNetwork: the torch module, in eval mode
        tokenizer   Tokenizer: text to tokens and back
        config      LanguageModelJob: everything it was trained with
        result      TrainingResult: what came of the training, only after `fit`
        evaluations "validation": how good it is there, TextEvaluation, only after `fit` with a validation text
    """

    job_type = LanguageModelJob
    _source = "a text (a path, or the name of a corpus)"

    network = Fitted[LanguageModelNetwork]()
    tokenizer = Fitted[Tokenizer]()
    result = Fitted[TrainingResult[Evaluation]]()
    evaluations = Fitted[dict[str, TextEvaluation]]()
    _kept: LanguageTask  # while it is trained

    def __init__(
        self,
        hidden_size: int = 256,
        *,
        reset: Reset = "after",
        input: Literal["embedding", "one-hot"] = "embedding",
        embedding_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        tied: bool = False,
        backend: Backend = "auto",
        data: TextConfig | Mapping[str, Any] | None = None,
        training: TrainingConfig | Mapping[str, Any] | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.hidden_size = hidden_size
        self.reset: Reset = reset
        self.input: Literal["embedding", "one-hot"] = input
        self.embedding_size = embedding_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.weight_dropout = weight_dropout
        self.recurrent_dropout = recurrent_dropout
        self.tied = tied
        self.backend: Backend = backend
        self.data = data
        self.training = training
        self.random_state = random_state

    def fit(
        self,
        text: str | Path | None,
        run: str | Path | None = None,
        *,
        data: TextConfig | None = None,
        training: TrainingConfig | None = None,
        resume: bool = False,
        overwrite: bool = False,
        observer: Observer | None = None,
    ) -> Self:
        """Train on a text; afterwards this is the model with the best validation loss (the last one without any).

        text: path of a UTF-8 text, or the name of a corpus: python-topics, time-machine.
        run: the run folder to write; None keeps nothing but this object.
        data, training: in place of the model's own; where neither says a key, its default counts, or, with `resume`,
            what the run was started with.
        resume: go on from the last checkpoint in `run`, bit for bit as if the training had never been stopped. The
            text may be None then, for the run has kept its tokens. Epochs, steps, learning rate and such may be
            changed (see `preparation.CHANGEABLE`), the model and the data may not.
        overwrite: replace a run that lies there.
        observer: is told of the progress.

        Ctrl-C ends the training after the step it is at, with a checkpoint, and raises TrainingInterrupted (a
        KeyboardInterrupt). Raises ConfigError, TextError, PromptError, RunError, BackendError, NonFiniteLoss.
        """
        given = type(self)(
            **{**self.get_params(deep=False), "data": data or self.data, "training": training or self.training}
        )
        job = given._job(read_job(RunFolder(run), self.job_type.task) if resume and run is not None else None)
        return self._fit(text, run, job, resume=resume, overwrite=overwrite, observer=observer)

    def _start(
        self,
        source: str | Path,
        folder: RunFolder,
        job: LanguageModelJob,
        device: torch.device,
        overwrite: bool,
        observer: Observer,
    ) -> Prepared[LanguageModelJob]:
        return self._prepared(job, preparation.start(source, folder, job, device, overwrite=overwrite))

    def _resume(
        self,
        source: str | Path | None,
        folder: RunFolder,
        job: LanguageModelJob,
        device: torch.device,
        observer: Observer,
    ) -> Prepared[LanguageModelJob]:
        return self._prepared(job, preparation.resume(source, folder, job, device, observer))

    def _prepared(self, job: LanguageModelJob, found: PreparedText) -> Prepared[LanguageModelJob]:
        self.config, self.tokenizer, self.network = job, found.tokenizer, found.network
        windows, validation = cut_windows(open_tokens(found.token_file), job)
        self._kept = LanguageTask(
            found.network,
            windows,
            validation,
            characters_per_token=found.token_file.characters / found.token_file.length,
            sample_text=self._sampler(windows.tokens if validation is None else validation.tokens),
        )
        return Prepared(job, self._kept, self._documents(), found.token_file.to_json(), found.checkpoint)

    def _conclude(self, folder: RunFolder, observer: Observer) -> None:
        """Judge the best weights on the validation text, beside a table of token pairs, and write evaluation.json."""
        task, self.evaluations = self._kept, {}
        del self._kept
        if task.validation is not None:
            pairs = TokenPairs(task.windows.tokens.numpy(), self.tokenizer.size)
            found = evaluate_text(self.network, task.validation, pairs, self.tokenizer, task.characters_per_token)
            self.evaluations = {"validation": found}
            self._write_evaluations(folder)

    def _documents(self) -> dict[str, str]:
        return {"tokenizer": self.tokenizer.to_json()}

    def _sampler(self, tokens: Tensor) -> Callable[[], tuple[str, str]] | None:
        """Gives a prompt and what the network writes after it: always with the same draws, so that one sees it learn.

        tokens (N,): their first ones are the prompt, unless there is one in the configuration.
        """
        training = self.config.training
        if training.sample_length == 0:
            return None
        prompt, first = training.sample_prompt, tokens[:SAMPLE_PROMPT_LENGTH].tolist()
        if prompt:
            first = read_prompt(prompt, self.tokenizer, self.config.data)
        else:
            prompt = self.tokenizer.decode(first)
        choice = {"temperature": SAMPLE_TEMPERATURE, "seed": training.seed}
        return lambda: (prompt, "".join(write(self.network, self.tokenizer, first, training.sample_length, **choice)))

    def evaluate(self, text: str | Path) -> Evaluation:
        """How well the model predicts a whole text (a path or the name of a corpus), cleaned as its training text was.

        Raises TextError, also if the model knows none of the text's tokens.
        """
        self._check_fitted()
        data = self.config.data.model_copy(update={"max_characters": None})
        with tempfile.TemporaryDirectory(prefix="gatewise-", ignore_cleanup_errors=True) as folder:
            file = write_tokens(iter_text(text, data), self.tokenizer, Path(folder) / "tokens.bin")
            if file.unknown == file.length:
                raise TextError(
                    f"{text}: the model knows none of its {file.length} tokens; evaluate it on a text like the one "
                    "that it was trained on"
                )
            lanes = min(self.config.training.batch_size, max(1, file.length // LANE))
            windows = EvaluationWindows(open_tokens(file), lanes, self.config.training.sequence_length)
            loss_nats, tokens = mean_loss(self.network, windows)
        metrics = text_metrics(loss_nats, file.characters / file.length)
        return Evaluation(**metrics, tokens=tokens, unknown_tokens=file.unknown)

    def score(self, text: str | Path, y: Any = None) -> float:
        """Minus the bits per character of a text: the higher, the better. y: not used; scikit-learn gives it."""
        return -self.evaluate(text).bits_per_char

    def generate(
        self,
        prompt: str = "",
        length: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """What the model writes after the prompt, `length` tokens; the prompt itself is not repeated.

        prompt: cleaned as the training text was. An empty one begins as a line does: see `writing.read_prompt`.
        temperature: below 1 favours the likely tokens; 0 takes the likeliest each time.
        top_k: draw from the k likeliest tokens only; top_p: from the likeliest whose probabilities sum to p.
        seed: of the draws; None for another text each time.

        Raises PromptError, InputError.
        """
        return "".join(self.stream(prompt, length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed))

    def stream(
        self,
        prompt: str = "",
        length: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """As generate, piece by piece while it is written."""
        self._check_fitted()
        check_decoding(temperature, top_k, top_p)
        if length < 0:
            raise InputError(f"length: expected a whole number >= 0, got {length}")
        tokens = read_prompt(prompt, self.tokenizer, self.config.data)
        seed = secrets.randbits(63) if seed is None else seed
        self.network.eval()
        choice = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        return write(self.network, self.tokenizer, tokens, length, **choice)

    @classmethod
    def from_run(cls, folder: RunFolder, device: str = "auto") -> Self:
        """The best model of the training in a run folder, so far. Raises RunError, BackendError."""
        job, documents, tensors, metadata = read_model(folder, cls.job_type.task)
        tokenizer = Tokenizer.from_json(documents["tokenizer"])
        model = cls(**job.model.model_dump(), data=job.data, training=job.training)
        model.config, model.tokenizer, model._trained = job, tokenizer, metadata
        model.network = build_network(tokenizer.size, job.model, choose_device(device))
        load_weights(model.network, tensors, folder.model)
        return model
