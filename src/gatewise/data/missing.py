"""Missing values of a sequence: refused, or filled from the steps around them."""

from typing import Literal

import numpy as np

from gatewise.errors import DataError

Missing = Literal["error", "previous", "linear"]


def fill_missing(values: np.ndarray, how: Missing, names: tuple[str, ...], place: str) -> np.ndarray:
    """The steps (T, F), finite: values where there are such, and in place of NaN what `how` says.

    how: error     DataError names the first step and feature
         previous  the value before; at the start, the first there is
         linear    on the line between the values before and after; at both ends, the nearest
    DataError also if a feature has no value at all.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    if how == "error":
        step, feature = np.argwhere(missing)[0].tolist()
        raise DataError(
            f"{place}, step {step + 1}, {names[feature]}: missing; "
            "give it, or have it filled with missing = previous or linear"
        )
    filled = values.copy()
    steps = np.arange(len(values))
    for feature in np.flatnonzero(missing.any(axis=0)):
        known = steps[~missing[:, feature]]
        if not len(known):
            raise DataError(f"{place}: {names[feature]} is missing at every step")
        if how == "linear":
            filled[:, feature] = np.interp(steps, known, values[known, feature])
        else:
            before = np.maximum(np.searchsorted(known, steps, side="right") - 1, 0)
            filled[:, feature] = values[known[before], feature]
    return filled
