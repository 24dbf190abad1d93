"""Frequencies: the one distance from each time of a series to the next, counted in a unit of the calendar."""

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from gatewise.errors import DataError

Unit = Literal[
    "microsecond", "millisecond", "second", "minute", "hour", "day", "week", "business day", "month", "year", "step"
]

_MICROSECONDS: dict[str, int] = {  # of the units that are always equally long, the longest first
    "week": 604_800_000_000,
    "day": 86_400_000_000,
    "hour": 3_600_000_000,
    "minute": 60_000_000,
    "second": 1_000_000,
    "millisecond": 1_000,
    "microsecond": 1,
}
_SEASONS: dict[
    str, int
] = {  # units after which the best known pattern comes again: the hour, the day, the week, the year
    "second": 3600,
    "minute": 1440,
    "hour": 24,
    "day": 7,
    "week": 52,
    "business day": 5,
    "month": 12,
}


@dataclass(frozen=True)
class Frequency:
    """A time every `count` `unit`s; "step" where the times are whole numbers, or there are none.

    month_end: of months and years: every time is the last day of its month.
    """

    count: int
    unit: Unit
    month_end: bool = False

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'s' if self.count > 1 else ''}{', at month ends' if self.month_end else ''}"

    @staticmethod
    def parse(text: str) -> "Frequency":
        """The frequency that `str` wrote. Raises DataError."""
        words, _, end = text.partition(", ")
        count, _, unit = words.partition(" ")
        unit = unit if unit in get_args(Unit) else unit.removesuffix("s")
        if not count.isdecimal() or int(count) < 1 or unit not in get_args(Unit) or end not in ("", "at month ends"):
            raise DataError(f'expected a frequency such as "1 hour" or "3 months", got "{text}"')
        return Frequency(int(count), cast(Unit, unit), bool(end))

    @property
    def season(self) -> int:
        """The steps after which the best known pattern of such data comes again: 24 of an hour, 12 of a month; or 1."""
        season, left = divmod(_SEASONS.get(self.unit, 0), self.count)
        return season if season > 1 and not left else 1

    def times_after(self, last: Any, number: int) -> np.ndarray:
        """The next `number` times after `last`, a datetime64 or a whole number: (number,) datetime64[us] or int64."""
        steps = np.arange(1, number + 1, dtype=np.int64) * self.count
        if self.unit == "step":
            return np.int64(last) + steps
        last = np.datetime64(last, "us")
        if self.unit == "business day":
            day = last.astype("M8[D]")
            return np.busday_offset(day, steps).astype("M8[us]") + (last - day)
        if self.unit in ("month", "year"):
            return _add_months(last, steps * (12 if self.unit == "year" else 1), self.month_end)
        return last + (steps * _MICROSECONDS[self.unit]).astype("m8[us]")


def infer_frequency(times: np.ndarray) -> Frequency | None:
    """The frequency of rising times (T,) datetime64[us] or int64, from the distance that is most common; None if T < 2.

    Whether every distance is that one is for the caller to see: compare with `times_after`.
    """
    if len(times) < 2:
        return None
    if times.dtype.kind != "M":
        return Frequency(max(1, _most_common(np.diff(times))), "step")
    months = _months(times)
    if months is not None and (common := _most_common(np.diff(months[0]))) > 0:
        return Frequency(common // 12, "year", months[1]) if common % 12 == 0 else Frequency(common, "month", months[1])
    distances = np.diff(times).astype(np.int64)
    microseconds = max(1, _most_common(distances))
    if microseconds == _MICROSECONDS["day"] and _is_business_days(times, distances):
        return Frequency(1, "business day")
    unit = next(unit for unit, length in _MICROSECONDS.items() if microseconds % length == 0)
    return Frequency(microseconds // _MICROSECONDS[unit], cast(Unit, unit))


def _months(times: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """(the month of each time, whether they are month ends), if all have the same day and time of the month."""
    months = times.astype("M8[M]")
    into = times - months.astype("M8[us]")
    if len(np.unique(months)) < len(times):
        return None
    if (into == into[0]).all():
        return months.astype(np.int64), False
    left = (months + 1).astype("M8[us]") - times  # to the end of the month
    return (months.astype(np.int64), True) if (left == left[0]).all() and left[0] <= np.timedelta64(1, "D") else None


def _is_business_days(times: np.ndarray, distances: np.ndarray) -> bool:
    days = times.astype("M8[D]")
    weekend_skipped = distances == 3 * _MICROSECONDS["day"]
    return bool(weekend_skipped.any() and np.is_busday(days).all())


def _most_common(distances: np.ndarray) -> int:
    values, counts = np.unique(distances, return_counts=True)
    return int(values[counts.argmax()])


def _add_months(last: Any, months: np.ndarray, month_end: bool) -> np.ndarray:
    month = last.astype("M8[M]")
    later = month + months
    if month_end:
        left = (month + 1).astype("M8[us]") - last
        return (later + 1).astype("M8[us]") - left
    return later.astype("M8[us]") + (last - month.astype("M8[us]"))
