"""The report on a forecaster: whether it beats the naive forecasts, how far off it is, what it said and what came."""

from typing import Any

from markupsafe import Markup

from gatewise.gates import example_pages, plots, sections
from gatewise.gates.metric_names import METRICS, percent
from gatewise.gates.numbers import duration, significant
from gatewise.gates.run import Run

UNIT = "windows"
LOSS = "loss"
MOST_SHARED = 40  # steps ahead in a table


def rank(line: dict[str, Any]) -> float:
    """The lower the loss, the better a validation."""
    return line[LOSS]


def title(run: Run) -> str:
    """What the page is about."""
    return example_pages.titled(run, "Forecaster")


def next_command(run: Run) -> tuple[str, str]:
    """What to do next, and the command for it."""
    return "To forecast", f"gatewise predict {run.name} DATA"


def summary(run: Run) -> str:
    """One paragraph: what was trained on what, for how long, and whether it is any good."""
    model, last = run.job.model, run.last
    layers = f"{model.num_layers} {model.cell.upper()} layer{'s' if model.num_layers > 1 else ''}"
    size = f" and {run.parameters:,} parameters" if run.parameters else ""
    what = (
        f"A {model.mode} forecaster of {model.horizon:,} steps from the {model.context:,} before them, with {layers} "
        f"of {model.hidden_size:,} units{size}"
    )
    windows = f"{run.environment['windows']:,} windows of {run.environment['series']:,} series"
    targets = len(run.data["series"]["targets"]) if run.data else 1
    if targets > 1:
        how = "each from its own history" if model.targets == "apart" else "each from the history of all"
        windows += f" with {targets} targets, {how}"
    if last is None or last["step"] == 0:
        return f"{what}, is to be trained on {windows}. No step has been recorded yet."
    done = f"{what}, was trained on {windows} for {last['step']:,} steps (epoch {last['epoch']})"
    return f"{done} in {duration(last['seconds'])}. {_how_good(run)}"


def _how_good(run: Run) -> str:
    found = sections.judged(run)
    if found is None:
        return "It has not been judged yet."
    part, evaluation = found
    where = "the windows that it was trained on" if part == "train" else f"the {part} part"
    return f"On {where}: {evaluation['verdict']}"


def key_figures(run: Run) -> list[tuple[str, str]]:
    """The figures that one looks for first, as (name, value)."""
    found = sections.judged(run)
    figures = []
    if found is not None:
        part, evaluation = found
        for key in ("mase", "skill"):
            if key in evaluation["metrics"]:
                name = "Less error than naive" if key == "skill" else f"{part.capitalize()} {METRICS[key].name}"
                figures.append((name, METRICS[key].write(evaluation["metrics"][key]["value"])))
    if run.last:
        figures.append(("Time", duration(run.last["seconds"])))
    if run.parameters:
        figures.append(("Parameters", f"{run.parameters:,}"))
    return figures


def backtest(run: Run) -> dict[str, Any] | None:
    """Of each part that was judged the metrics, with intervals, beside those of the naive forecasts; the verdict."""
    if not run.evaluation:
        return None
    parts = []
    for part, evaluation in run.evaluation.items():
        rows = []
        for key, metric in evaluation["metrics"].items():
            write = METRICS[key].write
            interval = METRICS[key].interval(metric["low"], metric["high"]) or "–"
            others = [write(each[key]) if key in each else "–" for each in evaluation["baselines"].values()]
            rows.append(
                [METRICS[key].name[0].upper() + METRICS[key].name[1:], write(metric["value"]), interval, *others]
            )
        parts.append(
            {
                "name": part,
                "windows": evaluation["windows"],
                "horizon": evaluation["horizon"],
                "verdict": evaluation["verdict"],
                "beaten": evaluation["metrics"]["skill"]["value"] > 0,
                "notes": evaluation["notes"],
                "baselines": list(evaluation["baselines"]),
                "rows": rows,
                "blocks": any(metric["low"] < metric["high"] for metric in evaluation["metrics"].values()),
                "level": f"{evaluation['level']:.0%}",
            }
        )
    return {"parts": parts}


