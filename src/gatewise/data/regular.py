"""Regular times: each row of a series on the grid of its frequency; what is twice, out of order, missing, beside it."""

from collections.abc import Callable

import numpy as np

from gatewise.data.frequency import Frequency
from gatewise.errors import DataError

LARGEST_GRID = 20  # times for each row, beside 10,000: with fewer rows than that, the times are taken for irregular


def regular_positions(
    times: np.ndarray, frequency: Frequency, place: Callable[[int], str], *, fill: bool = False
) -> np.ndarray:
    """Where each time lies on the grid of the frequency that begins at the first: (T,) int64, 0, 1, 2 ... T - 1.

    fill: times may be missing; the positions leave them out.
    place: what a message calls a row.

    Raises DataError: a time comes twice, is earlier than the one before, missing (unless `fill`), or beside the grid.
    """
    regular = np.concatenate([times[:1], frequency.times_after(times[0], len(times) - 1)])
    if np.array_equal(times, regular):
        return np.arange(len(times))
    falling = np.flatnonzero(times[1:] <= times[:-1]) + 1
    if len(falling):
        raise DataError(_not_rising(times, int(falling[0]), place))
    grid = regular
    while grid[-1] < times[-1] and len(grid) < LARGEST_GRID * len(times) + 10_000:
        grid = np.concatenate([grid, frequency.times_after(grid[-1], len(grid))])
    positions = np.searchsorted(grid, times)
    beside = np.flatnonzero(grid[np.minimum(positions, len(grid) - 1)] != times)
    gaps = np.flatnonzero(np.diff(positions) > 1) + 1
    if len(gaps) and not fill and not (len(beside) and beside[0] < gaps[0]):
        row, number = int(gaps[0]), int(np.diff(positions)[gaps[0] - 1] - 1)
        raise DataError(
            f"{place(row)}: {number} {'time is' if number == 1 else 'times are'} missing before {_shown(times[row])}, "
            f"every {frequency} after {_shown(times[row - 1])}; "
            "add the rows, or have them filled with missing = previous or linear"
        )
    if len(beside):
        raise DataError(
            f"{place(int(beside[0]))}: the time {_shown(times[beside[0]])} is not one of every {frequency} after "
            f"{_shown(times[0])}; the times of a series must be regular"
        )
    return positions


def _not_rising(times: np.ndarray, row: int, place: Callable[[int], str]) -> str:
    same = np.flatnonzero(times[:row] == times[row])
    if len(same):
        return f"{place(row)}: the time {_shown(times[row])} comes twice, first in {place(int(same[0]))}"
    return (
        f"{place(row)}: the time {_shown(times[row])} is earlier than {_shown(times[row - 1])} in the row before; "
        "sort the rows by time"
    )


def _shown(time: object) -> str:
    """The time without a clock if it is midnight, without fractions if there are none."""
    text = str(time).replace("T", " ")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.removesuffix(" 00:00:00")
