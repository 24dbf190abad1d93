"""The command `gatewise train`: options and file to a configuration, then the training, shown as it goes.

It lies apart from the other commands because its options come from the configuration, which is slow to import.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from pydantic import PlainValidator

from gatewise.cli import terminal
from gatewise.config import (
    Device,
    LanguageModelConfig,
    LanguageModelJob,
    TextConfig,
    TrainingConfig,
    load_toml,
    validate,
)
from gatewise.errors import ConfigError, InputError

# cyclopts makes an option of every key of these sections. Their values come as they were typed: they are checked
# together with those of the file, in one place and in one wording.
_AS_TYPED = PlainValidator(lambda typed: typed)
_DATA = Parameter(group=Group("Data", sort_key=1), negative=None)
_MODEL = Parameter(group=Group("Model", sort_key=2), negative=None)
_TRAINING = Parameter(group=Group("Training", sort_key=3), negative=None)
_JSON = Parameter(name="--json", help="Print one JSON document; everything else goes to standard error.")


def train_language_model(
    text: Annotated[
        str | None, Parameter(help="A UTF-8 file, or the name of a corpus: python-topics (the default), time-machine.")
    ] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The folder for the run; only --dry-run does without.")] = None,
    config: Annotated[Path | None, Parameter(help="A TOML file; `gatewise init language-model` prints one.")] = None,
    resume: Annotated[bool, Parameter(help="Go on with the run in that folder, from its last checkpoint.")] = False,
    overwrite: Annotated[bool, Parameter(help="Replace the run in that folder.")] = False,
    dry_run: Annotated[
        bool, Parameter(help="Print parameters, memory and time that it would take; train nothing.")
    ] = False,
    device: Annotated[Device | None, Parameter(help="Short for --training.device.")] = None,
    as_json: Annotated[bool, _JSON] = False,
    data: Annotated[TextConfig | None, _AS_TYPED, _DATA] = None,
    model: Annotated[LanguageModelConfig | None, _AS_TYPED, _MODEL] = None,
    training: Annotated[TrainingConfig | None, _AS_TYPED, _TRAINING] = None,
) -> None:
    """The command `gatewise train language-model`."""
    if out is None and not dry_run:
        raise InputError("--out is missing: name a folder for the run, for example --out runs/first")
    if resume and (overwrite or dry_run):
        raise InputError(f"--resume goes on with a run; leave out {'--overwrite' if overwrite else '--dry-run'}")
    options: dict[str, Any] = {"data": data or {}, "model": model or {}, "training": training or {}}
    for table, values in options.items():
        if not isinstance(values, Mapping):
            raise ConfigError(f"--{table}: expected one of its keys, as in --{table}.KEY VALUE, got {values}")
    if device is not None:
        options["training"] = {"device": device, **options["training"]}
    job = _job(config, out if resume else None, options)
    if text is None and not resume:
        text = "python-topics"
    if out is None or dry_run:
        _print_plan(job, text or "", as_json)
    else:
        _fit(job, text, out, resume=resume, overwrite=overwrite, as_json=as_json)


def _job(file: Path | None, resumed: Path | None, options: dict[str, Any]) -> LanguageModelJob:
    """The configuration: defaults, or those of the run that is resumed; over them the file; over it the options."""
    tables: dict[str, Any] = {}
    source = "command line"
    if resumed is not None:
        from gatewise.run_folder import RunFolder
        from gatewise.training.saved_model import read_job

        tables, source = read_job(RunFolder(resumed)).model_dump(), str(resumed)
    if file is not None:
        source = str(file)
        for name, values in load_toml(file).items():
            both = isinstance(values, Mapping) and name in tables
            tables[name] = {**tables[name], **values} if both else values
        for name in ("format", "task"):  # the first lines of a run's own config.toml, which serves as a file, too
            tables.pop(name, None)
    return validate(LanguageModelJob, tables, source=source, options=options)


def _fit(job: LanguageModelJob, text: str | None, out: Path, *, resume: bool, overwrite: bool, as_json: bool) -> None:
    """Train, show it, and print what came of it."""
    console = terminal.console(stderr=as_json)
    if text is not None and console.is_terminal:
        console.print(f"reading {text}", style="dim")
    from gatewise.training.language_model import LanguageModel

    language_model = LanguageModel(**job.model.model_dump())
    try:
        with terminal.TrainingProgress(console) as progress:
            language_model.fit(
                text,
                out,
                data=job.data,
                training=job.training,
                resume=resume,
                overwrite=overwrite,
                observer=progress,
            )
    except KeyboardInterrupt as stop:
        if not (out / "training_state").is_dir():
            raise
        again = ["gatewise", "train", "language-model", *([text] if text else []), "--out", str(out), "--resume"]
        raise KeyboardInterrupt(f"{str(stop) or 'stopped'}. To go on:\n    {terminal.command_line(*again)}") from None
    result = language_model.result
    report = out / "report.html"
    if as_json:
        found = {**dataclasses.asdict(result.evaluation), **result.to_json()}
        terminal.print_json({**found, "run": str(out), "report": str(report)})
        return
    rows = {
        result.split: terminal.scores(dataclasses.asdict(result.evaluation)),
        "weights": f"of step {result.step:,}",
        "speed": f"{terminal.number(result.units_per_second)} tokens/s, {terminal.duration(result.seconds)}",
        "report": str(report),
        "write": terminal.command_line("gatewise", "generate", str(out)) + ' --prompt "..."',
    }
    terminal.print_rows(console, rows)


def _print_plan(job: LanguageModelJob, text: str, as_json: bool) -> None:
    from gatewise.training.plan import plan

    found = plan(job, text)
    if as_json:
        terminal.print_json(dataclasses.asdict(found))
        return
    rows = {
        "text": f"{text}: {found.tokens:,} tokens, {found.vocabulary_size:,} different ones",
        "parameters": f"{found.parameters:,}",
        "memory": f"about {found.memory_bytes / 2**20:,.0f} MiB, beside what Python and torch take",
        "steps": f"{found.steps:,}",
        "time": f"about {terminal.duration(found.seconds_estimated)} on this machine",
    }
    terminal.print_rows(terminal.console(), rows)
