"""What a tagger is given in memory: lists of words, with a tag for each."""

from collections.abc import Sequence
from typing import Any

from gatewise.data.examples import Examples
from gatewise.errors import DataError


def tagged(
    sentences: Sequence[Sequence[Any]], tags: Sequence[Sequence[Any]] | None = None, name: str = "X"
) -> Examples:
    """Sentences in memory: N lists of words, and N lists of as many tags, or None for examples to predict.

    Raises DataError.
    """
    words = [[str(word) for word in sentence] for sentence in sentences]
    places = [f"{name}[{row}]" for row in range(len(words))]
    for sentence, place in zip(words, places, strict=True):
        if not sentence:
            raise DataError(f"{place} has no word; leave it out")
    if tags is None:
        return Examples(name, "words", words, "none", None, places)
    return Examples(name, "words", words, "tags", [[str(tag) for tag in row] for row in tags], places)
