"""The report on a run: one HTML file that opens without a network, says how good the model is and how it got there.

    run folder  ->  Run  ->  summary, key figures, sections  ->  report.html.j2  ->  report.html

A section is a function that gathers what is shown of a run (None: nothing of the kind is there) and a macro of the
same name in the template that lays it out; SECTIONS gives their order and titles.
"""

import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from safetensors import SafetensorError, safe_open

from gatewise.config import LanguageModelJob, validate
from gatewise.errors import RunError
from gatewise.gates import plots
from gatewise.gates.numbers import duration, moment, perplexity, plain, significant, storage
from gatewise.run_folder import RunFolder, atomic_write

Line = dict[str, Any]  # of metrics.jsonl or samples.jsonl

MOST_SAMPLES = 14
MOST_VALIDATIONS = 30
UNITS = {"char": "character", "word": "word", "bpe": "subword"}
VISIBLE = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"} | {127: "\u2421"}  # controls


class Tensor(NamedTuple):
    """A tensor of the saved model."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Run:
    """What a run folder holds so far; what is not there yet is empty."""

    name: str
    job: LanguageModelJob
    training: list[Line]
    validation: list[Line]
    samples: list[Line]
    environment: dict[str, Any]
    tensors: list[Tensor]

    @property
    def best(self) -> Line | None:
        """The validation with the lowest loss; the saved model is the one that was validated there."""
        return min(self.validation, key=lambda line: line["loss_nats"], default=None)

    @property
    def last(self) -> Line | None:
        """The latest line of metrics."""
        return max(self.training + self.validation, key=lambda line: line["step"], default=None)

    @property
    def text(self) -> str:
        """What it was trained on."""
        return str(self.environment.get("text", "a text"))

    @property
    def unit(self) -> str:
        """What one token is called."""
        return UNITS[self.job.data.tokenizer]

    @property
    def parameters(self) -> int:
        """How many the saved model has."""
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def tokens_per_second(self) -> float | None:
        """The mean over the training steps; each line stands for equally many tokens."""
        rates = _curve(self.training, "tokens_per_second").values
        return len(rates) / math.fsum(1 / rate for rate in rates) if rates else None


def write_report(run: str | Path) -> Path:
    """Path of the report.html that it writes from what the run folder `run` holds so far.

    Raises RunError if the folder is missing, damaged or of a newer version, or the report cannot be written.
    """
    folder = RunFolder(run)
    read = read_run(folder)
    gathered = [(gather.__name__, title, gather(read)) for gather, title in SECTIONS.items()]
    page = _template().render(
        run=read,
        summary=summary(read),
        key_figures=key_figures(read),
        sections=[section for section in gathered if section[2] is not None],
    )
    atomic_write(folder.report, page.encode("utf-8", "replace"))  # a sample may hold half of a surrogate pair
    return folder.report


def read_run(folder: RunFolder) -> Run:
    """What the folder holds. Raises RunError."""
    folder.check_existing()
    tables = tomllib.loads(folder.config.read_text("utf-8"))
    del tables["format"]
    tables.pop("task", None)
    metrics = [line for line in folder.read_metrics() if _is_finite(line.get("loss_nats"))]
    return Run(
        name=folder.path.resolve().name,
        job=validate(LanguageModelJob, tables, source=str(folder.config)),
        training=[line for line in metrics if line["split"] == "train"],
        validation=[line for line in metrics if line["split"] == "validation"],
        samples=folder.read_samples(),
        environment=_environment(folder.environment),
        tensors=_tensors(folder.model),
    )


def _environment(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError as error:
        raise RunError(f"{path}: damaged: {error}") from error


def _tensors(path: Path) -> list[Tensor]:
    """The tensors that the header of a safetensors file names; the tensors themselves are not read."""
    if not path.exists():
        return []
    try:
        with safe_open(path, framework="numpy") as file:
            views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            return [_tensor(name, tuple(view.get_shape()), view.get_dtype()) for name, view in views.items()]
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: damaged: {error}") from error


def _tensor(name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    parameters = math.prod(shape)
    return Tensor(name, shape, dtype, parameters, parameters * int(dtype.strip("BFIU")) // 8)  # F32, BF16, I64


def summary(run: Run) -> str:
    """One paragraph: what was trained on what, for how long, how fast, and how good it is."""
    return " ".join(filter(None, (_what(run), _how_good(run), _overfitting(run))))


def _what(run: Run) -> str:
    model, last = run.job.model, run.last
    layers = "one GRU layer" if model.num_layers == 1 else f"{model.num_layers} GRU layers"
    parameters = f" and {run.parameters:,} parameters" if run.parameters else ""
    network = f"A {run.unit} model with {layers} of {model.hidden_size:,} units{parameters}"
    characters = f" ({run.environment['characters']:,} characters)" if "characters" in run.environment else ""
    if last is None or last["step"] == 0:
        return f"{network} is to be trained on {run.text}{characters}. No step has been recorded yet."
    epochs = "" if run.job.training.max_steps else f" of {run.job.training.epochs}"  # which of the two ends it is open
    steps = f" for {last['step']:,} steps (epoch {last['epoch']}{epochs}) in {duration(last['seconds'])}"
    speed = f", at {significant(run.tokens_per_second)} tokens per second" if run.tokens_per_second else ""
    return f"{network} was trained on {run.text}{characters}{steps}{speed}."


def _how_good(run: Run) -> str:
    if run.best is not None:
        reached, first = run.best["loss_nats"], run.validation[0]
        untrained = (
            f", down from {perplexity(first['loss_nats'])} untrained" if first["step"] == 0 < run.best["step"] else ""
        )
        return (
            f"On the validation text, which it was not trained on, its perplexity is {perplexity(reached)} "
            f"({significant(run.best['bits_per_char'])} bits per character){untrained}: the choice of each next "
            f"{run.unit} is narrowed to about {perplexity(reached, digits=2)} equally likely ones."
        )
    if not run.training:
        return ""
    known = f"Its perplexity on the training text is {perplexity(run.training[-1]['loss_nats'])}."
    if run.job.data.validation_fraction > 0:
        return f"{known} It has not been validated yet."
    return f"{known} No text was kept for validation, so nothing here says how well it does on a new one."


def _overfitting(run: Run) -> str:
    """A warning if the last validation loss is more than 0.02 nats, two per cent of the perplexity, above the best."""
    if run.best is None or run.validation[-1]["loss_nats"] < run.best["loss_nats"] + 0.02:
        return ""
    best_step, last = f"{run.best['step']:,}", perplexity(run.validation[-1]["loss_nats"])
    return (
        f"After step {best_step} its perplexity there rose again, to {last}, as it began to learn the training text by "
        f"heart; the saved model is the one of step {best_step}."
    )


def key_figures(run: Run) -> list[tuple[str, str]]:
    """The figures that one looks for first, as (name, value)."""
    figures = []
    split, judged = ("Validation", run.best) if run.best else ("Training", run.training[-1] if run.training else None)
    if judged:
        figures.append((f"{split} perplexity", perplexity(judged["loss_nats"])))
        figures.append(("Bits per character", significant(judged["bits_per_char"])))
    if run.last:
        figures.append(("Time", duration(run.last["seconds"])))
    if run.tokens_per_second:
        figures.append(("Tokens per second", significant(run.tokens_per_second)))
    if run.parameters:
        figures.append(("Parameters", f"{run.parameters:,}"))
    return figures


def learning(run: Run) -> dict[str, Any] | None:
    """Curves of loss, gradient norm and learning rate against steps, and the validations as a table."""
    if run.last is None:
        return None
    content: dict[str, Any] = {"best": run.best, "clip_norm": run.job.training.clip_norm}
    best_index = run.validation.index(run.best) if run.best else 0
    shown = [run.validation[index] for index in _spread(len(run.validation), MOST_VALIDATIONS, best_index)]
    content["validations"] = [(line, _nearest(run.training, line["step"])) for line in shown]
    content["validation_count"] = len(run.validation)
    if not _matplotlib_is_there():
        return content
    content["curves"] = [
        Markup(
            plots.learning_curve(
                _curve(run.training, "loss_nats"),
                _curve(run.validation, "loss_nats"),
                best=(run.best["step"], run.best["loss_nats"]) if run.best else None,
                name=f"learning-{width}",
                width=width,
                height=height,
                label=f"Perplexity against steps. {_in_words(run)}",
            )
        )
        for width, height in ((880, 370), (400, 310))  # for a wide page and for a narrow one
    ]
    norms, rates = _curve(run.training, "gradient_norm"), _curve(run.training, "learning_rate")
    if norms.values:
        low, high = min(norms.values), max(norms.values)
        label = f"Gradient norm against steps, from {significant(low)} to {significant(high)}."
        clip_norm = run.job.training.clip_norm
        spiky = 0 < 8 * low < max(high, clip_norm or 0)
        content["gradient_norm"] = _small("gradient-norm", norms, label, limit=clip_norm, log_scale=spiky)
    if rates.values:
        label = f"Learning rate against steps, at most {significant(max(rates.values))}."
        content["learning_rate"] = _small("learning-rate", rates, label)
    return content


def _small(name: str, curve: plots.Curve, label: str, *, limit: float | None = None, log_scale: bool = False) -> Markup:
    """A drawing for half the page's width."""
    return Markup(
        plots.step_curve(curve, name=name, label=label, limit=limit, log_scale=log_scale, width=440, height=220)
    )


