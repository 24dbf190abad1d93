"""Timing in turn: contestants in processes of their own, one call after the other's, round after round."""

import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Hashable
from dataclasses import astuple, dataclass, field
from typing import Any, Self, TypeVar

Turn = TypeVar("Turn", bound=Hashable)


class Sizes:
    """Base of a shape: a dataclass of whole numbers, printed and parsed as such."""

    def __str__(self) -> str:
        return ", ".join(map(str, astuple(self)))  # pyright: ignore[reportArgumentType]

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(*map(int, text.split(",")))


@dataclass
class Timing:
    """Milliseconds of one contestant at one job: the median of each round."""

    rounds_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.rounds_ms)

    @property
    def spread(self) -> float:
        """Interquartile range over median."""
        low, _, high = statistics.quantiles(self.rounds_ms, n=4)
        return (high - low) / self.median_ms

    def ratio_to(self, other: "Timing") -> float:
        """How many times as long the other one takes: median over the rounds."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.rounds_ms, other.rounds_ms, strict=True))

    def stored(self) -> dict[str, Any]:
        return {"median_ms": self.median_ms, "spread": self.spread, "rounds_ms": self.rounds_ms}


def _serve(make: Callable[[], Any], threads: int, connection) -> None:
    """Answer (method, *arguments) with what that method of make() returns, until None comes."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    if hasattr(os, "sched_setaffinity"):  # XLA's pool has no other knob
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    worker = make()
    while (request := connection.recv()) is not None:
        connection.send(getattr(worker, request[0])(*request[1:]))


class Contestant:
    """A process of its own that holds make() and calls its methods; EOFError or ConnectionError when it has died."""

    def __init__(self, name: str, make: Callable[[], Any], threads: int):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, threads, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments) -> Any:
        self._connection.send((method, *arguments))
        return self._connection.recv()

    def stop(self) -> int | None:
        """Exit status of the process, negative for the signal that killed it."""
        with contextlib.suppress(ConnectionError):
            self._connection.send(None)
        self._process.join()
        return self._process.exitcode


def in_turn(turns: dict[Turn, Callable[[], float]], rounds: int) -> dict[Turn, Timing]:
    """The timing of every turn: each once, then each again, round after round; a turn returns its milliseconds."""
    timings = {name: Timing() for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            timings[name].rounds_ms.append(turn())
    return timings


def median_ms(call: Callable[[], Any], seconds: float, *, with_waits: bool = False) -> float:
    """Median milliseconds of a call within a turn of so many seconds, of one call at least, after one that warms up.

    A first call of more than a second is the figure itself: contestants have computed once before they are timed.
    Without `with_waits`, calls during which the process had to wait for a core do not count, if there are others.
    """
    import resource

    time.sleep(0.1)  # the threads of the one before may spin on: after ONNX Runtime the next took twice as long
    begin = time.perf_counter()
    call()
    if (first_s := time.perf_counter() - begin) > 1:
        return first_s * 1e3
    calm, waited, end = [], [], time.perf_counter() + seconds
    while not (calm or waited) or time.perf_counter() < end:
        switches, begin = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, time.perf_counter()
        call()
        took_ms = (time.perf_counter() - begin) * 1e3
        disturbed = not with_waits and resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw > switches
        (waited if disturbed else calm).append(took_ms)
    return statistics.median(calm or waited)
