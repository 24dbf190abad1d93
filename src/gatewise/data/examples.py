"""Examples: the one form that every reader gives and every split, vocabulary and batch takes.

    classify    text, words or steps  ->  label, or labels
    tag         words or steps        ->  tags, or numbers at every step
    translate   text                  ->  text

An example to predict has no target. Labels and tags are texts, whatever the file holds: 3 is "3". A series to forecast
is no example but a `SeriesTable` (data/series.py).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from gatewise.errors import DataError

InputKind = Literal["text", "words", "steps"]
TargetKind = Literal["none", "label", "labels", "tags", "numbers", "text"]

_INPUTS: dict[str, str] = {"text": "texts", "words": "lists of words", "steps": "arrays of steps"}
_TARGETS: dict[str, str] = {
    "none": "no targets",
    "label": "a label each",
    "labels": "several labels each",
    "tags": "a tag for every step",
    "numbers": "numbers for every step",
    "text": "a text each",
}


@dataclass(frozen=True)
class Examples:
    """N examples in the order of their file.

    source: where they come from, the first word of every message about them.
    input_kind, inputs: N of one kind:
        "text"   str
        "words"  list[str]
        "steps"  array (T_i, F) float32, the same F everywhere
    target_kind, targets: N of one kind, or None:
        "none"     None: examples to predict
        "label"    str
        "labels"   tuple[str, ...]: sorted, each once, perhaps none
        "tags"     list[str], one for each word or step
        "numbers"  array (T_i, K) float32, one row for each step; 0/1 for several yes-or-no tags at a time
        "text"     str
    places: N texts that say where an example lies (`train.csv: row 7`), for messages.
    groups: N texts, or None: what must not be torn apart by a split (a speaker, a document).
    times: (N,) datetime64[us] or int64, or None: when, for a split by time.
    feature_names: the F columns of "steps".
    target_names: the K columns of "numbers".
    label_dtype: the dtype that labels had in memory, as NumPy writes it (`<i8`); None: they are texts of a file.
    matrix: whether each input is a row of a matrix: one step, whose features are the columns.
    notes: sentences for the user: what a reader guessed, which column it took.

    Raises DataError if the parts have different lengths.
    """

    source: str
    input_kind: InputKind
    inputs: list[Any]
    target_kind: TargetKind
    targets: list[Any] | None
    places: list[str]
    groups: list[str] | None = None
    times: np.ndarray | None = None
    feature_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    label_dtype: str | None = None
    matrix: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if (self.targets is None) != (self.target_kind == "none"):
            raise DataError(f"{self.source}: targets must be None if, and only if, target_kind is none")
        for name in ("targets", "places", "groups", "times"):
            part = getattr(self, name)
            if part is not None and len(part) != len(self.inputs):
                raise DataError(f"{self.source}: {len(self.inputs)} inputs and {len(part)} {name}; give one for each")
        if self.target_kind in ("tags", "numbers"):
            for steps, target, place in zip(self.inputs, self.targets or (), self.places, strict=True):
                if len(steps) != len(target):
                    what = "words" if self.input_kind == "words" else "steps"
                    raise DataError(f"{place}: {len(steps)} {what} and {len(target)} {self.target_kind}; give as many")

    def __len__(self) -> int:
        return len(self.inputs)

    # Inputs and targets under the name of their kind; DataError if they are of another kind.

    @property
    def texts(self) -> list[str]:
        """The inputs, N str."""
        return self._inputs("text")

    @property
    def words(self) -> list[list[str]]:
        """The inputs, N lists of words."""
        return self._inputs("words")

    @property
    def steps(self) -> list[np.ndarray]:
        """The inputs, N arrays (T_i, F) float32."""
        return self._inputs("steps")

    @property
    def labels(self) -> list[str]:
        """The targets, N str."""
        return self._targets("label")

    @property
    def label_sets(self) -> list[tuple[str, ...]]:
        """The targets, N tuples of labels."""
        return self._targets("labels")

    @property
    def tags(self) -> list[list[str]]:
        """The targets, N lists of tags."""
        return self._targets("tags")

    @property
    def numbers(self) -> list[np.ndarray]:
        """The targets, N arrays (T_i, K) float32."""
        return self._targets("numbers")

    @property
    def target_texts(self) -> list[str]:
        """The targets, N str."""
        return self._targets("text")

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64: characters, words or steps of each input."""
        return np.fromiter(map(len, self.inputs), dtype=np.int64, count=len(self))

    def take(self, rows: Sequence[int] | np.ndarray) -> "Examples":
        """The examples at these positions, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        picked = rows.tolist()
        return replace(
            self,
            inputs=[self.inputs[row] for row in picked],
            targets=None if self.targets is None else [self.targets[row] for row in picked],
            places=[self.places[row] for row in picked],
            groups=None if self.groups is None else [self.groups[row] for row in picked],
            times=None if self.times is None else self.times[rows],
        )

    def without_targets(self) -> "Examples":
        """The same inputs, as examples to predict."""
        return replace(self, target_kind="none", targets=None, target_names=())

    def label_counts(self) -> Counter[str]:
        """How often each label or tag occurs, the most frequent first; empty for other targets."""
        if self.target_kind == "label":
            counts = Counter(self.labels)
        elif self.target_kind in ("labels", "tags"):
            counts = Counter(label for labels in self.targets or () for label in labels)
        else:
            return Counter()
        return Counter(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))

    def describe(self) -> dict[str, Any]:
        """Numbers for a report, ready for JSON.

        examples, input_kind, target_kind; lengths {unit, total, shortest, median, p95, longest}; label_counts;
        features (F) and target_numbers (K); groups; first_time and last_time; each only where there is one.
        """
        described: dict[str, Any] = {
            "source": self.source,
            "examples": len(self),
            "input_kind": self.input_kind,
            "target_kind": self.target_kind,
        }
        unit = {"text": "characters", "words": "words", "steps": "steps"}[self.input_kind]
        described["lengths"] = {"unit": unit} | _quantiles(self.lengths)
        if self.target_kind == "text":
            described["target_lengths"] = {"unit": "characters"} | _quantiles(
                np.fromiter(map(len, self.target_texts), dtype=np.int64, count=len(self))
            )
        if counts := self.label_counts():
            described["label_counts"] = dict(counts)
        if self.target_kind == "labels":
            described["without_label"] = sum(not labels for labels in self.label_sets)
        if self.input_kind == "steps":
            described["features"] = len(self.feature_names)
        if self.target_kind == "numbers":
            described["target_numbers"] = len(self.target_names)
        if self.groups is not None:
            described["groups"] = len(set(self.groups))
        if self.times is not None and len(self):
            described["first_time"], described["last_time"] = str(self.times.min()), str(self.times.max())
        return described

    def _inputs(self, kind: InputKind) -> list[Any]:
        if self.input_kind != kind:
            raise DataError(f"{self.source}: expected {_INPUTS[kind]} as inputs, got {_INPUTS[self.input_kind]}")
        return self.inputs

    def _targets(self, kind: TargetKind) -> list[Any]:
        if self.target_kind != kind or self.targets is None:
            raise DataError(f"{self.source}: expected {_TARGETS[kind]} as target, got {_TARGETS[self.target_kind]}")
        return self.targets


def some(names: Iterable[str], number: int = 10) -> str:
    """The first names, for a message: `a, b, c and 4 more`."""
    names = list(names)
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(names[:number]) + more


def _quantiles(lengths: np.ndarray) -> dict[str, int]:
    if not len(lengths):
        return {"total": 0, "shortest": 0, "median": 0, "p95": 0, "longest": 0}
    return {
        "total": int(lengths.sum()),
        "shortest": int(lengths.min()),
        "median": int(np.median(lengths)),
        "p95": int(np.quantile(lengths, 0.95)),
        "longest": int(lengths.max()),
    }
