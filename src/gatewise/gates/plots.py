"""Curves as SVG elements for a page, drawn by matplotlib, which is imported only when something is drawn.

A drawing has no background, and its colours are the page's (`currentColor` and the custom properties `--training`,
`--validation`, `--rule`), so that it follows light, dark and print. Its text is text, in the page's font.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Literal, NamedTuple

from gatewise.gates.numbers import HIGHEST_LOSS, perplexity, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib writes only colours that it knows; these stand for the page's own until the SVG is written.
INK, RULE, TRAINING, VALIDATION = "#010101", "#020202", "#030303", "#040404"
PAGE_COLORS = {
    INK: "currentColor",
    RULE: "var(--rule)",
    TRAINING: "var(--training)",
    VALIDATION: "var(--validation)",
}
MOST_POINTS = 300  # of a curve: more than the eye tells apart on a page's width
FONT_SIZE = 12  # CSS pixels
CHARACTER = 7  # of a date, on average, in CSS pixels
PLOTTED = 0.9  # of a drawing's width


class Curve(NamedTuple):
    """Finite values against steps, in order of the steps."""

    steps: list[float]
    values: list[float]


class ThinCurve(NamedTuple):
    """A curve of few points: the mean, lowest and highest value of each stretch of steps."""

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def thin(curve: Curve, most_points: int = MOST_POINTS) -> ThinCurve:
    """The curve in at most `most_points` points, each the mean of a stretch of equally many values.

    A curve that is short enough stays as it is. The lowest and highest value of a stretch are kept, so that a spike
    can still be drawn.
    """
    length = math.ceil(len(curve.values) / most_points) or 1
    starts = range(0, len(curve.values), length)
    steps = [curve.steps[start : start + length] for start in starts]
    values = [curve.values[start : start + length] for start in starts]
    return ThinCurve(
        [math.fsum(stretch) / len(stretch) for stretch in steps],
        [math.fsum(stretch) / len(stretch) for stretch in values],
        [min(stretch) for stretch in values],
        [max(stretch) for stretch in values],
    )


def log_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers from `low` to `high` (both above zero), at most `most`, spread evenly over a log scale."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    stride = math.ceil(len(decades) / most)
    best: list[float] = []
    tenths = [tenth / 10 for tenth in range(10, 100)]
    for digits in ([1], [1, 3], [1, 2, 5], [1, 2, 3, 5], [1, 1.5, 2, 3, 5, 7], tenths):
        ticks = [digit * 10.0**decade for decade in decades[::stride] for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(best) < len(ticks) <= most:
            best = ticks
    if len(best) > 2:
        return best

    from matplotlib.ticker import MaxNLocator  # so close together that the scale is as good as linear

    return [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]


def learning_curve(
    training: Curve,
    validation: Curve,
    *,
    best: tuple[float, float] | None,
    name: str,
    width: int,
    height: int,
    label: str,
) -> str:
    """SVG of losses (nats) against steps, read as perplexities on the left and, if there is room, as nats on the right.

    best: step and loss of the best checkpoint, to be marked. name: prefix of every id in the SVG, once on a page.
    width, height: CSS pixels. label: what the drawing says, for those who do not see it.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    figure, axes = _axes(width, height, last_step=max(training.steps + validation.steps))
    _draw(axes, training, TRAINING, linewidth=1.4)
    _draw(axes, validation, VALIDATION, linewidth=2.2, marker="o")
    losses = [min(loss, HIGHEST_LOSS) for loss in training.values + validation.values]
    margin = 0.06 * (max(losses) - min(losses)) or 0.1
    low, high = max(min(losses) - margin, 0.0), max(losses) + margin  # no perplexity is below 1
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator([math.log(tick) for tick in log_ticks(math.exp(low), math.exp(high))]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: plain(float(f"{math.exp(loss):.8g}"))))
    axes.set_title("perplexity", loc="left", fontsize=FONT_SIZE, color=INK, pad=10)
    if width > 500:
        nats = axes.secondary_yaxis("right")
        nats.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        nats.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        nats.tick_params(length=0, labelsize=FONT_SIZE, labelcolor=INK)
        nats.spines[:].set_visible(False)
        axes.set_title("loss (nats)", loc="right", fontsize=FONT_SIZE, color=INK, pad=10)
    if best is not None:
        axes.plot(
            *best, marker="o", markersize=13, markerfacecolor="none", markeredgewidth=1.8, color=INK, clip_on=False
        )
        late = best[0] > sum(axes.get_xlim()) / 2  # then the text goes to the left, where there is room
        axes.annotate(
            f"best {perplexity(best[1])}",
            best,
            xytext=(6 if late else -6, 13),
            textcoords="offset points",
            ha="right" if late else "left",
            fontsize=FONT_SIZE + 1,
            fontweight="bold",
            color=INK,
        )
    return _svg(figure, name, label)


