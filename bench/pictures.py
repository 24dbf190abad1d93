"""The pictures of the stored results: docs/figures/ratios.svg, ratios-lstm.svg, ratios-rnn.svg and growth.svg.

    python bench/pictures.py [--results DIR] [--figures DIR] [--format png]

A picture whose results are not stored is left out, and named.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from contestants import CELLS, JOBS, Cell
from growth import AXES, COSTS, NAMES, series
from machine import RESULTS
from turns import Timing

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
# Okabe and Ito's colours, told apart also by those who see no red or green.
COLOURS = {"inference": "#0072B2", "training": "#D55E00"}
MARKERS = {"inference": "o", "training": "D"}
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def ratios(cell: Cell, stored: dict[str, Any]) -> Figure:
    """Per shape, torch's time over gatewise's, on a logarithmic axis with a line at 1."""
    shapes = list(stored["results"])
    figure, axes = plt.subplots(figsize=(7.2, 0.34 * len(shapes) + 1.3), layout="constrained")
    for job in JOBS:
        found = [stored["results"][shape][job] for shape in shapes]
        values = [Timing(of["gatewise"]["rounds_ms"]).ratio_to(Timing(of["torch"]["rounds_ms"])) for of in found]
        axes.plot(values, range(len(shapes)), MARKERS[job], color=COLOURS[job], markersize=7, label=job, zorder=3)
        for row, value in enumerate(values):
            axes.plot([1, value], [row, row], color="#bbbbbb", linewidth=2, zorder=1)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=PLAIN, minor_locator=NullLocator())
    axes.set_yticks(range(len(shapes)), shapes)
    axes.invert_yaxis()
    axes.text(-0.02, 1, "T, B, I, H", transform=axes.transAxes, horizontalalignment="right", weight="bold")
    axes.set_xlabel(f"times as fast as torch.nn.{cell.layer}; left of 1 torch is faster")
    axes.grid(axis="x", color="#e5e5e5", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    facts = stored["conditions"]
    figure.suptitle(f"One {cell.layer} layer, float32, {facts['threads']} threads, torch {facts['torch']}", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def growth(stored: dict[str, Any]) -> Figure:
    """Time and memory over T, B and H, on logarithmic axes, with slopes."""
    titles = {"T": "steps T", "B": "batch B", "H": "hidden units H"}
    measured = [axis for axis in AXES if any(point["axis"] == axis for point in stored["results"])]
    size = (3.7 * len(measured), 6.6)
    figure, grid = plt.subplots(
        len(COSTS), len(measured), figsize=size, layout="constrained", sharex="col", squeeze=False
    )
    for row, (cost, unit) in zip(grid, COSTS.items(), strict=True):
        for axes, axis in zip(row, measured, strict=True):
            for name in NAMES:
                for job in JOBS:
                    sizes, costs, slope = series(stored["results"], axis, name, job, cost)
                    line = "-" if name == "gatewise" else "--"
                    label = f"{name} {job}: {slope:.2f}"
                    axes.plot(
                        sizes, costs, line, marker=MARKERS[job], color=COLOURS[job], markersize=4, label=label,
                        markerfacecolor=COLOURS[job] if name == "gatewise" else "white",
                    )  # fmt: skip
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.yaxis.set(major_formatter=PLAIN, minor_locator=NullLocator())
            sizes = sorted({point["size"] for point in stored["results"] if point["axis"] == axis})
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_ylim(top=axes.get_ylim()[1] * 20)  # room for the legend
            axes.grid(color="#e5e5e5")
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(fontsize=7, title="slope", title_fontsize=7, loc="upper left")
            if cost == "memory":
                axes.set_xlabel(titles[axis])
        row[0].set_ylabel(f"{'time' if cost == 'time' else 'peak memory'}, {unit}")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to read from")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="the folder to write to")
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    chosen = parser.parse_args()
    # The same results give the same bytes; text stays text.
    mpl.rcParams.update({"svg.hashsalt": "gatewise", "svg.fonttype": "none", "font.size": 10})
    chosen.figures.mkdir(parents=True, exist_ok=True)
    pictures: list[tuple[str, str, Any]] = [("growth", "growth", growth)]
    for name, cell in CELLS.items():
        picture = "ratios" if name == "gru" else f"ratios-{name}"
        pictures.append((picture, f"{cell.results}-float32-2-threads", partial(ratios, cell)))
    for name, source, draw in pictures:
        path = chosen.results / f"{source}.json"
        if not path.exists():
            print(f"{name}: left out, {path.name} is not stored")
            continue
        figure = draw(json.loads(path.read_text()))
        metadata = {"Date": None} if chosen.format == "svg" else None
        figure.savefig(chosen.figures / f"{name}.{chosen.format}", metadata=metadata, dpi=110, facecolor="white")
        plt.close(figure)
        print(f"{name}: {name}.{chosen.format}")


if __name__ == "__main__":
    main()
