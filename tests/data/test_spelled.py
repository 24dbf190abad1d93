"""Words as tokens and characters, and each different spelling of a batch once."""

import numpy as np
import pytest
import torch

from gatewise.data.ragged import Ragged
from gatewise.data.spelled import LONGEST, SpelledWords, distinct_spellings
from gatewise.errors import InputError

SENTENCES = [["The", "dog", "the"], ["dog"], ["Ünïcode", "x" * 40]]


def _fit(spelled: bool = True) -> SpelledWords:
    return SpelledWords.fit(SENTENCES, lower_case=True, min_count=1, max_size=100, spelled=spelled)


def test_tokens_ignore_case_and_spellings_keep_it():
    columns = _fit().encode(SENTENCES)
    tokens, spelling = columns["inputs"], columns["spelling"]
    assert tokens[0][0] == tokens[0][2]
    assert not np.array_equal(spelling[0][0], spelling[0][2])
    assert spelling.values.shape == (6, LONGEST)
    assert np.array_equal(tokens.offsets, spelling.offsets)
    assert "spelling" not in _fit(spelled=False).encode(SENTENCES)


@pytest.mark.parametrize("spelled", [False, True])
def test_json(spelled):
    words = _fit(spelled)
    again = SpelledWords.from_json(words.to_json())
    for name, column in words.encode([*SENTENCES, ["cat"]]).items():
        assert np.array_equal(again.encode([*SENTENCES, ["cat"]])[name].values, column.values)
    with pytest.raises(InputError, match=r"^damaged words: expected their vocabulary and that of their characters$"):
        SpelledWords.from_json("{")


def test_distinct_spellings():
    spelling: Ragged = _fit().encode(SENTENCES)["spelling"]
    batch = torch.from_numpy(spelling.padded(np.array([0, 1, 2])))
    places, characters, lengths = distinct_spellings(batch)
    assert places.shape == (3, 3)
    assert len(lengths) == 6  # The, the, dog, two of the last sentence, and the padding
    assert lengths.min() == 1
    for t in range(3):
        for b in range(3):
            whole = torch.zeros(LONGEST, dtype=torch.int64)
            whole[: len(characters)] = characters[:, places[t, b]]
            assert torch.equal(whole, batch[t, b].long())
            assert lengths[places[t, b]] == max(1, int((batch[t, b] != 0).sum()))
