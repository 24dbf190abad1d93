"""What a model has once it has been fitted or loaded, and the error of whoever asks before."""

import sys
from functools import cache
from typing import Any, Generic, Self, TypeVar, overload

from gatewise.errors import NotFittedError

T = TypeVar("T")


class Fitted(Generic[T]):
    """An attribute that a model has once it has been fitted or loaded; to read it before is a NotFittedError.

    The value of `model.network` lies in `model.network_`, so that `fit` adds no attribute that scikit-learn would take
    for a parameter.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, model: None, owner: type) -> Self: ...
    @overload
    def __get__(self, model: Any, owner: type) -> T: ...
    def __get__(self, model: Any, owner: type) -> Self | T:
        if model is None:
            return self
        try:
            return vars(model)[f"{self.name}_"]
        except KeyError:
            raise not_fitted(model) from None

    def __set__(self, model: Any, value: T) -> None:
        vars(model)[f"{self.name}_"] = value


def not_fitted(model: Any) -> NotFittedError:
    """The error, which is also scikit-learn's own where a program has imported that."""
    error = NotFittedError
    if (exceptions := sys.modules.get("sklearn.exceptions")) is not None:
        error = _also(exceptions.NotFittedError)
    return error(f"{type(model).__name__}: not trained yet; call fit() first, or load a run with gatewise.load()")


@cache
def _also(other: type[Exception]) -> type[NotFittedError]:
    return type("NotFittedError", (NotFittedError, other), {"__module__": NotFittedError.__module__})
