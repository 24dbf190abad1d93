"""A model's parameters as scikit-learn asks for them: read, set, shown; every key of the configuration is one.

The arguments of the constructor are parameters under their own names: the keys of the network, and `data` and
`training`. The keys of these two are parameters as well, with two underscores: `training__epochs`.
"""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from gatewise.config import Job, Section, nearest
from gatewise.errors import ConfigError

TABLES = ("data", "training")
RandomState = int | np.random.RandomState | np.random.Generator | None  # whatever the seed is, or is drawn from
LARGEST_SEED = 2**31 - 1  # that is drawn from a generator


class Parameters:
    """The parameters of a model whose constructor stores its arguments, and does nothing else."""

    job_type: ClassVar[type[Job]]

    data: Section | Mapping[str, Any] | None
    training: Section | Mapping[str, Any] | None
    random_state: RandomState

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name. deep: with the keys of `data` and `training`, as in `training__epochs`."""
        found = {name: getattr(self, name) for name in self._names()}
        for table in TABLES if deep else ():
            given = getattr(self, table)
            if given is None or isinstance(given, Section | Mapping):
                values = {**dict(self._defaults(table)), **dict(given or {})}
                found |= {f"{table}__{key}": value for key, value in values.items()}
        return found

    def set_params(self, **parameters: Any) -> Self:
        """Set parameters by name, as `get_params` gives them; returns the model. `fit` checks their values.

        Raises ConfigError for a name that there is not, naming the nearest, before anything is set.
        """
        known = list(self._names())
        known += [f"{table}__{key}" for table in TABLES for key, _ in self._defaults(table)]
        for name in parameters:
            if name not in known:
                raise ConfigError(f"{type(self).__name__}: {_unknown(name, known)}")
        for name in sorted(parameters, key=lambda name: "__" in name):  # a table before its keys
            table, _, key = name.rpartition("__")
            if not table:
                setattr(self, name, parameters[name])
                continue
            given = getattr(self, table)
            if isinstance(given, Section):
                setattr(self, table, given.model_copy(update={key: parameters[name]}))
            else:
                setattr(self, table, {**self._asked(table), key: parameters[name]})
        return self

    def __repr__(self) -> str:
        """The call that makes such a model."""
        defaults = inspect.signature(type(self)).parameters
        given = {name: getattr(self, name) for name in self._names()}
        shown = [f"{name}={value!r}" for name, value in given.items() if not _same(value, defaults[name].default)]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _tables(self, defaults: Job) -> dict[str, dict[str, Any]]:
        """The tables of the job that was asked for, not yet validated; what was not given is that of `defaults`."""
        tables = {"model": {key: getattr(self, key) for key in type(defaults.model).model_fields}}
        tables |= {table: {**dict(getattr(defaults, table)), **self._asked(table)} for table in TABLES}
        if self.random_state is not None:
            tables["training"]["seed"] = _seed(self.random_state)
        # A search draws NumPy's numbers; a configuration knows Python's.
        return {
            table: {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
            for table, values in tables.items()
        }

    def _asked(self, table: str) -> dict[str, Any]:
        """The keys that were given in `data` or `training`."""
        given = getattr(self, table)
        if given is not None and not isinstance(given, Section | Mapping):
            kind = type(self._defaults(table)).__name__
            raise ConfigError(
                f"{type(self).__name__}: {table}: expected a {kind}, a dict of its keys, or None, got {given!r}"
            )
        return dict(given or {})

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(inspect.signature(cls).parameters)

    @classmethod
    def _defaults(cls, table: str) -> Section:
        return cls.job_type.model_fields[table].default


def _unknown(name: str, known: list[str]) -> str:
    """`unknown parameter "epochs"; did you mean "training__epochs"?`"""
    if near := nearest(name.replace("__", "."), [other.replace("__", ".") for other in known]):
        return f'unknown parameter "{name}"; did you mean "{near.replace(".", "__")}"?'
    return f'unknown parameter "{name}"; get_params() names those there are'


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def _seed(random_state: Any) -> Any:
    """A seed, drawn from the state if that is a generator of NumPy's."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(LARGEST_SEED))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(LARGEST_SEED))
    return random_state
