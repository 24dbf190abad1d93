"""Tokenizers: there and back, one at a time, in pieces, as JSON, and every way in which that JSON can be wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatewise.config import TextConfig
from gatewise.data.text import iter_text
from gatewise.data.tokenizers import BPETokenizer, CharTokenizer, Tokenizer, WordTokenizer, fit
from gatewise.errors import InputError, TextError

PROSE = """\
"Well," said the Time Traveller, "it's the (very) dawn -- of a
new\u00a0day;  it is 7 o'clock!"
\tL’été: 中文, 😀 & naïve_names.

So it is the dawn, the dawn, it is.
"""
ALPHABET = "abAB1_.,'’-\"ΟΣσéßİ\u0301中😀 \n\r\t\x0b\x1c\x85\xa0\u2028\ufeff"
TEXTS = st.text(ALPHABET, max_size=60)
KINDS = ["char", "word", "bpe"]


def fitted(kind: str, text: str = PROSE, vocabulary_size: int = 300) -> Tokenizer:
    return fit([text], TextConfig.model_validate({"tokenizer": kind, "vocabulary_size": vocabulary_size}))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text") / "text.txt"


# Of every kind


@pytest.mark.parametrize("kind", KINDS)
def test_kind(kind: str):
    tokenizer = fitted(kind)
    assert tokenizer.kind == kind
    tokens = tokenizer.encode(PROSE)
    assert tokens.dtype == np.int32
    assert 0 <= tokens.min() <= tokens.max() < tokenizer.size == len(tokenizer.vocabulary)
    assert tokenizer.unknown_characters(PROSE) == []


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(text=TEXTS)
@example(text=PROSE)
@example(text="")
def test_decode_gives_the_text_back(kind: str, text: str):
    tokenizer = fitted(kind, text)
    decoded = tokenizer.decode(tokenizer.encode(text))
    if kind == "word":  # a space at the very start or end is implied as one between words is
        decoded, text = decoded.strip(" "), text.strip(" ")
    assert decoded == text


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(text=TEXTS)
@example(text=PROSE)
def test_decode_stream_equals_decode(kind: str, text: str):
    tokenizer = TOKENIZERS[kind]
    tokens = tokenizer.encode(text)
    stream = tokenizer.decode_stream()
    assert "".join([stream.push(int(token)) for token in tokens]) + stream.finish() == tokenizer.decode(tokens)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(text=TEXTS.map(lambda text: text.lstrip("\ufeff")).filter(str.strip), piece_size=st.integers(1, 9))
@example(text=PROSE, piece_size=1)
@example(text="a, b", piece_size=1)
@example(text="a\x1c\n b", piece_size=1)
@example(text="a  b \n c", piece_size=1)
def test_tokens_of_pieces_are_the_tokens_of_the_text(kind: str, text: str, piece_size: int, file: Path):
    file.write_bytes(text.encode())
    config = TextConfig.model_validate({"tokenizer": kind, "vocabulary_size": 300})
    pieces = list(iter_text(file, config, piece_size=piece_size))
    tokenizer = TOKENIZERS[kind]
    in_pieces = np.concatenate([tokenizer.encode(piece) for piece in pieces])
    assert in_pieces.tolist() == tokenizer.encode("".join(pieces)).tolist()
    assert fit(iter(pieces), config).to_json() == fit(["".join(pieces)], config).to_json()


@pytest.mark.parametrize("kind", KINDS)
def test_json_gives_the_same_tokenizer(kind: str, tmp_path: Path):
    tokenizer = fitted(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_bytes() == tokenizer.to_json().encode()
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert type(loaded) is type(tokenizer)
    assert loaded.to_json() == tokenizer.to_json()
    assert loaded.encode(PROSE + "neu Ω").tolist() == tokenizer.encode(PROSE + "neu Ω").tolist()
    assert loaded.decode(tokenizer.encode(PROSE)) == PROSE


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_text_is_passed_on(kind: str, file: Path):
    file.write_bytes(b"words \xff")
    config = TextConfig.model_validate({"tokenizer": kind})
    with pytest.raises(TextError, match="not UTF-8"):
        fit(iter_text(file, config), config)


# Characters


def test_char_vocabulary_is_ordered_by_frequency_then_code_point():
    tokenizer = CharTokenizer.fit(["cab", "ba b😀"])
    assert tokenizer.vocabulary == ["<unk>", "b", "a", " ", "c", "😀"]
    assert tokenizer.encode("b😀x中").tolist() == [1, 5, 0, 0]
    assert tokenizer.decode([1, 0, 2]) == "b<unk>a"
    assert tokenizer.unknown_characters("xbx中\udc80") == ["x", "中", "\udc80"]


def test_time_machine_has_28_symbols(data_dir: Path):
    config = TextConfig(letters_only=True, lower_case=True, max_characters=10_000)
    tokenizer = fit(iter_text(data_dir / "time-machine" / "timemachine.txt", config), config)
    assert tokenizer.size == 28
    assert tokenizer.vocabulary[:5] == ["<unk>", " ", "e", "t", "a"]


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Well, I see", ["Well", ", ", "I", "see"]),
        ("don't stop—it’s (mine)", ["don't", "stop", "—", "it’s", " (", "mine", ")"]),
        ("a - b--c", ["a", " - ", "b", "-", "-", "c"]),
        ("one.\n\n  two", ["one", ".", "\n", "\n", "  ", "two"]),
        ("tab\tand  two", ["tab", "\t", "and", "  ", "two"]),
        ("snake_case 3.14", ["snake_case", "3", ".", "14"]),
        ("the ", ["the"]),
    ],
    ids=repr,
)
def test_words(text: str, words: list[str]):
    tokenizer = WordTokenizer.fit([text], 100)
    assert [tokenizer.vocabulary[token] for token in tokenizer.encode(text)] == words
    assert tokenizer.decode(tokenizer.encode(text)) == text.rstrip(" ")


def test_word_vocabulary_is_cut_at_its_size():
    tokenizer = WordTokenizer.fit(["it is what", " it is. So", " it goes"], 4)
    assert tokenizer.vocabulary == ["<unk>", "it", "is", ". "]
    assert tokenizer.encode("so it is. Yes").tolist() == [0, 1, 2, 3, 0]
    assert tokenizer.decode([0, 1, 2, 3, 0]) == "<unk> it is. <unk>"
    assert tokenizer.unknown_characters("so it is, so yes") == ["so", ", ", "yes"]


def test_word_stream_continues_a_prompt():
    tokenizer = fitted("word")
    stream = tokenizer.decode_stream()
    for token in tokenizer.encode("it is"):
        stream.push(int(token))
    assert stream.push(int(tokenizer.encode("the")[0])) == " the"


# Byte pairs


def test_bpe_reads_every_text():
    tokenizer = fitted("bpe")
    assert tokenizer.size == 300
    text = "".join(map(chr, [*range(0x300), 0x4E2D, 0x1F600, 0x10FFFF]))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unknown_characters(text + "\udc80a\udc80") == ["\udc80"]


def test_bpe_learns_words_and_is_reproducible():
    tokenizer = fitted("bpe", "the dawn of the day " * 5, 270)
    assert "Ġthe" in tokenizer.vocabulary
    assert len(tokenizer.encode("the dawn")) < 8
    assert tokenizer.to_json() == fitted("bpe", "the dawn of the day " * 5, 270).to_json()


def test_bpe_stream_holds_back_half_a_character():
    tokenizer = BPETokenizer.fit(["abc"], 256)
    stream = tokenizer.decode_stream()
    pushed = [stream.push(int(token)) for token in tokenizer.encode("é中😀!")]
    assert pushed == ["", "é", "", "", "中", "", "", "", "😀", "!"]
    assert stream.finish() == ""


def test_bpe_stream_replaces_what_is_no_character():
    tokenizer = BPETokenizer.fit(["abc"], 256)
    half, whole = tokenizer.encode("😀")[:2].tolist(), tokenizer.encode("a").tolist()
    assert tokenizer.decode(half + whole) == "\ufffda"
    assert tokenizer.decode(whole + half) == "a\ufffd"


# Documents that are no tokenizers

BYTES = BPETokenizer.fit([""], 256).vocabulary
TOKENIZERS = {kind: fitted(kind) for kind in KINDS}


def document(kind: str, **content: object) -> str:
    return json.dumps({"kind": kind, "version": 1, **content})


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        ("", "not a tokenizer: no JSON at line 1, column 1"),
        (TOKENIZERS["char"].to_json()[:30], "not a tokenizer: no JSON at line 1, column 31"),
        ("[1]", "not a tokenizer: expected a JSON object with kind, version and vocabulary"),
        ('{"kind": "char"}', "not a tokenizer: expected a JSON object with kind, version and vocabulary"),
        (
            '{"kind": "char", "version": 2}',
            "written by a newer gatewise (tokenizer version 2, this one reads 1); upgrade gatewise",
        ),
        (document("syllable"), 'unknown kind of tokenizer "syllable"; known: char, word, bpe'),
        (document("char"), "damaged char tokenizer: expected vocabulary, a list of different strings"),
        (
            document("word", vocabulary=["<unk>", "a", "a"]),
            "damaged word tokenizer: expected vocabulary, a list of different strings",
        ),
        (
            document("bpe", vocabulary=["a", 7], merges=[]),
            "damaged bpe tokenizer: expected vocabulary, a list of different strings",
        ),
        (
            document("char", vocabulary=["<unk>", "ab"]),
            "damaged char tokenizer: expected the vocabulary <unk>, then single characters",
        ),
        (
            document("char", vocabulary=["a"]),
            "damaged char tokenizer: expected the vocabulary <unk>, then single characters",
        ),
        (
            document("word", vocabulary=["<unk>", ""]),
            "damaged word tokenizer: expected the vocabulary <unk>, then words",
        ),
        (
            document("bpe", vocabulary=["a"], merges=[]),
            "damaged bpe tokenizer: expected tokens of printable bytes, each of the 256 among them",
        ),
        (
            document("bpe", vocabulary=[*BYTES, "中"], merges=[]),
            "damaged bpe tokenizer: expected tokens of printable bytes, each of the 256 among them",
        ),
        (
            document("bpe", vocabulary=BYTES, merges=[["a"]]),
            "damaged bpe tokenizer: expected merges, a list of pairs of tokens",
        ),
        (
            document("bpe", vocabulary=BYTES, merges=[["a", "b"]]),
            "damaged bpe tokenizer: Error while initializing BPE: Token `ab` out of vocabulary",
        ),
    ],
)
def test_damaged(damaged: str, said: str, tmp_path: Path):
    with pytest.raises(InputError) as caught:
        Tokenizer.from_json(damaged)
    assert str(caught.value) == said
    path = tmp_path / "tokenizer.json"
    path.write_text(damaged, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Tokenizer.load(path)
    assert str(caught.value) == f"{path}: {said}"


def test_missing(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        Tokenizer.load(tmp_path / "tokenizer.json")
    assert str(caught.value) == f"{tmp_path / 'tokenizer.json'}: cannot be read: No such file or directory"


def test_not_utf8(tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b'{"kind": "\xff"}')
    with pytest.raises(InputError) as caught:
        Tokenizer.load(path)
    assert str(caught.value) == f"{path}: not a tokenizer: no UTF-8 at byte 10"
