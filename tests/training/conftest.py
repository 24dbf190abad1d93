"""What the tests of training share: a small text, a small model, and what it means that two runs are the same."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import gatewise.gates.report
from gatewise.config import TextConfig, TrainingConfig
from gatewise.run_folder import RunFolder, load_tensors
from gatewise.training.language_model import LanguageModel
from gatewise.training.observer import Observer

TIMES = {"seconds", "batch_seconds"} | {f"{unit}_per_second" for unit in ("tokens", "examples", "labels", "windows")}
SMALL = {"batch_size": 4, "sequence_length": 8, "sample_length": 12, "log_every": 3, "checkpoint_every": 7}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Steps of a few microseconds are slowed down by threads, and wait for each other where processors are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def reports(monkeypatch) -> list[Path]:
    """The runs that a report was asked for; none is drawn, for that takes longer than the training."""
    asked: list[Path] = []
    monkeypatch.setattr(gatewise.gates.report, "write_report", asked.append)
    return asked


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    """1,500 characters of six words, so that a small model learns something: 42 steps an epoch."""
    words = random.Random(0).choices(["the", "gate", "forgets", "what", "it", "reads\n"], k=400)
    path = tmp_path_factory.mktemp("text") / "small.txt"
    path.write_text(" ".join(words)[:1500])
    return path


class Killed(BaseException):
    """Stands for a process that is killed: nothing catches it."""


class Recorder(Observer):
    """Remembers everything, and raises `stop` when the line of step `at` is written."""

    def __init__(self, at: int | None = None, stop: type[BaseException] = Killed):
        self.at, self.stop = at, stop
        self.starts: list[tuple[int, int]] = []
        self.steps: list[dict] = []
        self.validations: list[tuple[dict | None, dict | None]] = []
        self.messages: list[str] = []

    def on_start(self, step, steps):
        self.starts.append((step, steps))

    def on_step(self, metrics):
        self.steps.append(metrics)
        if metrics["step"] == self.at:
            raise self.stop

    def on_validation(self, metrics, sample):
        self.validations.append((metrics, sample))

    def on_message(self, message):
        self.messages.append(message)


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed


@pytest.fixture
def fit(text) -> Callable[..., LanguageModel]:
    """Trains a small model: fit(run, resume=True, observer=..., data={...}, model={...}, epochs=2, ...)."""

    def fit_small(run, text=text, *, data=None, model=None, observer=None, resume=False, overwrite=False, **training):
        small = LanguageModel(**{"hidden_size": 12, "embedding_size": 6, **(model or {})})
        data, config = TextConfig(**(data or {})), TrainingConfig(**{**SMALL, **training})
        return small.fit(text, run, data=data, training=config, observer=observer, resume=resume, overwrite=overwrite)

    return fit_small


@pytest.fixture
def without_times() -> Callable[[list[dict]], list[dict]]:
    """Lines of metrics without what two equal trainings differ in."""
    return lambda lines: [_untimed(line) for line in lines]


@pytest.fixture
def assert_same_run() -> Callable[[Path, Path], None]:
    """Fails unless two runs are equal bit for bit: weights, optimizer, random state, metrics, samples; times aside."""

    def compare(one: Path, other: Path) -> None:
        one_run, other_run = RunFolder(one), RunFolder(other)
        for name in ("checkpoint", "model"):
            (left, left_data), (right, right_data) = (load_tensors(getattr(run, name)) for run in (one_run, other_run))
            assert left.keys() == right.keys()
            for key, tensor in left.items():
                assert torch.equal(tensor, right[key]), key
            assert _untimed(left_data) == _untimed(right_data)
        left_lines, right_lines = (list(map(_untimed, run.read_metrics())) for run in (one_run, other_run))
        assert left_lines == right_lines
        assert one_run.read_samples() == other_run.read_samples()
        assert one_run.config.read_text() == other_run.config.read_text()

    return compare


def _untimed(metadata: dict) -> dict:
    return {
        key: _untimed(value) if isinstance(value, dict) else value
        for key, value in metadata.items()
        if key not in TIMES
    }