def metric_curve(
    training: Curve,
    validation: Curve,
    *,
    best: tuple[float, float] | None,
    write: Callable[[float], str],
    name: str,
    width: int,
    height: int,
    label: str,
) -> str:
    """SVG of a metric against steps on a linear scale; either curve may be empty. write: a value, for the scale.

    The rest is as for `learning_curve`.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure, axes = _axes(width, height, last_step=max(training.steps + validation.steps))
    if training.values:
        _draw(axes, training, TRAINING, linewidth=1.4)
    if validation.values:
        _draw(axes, validation, VALIDATION, linewidth=2.2, marker="o")
    values = training.values + validation.values
    margin = 0.08 * (max(values) - min(values)) or 0.1 * abs(max(values)) or 0.1
    axes.set_ylim(min(values) - margin, max(values) + margin)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    if best is not None:
        axes.plot(
            *best, marker="o", markersize=13, markerfacecolor="none", markeredgewidth=1.8, color=INK, clip_on=False
        )
    return _svg(figure, name, label)


def reliability_curve(
    bins: Sequence[tuple[float, float, int]], *, name: str, width: int, height: int, label: str
) -> str:
    """SVG of the part of predictions that is right against their probability, beside the line where both are equal.

    bins: of predictions of like probability their mean probability, the part that is right, and how many there are;
    the area of a dot is in proportion to that. The rest is as for `learning_curve`.
    """
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    figure, axes = _axes(width, height, last_step=1)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    probability, right, counts = zip(*bins, strict=True)
    axes.plot(probability, right, color=VALIDATION, linewidth=1.4)
    axes.scatter(
        probability, right, s=[20 + 280 * count / max(counts) for count in counts], color=VALIDATION, alpha=0.7
    )
    axes.set_xlabel("probability", fontsize=FONT_SIZE, color=INK)
    axes.set_title("right", loc="left", fontsize=FONT_SIZE, color=INK, pad=10)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(0.25))
        axis.set_major_formatter(PercentFormatter(1))
    return _svg(figure, name, label)


def heat_map(
    weights: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    name: str,
    width: int,
    label: str,
) -> str:
    """SVG of numbers from 0 to 1 as squares, the darker the larger; rows and columns have their names beside them.

    The rest is as for `learning_curve`; the height is that of the rows.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    size = width / (len(columns) + 4)  # of a square; the names of the rows have the width of four
    figure = Figure((width / 72, size * (len(rows) + 4) / 72))
    axes = figure.add_axes((4 / (len(columns) + 4), 0, len(columns) / (len(columns) + 4), len(rows) / (len(rows) + 4)))
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    for number, row in enumerate(weights):
        for column, weight in enumerate(row):
            axes.add_patch(Rectangle((column, number), 1, 1, color=VALIDATION, alpha=min(1.0, weight), linewidth=0))
    axes.xaxis.tick_top()
    axes.set_xticks([c + 0.5 for c in range(len(columns))], [_visible(c) for c in columns], rotation=60, ha="left")
    axes.set_yticks([r + 0.5 for r in range(len(rows))], [_visible(r) for r in rows])
    axes.tick_params(length=0, labelsize=min(FONT_SIZE, 0.6 * size), labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return _svg(figure, name, label)


def _visible(piece: str) -> str:
    """A token as a name: a space that it begins or ends with as a mark, and no formula of matplotlib's."""
    return piece.replace(" ", "\u00b7").replace("\n", "\u21b5").replace("$", "\\$")


def forecast_curve(
    history: Sequence[float],
    actual: Sequence[float],
    point: Sequence[float],
    lower: Sequence[float],
    upper: Sequence[float],
    *,
    times: Sequence[str],
    name: str,
    width: int,
    height: int,
    label: str,
) -> str:
    """SVG of a forecast against what came: the history and what came as a line, the forecast with its interval.

    times: of history and what came together, as they are to be written. The rest is as for `learning_curve`.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    figure, axes = _axes(width, height, last_step=len(times) - 1)
    came = [*history, *actual]
    ahead = range(len(history), len(times))
    axes.fill_between(ahead, lower, upper, color=VALIDATION, alpha=0.22, linewidth=0)
    axes.plot(range(len(times)), came, color=INK, linewidth=1.4)
    axes.plot(ahead, point, color=VALIDATION, linewidth=2.2, marker="o" if len(point) == 1 else "", markersize=5)
    axes.axvline(len(history) - 0.5, color=RULE, linewidth=1)
    shown = [*came, *lower, *upper]
    margin = 0.06 * (max(shown) - min(shown)) or 1
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    places = _dated(len(history), [*map(len, times)], width)
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: str(times[round(place)])))
    for tick, alignment in zip(axes.get_xticklabels(), places.values(), strict=True):
        tick.set_horizontalalignment(alignment)
    axes.set_xlabel("")
    return _svg(figure, name, label)


def _dated(origin: int, lengths: Sequence[int], width: int) -> dict[int, Literal["left", "center", "right"]]:
    """Which times are written below a forecast, and how they are aligned: the first, and where there is room the
    origin of the forecast, and the last.

    lengths: of the times, in characters.
    """
    last = len(lengths) - 1
    across = width * PLOTTED / CHARACTER  # in characters
    places: dict[int, Literal["left", "center", "right"]] = {0: "left"}
    middle = origin / last * across
    used = lengths[0] + 1
    if 0 < origin < last and middle - lengths[origin] / 2 > used:
        places[origin] = "center"
        used = middle + lengths[origin] / 2 + 1
    if across - lengths[last] > used:
        places[last] = "right"
    return places


def step_curve(
    curve: Curve, *, log_scale: bool = False, limit: float | None = None, name: str, width: int, height: int, label: str
) -> str:
    """SVG of one quantity against steps; `limit` is drawn as a dashed line; the rest as for `learning_curve`.

    log_scale: for values that are all above zero.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    figure, axes = _axes(width, height, last_step=curve.steps[-1])
    _draw(axes, curve, TRAINING, linewidth=1.4)
    shown = curve.values if limit is None else [*curve.values, limit]
    low, high = min(shown), max(shown)
    if log_scale:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        axes.yaxis.set_major_locator(FixedLocator(log_ticks(low / 1.3, high * 1.3, most=5)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(min(0, low), high * 1.12 if high > 0 else 1)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    if limit is not None:
        axes.axhline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    return _svg(figure, name, label)


def _axes(width: int, height: int, last_step: float) -> "tuple[Figure, Axes]":
    """Empty axes of that many CSS pixels: pale horizontal lines, no frame, steps below, from 0 on."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    axes = figure.subplots()
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(axis="y", color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=FONT_SIZE, labelcolor=INK, pad=6)
    axes.xaxis.set_major_locator(MaxNLocator(max(2, width // 110), integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.set_xlabel("step", fontsize=FONT_SIZE, color=INK)
    axes.set_xlim(-0.02 * max(1, last_step), 1.02 * max(1, last_step))
    return figure, axes


def _draw(axes: "Axes", curve: Curve, color: str, *, linewidth: float, marker: str = "") -> None:
    """A line, with a pale band from the lowest to the highest value where one point stands for many."""
    points = thin(curve)
    if len(points.steps) < len(curve.steps):
        axes.fill_between(points.steps, points.low, points.high, color=color, alpha=0.22, linewidth=0)
    if len(points.steps) == 1 or len(points.steps) > 60:
        marker = "o" if len(points.steps) == 1 else ""  # a lone point needs a dot; many dots hide their line
    axes.plot(points.steps, points.mean, color=color, linewidth=linewidth, marker=marker, markersize=5)


def _svg(figure: "Figure", name: str, label: str) -> str:
    """The drawing as one <svg> element to be put into a page: no prolog, no metadata, no ids but its own."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True)
    svg = file.getvalue()
    width, height = figure.get_size_inches() * 72
    body = svg[svg.index("</metadata>") + len("</metadata>") : svg.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>|font-family: [^;\"]*; ", "", body, flags=re.DOTALL)
    used = dict.fromkeys(re.findall(r'(?:url\(|href=")#([^")]+)', body))
    new_ids = {old: f"{name}-{number}" for number, old in enumerate(used, 1)}
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{new_ids[found[1]]}"' if found[1] in new_ids else "", body)
    body = re.sub(r'(url\(|href=")#([^")]+)', lambda found: f"{found[1]}#{new_ids[found[2]]}", body)
    body = body.replace("xlink:href", "href")
    for color, page_color in PAGE_COLORS.items():
        body = body.replace(color, page_color)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{body}</svg>'
