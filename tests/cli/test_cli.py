"""The commands, run as `main([...])` in this process; in a process of their own only where that is what is tested."""

import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import gatewise
from gatewise.cli import doctor, terminal
from gatewise.cli.main import main
from gatewise.config import LanguageModelJob, validate
from gatewise.kernels import ops
from gatewise.run_folder import RunFolder

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
TINY = [
    "--model.hidden-size=8",
    "--model.embedding-size=4",
    "--training.batch-size=4",
    "--training.sequence-length=8",
    "--training.max-steps=20",
    "--training.log-every=5",
    "--training.validate-every=10",
    "--training.sample-length=10",
]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "fox.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def run(text: Path) -> Path:
    """The folder of a small run. No test may change it."""
    out = text.parent / "run"
    assert main(["train", "language-model", str(text), "--out", str(out), *TINY]) == 0
    return out


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has tests of its own, and takes longer than these small trainings."""
    monkeypatch.setattr("gatewise.gates.report.write_report", lambda run: run)


# Help, version and start-up


def test_help_init_and_version_do_not_import_torch():
    script = """if True:
        import sys
        from gatewise.cli.main import main
        for arguments in ["--help"], ["--version"]:
            assert main(arguments) == 0
        assert "pydantic" not in sys.modules  # not torch-slow, yet half of the time that --help may take
        commands = ["init", "language-model"], ["train", "--help"], ["train", "language-model", "--help"]
        for arguments in (*commands, ["export", "--help"], ["import", "--help"], ["convert", "--help"]):
            assert main(arguments) == 0
        assert "torch" not in sys.modules and "numpy" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"\n{gatewise.__version__}\n" in done.stdout


def test_help_names_every_command_and_every_key(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(
        f"│ {command} " in out
        for command in ("convert", "doctor", "evaluate", "export", "generate", "import", "init", "train", "translate")
    )
    assert main(["train", "language-model", "--help"]) == 0
    out = capsys.readouterr().out
    for table, field in LanguageModelJob.model_fields.items():
        for key in field.annotation.model_fields:  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
            assert f"--{table}.{key.replace('_', '-')}" in out
    for option in ("--out", "--config", "--resume", "--overwrite", "--dry-run", "--json", "--data.no-lower-case"):
        assert option in out


def test_init_prints_what_loads_back_to_the_defaults(capsys):
    assert main(["init", "language-model"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert validate(LanguageModelJob, printed, source="printed") == LanguageModelJob()


# Arguments that are wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", "unknown command trian; did you mean train?"),
        (
            "xyz",
            "unknown command xyz; "
            "known: train, init, export, import, convert, evaluate, predict, translate, generate, doctor",
        ),
        ("train weather", "unknown command weather; known: language-model, classifier, tagger, forecaster, translator"),
        (
            "--verbose",
            "unknown option --verbose; "
            "known: train, init, export, import, convert, evaluate, predict, translate, generate, doctor",
        ),
        ("evaluate run", "DATA is missing; see `gatewise evaluate --help`"),
        ("generate", "RUN is missing; see `gatewise generate --help`"),
        ("generate a b", "unexpected argument b; see `gatewise generate --help`"),
        ("generate a --sed 1", "unknown option --sed; did you mean --seed?"),
        ("generate a --xyz 1", "unknown option --xyz; see `gatewise generate --help`"),
        ("generate a --seed", "--seed: expected a whole number after it, got nothing"),
        ("generate a --seed x", '--seed: expected a whole number, got "x"'),
        ("generate a --seed -1", "--seed: expected a whole number >= 0 and < 2**63, got -1"),
        ("generate a --length 1.5", '--length: expected a whole number, got "1.5"'),
        ("generate a --temperature hot", '--temperature: expected a number, got "hot"'),
        ("generate a --device gpu", '--device: expected one of auto, cpu, cuda, mps, got "gpu"'),
        ("generate a --top-k 1 --top-k 2", "--top-k: given twice"),
        ("train language-model", "--out is missing: name a folder for the run, for example --out runs/first"),
        ("train language-model --out", "--out: expected a path after it, got nothing"),
        ("train language-model --epochs 3", "unknown option --epochs; did you mean --training.epochs?"),
        ("train language-model --training.epoch 3", "unknown option --training.epoch; did you mean --training.epochs?"),
        ("train language-model --model.seed 3", "unknown option --model.seed; did you mean --training.seed?"),
        (
            "train language-model --out r --resume --overwrite",
            "--resume goes on with a run; leave out --overwrite",
        ),
        ("train language-model --out r --resume --dry-run", "--resume goes on with a run; leave out --dry-run"),
        (
            "train language-model --out r --training.epochs ten",
            '--training.epochs: expected a whole number >= 1, got "ten"',
        ),
        (
            "train language-model --out r --training.epochs=-3",
            "--training.epochs: expected a whole number >= 1, got -3",
        ),
        (
            "train language-model --out r --model.reset befor",
            '--model.reset: expected one of after, before, got "befor"; did you mean "before"?',
        ),
        (
            "train language-model --out r --training 3",
            "--training: expected one of its keys, as in --training.KEY VALUE, got 3",
        ),
        (
            "train language-model --out r --model.tied",
            "command line: model: tied needs embedding_size = hidden_size; got 64 and 256",
        ),
    ],
)
def test_wrong_arguments(refused, arguments, message):
    assert refused(*arguments.split()) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "[training]\nlearning_rat = 1\n",
            'unknown key "training.learning_rat"; did you mean "training.learning_rate"?',
        ),
        ("[model]\nhidden_size = 0\n", "model.hidden_size: expected a whole number >= 1, got 0"),
        (
            "[model]\nhidden_size 0\n",
            "not valid TOML at line 2, column 13: expected '=' after a key in a key/value pair",
        ),
    ],
)
def test_wrong_configuration_file(refused, tmp_path, content, message):
    path = tmp_path / "c.toml"
    path.write_text(content)
    assert refused("train", "language-model", "--out", tmp_path / "run", "--config", path) == f"{path}: {message}"
    assert not (tmp_path / "run").exists()


