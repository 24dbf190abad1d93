"""The commands `gatewise train TASK`: options and file to a configuration, then the training, shown as it goes.

They lie apart from the other commands because their options come from the configurations, which are slow to import.
A task is one function here: its own arguments and options, beside `TrainOptions`, and how its model is fitted.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Group, Parameter
from pydantic import PlainValidator

from gatewise.cli import terminal
from gatewise.config import (
    ClassifierConfig,
    ClassifierData,
    ClassifierJob,
    ClassifierTraining,
    Device,
    ForecasterConfig,
    ForecasterData,
    ForecasterJob,
    ForecasterTraining,
    Job,
    LanguageModelConfig,
    LanguageModelJob,
    TaggerConfig,
    TaggerData,
    TaggerJob,
    TaggerTraining,
    TextConfig,
    TrainingConfig,
    TranslatorConfig,
    TranslatorData,
    TranslatorJob,
    TranslatorTraining,
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

J = TypeVar("J", bound=Job)


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The options that training has for every task."""

    out: Annotated[Path | None, Parameter(help="The folder for the run; only --dry-run does without.")] = None
    config: Annotated[Path | None, Parameter(help="A TOML file; `gatewise init TASK` prints one.")] = None
    resume: Annotated[bool, Parameter(help="Go on with the run in that folder, from its last checkpoint.")] = False
    overwrite: Annotated[bool, Parameter(help="Replace the run in that folder.")] = False
    dry_run: Annotated[bool, Parameter(help="Print parameters, memory and time that it would take; train nothing.")] = (
        False
    )
    device: Annotated[Device | None, Parameter(help="Short for --training.device.")] = None
    as_json: Annotated[
        bool, Parameter(name="--json", help="Print one JSON document; everything else goes to standard error.")
    ] = False


NO_OPTIONS = TrainOptions()


def train_language_model(
    text: Annotated[
        str | None, Parameter(help="A UTF-8 file, or the name of a corpus: python-topics (the default), time-machine.")
    ] = None,
    /,
    *,
    options: TrainOptions = NO_OPTIONS,
    data: Annotated[TextConfig | None, _AS_TYPED, _DATA] = None,
    model: Annotated[LanguageModelConfig | None, _AS_TYPED, _MODEL] = None,
    training: Annotated[TrainingConfig | None, _AS_TYPED, _TRAINING] = None,
) -> None:
    """The command `gatewise train language-model`."""
    job = _job(LanguageModelJob, options, data, model, training)
    if text is None and not options.resume:
        text = "python-topics"
    if options.out is None or options.dry_run:
        _print_language_plan(job, text or "", options.as_json)
        return

    def fit(observer: terminal.TrainingProgress) -> Any:
        from gatewise.training.language_model import LanguageModel

        settings = {"data": job.data, "training": job.training, "resume": options.resume}
        found = LanguageModel(**job.model.model_dump())
        return found.fit(text, options.out, **settings, overwrite=options.overwrite, observer=observer)

    console, fitted = _fit(options, text, ["language-model", *([text] if text else [])], fit)
    result = fitted.result
    if options.as_json:
        found = {name: evaluation.to_json() for name, evaluation in fitted.evaluations.items()}
        _print_json(options, {**dataclasses.asdict(result.evaluation), "evaluations": found, **result.to_json()})
        return
    _print_evaluations(console, fitted)
    rows = _rows(options, result)
    if not fitted.evaluations:
        rows = {result.split: terminal.scores(dataclasses.asdict(result.evaluation)), **rows}
    rows["write"] = terminal.command_line("gatewise", "generate", str(options.out)) + ' --prompt "..."'
    terminal.print_rows(console, rows)


def train_classifier(
    examples: Annotated[
        str | None,
        Parameter(
            help="Examples with labels: .csv, .tsv, .jsonl or .parquet with a column of texts and one of labels; .ts, "
            ".npz; a folder of .txt files for each label, or with seq.in and label."
        ),
    ] = None,
    /,
    *,
    validation: Annotated[str | None, Parameter(help="The like, to choose the best weights by.")] = None,
    test: Annotated[str | None, Parameter(help="The like, to judge the model on when it is trained.")] = None,
    options: TrainOptions = NO_OPTIONS,
    data: Annotated[ClassifierData | None, _AS_TYPED, _DATA] = None,
    model: Annotated[ClassifierConfig | None, _AS_TYPED, _MODEL] = None,
    training: Annotated[ClassifierTraining | None, _AS_TYPED, _TRAINING] = None,
) -> None:
    """The command `gatewise train classifier`."""
    _train_on_examples(_job(ClassifierJob, options, data, model, training), options, examples, validation, test)


