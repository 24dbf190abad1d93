"""The constants of a C program: weights as arrays, and the affine maps that are made of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gatewise.interchange.c.rounding import Ranges, most_level, row_scales, whole_numbers

C_TYPES = {"float32": "float", "int8": "int8_t", "int32": "int32_t"}
LINE = 116  # columns of a line of numbers


@dataclass(frozen=True)
class Array:
    """A constant array of a program, in the order in which it lies in memory."""

    name: str
    meaning: str
    values: np.ndarray

    @property
    def c_type(self) -> str:
        """The type of one of its numbers."""
        return C_TYPES[str(self.values.dtype)]

    def lines(self) -> Iterator[str]:
        """Its numbers as C writes them, the shortest decimals that give exactly these, in lines."""
        suffix = "f," if self.values.dtype == np.float32 else ","
        line = ""
        for number in map(str, self.values.ravel()):
            if len(line) + len(number) + len(suffix) + 1 > LINE:
                yield line
                line = ""
            line += (" " if line else "") + number + suffix
        yield line


class Constants:
    """The arrays of a program, collected while its maps are declared.

    ranges: for int8, of what each map multiplies, the largest absolute value, by its name; None for float32.
    """

    def __init__(self, ranges: Ranges | None) -> None:
        self.ranges = ranges
        self.arrays: list[Array] = []
        self.most_columns = 0  # of the maps that multiply
        self.float32_bytes = 0  # what all arrays take in float32

    @property
    def bytes(self) -> int:
        """What all arrays take."""
        return sum(array.values.nbytes for array in self.arrays)

    def add(self, name: str, meaning: str, values: np.ndarray) -> str:
        """The name of a new array."""
        self.arrays.append(Array(name, meaning, values))
        return name

    def map(
        self,
        name: str,
        meaning: str,
        weight: np.ndarray,
        bias: np.ndarray | None,
        input_name: str,
        by_token: bool = False,
    ) -> str:
        """The initializer of an affine_map with weight (rows, columns) and bias (rows,).

        input_name: that of its range. by_token: it is read by tokens, so that it multiplies nothing.
        """
        rows, columns = weight.shape
        self.float32_bytes += 4 * (weight.size + (0 if bias is None else bias.size))
        b = "NULL" if bias is None else self.add(f"{name}_b", f"{meaning}: b", bias.astype(np.float32))
        if not by_token:
            self.most_columns = max(self.most_columns, columns)
        if self.ranges is None:
            w = self.add(f"{name}_w", f"{meaning}: W ({rows}, {columns}), by columns", _float32(weight.T))
            return f"{{{w}, {b}, {rows}, {columns}}}"
        scales = row_scales(weight)
        numbers = whole_numbers(weight, scales)
        order = ", by columns" if by_token else ""
        w = self.add(
            f"{name}_w", f"{meaning}: W ({rows}, {columns}) over its scales{order}", numbers.T if by_token else numbers
        )
        scale = self.add(f"{name}_scale", f"{meaning}: scales of the rows of W", scales)
        limit = 1 if by_token else most_level(columns)
        step = np.float32(1.0 if by_token else self.ranges[input_name] / limit)
        return f"{{{w}, {scale}, {b}, {rows}, {columns}, {step}f, {limit}.0f}}"

    def table(self, name: str, meaning: str, weight: np.ndarray) -> None:
        """The arrays NAME_w, and NAME_scale for int8, of an embedding (V, size)."""
        self.float32_bytes += 4 * weight.size
        if self.ranges is None:
            self.add(f"{name}_w", f"{meaning}: a vector for each token", _float32(weight))
            return
        scales = row_scales(weight)
        self.add(
            f"{name}_w", f"{meaning}: a vector for each token, over the token's scale", whole_numbers(weight, scales)
        )
        self.add(f"{name}_scale", f"{meaning}: scales of the tokens", scales)


def _float32(weight: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(weight, np.float32)
