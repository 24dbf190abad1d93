"""TaggerNetwork and WordEmbedding: padding and company change nothing, losses are their formulas, spelling helps."""

import itertools

import pytest
import torch

import gatewise as gw
from gatewise.errors import InputError
from gatewise.models.embeddings import WordBatch, WordEmbedding
from gatewise.models.tagger import TaggerNetwork

LENGTHS = torch.tensor([6, 1, 4])
V, CHARACTERS, C = 9, 7, 4


def _batch(spelled: bool = True) -> WordBatch:
    torch.manual_seed(1)
    words = torch.randint(V, (6, 3))
    if not spelled:
        return WordBatch(words)
    return WordBatch(words, torch.randint(5, (6, 3)), torch.randint(CHARACTERS, (8, 5)), torch.tensor([8, 1, 3, 5, 2]))


def _network(spelled: bool = True, **options) -> TaggerNetwork:
    torch.manual_seed(0)
    words = WordEmbedding(V, 6, characters=CHARACTERS if spelled else None, character_size=3, spelling_size=4)
    layers = [gw.GRU(words.size, 5, bidirectional=True), gw.LSTM(10, 3)]
    return TaggerNetwork(words, layers, C, dropout=0.3, **options).eval()


@pytest.mark.parametrize("spelled", [False, True])
def test_a_row_alone_gives_the_same(spelled):
    network, batch = _network(spelled), _batch(spelled)
    scores = network(batch, LENGTHS)
    for b, length in enumerate(LENGTHS):
        alone = WordBatch(
            batch.words[:length, b : b + 1],
            None if batch.spellings is None else batch.spellings[:length, b : b + 1],
            batch.characters,
            batch.character_lengths,
        )
        torch.testing.assert_close(network(alone, LENGTHS[b : b + 1])[:, 0], scores[:length, b])


def test_an_unknown_word_is_known_by_its_spelling():
    words, batch = _network().input, _batch()
    assert words is not None
    vectors = words(
        WordBatch(torch.zeros(5, 1, dtype=torch.int64), torch.arange(5).unsqueeze(1), *list(vars(batch).values())[2:])
    )
    for one, other in itertools.combinations(vectors[:, 0], 2):
        torch.testing.assert_close(one[:6], other[:6])
        assert not torch.allclose(one[6:], other[6:])


def test_word_dropout_hides_words_in_training_only():
    words = WordEmbedding(V, 6, word_dropout=1.0, unknown=2)
    batch = WordBatch(torch.arange(V).unsqueeze(1))
    torch.testing.assert_close(words(batch), words.words.weight[2].expand(V, 1, 6))
    torch.testing.assert_close(words.eval()(batch)[:, 0], words.words.weight)


def test_losses_and_predictions():
    network, batch = _network(), _batch()
    scores, targets = network(batch, LENGTHS), torch.randint(C, (6, 3))
    places = [(t, b) for b, length in enumerate(LENGTHS) for t in range(length)]
    expected = torch.stack([-scores[t, b].log_softmax(-1)[targets[t, b]] for t, b in places]).mean()
    torch.testing.assert_close(network.loss(scores, targets, LENGTHS), expected)
    assert torch.equal(network.predict(scores, LENGTHS), scores.argmax(-1))

    several = _network(exclusive=False)
    rolls = torch.randint(2, (6, 3, C)).float()
    p = scores.sigmoid()
    each = [-(rolls[t, b] * p[t, b].log() + (1 - rolls[t, b]) * (1 - p[t, b]).log()).sum() for t, b in places]
    torch.testing.assert_close(several.loss(scores, rolls, LENGTHS), torch.stack(each).mean())
    assert torch.equal(several.predict(scores, LENGTHS), p > 0.5)

    field = _network(crf=True, forbidden=[(0, 1)])
    assert field.crf is not None
    likelihood = field.crf.log_likelihood(scores, targets, LENGTHS)
    torch.testing.assert_close(field.loss(scores, targets, LENGTHS), -likelihood.sum() / 11)
    assert torch.equal(field.predict(scores, LENGTHS), field.crf.decode(scores, LENGTHS))


def test_the_tutorials_stack_is_one_configuration():
    network = TaggerNetwork(None, [gw.GRU(100, 256), gw.GRU(256, 128)], 1, exclusive=False).eval()
    x = torch.randn(7, 2, 100)
    lengths = torch.tensor([7, 3])
    chain = network.as_sequential()
    torch.testing.assert_close(chain(x, lengths=lengths)[0], network(x, lengths))
    assert [layer["kind"] for layer in chain.describe()] == ["gru", "gru", "linear"]


def test_what_is_no_chain():
    plain = _network(spelled=False)
    assert plain.as_sequential().reads_tokens
    with pytest.raises(InputError, match=r"^WordEmbedding: words that are known by their characters cannot be carried"):
        _network().as_sequential()
    with pytest.raises(InputError, match=r"^TaggerNetwork: a conditional random field cannot be carried"):
        _network(spelled=False, crf=True).as_sequential()
