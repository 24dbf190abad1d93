"""A training that was stopped, in whatever way, goes on as if it never had been; or says why it does not."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import gatewise.training.language_task
from gatewise import run_folder
from gatewise.errors import ConfigError, InputError, RunError, TextError
from gatewise.run_folder import RunFolder
from gatewise.training.language_model import LanguageModel
from gatewise.training.loop import TrainingInterrupted
from gatewise.training.runs import load

KINDS = {
    "adamw": {"epochs": 2},
    "sgd": {"epochs": 2, "optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01, "learning_rate": 0.1},
    "random-windows": {"epochs": 2, "data": {"windows": "random"}},
    "no-validation": {"epochs": 2, "data": {"validation_fraction": 0.0}},
    "often-validated": {"epochs": 2, "validate_every": 5, "checkpoint_every": 11, "warmup_steps": 4},
    "impatient": {"epochs": 9, "learning_rate": 0.1, "validate_every": 6, "patience": 3, "schedule": "constant"},
    "deep": {"epochs": 2, "model": {"num_layers": 2, "dropout": 0.4, "reset": "before"}},
    "words": {"epochs": 3, "data": {"tokenizer": "word", "windows": "random"}, "model": {"dropout": 0.2}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_goes_on_as_if_it_never_was(tmp_path, fit, recorder, killed, assert_same_run, kind):
    """Killed right after a line of metrics was written, so that there are lines beyond the last checkpoint."""
    job = {"model": {"dropout": 0.25}, "log_every": 1, **KINDS[kind]}
    fit(tmp_path / "whole", **job)
    with pytest.raises(killed):
        fit(tmp_path / "killed", **job, observer=recorder(at=17))
    for at in (16, 17, 24, 26):
        with pytest.raises(killed):
            fit(tmp_path / "killed", **job, observer=recorder(at=at), resume=True)
    fit(tmp_path / "killed", **job, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_an_interrupted_training_goes_on_as_if_it_never_was(tmp_path, fit, recorder, assert_same_run):
    job = {"model": {"dropout": 0.25, "num_layers": 2}, "epochs": 2, "log_every": 1}
    fit(tmp_path / "whole", **job)
    with pytest.raises(TrainingInterrupted):
        fit(tmp_path / "stopped", **job, observer=recorder(at=5, stop=KeyboardInterrupt))
    for at in (6, 41, 42, 43, 59):
        with pytest.raises(TrainingInterrupted):
            fit(tmp_path / "stopped", **job, observer=recorder(at=at, stop=KeyboardInterrupt), resume=True)
    fit(tmp_path / "stopped", **job, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


KILLED_AT_RANDOM = """
import os, random, signal, sys, time
import gatewise.gates.report
from gatewise.config import TrainingConfig
from gatewise.training.language_model import LanguageModel

gatewise.gates.report.write_report = print
text, folder, seed = sys.argv[1:]
training = TrainingConfig(
    epochs=8, batch_size=4, sequence_length=8, sample_length=5, log_every=1, checkpoint_every=3, threads=1
)

def train(run, resume):
    model = LanguageModel(12, embedding_size=6, num_layers=2, dropout=0.3)
    model.fit(text, f"{folder}/{run}", training=training, resume=resume)

def train_in_child(run):
    child = os.fork()
    if child == 0:
        train(run, os.path.exists(f"{folder}/{run}/config.toml"))
        os._exit(0)
    return child

train("warm-up", False)
start = time.perf_counter()
train("whole", False)
duration = time.perf_counter() - start
delays = random.Random(int(seed))
for _ in range(6):
    child = train_in_child("killed")
    time.sleep(delays.uniform(0, 0.25 * duration))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