def _in_words(run: Run) -> str:
    """The learning curves for those who do not see them."""
    sentences = []
    for split, lines in (("Training", run.training), ("Validation", run.validation)):
        if lines:
            first, last = perplexity(lines[0]["loss_nats"]), perplexity(lines[-1]["loss_nats"])
            steps = f"{lines[0]['step']:,} to {lines[-1]['step']:,}"
            sentences.append(f"{split}: {first} to {last}, steps {steps}.")
    if run.best:
        sentences.append(f"Best validation: {perplexity(run.best['loss_nats'])} at step {run.best['step']:,}.")
    return " ".join(sentences)


def samples(run: Run) -> dict[str, Any] | None:
    """The samples in the order of training, thinned where there are many, each with its perplexity."""
    if not run.samples:
        return None
    steps = [sample["step"] for sample in run.samples]
    best_index = steps.index(run.best["step"]) if run.best and run.best["step"] in steps else 0
    shown = []
    for index in _spread(len(run.samples), MOST_SAMPLES, best_index):
        sample = run.samples[index]
        judged = _nearest(run.validation, sample["step"]) or _nearest(run.training, sample["step"])
        shown.append(
            {
                "step": sample["step"],
                "epoch": sample["epoch"],
                "perplexity": judged and perplexity(judged["loss_nats"]),
                "split": judged and judged["split"],
                "prompt": sample["prompt"].translate(VISIBLE),
                "written": sample["text"].rstrip().translate(VISIBLE),
                "best": run.best is not None and run.best["step"] == sample["step"],
            }
        )
    return {"samples": shown, "count": len(run.samples)}


