"""The report on a tagger: how many steps, or spans, are right, what is taken for what, where it was wrong."""

from typing import Any

from gatewise.gates import example_pages, sections
from gatewise.gates.run import Run

UNIT = "steps"
LOSS = example_pages.LOSS


def rank(line: dict[str, Any]) -> tuple[float, float]:
    """The higher the span F1, or else the accuracy, and then the lower the loss, the better a validation."""
    return -line.get("span_f1", line["accuracy"]), line[LOSS]


def _measure(run: Run) -> str:
    """What it is judged by."""
    judged = sections.judged(run)
    there = judged[1]["metrics"] if judged else run.best or {}
    if run.job.data.targets == "numbers":
        return LOSS
    return "span_f1" if "span_f1" in there else "accuracy"


def title(run: Run) -> str:
    """What the page is about."""
    return example_pages.titled(run, "Tagger")


def next_command(run: Run) -> tuple[str, str]:
    """What to do next, and the command for it."""
    return "To tag", f"gatewise predict {run.name} DATA"


def summary(run: Run) -> str:
    """One paragraph: what was trained on what, for how long, and how good it is."""
    model = run.job.model
    sizes = " and ".join(f"{size:,}" for size in model.sizes())
    both = "bidirectional " if model.direction == "both" else ""
    spelled = ", which knows words by their spelling, too," if model.spelling_size not in (0, "auto") else ""
    output = " and a conditional random field" if model.output == "crf" else ""
    what = f"A tagger{spelled} with {both}{model.cell.upper()} layers of {sizes} units{output}"
    baseline = "whoever says of each word its most frequent tag"
    if run.job.data.targets == "numbers":
        baseline = "whoever says of each number how often it is 1"
    return f"{example_pages.trained(run, what)} {example_pages.compared(run, _measure(run), baseline)}"


def key_figures(run: Run) -> list[tuple[str, str]]:
    """The figures that one looks for first, as (name, value)."""
    return example_pages.figures(run, *dict.fromkeys([_measure(run), "accuracy", "unknown_accuracy"]))


def learning(run: Run) -> dict[str, Any] | None:
    """Curves of accuracy, span F1 and loss, and the validations as a table."""
    return example_pages.learning(run, "span_f1", "accuracy")


def mistakes(run: Run) -> dict[str, Any] | None:
    """The sequences with the most wrong steps, each wrong step with what is true and what was said."""
    judged = sections.judged(run)
    if judged is None or not judged[1]["mistakes"]:
        return None
    shown = []
    for mistake in judged[1]["mistakes"]:
        wrong = {step: (true, said) for step, true, said in mistake["wrong"]}
        words = mistake["words"] or [f"step {step}" for step in wrong]
        places = range(len(words)) if mistake["words"] else list(wrong)
        parts = [{"word": word, "wrong": wrong.get(step)} for word, step in zip(words, places, strict=True)]
        shown.append({"place": mistake["place"], "parts": parts, "count": len(wrong)})
    return {"part": judged[0], "mistakes": shown}


SECTIONS = {
    sections.metrics: "How good it is",
    sections.labels: "Label by label",
    sections.confusion: "What it takes for what",
    mistakes: "Where it was most wrong",
    sections.data: "Data",
    learning: "How it learned",
    sections.configuration: "Configuration",
    sections.size: "Size",
    sections.speed: "Speed",
    sections.environment: "Environment",
}