def train_tagger(
    sequences: Annotated[
        str | None,
        Parameter(
            help="Sequences with a tag for each step: .conllu, .conll; .jsonl or .parquet with lists of words and "
            "tags; .npz; .mat piano rolls; a folder with seq.in and seq.out."
        ),
    ] = None,
    /,
    *,
    validation: Annotated[str | None, Parameter(help="The like, to choose the best weights by.")] = None,
    test: Annotated[str | None, Parameter(help="The like, to judge the model on when it is trained.")] = None,
    options: TrainOptions = NO_OPTIONS,
    data: Annotated[TaggerData | None, _AS_TYPED, _DATA] = None,
    model: Annotated[TaggerConfig | None, _AS_TYPED, _MODEL] = None,
    training: Annotated[TaggerTraining | None, _AS_TYPED, _TRAINING] = None,
) -> None:
    """The command `gatewise train tagger`."""
    _train_on_examples(_job(TaggerJob, options, data, model, training), options, sequences, validation, test)


def train_translator(
    pairs: Annotated[
        str | None,
        Parameter(
            help="Sentences with their translations: two columns of a .tsv or .txt, plain or in a .zip; a .csv, .jsonl "
            "or .parquet; or a sentence a line, with --data.target-suffix."
        ),
    ] = None,
    /,
    *,
    validation: Annotated[str | None, Parameter(help="The like, to choose the best weights by.")] = None,
    test: Annotated[str | None, Parameter(help="The like, to judge the model on when it is trained.")] = None,
    options: TrainOptions = NO_OPTIONS,
    data: Annotated[TranslatorData | None, _AS_TYPED, _DATA] = None,
    model: Annotated[TranslatorConfig | None, _AS_TYPED, _MODEL] = None,
    training: Annotated[TranslatorTraining | None, _AS_TYPED, _TRAINING] = None,
) -> None:
    """The command `gatewise train translator`."""
    _train_on_examples(_job(TranslatorJob, options, data, model, training), options, pairs, validation, test)


def train_forecaster(
    series: Annotated[
        str | None,
        Parameter(
            help="A table, .csv, .tsv, .jsonl or .parquet: a row for each time, with a column of times and columns of "
            "numbers; of several series one after the other, with a column that says which."
        ),
    ] = None,
    /,
    *,
    options: TrainOptions = NO_OPTIONS,
    data: Annotated[ForecasterData | None, _AS_TYPED, _DATA] = None,
    model: Annotated[ForecasterConfig | None, _AS_TYPED, _MODEL] = None,
    training: Annotated[ForecasterTraining | None, _AS_TYPED, _TRAINING] = None,
) -> None:
    """The command `gatewise train forecaster`."""
    _train_on_examples(_job(ForecasterJob, options, data, model, training), options, series)


def _train_on_examples(
    job: Job, options: TrainOptions, examples: str | None, validation: str | None = None, test: str | None = None
) -> None:
    """Train the model of the job's task on a file of examples, or plan it."""
    _check_examples(job.task, examples, options)
    given = {"validation": validation, "test": test}
    files = {name: file for name, file in given.items() if file is not None}

    def estimator() -> Any:
        from gatewise.training.runs import model_of

        return model_of(job.task)(**job.model.model_dump(), data=job.data, training=job.training)

    if options.out is None or options.dry_run:
        _print_plan(estimator().plan(examples, **files), options.as_json)
        return

    def fit(observer: terminal.TrainingProgress) -> Any:
        how = {"resume": options.resume, "overwrite": options.overwrite, "observer": observer}
        return estimator().fit(examples, run=options.out, **files, **how)

    console, fitted = _fit(options, examples, _again(job.task, examples, files), fit)
    print_fitted(console, options, fitted)


def _job(
    kind: type[J],
    options: TrainOptions,
    data: Any,
    model: Any,
    training: Any,
) -> J:
    """The configuration: defaults, or those of the run that is resumed; over them the file; over it the options.

    Raises InputError for options that do not go together, ConfigError.
    """
    if options.out is None and not options.dry_run:
        raise InputError("--out is missing: name a folder for the run, for example --out runs/first")
    if options.resume and (options.overwrite or options.dry_run):
        raise InputError(
            f"--resume goes on with a run; leave out {'--overwrite' if options.overwrite else '--dry-run'}"
        )
    typed: dict[str, Any] = {"data": data or {}, "model": model or {}, "training": training or {}}
    for table, values in typed.items():
        if not isinstance(values, Mapping):
            raise ConfigError(f"--{table}: expected one of its keys, as in --{table}.KEY VALUE, got {values}")
    if options.device is not None:
        typed["training"] = {"device": options.device, **typed["training"]}
    tables: dict[str, Any] = {}
    source = "command line"
    if options.resume and options.out is not None:
        from gatewise.run_folder import RunFolder
        from gatewise.training.saved_model import read_job

        tables, source = read_job(RunFolder(options.out), kind.task).model_dump(), str(options.out)
    if options.config is not None:
        source = str(options.config)
        for name, values in load_toml(options.config).items():
            both = isinstance(values, Mapping) and name in tables
            tables[name] = {**tables[name], **values} if both else values
        for name in ("format", "task"):  # the first lines of a run's own config.toml, which serves as a file, too
            tables.pop(name, None)
    return validate(kind, tables, source=source, options=typed)