status = os.waitpid(train_in_child("killed"), 0)[1]
sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, to kill many processes in little time")
def test_sigkill_at_random_moments(tmp_path, text, assert_same_run):
    command = [sys.executable, "-c", KILLED_AT_RANDOM, str(text), str(tmp_path), str(random.randrange(1000))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """As in a terminal; what a shell starts in the background ignores Ctrl-C, and so would the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_ends_the_step_saves_and_reports(tmp_path, fit, recorder, reports):
    class CtrlC(recorder):
        def on_step(self, metrics):
            super().on_step(metrics)
            if metrics["step"] == 12:
                os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    run = tmp_path / "run"
    with pytest.raises(TrainingInterrupted) as error:
        fit(run, epochs=2, observer=CtrlC())
    assert str(error.value) == f"stopped after step 12 of 84; {run} holds all that is needed to resume"
    assert signal.getsignal(signal.SIGINT) is handler
    assert reports == [run]
    assert json.loads(json.dumps(run_folder.read_header(RunFolder(run).checkpoint)))["progress"]["step"] == 12
    assert load(run).generate("the", 5, seed=0)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_a_second_ctrl_c_stops_at_once(tmp_path, fit, monkeypatch):
    def two_ctrl_c(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still running")

    monkeypatch.setattr(gatewise.training.language_task, "mean_loss", two_ctrl_c)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as error:
        fit(tmp_path / "run", epochs=2)
    assert not isinstance(error.value, TrainingInterrupted)
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_report_is_made_anew_at_each_end(tmp_path, fit, reports):
    fit(tmp_path / "run", epochs=1)
    fit(tmp_path / "run", epochs=2, resume=True)
    assert reports == [tmp_path / "run"] * 2


def test_a_longer_training_than_planned_at_first(tmp_path, fit, recorder):
    """Raising the epochs is allowed; with a constant rate the result is that of the longer training."""
    fit(tmp_path / "long", epochs=2, schedule="constant", model={"dropout": 0.2})
    fit(tmp_path / "short", epochs=1, schedule="constant", model={"dropout": 0.2})
    observer = recorder()
    fit(tmp_path / "short", epochs=2, schedule="constant", model={"dropout": 0.2}, resume=True, observer=observer)
    assert observer.starts == [(42, 84)]
    runs = [load(tmp_path / name) for name in ("long", "short")]
    for one, other in zip(*(run.network.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)
    assert runs[1].config.training.epochs == 2


def test_a_cosine_schedule_follows_the_new_length(tmp_path, fit):
    fit(tmp_path / "run", epochs=1, log_every=1)
    fit(tmp_path / "run", epochs=2, log_every=1, resume=True)
    rates = [line["learning_rate"] for line in RunFolder(tmp_path / "run").read_metrics() if line["split"] == "train"]
    assert rates[41] < 0.01 * rates[0]
    assert rates[42] == pytest.approx(rates[0] / 2)  # half way along the longer cosine
    assert rates[83] < 0.01 * rates[0]


def test_a_run_that_is_done_has_nothing_left_to_do(tmp_path, fit, recorder, assert_same_run):
    fit(tmp_path / "run", epochs=1)
    fit(tmp_path / "same", epochs=1)
    observer = recorder()
    result = fit(tmp_path / "run", epochs=1, resume=True, observer=observer).result
    assert observer.messages == [
        f"{tmp_path / 'run'}: all 42 steps are done; raise training.epochs or training.max_steps to train on"
    ]
    assert result.steps == 42
    assert_same_run(tmp_path / "run", tmp_path / "same")


@pytest.mark.parametrize(
    ("changed", "key", "was", "now"),
    [
        ({"model": {"hidden_size": 13}}, "model.hidden_size", 12, 13),
        ({"model": {"reset": "before"}}, "model.reset", "after", "before"),
        ({"data": {"lower_case": True}}, "data.lower_case", False, True),
        ({"batch_size": 5}, "training.batch_size", 4, 5),
        ({"seed": 1}, "training.seed", 0, 1),
        ({"optimizer": "sgd"}, "training.optimizer", "adamw", "sgd"),
    ],
)
def test_another_training_is_refused(tmp_path, fit, assert_same_run, changed, key, was, now):
    run = tmp_path / "run"
    fit(run, epochs=1)
    fit(tmp_path / "same", epochs=1)
    with pytest.raises(ConfigError) as error:
        fit(run, resume=True, **{"epochs": 2, **changed})
    assert str(error.value) == (
        f"{run}: cannot be resumed with {key} = {now}: it was started with {was}; "
        "leave the key as it was, or start a new run"
    )
    assert_same_run(run, tmp_path / "same")


def test_how_it_goes_on_may_change(tmp_path, fit):
    fit(tmp_path / "run", epochs=1)
    changed = {
        "epochs": 3,
        "max_steps": 60,
        "learning_rate": 0.001,
        "schedule": "linear",
        "clip_norm": None,
        "validate_every": 9,
        "patience": 2,
        "model": {"backend": "torch"},
    }
    assert fit(tmp_path / "run", resume=True, **changed).result.steps <= 60
    assert load(tmp_path / "run").config.training.schedule == "linear"


def test_the_text_may_be_gone(tmp_path, fit, text, recorder, assert_same_run):
    copy = tmp_path / "copy.txt"
    copy.write_bytes(text.read_bytes())
    fit(tmp_path / "whole", epochs=2)
    fit(tmp_path / "run", copy, epochs=2, max_steps=None)
    with pytest.raises(TrainingInterrupted):
        fit(tmp_path / "run", copy, epochs=2, overwrite=True, observer=recorder(at=9, stop=KeyboardInterrupt))
    copy.unlink()
    observer = recorder()
    fit(tmp_path / "run", copy, epochs=2, resume=True, observer=observer)
    (message,) = observer.messages
    assert str(copy) in message
    assert message.endswith(f"; going on with the tokens that {tmp_path / 'run'} has kept")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_no_text_and_no_configuration_are_needed(tmp_path, fit, recorder, assert_same_run):
    fit(tmp_path / "whole", epochs=2)
    with pytest.raises(TrainingInterrupted):
        fit(tmp_path / "run", epochs=2, observer=recorder(at=9, stop=KeyboardInterrupt))
    load(tmp_path / "run").fit(None, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "described"),
    [
        (lambda text: text.replace("gate", "gat", 1), "1499 tokens, the run has 1500"),
        (lambda text: text.replace("gate", "gatt", 1), "1500 tokens, the run has as many, but others"),
    ],
)
def test_another_text_is_refused(tmp_path, fit, text, change, described):
    fit(tmp_path / "run", epochs=1)
    other = tmp_path / "other.txt"
    other.write_text(change(text.read_text()))
    with pytest.raises(TextError) as error:
        fit(tmp_path / "run", other, epochs=2, resume=True)
    assert str(error.value) == (
        f"{other}: not the text that {tmp_path / 'run'} is trained on: {described}; resume it with its own text"
    )


def test_damaged_tokens_are_named(tmp_path, fit):
    fit(tmp_path / "run", epochs=1)
    path = RunFolder(tmp_path / "run").tokens
    path.write_bytes(b"\x01" + path.read_bytes()[1:])
    with pytest.raises(RunError) as error:
        fit(tmp_path / "run", epochs=2, resume=True)
    assert str(error.value).startswith(f"{path}: damaged")


@pytest.mark.parametrize("name", ["checkpoint", "model"])
def test_a_damaged_checkpoint_is_named(tmp_path, fit, name):
    fit(tmp_path / "run", epochs=1)
    path = getattr(RunFolder(tmp_path / "run"), name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=rf"{path.name}: damaged: "):
        fit(tmp_path / "run", epochs=2, resume=True)


def test_a_run_stopped_before_its_first_checkpoint_begins_anew(tmp_path, fit, recorder, killed, assert_same_run):
    class KilledAtTheStart(recorder):
        def on_start(self, step, steps):
            raise killed

    fit(tmp_path / "whole", epochs=1)
    with pytest.raises(killed):
        fit(tmp_path / "run", epochs=1, observer=KilledAtTheStart())
    assert not RunFolder(tmp_path / "run").checkpoint.exists()
    observer = recorder()
    fit(tmp_path / "run", epochs=1, resume=True, observer=observer)
    assert observer.messages == [f"{tmp_path / 'run'}: stopped before its first checkpoint; it begins anew"]
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_other_threads_are_said(tmp_path, fit, recorder):
    fit(tmp_path / "run", max_steps=1, threads=1)
    observer = recorder()
    fit(tmp_path / "run", max_steps=2, threads=2, resume=True, observer=observer)
    assert observer.messages == [
        "the run was trained with 1 threads and goes on with 2: rounding differs, "
        "so it is not bit for bit what it would have become"
    ]


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, fit, monkeypatch, assert_same_run, disk_full_from):
    """The run goes on from it, once there is room again."""
    fit(tmp_path / "whole", epochs=1)
    disk_full_from(RunFolder(tmp_path / "run").checkpoint, 4)
    with pytest.raises(RunError) as error:
        fit(tmp_path / "run", epochs=1)
    path = RunFolder(tmp_path / "run").checkpoint
    assert str(error.value) == f"{path}: cannot be written: No space left on device; what it held before is kept"
    assert run_folder.read_header(path)["progress"]["step"] == 14
    monkeypatch.undo()
    fit(tmp_path / "run", epochs=1, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.fixture
def disk_full_from(monkeypatch):
    """Makes every write to a file fail, from the one of the given number on."""

    def arrange(path: Path, number: int) -> None:
        written = 0
        replace = os.replace

        def replace_or_fail(source, target):
            nonlocal written
            written += Path(target) == path
            if Path(target) == path and written >= number:
                raise OSError(28, os.strerror(28))
            replace(source, target)

        monkeypatch.setattr(os, "replace", replace_or_fail)

    return arrange


def test_resume_needs_a_run(tmp_path, fit):
    with pytest.raises(RunError) as error:
        fit(tmp_path / "run", resume=True)
    assert str(error.value) == f"{tmp_path / 'run'}: no such run folder"
    with pytest.raises(InputError) as error:
        LanguageModel().fit("text", resume=True)
    assert str(error.value) == "fit: to resume, give the folder of the run to go on with"
