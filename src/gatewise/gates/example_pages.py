"""What the pages of all models that learn from examples share."""

from pathlib import Path
from typing import Any

from gatewise.gates import sections
from gatewise.gates.metric_names import METRICS
from gatewise.gates.numbers import duration, significant
from gatewise.gates.run import Run

LOSS = "loss_nats"


def titled(run: Run, kind: str) -> str:
    """`Tagger of train.conllu`."""
    source = Path(str(run.environment.get("data", "examples"))).name
    return f"{kind} of {'examples in memory' if source == 'X' else source}"


def trained(run: Run, what: str) -> str:
    """What was trained on how much, for how long; what: the model in words."""
    last = run.last
    size = f" and {run.parameters:,} parameters" if run.parameters else ""
    examples = f"{run.environment['examples']:,} examples" if "examples" in run.environment else "examples"
    if last is None or last["step"] == 0:
        return f"{what}{size} is to be trained on {examples}. No step has been recorded yet."
    done = f"{what}{size} was trained on {examples} for {last['step']:,} steps (epoch {last['epoch']})"
    return f"{done} in {duration(last['seconds'])}."


def compared(run: Run, key: str, baseline: str) -> str:
    """How good it is in one metric, and whoever does `baseline`."""
    judged = sections.judged(run)
    metric = METRICS[key]
    if judged is None:
        if run.best is None or key not in run.best:
            return "It has not been judged yet."
        return f"Its best {metric.name} on validation so far is {metric.write(run.best[key])}."
    part, evaluation = judged
    found, theirs = evaluation["metrics"][key], evaluation["baseline"].get(key)
    where = "the examples that it was trained on" if part == "train" else f"{evaluation['examples']:,} of {part}"
    interval = f"95% interval {metric.write(found['low'])} to {metric.write(found['high'])}"
    sentence = f"On {where} its {metric.name} is {metric.write(found['value'])} ({interval})"
    if theirs is None:
        return f"{sentence}."
    sentence = f"{sentence}; that of {baseline} is {metric.write(theirs)}."
    better = found["low"] > theirs if metric.higher_is_better else found["high"] < theirs
    return sentence if better else f"{sentence} It is no better than that."


def figures(run: Run, *keys: str) -> list[tuple[str, str]]:
    """The figures that one looks for first, as (name, value): these metrics, time, speed, size."""
    shown = []
    judged = sections.judged(run)
    if judged is not None:
        part, evaluation = judged
        for key in keys:
            if key in evaluation["metrics"]:
                value = METRICS[key].write(evaluation["metrics"][key]["value"])
                shown.append((f"{part.capitalize()} {METRICS[key].name}", value))
    elif run.best:
        shown += [
            (f"Validation {METRICS[key].name}", METRICS[key].write(run.best[key])) for key in keys if key in run.best
        ]
    if run.last:
        shown.append(("Time", duration(run.last["seconds"])))
    if run.units_per_second:
        shown.append((f"{run.unit.capitalize()} per second", significant(run.units_per_second)))
    if run.parameters:
        shown.append(("Parameters", f"{run.parameters:,}"))
    return shown


def learning(run: Run, *keys: str) -> dict[str, Any] | None:
    """Curves of these metrics of a validation and of the loss, and the validations as a table."""
    keys = tuple(key for key in keys if run.validation and key in run.validation[0])
    columns: dict[str, Any] = {
        "Training loss": lambda line, before: f"{before[LOSS]:.3f}" if before else "–",
        "Validation loss": lambda line, before: f"{line[LOSS]:.3f}",
    }
    for key in keys:
        columns[METRICS[key].name.capitalize()] = lambda line, before, key=key: METRICS[key].write(line[key])
    columns["Time"] = lambda line, before: duration(line["seconds"])
    curves = [*keys, LOSS]
    return sections.learning(run, lambda: [sections.metric(run, key, training=key == LOSS) for key in curves], columns)