def pictures(run: Run) -> dict[str, Any] | None:
    """Forecasts with their intervals against what came, from the best window to the worst."""
    found = sections.judged(run)
    if found is None or not sections.matplotlib_is_there():
        return None
    part, evaluation = found
    drawings = []
    for number, picture in enumerate(evaluation["pictures"]):
        of = f"{picture['target']} of {picture['series']}" if picture["series"] else picture["target"]
        first = picture["times"][len(picture["history"])]
        drawing = plots.forecast_curve(
            *(picture[key] for key in ("history", "actual", "point", "lower", "upper")),
            times=picture["times"],
            name=f"forecast-{number}",
            width=440,
            height=260,
            label=f"Forecast of {of} from {first} on, with its interval, against what came.",
        )
        worse = f"{picture['rank']:.0%} of the windows are forecast better"
        drawings.append({"of": of, "first": first, "rank": worse, "drawing": Markup(drawing)})
    return {"part": part, "level": f"{evaluation['level']:.0%}", "drawings": drawings}


def targets(run: Run) -> dict[str, Any] | None:
    """The errors of each target in its own unit, beside those of the naive forecasts."""
    found = sections.judged(run)
    if found is None:
        return None
    rows = []
    for each in found[1]["targets"]:
        errors = [significant(each[key]) for key in ("mae", "rmse", "crps")]
        mase = "–" if each["mase"] is None else f"{each['mase']:.3f}"
        naive = ["–" if each[key] is None else significant(each[key]) for key in ("naive_mae", "seasonal_naive_mae")]
        rows.append([each["target"], *errors, mase, percent(each["coverage"]), *naive])
    return {"part": found[0], "rows": rows}


def steps_ahead(run: Run) -> dict[str, Any] | None:
    """How the error grows with the steps ahead."""
    found = sections.judged(run)
    if found is None or found[1]["horizon"] == 1:
        return None
    evaluation = found[1]
    model, baseline = evaluation["by_step"]["model"], evaluation["by_step"][evaluation["better_baseline"]]
    shown = sorted({round(step) for step in _evenly(len(model), MOST_SHARED)})
    rows = [[f"{step + 1:,}", f"{model[step]:.3f}", f"{baseline[step]:.3f}"] for step in shown]
    return {"part": found[0], "baseline": evaluation["better_baseline"], "rows": rows}


def _evenly(count: int, most: int) -> list[float]:
    return (
        [float(step) for step in range(count)]
        if count <= most
        else [step * (count - 1) / (most - 1) for step in range(most)]
    )


def data(run: Run) -> dict[str, Any] | None:
    """What the series are, how they were split, and what was decided by them."""
    if not run.data:
        return None
    series = run.data["series"]
    steps = series["steps"]
    length = f"{steps['shortest']:,}"
    if steps["shortest"] < steps["longest"]:
        length += f" to {steps['longest']:,}"
    facts = {
        "From": series["source"],
        "Series": f"{series['series']:,}",
        "Steps of a series": length,
        "A step every": series["frequency"],
        "First and last time": f"{series['first_time']} to {series['last_time']}",
        "Forecast": ", ".join(series["targets"]),
        "Known in advance": ", ".join(series["known"]) or "nothing but the calendar",
        "Static": ", ".join(series["static"]) or "nothing",
        **{f"Steps of {part}": f"{count:,}" for part, count in run.data["split"]["steps"].items() if count},
    }
    return {
        "facts": facts,
        "rules": run.data["split"]["rules"],
        "notes": run.data["notes"],
        "choices": run.data["choices"],
    }


def learning(run: Run) -> dict[str, Any] | None:
    """Curves of the loss, gradient norm and learning rate against steps, and the validations as a table."""
    columns: dict[str, Any] = {
        "Training loss": lambda line, before: f"{before[LOSS]:.3f}" if before else "–",
        "Validation loss": lambda line, before: f"{line[LOSS]:.3f}",
        "Time": lambda line, before: duration(line["seconds"]),
    }
    return sections.learning(run, lambda: [sections.metric(run, LOSS)], columns)


SECTIONS = {
    backtest: "Against the naive forecasts",
    pictures: "What it said, and what came",
    targets: "Target by target",
    steps_ahead: "Step by step",
    data: "Data",
    learning: "How it learned",
    sections.configuration: "Configuration",
    sections.size: "Size",
    sections.speed: "Speed",
    sections.environment: "Environment",
}
