"""Series in memory: arrays of numbers, one or several, with times if there are any."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.data.frequency import Frequency, infer_frequency
from gatewise.data.regular import regular_positions
from gatewise.data.series import Series, SeriesTable
from gatewise.errors import DataError


def series_of(
    values: Any,
    *,
    times: Any = None,
    known: Any = None,
    static: Any = None,
    target_names: Sequence[str] = (),
    frequency: str | None = None,
    name: str = "series",
) -> SeriesTable:
    """The table of one series, or of several.

    values: (T,) or (T, K) numbers; of several series a mapping of such arrays by their ids. Likewise:
    times: (T,) datetimes or whole numbers; None: each row is a step.
    known: (T + F,) or (T + F, C) numbers that are known of the F steps to come, too; then there are as many times.
    static: (S,) numbers that hold for the whole series.
    target_names: of the K columns; unless given, y, or y1, y2.
    frequency: as in "1 hour"; unless given, the most common distance of the longest series.
    name: what messages call the values.

    Raises DataError: other axes, numbers that are not finite, times that are not regular, parts that do not agree.
    """
    several = isinstance(values, Mapping)
    by_id = dict(values) if isinstance(values, Mapping) else {"": values}
    if not by_id:
        raise DataError(f"{name}: expected an array of numbers, or a mapping of them, got nothing")

    def of(source: Any, key: Any, what: str) -> Any:
        if source is None or not several:
            return source
        if not isinstance(source, Mapping) or key not in source:
            raise DataError(f"{name}: expected {what} by the ids of the series; there are none for {key!r}")
        return source[key]

    places = {key: f"{name}[{key!r}]" if several else name for key in by_id}
    targets = {key: _columns(array, places[key]) for key, array in by_id.items()}
    covariates = {key: _columns(of(known, key, "known"), f"{places[key]}, known") for key in by_id}
    dated = {key: _times(of(times, key, "times"), places[key]) for key in by_id}
    constant = {key: _columns(of(static, key, "static"), f"{places[key]}, static").ravel() for key in by_id}
    step = Frequency.parse(frequency) if frequency else _frequency(dated, targets)
    series = [
        _series("" if not several else str(key), targets[key], covariates[key], dated[key], constant[key], step, place)
        for key, place in places.items()
    ]
    widths = {(s.values.shape[1], s.known.shape[1], len(s.static_numbers)) for s in series}
    if len(widths) > 1:
        raise DataError(f"{name}: expected as many targets, known and static numbers in every series, got {widths}")
    ((count, extra, fixed),) = widths
    names = tuple(target_names) or (("y",) if count == 1 else _numbered("y", count))
    if len(names) != count:
        raise DataError(f"{name}: expected {count} target_names, one for each column, got {len(names)}")
    id_name = "id" if several else None
    return SeriesTable(
        name, series, step, names, _numbered("known", extra), _numbered("static", fixed), (), None, id_name, None
    )


def _series(
    key: str,
    values: np.ndarray,
    known: np.ndarray,
    times: np.ndarray | None,
    static: np.ndarray,
    frequency: Frequency,
    place: str,
) -> Series:
    length = len(known) if known.shape[1] else len(values)
    if not len(values):
        raise DataError(f"{place} is empty; leave it out")
    if length < len(values):
        raise DataError(f"{place}: expected known numbers for {len(values)} steps or more, got {length}")
    if times is None:
        times = np.arange(length, dtype=np.int64)
    elif len(times) != length:
        raise DataError(f"{place}: expected {length} times, one for each row, got {len(times)}")
    else:
        regular_positions(times, frequency, lambda row: f"{place}, row {row + 1}")
    return Series(key, times, values, known if known.shape[1] else np.zeros((length, 0)), static, (), place)


def _columns(array: Any, place: str) -> np.ndarray:
    """(T, K) float64 of (T,) or (T, K) numbers; (0, 0) of None."""
    if array is None:
        return np.zeros((0, 0))
    try:
        numbers = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{place}: expected numbers, got {type(array).__name__} of something else") from None
    if numbers.ndim not in (1, 2):
        raise DataError(f"{place}: expected numbers (T,) or (T, K), got shape {numbers.shape}")
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise DataError(f"{place}, row {row + 1}, column {column + 1}: {numbers[row, column]}; expected finite numbers")
    return numbers


def _times(times: Any, place: str) -> np.ndarray | None:
    if times is None:
        return None
    found = np.asarray(times)
    if found.ndim == 1 and found.dtype.kind in "iu":
        return found.astype(np.int64)
    try:
        return found.reshape(len(found)).astype("M8[us]")
    except (TypeError, ValueError):
        raise DataError(f"{place}: expected times (T,), datetimes or whole numbers, got {found.dtype}") from None


def _frequency(times: Mapping[Any, np.ndarray | None], values: Mapping[Any, np.ndarray]) -> Frequency:
    longest = times[max(values, key=lambda key: len(values[key]))]
    return Frequency(1, "step") if longest is None else infer_frequency(np.sort(longest)) or Frequency(1, "step")


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}{number + 1}" for number in range(count))
