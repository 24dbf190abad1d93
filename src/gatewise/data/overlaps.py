"""Overlaps: inputs that a part of a split has twice, and inputs that lie in two parts.

Two texts are the same if they differ in case, white space, or the way Unicode spells a character only; two arrays if
they are equal in every bit.
"""

import hashlib
import unicodedata

from gatewise.data.examples import Examples


def normalised(text: str) -> str:
    """The text that stands for all texts which differ from it in case, white space and spelling of characters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def input_keys(examples: Examples) -> list[str]:
    """A text for each example; two examples with equal texts have the same input."""
    if examples.input_kind == "text":
        return [normalised(text) for text in examples.texts]
    if examples.input_kind == "words":
        return [normalised(" ".join(words)) for words in examples.words]
    return [
        hashlib.blake2b(steps.tobytes(), digest_size=16, person=str(steps.shape).encode()[:16]).hexdigest()
        for steps in examples.steps
    ]


def translation_groups(examples: Examples) -> list[str]:
    """A text for each pair of sentences; two pairs that share a sentence, or are linked by such pairs, have the same.

    Grouped by them, a split cuts between no two pairs that have a sentence in common, in either language.
    """
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        while (parent := parents.setdefault(key, key)) != key:
            parents[key] = key = parents[parent]
        return key

    sources = [f"source {key}" for key in input_keys(examples)]
    for source, target in zip(sources, examples.target_texts, strict=True):
        parents[root(f"target {normalised(target)}")] = root(source)
    return [root(source) for source in sources]


def duplicates_within(part: str, examples: Examples, keys: list[str]) -> tuple[int, str]:
    """(how many examples repeat an earlier one, a sentence about it, or "").

    Of texts to translate, only those count that repeat the translation, too: to have several is no mistake.
    """
    if examples.target_kind == "text":
        keys = [f"{key}\n{normalised(target)}" for key, target in zip(keys, examples.target_texts, strict=True)]
    first: dict[str, int] = {}
    repeated = [(row, first[key]) for row, key in enumerate(keys) if first.setdefault(key, row) != row]
    if not repeated:
        return 0, ""
    row, earlier = repeated[0]
    return len(repeated), (
        f"{part}: {len(repeated)} of {len(examples)} examples repeat an earlier one "
        f"({examples.places[row]} repeats {examples.places[earlier]})"
    )


def leaks_between(
    part: str, examples: Examples, keys: list[str], other_part: str, others: Examples, other_keys: list[str]
) -> tuple[int, str]:
    """(how many examples of the part have a key that the other part has, too, a sentence about it, or "").

    part: what the sentence calls the examples: `test examples`.
    """
    where = {key: row for row, key in reversed(list(enumerate(other_keys)))}
    leaks = [(row, where[key]) for row, key in enumerate(keys) if key in where]
    if not leaks:
        return 0, ""
    row, other = leaks[0]
    return len(leaks), (
        f"{len(leaks)} of {len(examples)} {part} are in {other_part}, too "
        f"({examples.places[row]} is {others.places[other]}): a figure on them shows memory"
    )
