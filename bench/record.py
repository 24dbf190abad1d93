"""What a bench leaves behind: a figure's conditions, numbers and tables, as JSON and as Markdown."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from machine import RESULTS, conditions
from turns import Sizes, Timing


def options(description: str | None, *, threads: int = 2) -> argparse.ArgumentParser:
    """A parser with the options that every bench has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    parser.add_argument("--no-store", action="store_true", help="write nothing")
    return parser


def table_of(title: str, *headers: str) -> Table:
    """An empty table: its first column names the row, the others hold numbers."""
    table = Table(title=title, title_justify="left")
    for header in headers:
        table.add_column(header, justify="right" if table.columns else "left")
    return table


def table_of_steps(axes: str, results: Mapping[Sizes, Mapping[str, Timing]]) -> Table:
    """Of one step of each contestant at each shape the median and spread, and how many times as long torch takes."""
    contestants = next(iter(results.values()))
    table = table_of("one step: us, spread in %, and torch's time over it", axes, *contestants)
    for shape, timings in results.items():
        cells = []
        for timing in timings.values():
            ratio = timing.ratio_to(timings["torch"])
            times = "" if timing is timings["torch"] else f"  {ratio:.1f}x{' loses' if ratio < 1 else ''}"
            cells.append(f"{timing.median_ms * 1e3:.1f} ±{timing.spread:.0%}{times}")
        table.add_row(str(shape), *cells)
    return table


def stored_steps(results: Mapping[Sizes, Mapping[str, Timing]]) -> list[dict[str, Any]]:
    """The same to be stored."""
    return [
        {
            **asdict(shape),  # pyright: ignore[reportArgumentType]
            "median_us": {name: timing.median_ms * 1e3 for name, timing in timings.items()},
            "spread": {name: timing.spread for name, timing in timings.items()},
            "ratio_to_torch": {name: timing.ratio_to(timings["torch"]) for name, timing in timings.items()},
        }
        for shape, timings in results.items()
    ]


def _markdown(table: Table) -> list[str]:
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return [
        "",
        f"## {table.title}",
        "",
        "| " + " | ".join(str(column.header) for column in table.columns) + " |",
        "|" + "---|" * len(table.columns),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
    ]


def store(
    path: Path, threads: int, packages: list[str], results: Any, *, page: tuple[str, str, list[Table], list[str]] | None
) -> None:
    """Write path.json, and path.md if there is a page: title, command, tables, and lines that follow them."""
    facts = conditions(threads, packages)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps({"conditions": facts, "results": results}, indent=1) + "\n")
    if page is None:
        return
    title, command, tables, notes = page
    lines = [f"# {title}", "", f"`{command}`", "", *(f"- {key}: {value}" for key, value in facts.items())]
    for table in tables:
        lines += _markdown(table)
    path.with_suffix(".md").write_text("\n".join([*lines, "", *notes] if notes else lines) + "\n")
