"""The sections that a report has whatever the task: curves of the training, configuration, size, speed, environment.

A section is a function that gathers what is shown of a run (None: nothing of the kind is there) and a macro of the
same name in `sections.html.j2`, or in the template of the task's own page.
"""

import json
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from gatewise.gates import plots
from gatewise.gates.metric_names import METRICS
from gatewise.gates.numbers import duration, moment, plain, significant
from gatewise.gates.run import Run, curve, nearest, spread

MOST_VALIDATIONS = 30
MOST_LABELS = 30
MOST_CLASSES = 20  # of a confusion matrix: more are not told apart on a page's width
WIDE_AND_NARROW = ((880, 370), (400, 310))  # CSS pixels: for a wide page and for a narrow one


def learning(
    run: Run,
    curves: Callable[[], list[dict[str, Any]]],
    columns: dict[str, Callable[[dict[str, Any], dict[str, Any] | None], str]],
) -> dict[str, Any] | None:
    """Curves against steps, and the validations as a table.

    curves: the task's own, drawn only if matplotlib is there; each has a name, what it is about, its drawings for wide
    and narrow pages, and whether it shows training, validation and the best checkpoint.
    columns: of the table, by their titles, after step and epoch: what stands there for a validation, given that and
    the line of training before it.
    """
    if run.last is None:
        return None
    best = run.best
    best_index = run.validation.index(best) if best else 0
    shown = [run.validation[index] for index in spread(len(run.validation), MOST_VALIDATIONS, best_index)]
    rows = []
    for line in shown:
        cells = [write(line, nearest(run.training, line["step"])) for write in columns.values()]
        rows.append({"step": line["step"], "epoch": line["epoch"], "best": line is best, "cells": cells})
    content: dict[str, Any] = {
        "best": best,
        "clip_norm": run.job.training.clip_norm,
        "columns": list(columns),
        "validations": rows,
        "validation_count": len(run.validation),
    }
    if not matplotlib_is_there():
        return content
    content["curves"] = curves()
    norms, rates = curve(run.training, "gradient_norm"), curve(run.training, "learning_rate")
    if norms.values:
        low, high = min(norms.values), max(norms.values)
        label = f"Gradient norm against steps, from {significant(low)} to {significant(high)}."
        clip_norm = run.job.training.clip_norm
        spiky = 0 < 8 * low < max(high, clip_norm or 0)
        content["gradient_norm"] = small("gradient-norm", norms, label, limit=clip_norm, log_scale=spiky)
    if rates.values:
        label = f"Learning rate against steps, at most {significant(max(rates.values))}."
        content["learning_rate"] = small("learning-rate", rates, label)
    return content


def small(name: str, values: plots.Curve, label: str, *, limit: float | None = None, log_scale: bool = False) -> Markup:
    """A drawing for half the page's width."""
    return Markup(
        plots.step_curve(values, name=name, label=label, limit=limit, log_scale=log_scale, width=440, height=220)
    )


def metric(run: Run, key: str, *, training: bool = True) -> dict[str, Any]:
    """A curve of a metric, for `learning`. training: whether lines of training have it, too."""
    found = METRICS[key]
    lines = run.training if training else []
    best = (run.best["step"], run.best[key]) if run.best else None
    last = run.validation or lines
    label = f"{found.name.capitalize()} against steps, {found.write(last[0][key])} to {found.write(last[-1][key])}."
    drawings = [
        Markup(
            plots.metric_curve(
                curve(lines, key),
                curve(run.validation, key),
                best=best,
                write=found.write,
                name=f"{key.replace('_', '-')}-{width}",
                width=width,
                height=height,
                label=label,
            )
        )
        for width, height in WIDE_AND_NARROW
    ]
    return {
        "name": found.name.capitalize(),
        "about": f"while training; {'higher' if found.higher_is_better else 'lower'} is better",
        "drawings": drawings,
        "training": bool(lines),
        "validation": bool(run.validation),
        "best": run.best["step"] if run.best else None,
    }


def judged(run: Run) -> tuple[str, dict[str, Any]] | None:
    """The part that says most, and its evaluation: the test, if there is one."""
    return list(run.evaluation.items())[-1] if run.evaluation else None


