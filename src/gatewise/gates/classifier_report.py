"""The report on a classifier: how often it is right, what it takes for what, how sure it is, where it was wrong."""

from typing import Any

from markupsafe import Markup

from gatewise.gates import example_pages, plots, sections
from gatewise.gates.metric_names import percent
from gatewise.gates.run import Run

UNIT = "examples"
LOSS = example_pages.LOSS


def rank(line: dict[str, Any]) -> tuple[float, float]:
    """The higher the accuracy, and then the lower the loss, the better a validation."""
    return -line["accuracy"], line[LOSS]


def title(run: Run) -> str:
    """What the page is about."""
    return example_pages.titled(run, "Classifier")


def next_command(run: Run) -> tuple[str, str]:
    """What to do next, and the command for it."""
    return "To predict", f"gatewise predict {run.name} DATA"


def summary(run: Run) -> str:
    """One paragraph: what was trained on what, for how long, how fast, and how good it is."""
    model = run.job.model
    directions = "bidirectional " if model.bidirectional else ""
    layers = f"one {directions}{model.cell.upper()} layer"
    if model.num_layers > 1:
        layers = f"{model.num_layers} {directions}{model.cell.upper()} layers"
    what = f"A classifier with {layers} of {model.hidden_size:,} units, {model.pooling} pooling"
    return f"{example_pages.trained(run, what)} {_how_good(run)}"


def _how_good(run: Run) -> str:
    judged = sections.judged(run)
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
    return example_pages.figures(run, "accuracy", "macro_f1")


def learning(run: Run) -> dict[str, Any] | None:
    """Curves of accuracy, macro F1 and loss, and the validations as a table."""
    return example_pages.learning(run, "accuracy", "macro_f1")


def calibration(run: Run) -> dict[str, Any] | None:
    """How far its probabilities can be believed: a curve, and a table."""
    judged = sections.judged(run)
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
    judged = sections.judged(run)
    if judged is None or not judged[1]["mistakes"]:
        return None
    return {"part": judged[0], "mistakes": judged[1]["mistakes"]}


SECTIONS = {
    sections.metrics: "How good it is",
    sections.confusion: "What it takes for what",
    sections.labels: "Label by label",
    mistakes: "Where it was most wrong",
    calibration: "How far to believe its probabilities",
    sections.data: "Data",
    learning: "How it learned",
    sections.configuration: "Configuration",
    sections.size: "Size",
    sections.speed: "Speed",
    sections.environment: "Environment",
}
