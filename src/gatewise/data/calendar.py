"""The calendar as covariates: where a time lies in the day, the week and the year, known of any time to come.

Of each cycle the sine and cosine of the angle and of twice the angle, so that a network can tell two peaks of a day;
of the week also whether it is a Saturday or Sunday.
"""

from collections.abc import Sequence

import numpy as np

from gatewise.data.frequency import Frequency

CYCLES = {"day": 86_400_000_000, "week": 604_800_000_000, "year": 31_556_952_000_000}  # their length in microseconds
_CYCLES_OF = {  # of each unit of a frequency the cycles that its times go through
    **dict.fromkeys(("microsecond", "millisecond", "second", "minute", "hour"), ("day", "week", "year")),
    "day": ("week", "year"),
    "business day": ("week", "year"),
    "week": ("year",),
    "month": ("year",),
}
TURNS = 2  # of a cycle that training must have seen: of less, a network learns a year by heart


def cycles_of(frequency: Frequency, times: Sequence[np.ndarray]) -> tuple[str, ...]:
    """The cycles of a frequency of which the longest of some times (T,) datetime64 has seen enough turns."""
    dated = [each for each in times if len(each) and each.dtype.kind == "M"]
    longest = max((int((each[-1] - each[0]).astype("m8[us]").astype(np.int64)) for each in dated), default=0)
    return tuple(cycle for cycle in _CYCLES_OF.get(frequency.unit, ()) if longest >= TURNS * CYCLES[cycle] * 0.95)


def width_of(cycles: Sequence[str]) -> int:
    """How many covariates `calendar_of` gives."""
    return 4 * len(cycles) + ("week" in cycles)


def calendar_of(times: np.ndarray, cycles: Sequence[str]) -> np.ndarray:
    """The covariates of times (T,) datetime64: (T, width) float32."""
    columns: list[np.ndarray] = []
    for cycle in cycles:
        angle = 2 * np.pi * _part(times, cycle)
        columns += [function(turns * angle) for turns in (1, 2) for function in (np.sin, np.cos)]
        if cycle == "week":
            columns.append((_days_since_monday(times) >= 5).astype(np.float64))
    return np.stack(columns, 1).astype(np.float32) if columns else np.zeros((len(times), 0), np.float32)


def _part(times: np.ndarray, cycle: str) -> np.ndarray:
    """Where each time lies in its cycle, from 0 to 1."""
    day = (times - times.astype("M8[D]")) / np.timedelta64(CYCLES["day"], "us")
    if cycle == "day":
        return day
    if cycle == "week":
        return (_days_since_monday(times) + day) / 7
    year = times.astype("M8[Y]")
    length = ((year + 1).astype("M8[D]") - year.astype("M8[D]")).astype(np.int64)
    return ((times.astype("M8[D]") - year.astype("M8[D]")).astype(np.int64) + day) / length


def _days_since_monday(times: np.ndarray) -> np.ndarray:
    return (times.astype("M8[D]").astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