def metrics(run: Run, unit: str = "examples") -> dict[str, Any] | None:
    """Of each part that was judged a table of its metrics, with intervals, and what the baseline reaches.

    unit: what a part has so many of.
    """
    if not run.evaluation:
        return None
    parts = {}
    for part, evaluation in run.evaluation.items():
        rows = []
        for key, found in evaluation["metrics"].items():
            write = METRICS[key].write
            baseline = evaluation["baseline"].get(key)
            rows.append(
                {
                    "name": METRICS[key].name,
                    "value": write(found["value"]),
                    "interval": METRICS[key].interval(found["low"], found["high"]) or "–",
                    "baseline": "–" if baseline is None else write(baseline),
                }
            )
        parts[part] = {"size": f"{evaluation['examples']:,} {unit}", "rows": rows}
    return {"parts": parts}


def confusion(run: Run) -> dict[str, Any] | None:
    """What was taken for what: of many labels those that are confused most; darker cells are more frequent."""
    found = judged(run)
    if found is None or found[1]["confusion"] is None:
        return None
    part, evaluation = found
    matrix = evaluation["confusion"]
    names = evaluation.get("confusion_labels") or [scores["label"] for scores in evaluation["labels"]]
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
    found = judged(run)
    return None if found is None else {"part": found[0], "rows": found[1]["labels"]}


def data(run: Run) -> dict[str, Any] | None:
    """What the parts hold, how they were made, what is wrong with them, and what was decided by them."""
    if not run.data:
        return None
    split = run.data["split"]
    parts = []
    for name, part in run.data["parts"].items():
        lengths = part["lengths"]
        parts.append(
            {
                "name": name,
                "examples": part["examples"],
                "source": part["source"],
                "lengths": f"{lengths['median']:,} {lengths['unit']} (median), {lengths['longest']:,} (longest)",
                "duplicates": split["duplicates"].get(name, 0),
            }
        )
    label_counts = split.get("label_counts", {})
    labels = list(label_counts.get("training", {}))
    counts = [(label, [label_counts.get(part["name"], {}).get(label, 0) for part in parts]) for label in labels]
    return {
        "parts": parts,
        "rules": split["rules"],
        "warnings": split["warnings"],
        "notes": run.data["notes"],
        "choices": run.data["choices"],
        "counts": counts[:MOST_LABELS],
        "labels": len(counts),
    }


def size_and_speed(run: Run) -> list[tuple[str, str]]:
    """Key figures that every report has, as (name, value)."""
    figures = []
    if run.last:
        figures.append(("Time", duration(run.last["seconds"])))
    if run.units_per_second:
        figures.append((f"{run.unit.capitalize()} per second", significant(run.units_per_second)))
    if run.parameters:
        figures.append(("Parameters", f"{run.parameters:,}"))
    return figures


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
    name = f"{run.unit.capitalize()} per second"
    rates = curve(run.training, f"{run.unit}_per_second")
    if run.last is None or run.units_per_second is None:
        return None
    training = run.job.training
    length = getattr(training, "sequence_length", None)  # of a text in windows; of examples each has its own
    figures = {
        name: significant(run.units_per_second),
        "Slowest and fastest": f"{significant(min(rates.values))} to {significant(max(rates.values))}",
        "Tokens read" if length else "Examples read": f"{run.last['step'] * training.batch_size * (length or 1):,}",
        "Steps": f"{run.last['step']:,}",
        "Time, with validation": duration(run.last["seconds"]),
    }
    content: dict[str, Any] = {"name": name, "figures": figures}
    if matplotlib_is_there():
        label = f"{name} against steps, {figures[name]} on average."
        content["curve"] = small("speed", rates, label)
    return content


def environment(run: Run) -> list[tuple[str, str]] | None:
    """Where it was trained: versions, processor, backend, text."""
    return [
        (key.replace("_", " "), plain(value) if type(value) in (int, float) else moment(str(value)))
        for key, value in run.environment.items()
        if value is not None
    ] or None


def _toml(value: Any) -> str:
    """The value as a configuration file writes it."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def matplotlib_is_there() -> bool:
    """Whether curves can be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True
