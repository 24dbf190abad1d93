"""The baseline of a tagger: of each word its most frequent tag."""

import numpy as np
import pytest

from gatewise.errors import InputError
from gatewise.training.baseline import WordTags


def test_most_frequent_tag_of_a_word():
    words = np.array([5, 5, 5, 7, 7, 9])
    classes = np.array([1, 1, 2, 2, 2, 0])
    tags = WordTags.fit(words, classes)
    assert tags.other == 2
    assert tags.predict(np.array([5, 7, 9, 3, 100])).tolist() == [1, 2, 0, 2, 2]
    assert WordTags.from_json(tags.to_json()) == tags


def test_steps_without_words():
    tags = WordTags.fit(None, np.array([1, 1, 0]))
    assert tags.predict(np.zeros((4, 3))).tolist() == [1, 1, 1, 1]
    with pytest.raises(InputError, match=r"^damaged baseline: expected other, steps and tags$"):
        WordTags.from_json("[]")