def test_wrong_text_makes_no_run(refused, tmp_path):
    text = tmp_path / "latin.txt"
    text.write_bytes(b"caf\xe9")
    message = refused("train", "language-model", text, "--out", tmp_path / "run")
    assert message == f"{text}: not UTF-8: byte 0xe9 at offset 3; convert it to UTF-8 first, for example with iconv"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", [["evaluate", "RUN", "python-topics"], ["generate", "RUN"]])
def test_missing_run(refused, tmp_path, command):
    path = str(tmp_path / "none")
    command = [path if word == "RUN" else word for word in command]
    assert refused(*command, status=1) == f"{path}: no such run folder"


def test_debug_shows_the_traceback(capsys):
    assert main(["generate", "nowhere", "--debug"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert err.endswith("\ngatewise: nowhere: no such run folder\n")


def test_an_error_that_nobody_foresaw_is_one_line(refused, monkeypatch):
    def fail() -> None:
        raise RuntimeError("something\nwith two lines")

    monkeypatch.setattr(doctor, "diagnose", fail)
    assert refused("doctor", status=1) == "unexpected RuntimeError: something with two lines; --debug shows where"


# Training


def test_train_prints_lines_where_there_is_no_terminal(text, tmp_path, capsys):
    assert main(["train", "language-model", str(text), "--out", str(tmp_path / "run"), *TINY]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("step 0  epoch 0  validation: loss ")
    assert lines[1].startswith("    ")  # the sample
    assert lines[2].startswith("step 5/20  epoch 1  loss ")
    assert lines[2].endswith(" tokens/s")
    assert [line.split()[1] for line in lines if line.startswith("step")] == ["0", "5/20", "10", "20/20", "20"]
    start = next(index for index, line in enumerate(lines) if line.startswith("validation, "))
    assert lines[start + 1].split() == ["value", "95%", "interval", "baseline"]
    assert [line.partition("  ")[0] for line in lines[start + 2 : -4]] == ["loss", "perplexity", "bits per character"]
    rows = dict(line.split(maxsplit=1) for line in lines[-4:])
    assert list(rows) == ["weights", "speed", "report", "write"]
    assert rows["write"] == f'gatewise generate {tmp_path / "run"} --prompt "..."'
    assert "\x1b" not in out


def test_train_json(text, tmp_path, document):
    out = tmp_path / "run"
    found = document("train", "language-model", text, "--out", out, *TINY)
    assert found["run"] == str(out)
    assert found["report"] == str(out / "report.html")
    assert found["split"] == "validation"
    assert {"loss_nats", "perplexity", "bits_per_char", "tokens", "tokens_per_second", "seconds"} <= set(found)
    assert found["evaluations"] == json.loads((out / "evaluation.json").read_text())
    assert found["evaluations"]["validation"]["metrics"]["loss_nats"]["value"] == pytest.approx(found["loss_nats"])
    validations = [line for line in RunFolder(out).read_metrics() if line["split"] == "validation"]
    assert found["loss_nats"] == min(line["loss_nats"] for line in validations)


def test_command_line_before_file_before_defaults(text, tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text("[training]\nseed = 5\nlearning_rate = 0.5\n[data]\nlower_case = true\nletters_only = true\n")
    options = ["--config", str(file), "--training.learning-rate", "0.25", "--data.no-letters-only", "--device", "cpu"]
    assert main(["train", "language-model", str(text), "--out", str(tmp_path / "run"), *options, *TINY]) == 0
    written = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (written["training"]["seed"], written["training"]["learning_rate"]) == (5, 0.25)
    assert written["data"]["lower_case"] is True
    assert written["data"]["letters_only"] is False
    assert written["training"]["device"] == "cpu"
    assert written["training"]["momentum"] == 0.0
    # A run's own configuration serves as a file, too, although it has a line more.
    again = ["--config", str(tmp_path / "run" / "config.toml"), "--out", str(tmp_path / "again")]
    assert main(["train", "language-model", str(text), *again]) == 0
    assert tomllib.loads((tmp_path / "again" / "config.toml").read_text()) == written


def test_a_run_is_overwritten_only_on_demand(refused, run, text, tmp_path):
    before = (run / "config.toml").read_bytes()
    message = refused("train", "language-model", text, "--out", run, *TINY, status=1)
    assert message.startswith(f"{run}: a run lies here already; ")
    assert (run / "config.toml").read_bytes() == before
    command = ["train", "language-model", str(text), "--out", str(tmp_path / "run"), *TINY]
    assert main(command) == 0
    assert main([*command, "--overwrite", "--training.seed=1"]) == 0
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["training"]["seed"] == 1


def test_resume_starts_from_the_configuration_of_the_run(refused, text, tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "language-model", str(text), "--out", out, *TINY]) == 0
    capsys.readouterr()
    assert main(["train", "language-model", "--out", out, "--resume", "--training.max-steps", "30"]) == 0
    assert capsys.readouterr().out.startswith("going on from step 20 of 30\n")
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["model"]["hidden_size"] == 8
    assert max(line["step"] for line in RunFolder(out).read_metrics()) == 30
    message = refused("train", "language-model", "--out", out, "--resume", "--model.hidden-size=9")
    assert message.startswith(f"{out}: cannot be resumed with model.hidden_size = 9: it was started with 8; ")


def test_ctrl_c_says_how_to_go_on(text, tmp_path, capsys, monkeypatch):
    def press_ctrl_c(self: object, metrics: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "my run"
    with monkeypatch.context() as patch:
        patch.setattr(terminal.TrainingProgress, "on_step", press_ctrl_c)
        assert main(["train", "language-model", str(text), "--out", str(out), *TINY]) == 130
    assert capsys.readouterr().err == (
        f"gatewise: stopped after step 5 of 20; {out} holds all that is needed to resume. To go on:\n"
        f"    gatewise train language-model {terminal.command_line(str(text), '--out', str(out))} --resume\n"
    )
    assert main(["train", "language-model", str(text), "--out", str(out), "--resume"]) == 0
    assert capsys.readouterr().out.startswith("going on from step 5 of 20\n")


def test_dry_run_plans_and_writes_nothing(text, tmp_path, document, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = document("train", "language-model", text, "--dry-run", *TINY)
    assert (found["steps"], found["tokens"]) == (20, len(TEXT))
    assert {"parameters", "memory_bytes", "seconds_estimated"} <= set(found)
    assert main(["train", "language-model", "--data.max-characters=5000", "--dry-run", "--out", "run", *TINY]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(rows) == ["text", "parameters", "memory", "steps", "time"]
    assert rows["text"].startswith("python-topics: 5,000 tokens, ")
    assert list(tmp_path.iterdir()) == []


# Evaluating and writing


def test_evaluate(run, text, document, capsys):
    found = document("evaluate", run, text)
    assert found["tokens"] == len(TEXT) - 1
    assert found["perplexity"] == pytest.approx(2.718281828 ** found["loss_nats"])
    assert found["bits_per_char"] == pytest.approx(found["loss_nats"] / 0.693147181, rel=1e-2)
    assert main(["evaluate", str(run), str(text)]) == 0
    assert capsys.readouterr().out == f"{terminal.scores(found)}, {found['tokens']:,} tokens\n"


def test_generate(run, document, capsys):
    command = ["generate", str(run), "--prompt", "the ", "--length", "30", "--temperature", "0.7", "--top-k", "5"]
    found = document(*command, "--seed", 3)
    assert (found["prompt"], found["seed"], len(found["text"])) == ("the ", 3, 30)
    assert main([*command, "--seed", "3"]) == 0
    assert capsys.readouterr() == ("the " + found["text"] + "\n", "")


def test_generate_reports_the_seed_that_it_chose(run, document, capsys):
    command = ["generate", run, "--length", 30]
    found = document(*command)
    assert document(*command, "--seed", found["seed"]) == found
    assert main(list(map(str, command))) == 0
    out, err = capsys.readouterr()
    seed = err.removeprefix("(--seed ").removesuffix(" writes this again)\n")
    assert document(*command, "--seed", seed)["text"] == out.removesuffix("\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "π?"], "prompt: the model never saw 'π', '?'; leave that out"),
        (["--length", "-1"], "length: expected a whole number >= 0, got -1"),
        (["--top-k", "0"], "top_k: expected a whole number >= 1, or None for all tokens, got 0"),
        (["--top-p", "1.5"], "top_p: expected a number > 0 and <= 1, or None for all tokens, got 1.5"),
        (
            ["--temperature", "nan"],
            "temperature: expected a number >= 0 (0: always the likeliest token), got nan",
        ),
    ],
)
def test_generate_refuses(refused, run, options, message):
    assert refused("generate", run, *options) == message


def test_generate_writes_each_piece_as_it_comes(run, monkeypatch):
    arrived = []

    class Pipe(io.BytesIO):
        def write(self, data: Any) -> int:
            arrived.append(bytes(data))
            return len(data)

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Pipe(), encoding="utf-8"))
    assert main(["generate", str(run), "--prompt", "the", "--length", "5", "--seed", "1"]) == 0
    assert [len(data) for data in arrived] == [3, 1, 1, 1, 1, 1, len(os.linesep)]


def test_an_output_that_is_closed_early_is_no_error(run):
    if os.name == "nt":
        pytest.skip("Windows has no broken pipes to end a command by")
    command = [sys.executable, "-m", "gatewise.cli", "generate", str(run), "--length", "1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_terminals_that_lack_characters(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("naïve café, π ≈ 3 " * 100, encoding="utf-8")
    for command in (
        ["train", "language-model", str(text), "--out", str(tmp_path / "run"), *TINY],
        ["generate", str(tmp_path / "run"), "--prompt", "café"],
        ["train", "language-model", "--help"],
    ):
        out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", out)
        assert main(command) == 0
    err = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["generate", str(tmp_path / "run"), "--prompt", "☃"]) == 2
    err.flush()
    assert b"'\\u2603'" in err.buffer.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


# The doctor


def test_doctor_json(document):
    found = document("doctor")
    assert found["gatewise"] == gatewise.__version__
    assert list(found["backends"]) == list(ops.BACKENDS)
    assert found["backends"]["auto"]["serves"] == found["backends"]["reference"]["serves"] == ["after", "before"]
    assert found["backends"]["torch"]["serves"] == ["after"]
    assert "before" in found["backends"]["torch"]["reason"]
    assert found["threads"] >= 1
    assert found["native"] is ops.native_status().available
    assert found["instruction_set"] == ops.native_status().instruction_set
    assert found["devices"]["cpu"] is True
    assert {"python", "torch"} <= set(found)


def test_doctor_says_how_to_get_the_native_kernel(capsys, monkeypatch):
    monkeypatch.setattr(ops, "native_status", lambda: ops.NativeStatus(False, None, False, "not built"))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "\nnative kernel      not available: not built\n" in out
    assert out.endswith(doctor.NATIVE_ADVICE + "\n")
    monkeypatch.setattr(ops, "native_status", lambda: ops.NativeStatus(True, "avx2", True, None))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "\nnative kernel      avx2, with OpenMP\n" in out
    assert doctor.NATIVE_ADVICE not in out


def test_doctor_without_torch(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["doctor"]) == 0
    assert "\ntorch     torch cannot be imported: " in capsys.readouterr().out


# How it looks


def test_progress_on_a_terminal():
    file = io.StringIO()
    line = {"epoch": 1, "loss_nats": 2.0, "perplexity": 7.389, "bits_per_char": 2.885, "tokens_per_second": 123456.0}
    console = terminal._Console(file=file, force_terminal=True, width=80, color_system=None, soft_wrap=True)
    with terminal.TrainingProgress(console) as progress:
        progress.on_start(0, 40)
        progress.on_step({"step": 10, **line})
        progress.on_validation({"step": 20, **line}, {"step": 20, "epoch": 1, "prompt": "a ", "text": "b\n\x1b[2Jc"})
        progress.on_message("something worth knowing")
        progress.on_step({"step": 40, **line})
    shown = file.getvalue()
    assert "10/40" in shown
    assert "40/40 0:00:00 loss 2.000  123,456 tokens/s" in shown
    assert "step 20  epoch 1  validation: loss 2.000 nats, perplexity 7.389, 2.885 bits per" in shown
    assert "    a b \ufffd[2Jc" in shown
    assert "something worth knowing" in shown


def test_plain_lines_come_at_a_sane_rate(monkeypatch):
    file = io.StringIO()
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
    line = {"epoch": 1, "loss_nats": 2.0, "perplexity": 7.4, "bits_per_char": 2.9, "tokens_per_second": 1.0}
    with terminal.TrainingProgress(terminal._Console(file=file, soft_wrap=True)) as progress:
        progress.on_start(0, 9)
        for step in range(1, 10):
            progress.on_step({"step": step, **line})
    assert [text.split()[1] for text in file.getvalue().splitlines()] == ["1/9", "5/9", "9/9"]


def test_a_training_that_nobody_reads_any_more_is_stopped_like_ctrl_c():
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    progress = terminal.TrainingProgress(terminal._Console(file=Closed()))
    with pytest.raises(KeyboardInterrupt):
        progress.on_message("anything")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.53, "0.5 s"), (42.4, "42 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration(seconds, shown):
    assert terminal.duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.01234, "0.01234"), (4.5381, "4.538"), (999.96, "1000"), (412345.6, "412,346"), (1e304, "1e+304")],
)
def test_number(value, shown):
    assert terminal.number(value) == shown
