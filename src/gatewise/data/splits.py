"""Splits: training, validation and test, given by files or made by a rule; with what is wrong between them.

A split is always reported: how it was made, how many examples each part has, which inputs a part has twice, and which
lie in two parts (a leak: the figure on them shows memory).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from gatewise.data.examples import Examples, some
from gatewise.data.overlaps import duplicates_within, input_keys, leaks_between, normalised, translation_groups
from gatewise.errors import DataError

Rule = Literal["auto", "random", "stratified", "group", "time"]
PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class SplitReport:
    """What a split did, and what is wrong with it.

    rules: a sentence for each part that was not given by a file: how it was made.
    counts: examples in each part that there is.
    duplicates: of each part, the examples whose input came earlier in that part.
    leaks: of "validation in training", "test in training" and "test in validation", the examples of the first part
        whose input the second has, too; and of "validation translations in training" and so on, whose target it has.
    label_counts: of each part, how often each label or tag occurs.
    warnings: sentences for the user.
    """

    rules: tuple[str, ...]
    counts: dict[str, int]
    duplicates: dict[str, int]
    leaks: dict[str, int]
    label_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Split:
    """The parts that a training uses; validation and test are None where there is none."""

    training: Examples
    validation: Examples | None
    test: Examples | None
    report: SplitReport


def make_split(
    examples: Examples,
    *,
    validation: Examples | float | int | None = 0.1,
    test: Examples | float | int | None = None,
    rule: Rule = "auto",
    seed: int = 0,
) -> Split:
    """The split of the examples, checked and reported.

    validation, test: examples that are given; or how much to take from `examples`, a share below 1 or a number of
        examples; or None (or 0) for no such part.
    rule: how to take it:
        random      anywhere
        stratified  anywhere, each label in equal shares; every label has one example in training at least
        group       whole groups at a time; translations that share a sentence, in either language, are a group
        time        the latest: training, then validation, then test; examples of one time stay together
        auto        time if the examples have times; else group if they have groups or are to be translated; else
                    stratified if they have labels; else random
    seed: of the draw; the same seed, the same split.

    Raises DataError: a part is empty; a rule needs times, groups or labels that are not there; the training part has
    only one label or tag; a label of validation or test is not in training (an unknown tag only warns, for it can be
    counted as wrong).
    """
    parts: dict[str, Examples] = {"training": examples}
    parts |= {name: part for name, part in (("validation", validation), ("test", test)) if isinstance(part, Examples)}
    _check_kinds(parts)
    _check_classes(examples)
    taken = {name: _wanted(name, part, examples) for name, part in (("validation", validation), ("test", test))}
    taken = {name: count for name, count in taken.items() if count}
    rules: tuple[str, ...] = ()
    if taken:
        rule = _rule(examples) if rule == "auto" else rule
        if rule not in _RULES:
            raise DataError(f'rule: expected one of auto, {", ".join(_RULES)}, got "{rule}"')
        where = _RULES[rule](examples, taken, np.random.default_rng(seed))
        for number, name in enumerate(PARTS):
            if number == 0 or name in taken:
                parts[name] = examples.take(np.flatnonzero(where == number))
        _check_not_empty(examples, parts, taken)
        rules = tuple(f"{name}: {len(parts[name])} of the {len(examples)} examples{_HOW[rule]}" for name in taken)
    _check_labels(parts)
    parts = {name: parts[name] for name in PARTS if name in parts}
    report = _report(parts, rules)
    return Split(parts["training"], parts.get("validation"), parts.get("test"), report)


def _wanted(name: str, amount: Examples | float | int | None, examples: Examples) -> int:
    """How many examples to take for a part."""
    if amount is None or isinstance(amount, Examples) or amount == 0:
        return 0
    number = round(amount * len(examples)) if amount < 1 else int(amount)
    if amount < 0 or (amount > 1 and amount != number):
        raise DataError(f"{name}: expected a share below 1 or a number of examples, got {amount}")
    if number == 0:
        raise DataError(
            f"{examples.source}: {name} = {amount} of {len(examples)} examples is none; "
            "give a larger share, a number of examples, or a file"
        )
    return number


def _rule(examples: Examples) -> Rule:
    if examples.times is not None:
        return "time"
    if examples.groups is not None or examples.target_kind == "text":
        return "group"
    return "stratified" if examples.target_kind in ("label", "labels") else "random"


def _random(examples: Examples, taken: dict[str, int], random: np.random.Generator) -> np.ndarray:
    return _assign(random.permutation(len(examples)), taken)


def _stratified(examples: Examples, taken: dict[str, int], random: np.random.Generator) -> np.ndarray:
    if examples.target_kind not in ("label", "labels"):
        raise DataError(f"{examples.source}: a stratified split needs labels; give rule = random, group or time")
    # Of several labels, the rarest decides: the others are frequent enough to spread by themselves.
    counts = examples.label_counts()
    if examples.target_kind == "label":
        label_sets: list[tuple[str, ...]] = [(label,) for label in examples.labels]
    else:
        label_sets = examples.label_sets
    strata = np.array([min(labels, key=lambda label: (counts[label], label), default="") for labels in label_sets])
    order = random.permutation(len(examples))
    kept, seen = np.zeros(len(examples), dtype=bool), set()  # one example of each label, for training
    for row in order.tolist():
        if not seen.issuperset(label_sets[row]):
            kept[row] = True
            seen.update(label_sets[row])
    pool = order[~kept[order]]
    pool = pool[np.argsort(strata[pool], kind="stable")]
    if len(pool) < sum(taken.values()):
        raise DataError(
            f"{examples.source}: {' and '.join(f'{name} = {count}' for name, count in taken.items())} of "
            f"{len(examples)} examples leaves too few for training, which needs one of each of {len(counts)} labels"
        )
    where = np.zeros(len(examples), dtype=np.int8)
    for name, count in taken.items():
        chosen = ((np.arange(count) + random.random()) * (len(pool) / count)).astype(np.int64)
        where[pool[chosen]] = PARTS.index(name)
        pool = np.delete(pool, chosen)
    return where


def _grouped(examples: Examples, taken: dict[str, int], random: np.random.Generator) -> np.ndarray:
    groups = examples.groups
    if groups is None and examples.target_kind == "text":
        groups = translation_groups(examples)
    if groups is None:
        raise DataError(f"{examples.source}: a split by group needs groups; name their column, or give another rule")
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    if len(rows) <= len(taken):
        raise DataError(
            f"{examples.source}: {len(rows)} {'groups' if len(rows) > 1 else 'group'} cannot be split into "
            f"{len(taken) + 1} parts; give another rule"
        )
    names = list(rows)
    left = [names[i] for i in random.permutation(len(names))]
    where = np.zeros(len(examples), dtype=np.int8)
    for name, count in taken.items():
        chosen, size = set(), 0
        for group in left:
            if size + len(rows[group]) <= count:
                chosen.add(group)
                size += len(rows[group])
        chosen = chosen or {min(left, key=lambda group: len(rows[group]))}  # every group is larger than the part
        for group in chosen:
            where[rows[group]] = PARTS.index(name)
        left = [group for group in left if group not in chosen]
    return where


def _by_time(examples: Examples, taken: dict[str, int], random: np.random.Generator) -> np.ndarray:
    if examples.times is None:
        raise DataError(f"{examples.source}: a split by time needs times; name their column, or give another rule")
    order = np.argsort(examples.times, kind="stable")
    where = _assign(order, taken)[order]
    _, same = np.unique(examples.times[order], return_inverse=True)
    earliest = np.full(same.max(initial=0) + 1, len(PARTS), dtype=np.int8)
    np.minimum.at(earliest, same, where)  # what happened at one time goes where the first of it goes
    assigned = np.empty_like(where)
    assigned[order] = earliest[same]
    return assigned


def _assign(order: np.ndarray, taken: dict[str, int]) -> np.ndarray:
    """The last rows of the order to test, those before them to validation."""
    where = np.zeros(len(order), dtype=np.int8)
    end = len(order)
    for name in reversed(PARTS[1:]):
        start = max(0, end - taken.get(name, 0))
        where[order[start:end]] = PARTS.index(name)
        end = start
    return where


_RULES: dict[str, Callable[[Examples, dict[str, int], np.random.Generator], np.ndarray]] = {
    "random": _random,
    "stratified": _stratified,
    "group": _grouped,
    "time": _by_time,
}
_HOW = {
    "random": ", drawn at random",
    "stratified": ", drawn at random with equal shares of each label",
    "group": ", whole groups drawn at random",
    "time": ", the latest",
}


def _check_kinds(parts: dict[str, Examples]) -> None:
    first = parts["training"]
    for name, part in parts.items():
        if not len(part):
            raise DataError(f"{part.source}: {name} has no example")
        for kind in ("input_kind", "target_kind", "feature_names", "target_names"):
            if getattr(part, kind) != getattr(first, kind):
                raise DataError(
                    f"{part.source}: does not go with {first.source}: {kind} is {_shown(getattr(part, kind))}, "
                    f"and {_shown(getattr(first, kind))} there"
                )


def _shown(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _check_not_empty(examples: Examples, parts: dict[str, Examples], taken: dict[str, int]) -> None:
    for name in ("training", *taken):
        if not len(parts[name]):
            asked = " and ".join(f"{part} = {count}" for part, count in taken.items())
            raise DataError(f"{examples.source}: {asked} of {len(examples)} examples leaves none for {name}")


def _check_classes(training: Examples) -> list[str]:
    """The labels or tags that there are; DataError for one only, or none."""
    if training.target_kind not in ("label", "labels", "tags"):
        return []
    what = "tag" if training.target_kind == "tags" else "label"
    known = list(training.label_counts())
    if not known:
        raise DataError(f"{training.source}: no example has a {what}")
    if len(known) == 1 and training.target_kind != "labels":
        raise DataError(
            f'{training.source}: training has one class only, the {what} "{known[0]}"; there is nothing to learn'
        )
    return known


def _check_labels(parts: dict[str, Examples]) -> None:
    """One label only; a label that training does not have."""
    known = _check_classes(parts["training"])
    seen = set(known)
    if parts["training"].target_kind not in ("label", "labels"):
        return
    for name, part in parts.items():
        for target, place in zip(part.targets or (), part.places, strict=True):
            for label in (target,) if part.target_kind == "label" else target:
                if label not in seen:
                    raise DataError(
                        f'{place}: the label "{label}" of {name} is not in training, which has {some(known)}; '
                        "correct it, or give training an example of it"
                    )


def _report(parts: dict[str, Examples], rules: tuple[str, ...]) -> SplitReport:
    keys = {name: input_keys(part) for name, part in parts.items()}
    warnings: list[str] = []
    duplicates: dict[str, int] = {}
    leaks: dict[str, int] = {}
    for name, part in parts.items():
        duplicates[name], said = duplicates_within(name, part, keys[name])
        warnings.append(said)
    compared = {"": keys}
    if parts["training"].target_kind == "text":
        targets = {name: [normalised(target) for target in part.target_texts] for name, part in parts.items()}
        compared["translations "] = targets
    for other, name in (("training", "validation"), ("training", "test"), ("validation", "test")):
        if name in parts and other in parts:
            for what, their_keys in compared.items():
                leaks[f"{name} {what}in {other}"], said = leaks_between(
                    f"{name} {what or 'examples '}".strip(),
                    parts[name],
                    their_keys[name],
                    other,
                    parts[other],
                    their_keys[other],
                )
                warnings.append(said)
    label_counts = {name: dict(counts) for name, part in parts.items() if (counts := part.label_counts())}
    if parts["training"].target_kind == "tags":
        for name, counts in label_counts.items():
            unknown = {tag: count for tag, count in counts.items() if tag not in label_counts["training"]}
            if unknown:
                number = sum(unknown.values())
                warnings.append(
                    f"{name}: {number} of {sum(counts.values())} tags do not occur in training and count as wrong: "
                    f"{some(unknown)}"
                )
    return SplitReport(
        rules=rules,
        counts={name: len(part) for name, part in parts.items()},
        duplicates=duplicates,
        leaks=leaks,
        label_counts=label_counts,
        warnings=tuple(filter(None, warnings)),
    )
