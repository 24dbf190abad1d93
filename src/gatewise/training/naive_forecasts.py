"""What a forecaster must be better than, and how far it has seen: the naive forecasts' errors in training."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from gatewise.data.series_encoding import Panel
from gatewise.errors import InputError
from gatewise.training.forecast_scores import naive_error


@dataclass(frozen=True)
class NaiveForecasts:
    """season: of the seasonal naive forecast, None for none.

    errors: by the id of a series its `naive_error`, (K,), over all that had a part in the training, or in the choice of
    its weights. seen_until: by the id the last time of these, as in a panel.
    """

    season: int | None
    errors: dict[str, list[float | None]]
    seen_until: dict[str, int]

    @classmethod
    def fit(cls, panel: Panel, seen: np.ndarray, season: int | None) -> Self:
        """From the first `seen` steps of each series, (N,)."""
        errors, until = {}, {}
        for row, (name, end) in enumerate(zip(panel.names, seen, strict=True)):
            found = naive_error(panel.values[row][:end], season)
            errors[name] = [None if np.isnan(error) else float(error) for error in found]
            until[name] = int(panel.times[row][end - 1])
        return cls(season, errors, until)

    def errors_of(self, panel: Panel, before: Sequence[int]) -> np.ndarray:
        """The errors of each series, (N, K): those of training; of a series that was no part of it, of its own start.

        before: so many steps of a series lie before the first one that is forecast.
        """
        rows = []
        for row, name in enumerate(panel.names):
            if name in self.errors:
                rows.append([np.nan if error is None else error for error in self.errors[name]])
            else:
                rows.append(naive_error(panel.values[row][: before[row]], self.season))
        return np.array(rows, dtype=np.float64)

    def to_json(self) -> str:
        """A JSON document from which `from_json` makes the same."""
        return json.dumps({"season": self.season, "errors": self.errors, "seen_until": self.seen_until})

    @classmethod
    def from_json(cls, document: str) -> Self:
        """What `to_json` wrote. Raises InputError."""
        try:
            content = json.loads(document)
            return cls(content["season"], content["errors"], content["seen_until"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("damaged baseline: expected season, errors and seen_until") from error
