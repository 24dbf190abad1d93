"""The report on a classifier: how often it is right, what it takes for what, how sure it is, where it was wrong."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from gatewise.gates import plots, sections
from gatewise.gates.metric_names import METRICS, percent
from gatewise.gates.numbers import duration, significant
from gatewise.gates.run import Run

UNIT = "examples"
LOSS = "loss_nats"
MOST_CLASSES = 20  # of a confusion matrix: more are not told apart on a page's width


def rank(line: dict[str, Any]) -> tuple[float, float]:
    """The higher the accuracy, and then the lower the loss, the better a validation."""
    return -line["accuracy"], line[LOSS]


def title(run: Run) -> str:
    """What the page is about."""
    source = Path(str(run.environment.get("data", "examples"))).name
    return f"Classifier of {'examples in memory' if source == 'X' else source}"


def next_command(run: Run) -> tuple[str, str]:
    """What to do next, and the command for it."""
    return "To predict", f"gatewise predict {run.name} DATA"


def _judged(run: Run) -> tuple[str, dict[str, Any]] | None:
    """The part that says most, and its evaluation: the test, if there is one."""
    return list(run.evaluation.items())[-1] if run.evaluation else None


def summary(run: Run) -> str:
    """One paragraph: what was trained on what, for how long, how fast, and how good it is."""
    model, last = run.job.model, run.last
    directions = "bidirectional " if model.bidirectional else ""
    layers = f"one {directions}{model.cell.upper()} layer"
    if model.num_layers > 1:
        layers = f"{model.num_layers} {directions}{model.cell.upper()} layers"
    size = f" and {run.parameters:,} parameters" if run.parameters else ""
    what = f"A classifier with {layers} of {model.hidden_size:,} units, {model.pooling} pooling{size}"
    examples = f"{run.environment['examples']:,} examples" if "examples" in run.environment else "examples"
    if last is None or last["step"] == 0:
        return f"{what} is to be trained on {examples}. No step has been recorded yet."
    done = f"{what} was trained on {examples} for {last['step']:,} steps (epoch {last['epoch']})"
    return " ".join(filter(None, [f"{done} in {duration(last['seconds'])}.", _how_good(run)]))


def _how_good(run: Run) -> str:
    judged = _judged(run)
    if judged is None:
        if run.best is None:
            return "It has not been judged yet."
        return f"Its best accuracy on validation so far is {percent(run.best['accuracy'])}."
    part, found = judged
    accuracy = found["metrics"]["accuracy"]
    interval = f"{percent(accuracy['low'])} to {percent(accuracy['high'])}"
    baseline = found["baseline"]["accuracy"]
    where = "examples that it was trained on" if part == "train" else f"the {found['examples']:,} examples of {part}"
    what = "all labels of" if found["confusion"] is None else "the label of"
    sentence = (
        f"On {where} it finds {what} {percent(accuracy['value'])} (95% interval {interval}); "
        f"whoever always says the most frequent label is right in {percent(baseline)}."
    )
    if accuracy["low"] <= baseline:
        sentence += " That is no more than chance: it has not learned to tell the labels apart."
    return sentence


def key_figures(run: Run) -> list[tuple[str, str]]:
    """The figures that one looks for first, as (name, value)."""
    figures = []
    if judged := _judged(run):
        part, found = judged
        for key in ("accuracy", "macro_f1"):
            figures.append(
                (f"{part.capitalize()} {METRICS[key].name}", METRICS[key].write(found["metrics"][key]["value"]))
            )
    elif run.best:
        figures.append(("Validation accuracy", percent(run.best["accuracy"])))
    if run.last:
        figures.append(("Time", duration(run.last["seconds"])))
    if run.units_per_second:
        figures.append(("Examples per second", significant(run.units_per_second)))
    if run.parameters:
        figures.append(("Parameters", f"{run.parameters:,}"))
    return figures


def learning(run: Run) -> dict[str, Any] | None:
    """Curves of accuracy, loss, gradient norm and learning rate against steps, and the validations as a table."""
    validated = {
        "Validation loss": lambda line, before: f"{line[LOSS]:.3f}",
        "Accuracy": lambda line, before: percent(line["accuracy"]),
        "Macro F1": lambda line, before: f"{line['macro_f1']:.3f}",
        "Time": lambda line, before: duration(line["seconds"]),
    }
    return sections.learning(
        run,
        lambda: [
            *([sections.metric(run, "accuracy", training=False)] if run.validation else []),
            sections.metric(run, LOSS),
        ],
        {"Training loss": lambda line, before: f"{before[LOSS]:.3f}" if before else "–", **validated},
    )


def confusion(run: Run) -> dict[str, Any] | None:
    """What was taken for what: of many labels those that are confused most; darker cells are more frequent."""
    judged = _judged(run)
    if judged is None or judged[1]["confusion"] is None:
        return None
    part, found = judged
    matrix = found["confusion"]
    names = [scores["label"] for scores in found["labels"]]
    wrong = [sum(row) - row[k] + sum(other[k] for other in matrix) - row[k] for k, row in enumerate(matrix)]
    shown = sorted(sorted(range(len(names)), key=lambda k: -wrong[k])[:MOST_CLASSES])
    rows = []
    for k in shown:
        total = max(1, sum(matrix[k]))
        cells = [{"count": matrix[k][j], "share": matrix[k][j] / total, "right": j == k} for j in shown]
        rows.append({"label": names[k], "examples": sum(matrix[k]), "cells": cells})
    pairs = sorted(
        ((matrix[k][j], names[k], names[j]) for k in range(len(names)) for j in range(len(names)) if j != k),
        key=lambda pair: -pair[0],
    )
    return {
        "part": part,
        "labels": [names[k] for k in shown],
        "rows": rows,
        "all": len(names),
        "pairs": [pair for pair in pairs[:5] if pair[0]],
    }


def labels(run: Run) -> dict[str, Any] | None:
    """Precision, recall and F1 of each label."""
    judged = _judged(run)
    return None if judged is None else {"part": judged[0], "rows": judged[1]["labels"]}


def calibration(run: Run) -> dict[str, Any] | None:
    """How far its probabilities can be believed: a curve, and a table."""
    judged = _judged(run)
    if judged is None:
        return None
    part, found = judged
    bins = [(bin["probability"], bin["right"], bin["predictions"]) for bin in found["calibration"]]
    error = found["metrics"]["calibration_error"]["value"]
    content: dict[str, Any] = {"part": part, "bins": bins, "error": percent(error)}
    if sections.matplotlib_is_there():
        label = f"Part that is right against probability; on average they differ by {percent(error)}."
        content["curve"] = Markup(plots.reliability_curve(bins, name="calibration", width=440, height=330, label=label))
    return content


def mistakes(run: Run) -> dict[str, Any] | None:
    """The examples where it was surest of something wrong."""
    judged = _judged(run)
    if judged is None or not judged[1]["mistakes"]:
        return None
    return {"part": judged[0], "mistakes": judged[1]["mistakes"]}


SECTIONS = {
    sections.metrics: "How good it is",
    confusion: "What it takes for what",
    labels: "Label by label",
    mistakes: "Where it was most wrong",
    calibration: "How far to believe its probabilities",
    sections.data: "Data",
    learning: "How it learned",
    sections.configuration: "Configuration",
    sections.size: "Size",
    sections.speed: "Speed",
    sections.environment: "Environment",
}
