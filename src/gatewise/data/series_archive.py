"""`.ts` files of the archives of time series (UEA, UCR): a case a line, its dimensions separated by colons.

@classLabel true a b
@data
1.86,1.89,1.93:-0.20,-0.19,-0.20:a
"""

from pathlib import Path

import numpy as np

from gatewise.data.examples import Examples, some
from gatewise.data.files import name_of, read_lines
from gatewise.data.missing import Missing, fill_missing
from gatewise.errors import DataError

_LARGEST = float(np.finfo(np.float32).max)


def read_series_archive(source: str | Path, *, missing: Missing = "error", with_labels: bool = True) -> Examples:
    """The cases of a `.ts` file as arrays (T_i, F) with their labels; univariate or not, of any lengths.

    missing: what becomes of `?`, as in `fill_missing`.
    with_labels: False for examples to predict: a label in the file is not used.

    Raises DataError, with the line: no number, dimensions of different lengths, another number of dimensions, a label
    that the header does not name; time stamps, and numbers to be predicted, are not read.
    """
    name = name_of(source)
    lines = read_lines(source)
    header, start = _header(name, lines)
    labels = header.get("classlabel", "false").split()
    has_labels = labels[0].lower() == "true"
    if with_labels and not has_labels:
        raise DataError(f"{name}: its header has no labels; expected a line such as @classLabel true a b")
    known = set(labels[1:])
    arrays: list[np.ndarray] = []
    targets: list[str] = []
    places: list[str] = []
    names: tuple[str, ...] = ()
    for number, line in enumerate(lines[start:], start + 1):
        if not line.strip() or line.startswith("#"):
            continue
        place = f"{name}: line {number}"
        *dimensions, label = line.strip().split(":") if has_labels else [*line.strip().split(":"), ""]
        label = label.strip()
        if has_labels and with_labels and label not in known:
            raise DataError(f'{place}: the label "{label}" is none of those in the header: {some(labels[1:])}')
        names = names or tuple(f"dimension {i}" for i in range(1, len(dimensions) + 1))
        if len(dimensions) != len(names):
            raise DataError(f"{place}: {len(dimensions)} dimensions, and {len(names)} in the first case")
        steps = _steps(place, dimensions)
        arrays.append(fill_missing(steps, missing, names, place))
        targets.append(label)
        places.append(place)
    if not arrays:
        raise DataError(f"{name}: no case after @data")
    return Examples(
        name,
        "steps",
        arrays,
        "label" if with_labels else "none",
        targets if with_labels else None,
        places,
        feature_names=names,
    )


def _header(name: str, lines: list[str]) -> tuple[dict[str, str], int]:
    """(the values of the header by their keys in lower case, the number of lines up to @data)."""
    header: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if line.lower() == "@data":
            for key in ("timestamps", "targetlabel"):
                if header.get(key, "false").lower().startswith("true"):
                    what = "time stamps" if key == "timestamps" else "numbers to predict"
                    raise DataError(f"{name}: its header says @{key} true, and {what} are not read from .ts files")
            return header, number
        if line.startswith("@"):
            key, _, value = line[1:].partition(" ")
            header[key.lower()] = value.strip() or "false"
        elif line and not line.startswith("#"):
            break
    raise DataError(f"{name}: line {number}: expected a header of lines that begin with @, the last of them @data")


def _steps(place: str, dimensions: list[str]) -> np.ndarray:
    """The steps (T, F) float32 of a case, NaN for `?`."""
    cells = [dimension.split(",") for dimension in dimensions]
    for number, dimension in enumerate(cells, 1):
        if len(dimension) != len(cells[0]):
            raise DataError(
                f"{place}: dimension {number} has {len(dimension)} steps, and dimension 1 has {len(cells[0])}"
            )
    try:
        steps = np.array([[np.nan if cell.strip() == "?" else float(cell) for cell in row] for row in cells])
    except ValueError:
        steps = np.array([[np.inf]])
    if (np.abs(steps) > _LARGEST).any():
        bad = ((number, step) for number, row in enumerate(cells) for step, cell in enumerate(row) if _is_bad(cell))
        number, step = next(bad)
        raise DataError(
            f'{place}, dimension {number + 1}, step {step + 1}: expected a finite number, got "{cells[number][step]}"'
        )
    return np.ascontiguousarray(steps.T, dtype=np.float32)


def _is_bad(cell: str) -> bool:
    try:
        return cell.strip() != "?" and abs(float(cell)) > _LARGEST
    except ValueError:
        return True
