"""The commands that ask a run's model something about data: evaluate and predict, whatever its task."""

import csv
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gatewise.cli import terminal
from gatewise.errors import InputError
from gatewise.run_folder import atomic_write


def evaluate_run(run: Path, data: str, device: str, as_json: bool) -> None:
    """Print how good a run's model is on some data."""
    model = _load(run, device, "evaluate")
    found = model.evaluate(data)
    if as_json:
        terminal.print_json(dataclasses.asdict(found))
        return
    if hasattr(found, "metrics"):
        terminal.print_evaluation(terminal.console(), found)
        return
    unknown = f", {found.unknown_tokens:,} of them unknown to the model" if found.unknown_tokens else ""
    print(f"{terminal.scores(dataclasses.asdict(found))}, {found.tokens:,} tokens{unknown}")


def predict_run(run: Path, data: str, out: Path | None, device: str, as_json: bool) -> None:
    """Print what a run's model predicts for some data, or write it to a file.

    On standard output each example is a line: a JSON object, or cells with tabs between them. A file is JSON lines,
    CSV or TSV, by the end of its name.
    """
    rows = _load(run, device, "predict_rows").predict_rows(data)
    if out is None:
        write = _json_lines(rows) if as_json else _lines(rows, "\t")
        for line in write:
            print(line if as_json or not sys.stdout.isatty() else terminal.visible(line), flush=True)
        return
    kinds = {".jsonl": None, ".csv": ",", ".tsv": "\t"}
    if out.suffix not in kinds:
        raise InputError(f"--out: expected a name that ends with {', '.join(kinds)}, got {out.name}")
    separator = kinds[out.suffix]
    lines = _json_lines(rows) if separator is None else _lines(rows, separator)
    atomic_write(out, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))


def _load(run: Path, device: str, method: str) -> Any:
    """The model of the run. InputError if it cannot do what is asked."""
    from gatewise.training.runs import load

    model = load(run, device=device)
    if not hasattr(model, method):
        command = method.removesuffix("_rows")
        raise InputError(
            f"{run}: gatewise {command} has nothing for a {type(model).__name__}; gatewise.load(run).predict(...) "
            "computes its outputs"
        )
    return model


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    return (json.dumps(row) for row in rows)


def _lines(rows: Iterable[Mapping[str, Any]], separator: str) -> Iterator[str]:
    """A header and a line for each row; what a row has below a key, such as probabilities, becomes columns."""
    names: list[str] = []
    for row in rows:
        flat = _flat(row)
        if not names:
            names = list(flat)
            yield _line(names, separator)
        yield _line([flat.get(name, "") for name in names], separator)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key} {inner}": number for inner, number in value.items()}
        else:
            flat[key] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat


class _Line(list[str]):
    """What csv writes to."""

    write = list.append


def _line(cells: Iterable[Any], separator: str) -> str:
    texts = [f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells]
    if separator == "\t":
        return "\t".join(" ".join(text.split()) for text in texts)
    line: Any = _Line()
    csv.writer(line, lineterminator="").writerow(texts)
    return "".join(line)
