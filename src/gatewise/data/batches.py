"""Batches: a text's tokens on disk, memory-mapped, and cut into windows for truncated backpropagation through time.

A batch is (inputs, targets), both (T, B) int64; the target of a step is the input of the next. A batch of training is a
function of the seed, the epoch and its index alone, so two whole numbers say where a training goes on.
"""

import json
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gatewise.data.tokenizers import Tokenizer
from gatewise.errors import RunError, TextError
from gatewise.run_folder import replacing

_CHECK_SIZE = 1 << 24  # bytes read at a time when a file is checked


@dataclass(frozen=True)
class TokenFile:
    """A text as tokens, one after the other in a file, in the byte order of the machine."""

    path: Path
    dtype: str  # "uint8", "int16" or "int32"
    length: int  # tokens
    characters: int  # of the cleaned text
    unknown: int  # tokens that are `<unk>`
    crc32: int  # of the file

    def to_json(self) -> str:
        """Everything but the path, since a run folder may be moved."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "path"})

    @staticmethod
    def from_json(document: str, path: str | Path) -> "TokenFile":
        """The description that `to_json` wrote, of the file that now lies at `path`."""
        return TokenFile(path=Path(path), **json.loads(document))


def write_tokens(pieces: Iterable[str], tokenizer: Tokenizer, path: str | Path) -> TokenFile:
    """Write the tokens of a text, piece by piece, to a file of the smallest dtype that holds them.

    The file appears at `path` when it is whole. Raises RunError if it cannot be written.
    """
    path = Path(path)
    dtype = "uint8" if tokenizer.size <= 1 << 8 else "int16" if tokenizer.size <= 1 << 15 else "int32"
    length = characters = unknown = crc32 = 0
    with replacing(path) as file:
        for piece in pieces:
            tokens = tokenizer.encode(piece)
            data = tokens.astype(dtype).tobytes()
            file.write(data)
            length += len(tokens)
            characters += len(piece)
            unknown += int(np.count_nonzero(tokens == tokenizer.unknown_id))
            crc32 = zlib.crc32(data, crc32)
    return TokenFile(path, dtype, length, characters, unknown, crc32)


def open_tokens(token_file: TokenFile) -> Tensor:
    """The tokens of the file, (N,) of its dtype, mapped into memory, so that it may be larger than that.

    The file is read once, to check it. RunError if it is missing or is not the one that was written.
    """
    path = token_file.path
    try:
        crc32 = 0
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while data := file.read(_CHECK_SIZE):
                crc32 = zlib.crc32(data, crc32)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    expected = token_file.length * np.dtype(token_file.dtype).itemsize
    if size != expected:
        raise RunError(f"{path}: damaged: expected {expected} bytes ({token_file.length} tokens), found {size}")
    if crc32 != token_file.crc32:
        raise RunError(f"{path}: damaged: its contents do not agree with its CRC-32")
    return torch.from_file(str(path), shared=False, size=token_file.length, dtype=getattr(torch, token_file.dtype))


def split(tokens: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """(training, validation), both views: validation is the given fraction, from the end."""
    training = len(tokens) - int(len(tokens) * fraction)
    return tokens[:training], tokens[training:]


class TrainingWindows(ABC):
    """Batches of windows of a text, for training.

    tokens (N,) any integer dtype: the text. TextError if it is shorter than one batch: B windows of T steps need
    B * T + 1 tokens.
    """

    carries_state: ClassVar[bool]  # whether a batch goes on where the one before ended, lane by lane

    def __init__(self, tokens: Tensor, batch_size: int, sequence_length: int, seed: int):
        steps = batch_size * sequence_length
        if len(tokens) <= steps:
            raise TextError(
                f"the training text has {len(tokens)} tokens, and one batch of {batch_size} windows of "
                f"{sequence_length} steps needs {steps + 1}; lower batch_size or sequence_length, "
                "or give a longer text"
            )
        self.tokens = tokens
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.seed = seed
        self.batches_per_epoch = (len(tokens) - 1) // steps
        self._epoch: int | None = None

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """(inputs, targets), both (T, B) int64, contiguous: number `index` of `batches_per_epoch` of the epoch."""
        if not 0 <= index < self.batches_per_epoch:
            raise IndexError(f"batch {index} of an epoch of {self.batches_per_epoch}")
        if epoch != self._epoch:
            random = np.random.default_rng((self.seed, epoch))
            unused = len(self.tokens) - 1 - self.batches_per_epoch * self.batch_size * self.sequence_length
            offset = int(random.integers(min(self.sequence_length, unused + 1)))
            self._start_epoch(self.tokens[offset:], random)
            self._epoch = epoch
        window = self._window(index).to(torch.int64, memory_format=torch.contiguous_format)
        return window[:-1], window[1:]

    @abstractmethod
    def _start_epoch(self, tokens: Tensor, random: np.random.Generator) -> None:
        """Lay the windows of an epoch over the tokens, which begin at the offset of the epoch."""

    @abstractmethod
    def _window(self, index: int) -> Tensor:
        """The tokens (T + 1, B) of one batch."""


class ConsecutiveWindows(TrainingWindows):
    """B lanes side by side, each read from its start to its end, so that the state carries over between batches.

    The lanes are equal parts of the text, which begins anew at a random offset below T in each epoch.

    variation: the ends of the windows, but the last of an epoch, are moved by up to this part of T, either way; so
    lengths are mixed, as in Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", 2017, section
    3, but as many windows make an epoch. Below 0.5.
    """

    carries_state = True

    def __init__(
        self, tokens: Tensor, batch_size: int, sequence_length: int, seed: int, variation: float = 0.0
    ) -> None:
        super().__init__(tokens, batch_size, sequence_length, seed)
        self._most = int(variation * sequence_length)

    def _start_epoch(self, tokens: Tensor, random: np.random.Generator) -> None:
        self._lane = (len(tokens) - 1) // self.batch_size
        self._text = tokens
        self._ends = np.arange(self.batches_per_epoch + 1) * self.sequence_length
        if self._most:
            self._ends[1:-1] += random.integers(-self._most, self._most, self.batches_per_epoch - 1, endpoint=True)

    def _window(self, index: int) -> Tensor:
        start, end = self._ends[index : index + 2].tolist()
        offset = self._text.storage_offset() + start
        return self._text.as_strided((end - start + 1, self.batch_size), (1, self._lane), offset)


class RandomWindows(TrainingWindows):
    """Windows in random order, each at most once an epoch; the state starts at zero in every batch.

    The windows lie end to end from a random offset below T in each epoch.
    """

    carries_state = False

    def _start_epoch(self, tokens: Tensor, random: np.random.Generator) -> None:
        self._windows = tokens.unfold(0, self.sequence_length + 1, self.sequence_length)  # (number, T + 1), a view
        order = np.arange(len(self._windows), dtype=np.int32 if len(self._windows) < 1 << 31 else np.int64)
        random.shuffle(order)
        self._order = torch.from_numpy(order)

    def _window(self, index: int) -> Tensor:
        order = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        return self._windows.index_select(0, order).t()


class EvaluationWindows:
    """Consecutive windows over a whole text, to be read once, with the state carried from each to the next.

    At most `batch_size` lanes, each of one full window or more. Every token of the text is a target exactly once,
    but for the first of the text and, where the lengths do not divide, the first of some lanes. The last window may
    be shorter than `sequence_length`. Iterate for (inputs, targets), both (T, B) int64.

    TextError if the text has no two tokens.
    """

    def __init__(self, tokens: Tensor, batch_size: int, sequence_length: int):
        steps = len(tokens) - 1
        if steps < 1:
            raise TextError(f"the text has {len(tokens)} tokens, and an evaluation needs 2; give a longer text")
        self.tokens = tokens
        self.sequence_length = sequence_length
        self.batch_size = max(1, min(batch_size, steps // sequence_length))
        self.steps, left = divmod(steps, self.batch_size)
        lanes = torch.arange(self.batch_size)
        self._starts = lanes * self.steps + lanes.clamp(max=left)

    @property
    def targets(self) -> int:
        """How many tokens are predicted."""
        return self.steps * self.batch_size

    def lane(self, row: int) -> Tensor:
        """The tokens of a lane, (steps + 1,), a view: what is read, and from the second on what is predicted."""
        start = int(self._starts[row])
        return self.tokens[start : start + self.steps + 1]

    def __len__(self) -> int:
        return -(-self.steps // self.sequence_length)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(0, self.steps, self.sequence_length):
            length = min(self.sequence_length, self.steps - step)
            window = self.tokens[self._starts + torch.arange(step, step + length + 1)[:, None]].to(torch.int64)
            yield window[:-1], window[1:]