def _check_examples(task: str, examples: str | None, options: TrainOptions) -> None:
    if examples is None and not options.resume:
        raise InputError(f"the examples are missing: name their file, as in gatewise train {task} train.csv")


def _again(task: str, examples: str | None, files: Mapping[str, str | None]) -> list[str]:
    """The words of the command that goes on, without options that the run has kept."""
    given = {name: file for name, file in files.items() if file and examples}
    return [
        task,
        *([examples] if examples else []),
        *(word for name, file in given.items() for word in (f"--{name}", file)),
    ]


def _fit(
    options: TrainOptions, source: str | None, again: list[str], fit: Callable[[terminal.TrainingProgress], Any]
) -> tuple[Any, Any]:
    """Train and show it: (the console, the model). again: what goes on after Ctrl-C, but for --out and --resume."""
    out = options.out
    assert out is not None
    console = terminal.console(stderr=options.as_json)
    if source is not None and console.is_terminal:
        console.print(f"reading {source}", style="dim")
    try:
        with terminal.TrainingProgress(console) as progress:
            return console, fit(progress)
    except KeyboardInterrupt as stop:
        if not (out / "training_state").is_dir():
            raise
        words = ["gatewise", "train", *again, "--out", str(out), "--resume"]
        raise KeyboardInterrupt(f"{str(stop) or 'stopped'}. To go on:\n    {terminal.command_line(*words)}") from None


def print_fitted(console: Any, options: TrainOptions, fitted: Any) -> None:
    """What came of a training on examples: its evaluations, the best weights, the speed, what to do next."""
    if options.as_json:
        found = {name: dataclasses.asdict(evaluation) for name, evaluation in fitted.evaluations.items()}
        _print_json(options, {"evaluations": found, "choices": fitted.choices, **fitted.result.to_json()})
        return
    _print_evaluations(console, fitted)
    rows = _rows(options, fitted.result)
    rows["predict"] = terminal.command_line("gatewise", "predict", str(options.out), "DATA")
    terminal.print_rows(console, rows)


def _print_evaluations(console: Any, fitted: Any) -> None:
    for name, evaluation in fitted.evaluations.items():
        size = evaluation.size if hasattr(evaluation, "size") else f"{evaluation.examples:,} examples"
        console.print(f"{name}, {size}", style="bold")
        terminal.print_evaluation(console, evaluation)


def _rows(options: TrainOptions, result: Any) -> dict[str, str]:
    fast = terminal.speed({f"{result.unit}_per_second": result.units_per_second})
    return {
        "weights": f"of step {result.step:,}",
        "speed": f"{fast}, {terminal.duration(result.seconds)}",
        "report": str(options.out / "report.html" if options.out else ""),
    }


def _print_json(options: TrainOptions, found: dict[str, Any]) -> None:
    assert options.out is not None
    terminal.print_json({**found, "run": str(options.out), "report": str(options.out / "report.html")})


def _print_language_plan(job: LanguageModelJob, text: str, as_json: bool) -> None:
    from gatewise.training.plan import plan

    found = plan(job, text)
    rows = {"text": f"{text}: {found.tokens:,} tokens, {found.vocabulary_size:,} different ones"}
    _print_plan(found, as_json, rows)


def _print_plan(found: Any, as_json: bool, rows: Mapping[str, str] | None = None) -> None:
    """What a training would take. rows: what is to be said first."""
    if as_json:
        terminal.print_json(dataclasses.asdict(found))
        return
    rows = dict(rows) if rows else {"examples": f"{found.examples:,}", "choices": "; ".join(found.choices)}
    rows |= {
        "parameters": f"{found.parameters:,}",
        "memory": f"about {found.memory_bytes / 2**20:,.0f} MiB, beside what Python and torch take",
        "steps": f"{found.steps:,}",
        "time": f"about {terminal.duration(found.seconds_estimated)} on this machine",
    }
    terminal.print_rows(terminal.console(), rows)
