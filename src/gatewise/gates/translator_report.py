"""The report on a translator: BLEU and chrF, translations from worst to middling, where the words looked."""

from typing import Any

from markupsafe import Markup

from gatewise.gates import example_pages, plots, sections
from gatewise.gates.run import Run

UNIT = "tokens"
LOSS = example_pages.LOSS


def rank(line: dict[str, Any]) -> float:
    """The lower the loss, the better a validation."""
    return line[LOSS]


def title(run: Run) -> str:
    """What the page is about."""
    return example_pages.titled(run, "Translator")


def next_command(run: Run) -> tuple[str, str]:
    """What to do next, and the command for it."""
    return "To translate standard input line by line", f"gatewise translate {run.name}"


def summary(run: Run) -> str:
    """One paragraph: what was trained on what, for how long, and how good it is."""
    model = run.job.model
    layers = (
        f"{model.num_layers} {model.cell.upper()} layer{'s' if model.num_layers > 1 else ''} of {model.hidden_size:,}"
    )
    what = f"A translator with {layers} units in encoder and decoder each, {model.attention} attention"
    return f"{example_pages.trained(run, what)} {example_pages.compared(run, 'bleu', 'the untranslated sentences')}"


def key_figures(run: Run) -> list[tuple[str, str]]:
    """The figures that one looks for first, as (name, value)."""
    return example_pages.figures(run, "bleu", "chrf", "perplexity")


def learning(run: Run) -> dict[str, Any] | None:
    """Curves of perplexity and loss, and the validations as a table."""
    return example_pages.learning(run, "perplexity")


def translations(run: Run) -> dict[str, Any] | None:
    """Translations with their sentences and references: the worst ones by chrF, and middling ones."""
    judged = sections.judged(run)
    if judged is None:
        return None
    groups = {"From the middle": judged[1]["middle"], "The worst": judged[1]["worst"]}
    return {"part": judged[0], "groups": groups}


def attention(run: Run) -> dict[str, Any] | None:
    """Pictures of where each word of some translations looked in the sentence."""
    judged = sections.judged(run)
    if judged is None or not judged[1]["looks"] or not sections.matplotlib_is_there():
        return None
    pictures = []
    for number, look in enumerate(judged[1]["looks"]):
        label = f"Attention of “{''.join(look['written'])}” to “{''.join(look['source'])}”."
        picture = plots.heat_map(
            look["weights"], look["written"], look["source"], name=f"attention-{number}", width=440, label=label
        )
        pictures.append(Markup(picture))
    return {"part": judged[0], "pictures": pictures}


SECTIONS = {
    sections.metrics: "How good it is",
    translations: "What it writes",
    attention: "Where it looks",
    sections.data: "Data",
    learning: "How it learned",
    sections.configuration: "Configuration",
    sections.size: "Size",
    sections.speed: "Speed",
    sections.environment: "Environment",
}
