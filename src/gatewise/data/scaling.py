"""Standardisation: each feature to mean 0 and standard deviation 1, as measured on the training part alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.data.documents import load_document, read_document, write_document
from gatewise.errors import DataError, InputError, ShapeError
from gatewise.run_folder import atomic_write


class Scaler:
    """(x - mean) / scale for each of F features; a feature that never changes keeps scale 1, so it becomes 0."""

    def __init__(self, mean: np.ndarray, scale: np.ndarray, names: Sequence[str] = ()):
        self.mean = np.asarray(mean, dtype=np.float64)
        self.scale = np.asarray(scale, dtype=np.float64)
        self.names = tuple(names) or tuple(f"feature {i}" for i in range(len(self.mean)))

    @staticmethod
    def fit(arrays: Iterable[np.ndarray], names: Sequence[str] = ()) -> "Scaler":
        """The scaler of all steps of some arrays (T_i, F), taken together; in float64, in two passes.

        names: of the features, for messages and the JSON document.
        Raises DataError if a value is NaN or infinite (naming the feature), or there is no step.
        """
        arrays = [np.asarray(array) for array in arrays]
        steps = sum(map(len, arrays))
        if not steps:
            raise DataError("nothing to fit a scaler to: there is no step")
        with np.errstate(invalid="ignore", over="ignore"):  # said below, by name
            mean = np.sum([array.sum(axis=0, dtype=np.float64) for array in arrays], axis=0) / steps
        if not np.isfinite(mean).all():
            feature = int(np.flatnonzero(~np.isfinite(mean))[0])
            name = names[feature] if names else f"feature {feature}"
            raise DataError(f"{name}: a value is NaN or infinite; a scaler needs finite values")
        variance = np.sum([np.square(array - mean).sum(axis=0) for array in arrays], axis=0) / steps
        scale = np.sqrt(variance)
        # Below this it is rounding of the mean, not change.
        constant = scale <= 1e-12 * np.maximum(np.abs(mean), 1e-30)
        return Scaler(mean, np.where(constant, 1.0, scale), names)

    def transform(self, array: np.ndarray) -> np.ndarray:
        """The array (..., F), standardised, float32. Raises ShapeError for another F."""
        self._check(array)
        return ((array - self.mean) / self.scale).astype(np.float32)

    def inverse(self, array: np.ndarray) -> np.ndarray:
        """The array (..., F) in the units of the data, float64. Raises ShapeError for another F."""
        self._check(array)
        return array * self.scale + self.mean

    def to_json(self) -> str:
        """A JSON document from which `from_json` makes the same scaler."""
        content = {"names": self.names, "mean": self.mean.tolist(), "scale": self.scale.tolist()}
        return write_document("scaler", content)

    def save(self, path: str | Path) -> None:
        """Write the JSON document. Raises RunError if it cannot be written."""
        atomic_write(Path(path), self.to_json().encode("utf-8", "surrogatepass"))

    @staticmethod
    def from_json(document: str) -> "Scaler":
        """The scaler of a JSON document; InputError if the document is damaged or from a newer version."""
        content = read_document("scaler", document)
        mean, scale, names = (content.get(key, []) for key in ("mean", "scale", "names"))
        if not (
            _numbers(mean) and _numbers(scale) and isinstance(names, list) and len(mean) == len(scale) == len(names)
        ):
            raise InputError("damaged scaler: expected mean, scale and names, of each one for each feature")
        return Scaler(np.array(mean), np.array(scale), names)

    @staticmethod
    def load(path: str | Path) -> "Scaler":
        """The scaler of a file; InputError, naming the file, if it is missing, damaged or newer."""
        return load_document("scaler", path, Scaler.from_json)

    def _check(self, array: np.ndarray) -> None:
        if array.shape[-1:] != self.mean.shape:
            raise ShapeError(f"expected {len(self.mean)} features ({', '.join(self.names)}), got shape {array.shape}")


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, int | float) and np.isfinite(x) for x in value)