def configuration(run: Run) -> list[dict[str, Any]]:
    """The tables of the configuration, every key with its value, default and meaning."""
    tables = []
    for title in type(run.job).model_fields:
        section = getattr(run.job, title)
        rows = [
            {
                "key": key,
                "value": _toml(getattr(section, key)),
                "default": _toml(field.default),
                "meaning": field.description,
            }
            for key, field in type(section).model_fields.items()
        ]
        tables.append({"title": title, "meaning": type(section).__doc__, "rows": rows})
    return tables


def size(run: Run) -> dict[str, Any] | None:
    """The tensors of the saved model and their share of its size."""
    if not run.tensors:
        return None
    return {"tensors": run.tensors, "parameters": run.parameters, "bytes": sum(tensor.bytes for tensor in run.tensors)}


def speed(run: Run) -> dict[str, Any] | None:
    """How fast it was trained, as figures and as a curve."""
    rates = _curve(run.training, "tokens_per_second")
    if run.last is None or run.tokens_per_second is None:
        return None
    training = run.job.training
    figures = {
        "Tokens per second": significant(run.tokens_per_second),
        "Slowest and fastest": f"{significant(min(rates.values))} to {significant(max(rates.values))}",
        "Tokens read": f"{run.last['step'] * training.batch_size * training.sequence_length:,}",
        "Steps": f"{run.last['step']:,}",
        "Time, with validation": duration(run.last["seconds"]),
    }
    content: dict[str, Any] = {"figures": figures}
    if _matplotlib_is_there():
        label = f"Tokens per second against steps, {figures['Tokens per second']} on average."
        content["curve"] = _small("speed", rates, label)
    return content


def environment(run: Run) -> list[tuple[str, str]] | None:
    """Where it was trained: versions, processor, backend, text."""
    return [
        (key.replace("_", " "), plain(value) if type(value) in (int, float) else moment(str(value)))
        for key, value in run.environment.items()
        if value is not None
    ] or None


SECTIONS = {
    learning: "How it learned",
    samples: "What it wrote",
    configuration: "Configuration",
    size: "Size",
    speed: "Speed",
    environment: "Environment",
}


def _curve(lines: list[Line], key: str) -> plots.Curve:
    """The finite values of `key` against steps."""
    points = [(line["step"], line[key]) for line in lines if _is_finite(line.get(key))]
    return plots.Curve([step for step, _ in points], [value for _, value in points])


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _spread(count: int, most: int, kept: int) -> list[int]:
    """Indices of at most `most` + 1 of `count` things: dense at first, where most is learned, the last, and `kept`."""
    if count <= most:
        return list(range(count))
    return sorted({round(count ** (number / (most - 1))) - 1 for number in range(most)} | {kept})


def _nearest(lines: list[Line], step: int) -> Line | None:
    """The last of `lines` that is not after `step`."""
    return max((line for line in lines if line["step"] <= step), key=lambda line: line["step"], default=None)


def _toml(value: Any) -> str:
    """The value as a configuration file writes it."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _matplotlib_is_there() -> bool:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def _template() -> Template:
    """The page's template; whatever it prints is escaped, but the drawings."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (duration, moment, perplexity, plain, significant, storage):
        templates.filters[write.__name__] = write
    return templates.get_template("report.html.j2")
