"""The report on a language model: perplexity while it learned, and what it wrote."""

import math
from typing import Any

from markupsafe import Markup

from gatewise.gates import plots, sections
from gatewise.gates.numbers import duration, perplexity, significant
from gatewise.gates.run import Run, curve, nearest, spread

MOST_SAMPLES = 14
MOST_NATS = 10.0  # that are told apart by colour
UNITS = {"char": "character", "word": "word", "bpe": "subword"}
VISIBLE = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"} | {127: "\u2421"}  # controls

UNIT = "tokens"
LOSS = "loss_nats"


def rank(line: dict[str, Any]) -> float:
    """The lower the loss, the better a validation."""
    return line[LOSS]


def title(run: Run) -> str:
    """What the page is about."""
    return f"Language model of {_text(run)}"


def next_command(run: Run) -> tuple[str, str]:
    """What to do next, and the command for it."""
    return "To let the model write", f'gatewise generate {run.name} --prompt "…"'


def _text(run: Run) -> str:
    """What it was trained on."""
    return str(run.environment.get("text", "a text"))


def _unit(run: Run) -> str:
    """What one token is called."""
    return UNITS[run.job.data.tokenizer]


def summary(run: Run) -> str:
    """One paragraph: what was trained on what, for how long, how fast, and how good it is."""
    return " ".join(filter(None, (_what(run), _how_good(run), _compared(run), _overfitting(run))))


def _what(run: Run) -> str:
    model, last = run.job.model, run.last
    layers = "one GRU layer" if model.num_layers == 1 else f"{model.num_layers} GRU layers"
    parameters = f" and {run.parameters:,} parameters" if run.parameters else ""
    network = f"A {_unit(run)} model with {layers} of {model.hidden_size:,} units{parameters}"
    characters = f" ({run.environment['characters']:,} characters)" if "characters" in run.environment else ""
    if last is None or last["step"] == 0:
        return f"{network} is to be trained on {_text(run)}{characters}. No step has been recorded yet."
    epochs = "" if run.job.training.max_steps else f" of {run.job.training.epochs}"  # which of the two ends it is open
    steps = f" for {last['step']:,} steps (epoch {last['epoch']}{epochs}) in {duration(last['seconds'])}"
    speed = f", at {significant(run.units_per_second)} tokens per second" if run.units_per_second else ""
    return f"{network} was trained on {_text(run)}{characters}{steps}{speed}."


def _how_good(run: Run) -> str:
    if run.best is not None:
        reached, first = run.best["loss_nats"], run.validation[0]
        untrained = (
            f", down from {perplexity(first['loss_nats'])} untrained" if first["step"] == 0 < run.best["step"] else ""
        )
        return (
            f"On the validation text, which it was not trained on, its perplexity is {perplexity(reached)} "
            f"({significant(run.best['bits_per_char'])} bits per character){untrained}: the choice of each next "
            f"{_unit(run)} is narrowed to about {perplexity(reached, digits=2)} equally likely ones."
        )
    if not run.training:
        return ""
    known = f"Its perplexity on the training text is {perplexity(run.training[-1]['loss_nats'])}."
    if run.job.data.validation_fraction > 0:
        return f"{known} It has not been validated yet."
    return f"{known} No text was kept for validation, so nothing here says how well it does on a new one."


def _compared(run: Run) -> str:
    """What a table of pairs of tokens reaches on the same text."""
    judged = sections.judged(run)
    if judged is None:
        return ""
    found, theirs = judged[1]["metrics"][LOSS], judged[1]["baseline"][LOSS]
    sentence = f"Whoever knows only which {_unit(run)} follows which has {perplexity(theirs)} there."
    return sentence if found["high"] < theirs else f"{sentence} It is no better than that."


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
    return [*figures, *sections.size_and_speed(run)]


def learning(run: Run) -> dict[str, Any] | None:
    """Curves of perplexity, gradient norm and learning rate against steps, and the validations as a table."""
    return sections.learning(
        run,
        lambda: [_perplexity_curve(run)],
        {
            "Training perplexity": lambda line, before: perplexity(before[LOSS]) if before else "–",
            "Validation perplexity": lambda line, before: perplexity(line[LOSS]),
            "Bits per character": lambda line, before: significant(line["bits_per_char"]),
            "Time": lambda line, before: duration(line["seconds"]),
        },
    )


def _perplexity_curve(run: Run) -> dict[str, Any]:
    drawings = [
        Markup(
            plots.learning_curve(
                curve(run.training, "loss_nats"),
                curve(run.validation, "loss_nats"),
                best=(run.best["step"], run.best["loss_nats"]) if run.best else None,
                name=f"learning-{width}",
                width=width,
                height=height,
                label=f"Perplexity against steps. {_in_words(run)}",
            )
        )
        for width, height in sections.WIDE_AND_NARROW
    ]
    return {
        "name": "Perplexity",
        "about": "while training, on a log scale; lower is better",
        "drawings": drawings,
        "training": True,
        "validation": bool(run.validation),
        "best": run.best["step"] if run.best else None,
    }


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


def metrics(run: Run) -> dict[str, Any] | None:
    """Loss, perplexity and bits per character with intervals, and what a table of pairs of tokens reaches."""
    return sections.metrics(run, UNIT)


def surprises(run: Run) -> dict[str, Any] | None:
    """The passages of the validation text that the model predicted worst, each token by what it cost."""
    judged = sections.judged(run)
    if judged is None or not judged[1]["surprises"]:
        return None
    passages = []
    for found in judged[1]["surprises"]:
        tokens = [
            {"text": text.translate(VISIBLE), "nats": nats, "share": min(1.0, nats / MOST_NATS)}
            for text, nats in zip(found["tokens"], found["nats"], strict=True)
            if text
        ]
        mean = perplexity(math.fsum(found["nats"]) / len(found["nats"]))
        passages.append({"before": found["before"].translate(VISIBLE), "tokens": tokens, "perplexity": mean})
    return {"part": judged[0], "passages": passages, "unit": _unit(run), "most": MOST_NATS}


def samples(run: Run) -> dict[str, Any] | None:
    """The samples in the order of training, thinned where there are many, each with its perplexity."""
    if not run.samples:
        return None
    steps = [sample["step"] for sample in run.samples]
    best_index = steps.index(run.best["step"]) if run.best and run.best["step"] in steps else 0
    shown = []
    for index in spread(len(run.samples), MOST_SAMPLES, best_index):
        sample = run.samples[index]
        judged = nearest(run.validation, sample["step"]) or nearest(run.training, sample["step"])
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


SECTIONS = {
    metrics: "How good it is",
    learning: "How it learned",
    samples: "What it wrote",
    surprises: "What surprised it",
    sections.configuration: "Configuration",
    sections.size: "Size",
    sections.speed: "Speed",
    sections.environment: "Environment",
}
