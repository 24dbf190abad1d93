"""Batches: the file of tokens, the windows of training and evaluation, and what is too short for them."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gatewise.config import TextConfig
from gatewise.data import batches
from gatewise.data.batches import (
    ConsecutiveWindows,
    EvaluationWindows,
    RandomWindows,
    TokenFile,
    TrainingWindows,
    open_tokens,
    split,
    write_tokens,
)
from gatewise.data.text import iter_text
from gatewise.data.tokenizers import CharTokenizer, fit
from gatewise.errors import RunError, TextError

TRAINING = [ConsecutiveWindows, RandomWindows]


def numbered(length: int, offset: int = 0) -> Tensor:
    """A text whose tokens are their own positions, as a part of a longer text."""
    return torch.arange(-offset, length, dtype=torch.int32)[offset:]


def is_consecutive(inputs: Tensor, targets: Tensor) -> bool:
    """Whether every lane of a numbered text runs on by one, and the targets are the next inputs."""
    steps = torch.arange(len(inputs))[:, None]
    return torch.equal(inputs, inputs[:1] + steps) and torch.equal(targets, inputs + 1)


# The file of tokens


@pytest.mark.parametrize(
    ("symbols", "dtype"),
    [(255, "uint8"), (256, "int16"), ((1 << 15) - 1, "int16"), (1 << 15, "int32")],
)
def test_tokens_are_written_in_the_smallest_dtype(symbols: int, dtype: str, tmp_path: Path):
    text = "".join(map(chr, range(0x10000, 0x10000 + symbols)))
    tokenizer = CharTokenizer.fit([text])
    written = write_tokens([text, "", text[::-1], "??"], tokenizer, tmp_path / "tokens.bin")
    assert (written.dtype, written.length, written.characters, written.unknown) == (
        dtype,
        2 * symbols + 2,
        2 * symbols + 2,
        2,
    )
    tokens = open_tokens(written)
    assert tokens.dtype == getattr(torch, dtype)
    assert tokens.tolist() == [*range(1, symbols + 1), *range(symbols, 0, -1), 0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.bin"]


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_characters_and_unknown_of_each_tokenizer(kind: str, tmp_path: Path):
    config = TextConfig.model_validate({"tokenizer": kind})
    tokenizer = fit(["the dawn, the day"], config)
    written = write_tokens(["the day", ", the zoo"], tokenizer, tmp_path / "tokens.bin")
    assert written.characters == 16
    assert written.unknown == {"char": 3, "word": 1, "bpe": 0}[kind]
    assert tokenizer.decode(open_tokens(written).tolist()).startswith("the day, the")


def test_description_moves_with_its_folder(tmp_path: Path):
    written = write_tokens(["abcab"], CharTokenizer.fit(["abc"]), tmp_path / "tokens.bin")
    moved = written.path.rename(tmp_path / "moved.bin")
    assert "tokens.bin" not in written.to_json()
    again = TokenFile.from_json(written.to_json(), moved)
    assert again.length == 5
    assert open_tokens(again).tolist() == [1, 2, 3, 1, 2]


def test_large_text_is_not_held_in_memory(tmp_path: Path):
    book = tmp_path / "book.txt"
    book.write_bytes(b"In the beginning there was a line that came again.\n" * (8 << 20 >> 5))  # 13 MB
    tokenizer = CharTokenizer.fit(iter_text(book, TextConfig()))
    tracemalloc.start()
    written = write_tokens(iter_text(book, TextConfig()), tokenizer, tmp_path / "tokens.bin")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert written.length == book.stat().st_size
    assert peak < 4 << 20


def test_a_text_that_breaks_off_leaves_the_file_of_before(tmp_path: Path):
    def breaks_off() -> Iterator[str]:
        yield "ab"
        raise TextError("not UTF-8")

    tokenizer = CharTokenizer.fit(["ab"])
    before = write_tokens(["abab"], tokenizer, tmp_path / "tokens.bin")
    with pytest.raises(TextError):
        write_tokens(breaks_off(), tokenizer, tmp_path / "tokens.bin")
    assert open_tokens(before).tolist() == [1, 2, 1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.bin"]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batches.os, "fsync", full)
    path = tmp_path / "tokens.bin"
    with pytest.raises(RunError) as caught:
        write_tokens(["ab"], CharTokenizer.fit(["ab"]), path)
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_damaged_tokens(tmp_path: Path):
    path = tmp_path / "tokens.bin"
    written = write_tokens(["ab" * 500], CharTokenizer.fit(["ab" * 200, "".join(map(chr, range(300)))]), path)
    whole = path.read_bytes()

    def error() -> str:
        with pytest.raises(RunError) as caught:
            open_tokens(written)
        return str(caught.value)

    path.write_bytes(whole[:-3])
    assert error() == f"{path}: damaged: expected 2000 bytes (1000 tokens), found 1997"
    path.write_bytes(whole[:99] + bytes([whole[99] ^ 4]) + whole[100:])
    assert error() == f"{path}: damaged: its contents do not agree with its CRC-32"
    path.unlink()
    assert error() == f"{path}: cannot be read: No such file or directory"


@pytest.mark.parametrize(("fraction", "sizes"), [(0.0, (10, 0)), (0.1, (9, 1)), (0.25, (8, 2)), (0.5, (5, 5))])
def test_split(fraction: float, sizes: tuple[int, int]):
    tokens = numbered(10)
    training, validation = split(tokens, fraction)
    assert (len(training), len(validation)) == sizes
    assert torch.cat([training, validation]).tolist() == tokens.tolist()
    assert training.data_ptr() == tokens.data_ptr()


# Windows of training


@pytest.mark.parametrize("windows", TRAINING)
def test_batch(windows: type[TrainingWindows]):
    tokens = numbered(100).to(torch.uint8)
    inputs, targets = windows(tokens, batch_size=3, sequence_length=5, seed=1).batch(0, 0)
    for tensor in (inputs, targets):
        assert tensor.shape == (5, 3)
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
    inputs.zero_()
    assert tokens.tolist() == list(range(100))


SHAPES = {
    "length": st.integers(2, 120),
    "batch_size": st.integers(1, 6),
    "sequence_length": st.integers(1, 9),
    "seed": st.integers(0, 2**63 - 1),
    "offset": st.integers(0, 3),
}


@pytest.mark.parametrize("windows", TRAINING)
@settings(deadline=None)
@given(epoch=st.integers(0, 5), **SHAPES)
def test_windows_are_parts_of_the_text_and_do_not_overlap(
    windows: type[TrainingWindows],
    length: int,
    batch_size: int,
    sequence_length: int,
    seed: int,
    offset: int,
    epoch: int,
):
    tokens = numbered(length, offset)
    if length <= batch_size * sequence_length:
        with pytest.raises(TextError):
            windows(tokens, batch_size, sequence_length, seed)
        return
    cut = windows(tokens, batch_size, sequence_length, seed)
    assert cut.batches_per_epoch == (length - 1) // (batch_size * sequence_length)
    batches = [cut.batch(epoch, index) for index in range(cut.batches_per_epoch)]
    assert all(is_consecutive(*batch) for batch in batches)
    read = torch.cat([inputs.flatten() for inputs, _ in batches]).tolist()
    assert len(set(read)) == len(read) == cut.batches_per_epoch * batch_size * sequence_length
    assert min(read) >= 0
    assert max(read) + 1 < length


@settings(deadline=None)
@given(epoch=st.integers(0, 5), **SHAPES)
def test_consecutive_windows_go_on_where_the_last_ended(
    length: int, batch_size: int, sequence_length: int, seed: int, offset: int, epoch: int
):
    length += batch_size * sequence_length
    windows = ConsecutiveWindows(numbered(length, offset), batch_size, sequence_length, seed)
    batches = [windows.batch(epoch, index)[0] for index in range(windows.batches_per_epoch)]
    assert is_consecutive(torch.cat(batches), torch.cat(batches) + 1)
    assert windows.carries_state
    assert not RandomWindows.carries_state


@pytest.mark.parametrize("windows", TRAINING)
def test_batch_depends_on_seed_epoch_and_index_alone(windows: type[TrainingWindows]):
    def all_of(seed: int, epochs: list[int]) -> dict[tuple[int, int], list[list[int]]]:
        cut = windows(numbered(500), 4, 7, seed)
        return {(epoch, i): cut.batch(epoch, i)[0].tolist() for epoch in epochs for i in (5, 0, 16)}

    in_order = all_of(3, [0, 1, 2])
    assert all_of(3, [2, 0, 1]) == in_order
    assert windows(numbered(500), 4, 7, 3).batch(2, 16)[0].tolist() == in_order[2, 16]
    assert in_order[0, 0] != in_order[1, 0]
    assert all_of(4, [0, 1, 2]) != in_order


@pytest.mark.parametrize("windows", TRAINING)
def test_every_token_is_read_within_some_epochs(windows: type[TrainingWindows]):
    cut = windows(numbered(97), 4, 8, 0)
    read: set[int] = set()
    for epoch in range(60):
        for index in range(cut.batches_per_epoch):
            read.update(cut.batch(epoch, index)[1].flatten().tolist())
    assert read == set(range(1, 97))


def test_random_windows_come_in_random_order():
    windows = RandomWindows(numbered(10_000), 10, 9, 0)
    starts = torch.cat([windows.batch(0, index)[0][0] for index in range(windows.batches_per_epoch)])
    differences = starts.diff()
    assert 0.4 < (differences > 0).float().mean() < 0.6


@pytest.mark.parametrize("windows", TRAINING)
def test_index_out_of_the_epoch(windows: type[TrainingWindows]):
    cut = windows(numbered(41), 4, 5, 0)
    with pytest.raises(IndexError, match=r"^batch 2 of an epoch of 2$"):
        cut.batch(0, 2)


@pytest.mark.parametrize("windows", TRAINING)
def test_text_shorter_than_a_batch(windows: type[TrainingWindows]):
    assert windows(numbered(2241), 32, 70, 0).batches_per_epoch == 1
    with pytest.raises(TextError) as caught:
        windows(numbered(2240), 32, 70, 0)
    assert str(caught.value) == (
        "the training text has 2240 tokens, and one batch of 32 windows of 70 steps needs 2241; "
        "lower batch_size or sequence_length, or give a longer text"
    )


# Windows of evaluation


@settings(deadline=None)
@given(
    length=st.integers(2, 120),
    batch_size=st.integers(1, 12),
    sequence_length=st.integers(1, 9),
    offset=st.integers(0, 3),
)
def test_evaluation_predicts_every_token_once(length: int, batch_size: int, sequence_length: int, offset: int):
    windows = EvaluationWindows(numbered(length, offset), batch_size, sequence_length)
    batches = list(windows)
    assert len(batches) == len(windows)
    assert all(inputs.shape[0] == sequence_length for inputs, _ in batches[:-1])
    assert all(inputs.dtype == targets.dtype == torch.int64 for inputs, targets in batches)
    lanes, targets = (torch.cat(list(column)) for column in zip(*batches, strict=True))
    assert is_consecutive(lanes, targets)
    assert 1 <= lanes.shape[1] <= batch_size
    predicted = sorted(targets.flatten().tolist())
    assert len(predicted) == len(set(predicted)) == windows.targets
    assert set(range(length)) - set(predicted) <= set(lanes[0].tolist())
    assert predicted[-1] == length - 1


def test_evaluation_of_two_tokens():
    [(inputs, targets)] = EvaluationWindows(torch.tensor([5, 7], dtype=torch.uint8), 32, 64)
    assert inputs.tolist() == [[5]]
    assert targets.tolist() == [[7]]


def test_lanes_of_evaluation_hold_a_whole_window():
    assert EvaluationWindows(numbered(640), 32, 64).batch_size == 9
    assert EvaluationWindows(numbered(641), 32, 64).batch_size == 10
    assert EvaluationWindows(numbered(100_000), 32, 64).batch_size == 32


@pytest.mark.parametrize("length", [0, 1])
def test_evaluation_of_too_short_a_text(length: int):
    with pytest.raises(TextError) as caught:
        EvaluationWindows(numbered(length), 32, 64)
    assert str(caught.value) == f"the text has {length} tokens, and an evaluation needs 2; give a longer text"


@pytest.mark.parametrize("variation", [0.1, 0.49])
def test_mixed_lengths_read_what_equal_ones_read(variation):
    """Lane by lane each window goes on where the one before ended; every epoch has as many, of other lengths."""
    windows = ConsecutiveWindows(numbered(5_000), 4, 20, 3, variation)
    plain = ConsecutiveWindows(numbered(5_000), 4, 20, 3)
    assert windows.batches_per_epoch == plain.batches_per_epoch
    seen = []
    for epoch in range(2):
        batches = [windows.batch(epoch, index) for index in range(windows.batches_per_epoch)]
        equal = [plain.batch(epoch, index) for index in range(plain.batches_per_epoch)]
        for side in range(2):
            one, other = (torch.cat([batch[side] for batch in part]) for part in (batches, equal))
            assert torch.equal(one, other)
        lengths = [len(inputs) for inputs, _ in batches]
        assert min(lengths) >= 20 - 2 * int(variation * 20)
        assert max(lengths) <= 20 + 2 * int(variation * 20)
        seen.append(lengths)
    assert len({*seen[0]}) > 2
    assert seen[0] != seen[1]
    assert torch.equal(windows.batch(0, 5)[0], ConsecutiveWindows(numbered(5_000), 4, 20, 3, variation).batch(0, 5)[0])
