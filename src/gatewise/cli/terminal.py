"""How the command line looks: progress, tables, a model's texts; on terminals and pipes, in every encoding."""

import json
import os
import re
import shlex
import subprocess
import textwrap
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gatewise.gates.metric_names import METRICS, in_words
from gatewise.training.observer import Observer

PLAIN_INTERVAL = 10.0  # seconds between lines of progress where no bar can be drawn
BAR_INTERVAL = 0.2  # seconds between two drawings of the bar: one takes about 3 ms, as long as a training step


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the error through; rich itself would end the process here."""
        raise


def console(stderr: bool = False) -> Console:
    """A console that takes texts as they are: nothing in them is markup, and lines are as long as they are."""
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def visible(text: str) -> str:
    """The text without the control characters that could steer a terminal: each becomes U+FFFD."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)


def command_line(*words: str) -> str:
    """The words as one types them into the shell of this system."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{seconds} s"
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def number(value: float) -> str:
    """Four significant digits, or all before the point with thousands separated: `4.538`, `412,345`."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def scores(metrics: Mapping[str, Any]) -> str:
    """`loss 1.512 nats, perplexity 4.536, 2.181 bits per character`."""
    return in_words(metrics)


def speed(metrics: Mapping[str, Any]) -> str:
    """`63,000 tokens/s`, from what a line of metrics, or a result, has as `tokens_per_second`."""
    key = next(key for key in metrics if key.endswith("_per_second"))
    return f"{number(metrics[key])} {key.removesuffix('_per_second')}/s"


def print_evaluation(console: Console, evaluation: Any) -> None:
    """A table of the metrics of an evaluation: value, interval, and what each baseline reaches; its verdict, if any."""
    from gatewise.training.bootstrap import LEVEL

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    baselines = evaluation.baselines if hasattr(evaluation, "baselines") else {"baseline": evaluation.baseline}
    for header in ("value", f"{LEVEL:.0%} interval", *baselines):
        table.add_column(header, justify="right")
    for key, found in evaluation.metrics.items():
        metric = METRICS[key]
        others = [metric.write(baseline[key]) if key in baseline else "" for baseline in baselines.values()]
        table.add_row(metric.name, metric.write(found.value), metric.interval(found.low, found.high), *others)
    console.print(table)
    if hasattr(evaluation, "verdict"):
        style = "bold" if evaluation.beats_naive else "bold red"
        console.print(_fill(console, evaluation.verdict, "", ""), style=style)


def print_rows(console: Console, rows: Mapping[str, str]) -> None:
    """Names and values in two columns; on a terminal a long value is broken into lines."""
    indent = max(map(len, rows)) + 2
    for name, value in rows.items():
        line = Text(_fill(console, value, name.ljust(indent), " " * indent))
        line.stylize("bold", 0, len(name))
        console.print(line)


def _fill(console: Console, text: str, first: str, rest: str) -> str:
    """The text after `first`; on a terminal in lines that fit it, the others after `rest`."""
    if not console.is_terminal:
        return first + text
    return textwrap.fill(text, max(console.width, 40), initial_indent=first, subsequent_indent=rest)


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on standard output, in ASCII: it reads the same on every terminal and pipe."""
    print(json.dumps(document, indent=2, allow_nan=False))


class TrainingProgress(Observer):
    """Shows a training: a bar with the time left, loss and speed, or a line now and then if there is no terminal.

    Each validation is a line that stays, with the sample under it. Use it in a `with`: it takes the bar away again.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps = 0
        self.shown = -float("inf")  # when a line was written or the bar drawn
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[speed]}"),
            console=console,
            auto_refresh=False,  # no thread of its own beside the training's
            transient=True,
            expand=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def on_start(self, step: int, steps: int) -> None:
        """Begin to show."""
        self.steps = steps
        self.bar.start()
        self.bar.add_task("training", total=steps, completed=step, epoch=1, speed="")
        if step:
            self._print(f"going on from step {step:,} of {steps:,}")

    def on_step(self, metrics: dict[str, Any]) -> None:
        """Move the bar, or print a line, if the last time is long enough ago; always at the last step."""
        interval = PLAIN_INTERVAL if self.bar.disable else BAR_INTERVAL
        step, now = metrics["step"], time.monotonic()
        if now - self.shown < interval and step < self.steps:
            return
        self.shown = now
        fast = speed(metrics)
        if self.bar.disable:
            self._print(f"step {step:,}/{self.steps:,}  epoch {metrics['epoch']}  {scores(metrics)}  {fast}")
        else:
            loss = next(value for key, value in metrics.items() if key.startswith("loss"))
            shown = f"loss {loss:.3f}  {fast}"
            self.bar.update(self.bar.task_ids[0], completed=step, epoch=metrics["epoch"], speed=shown, refresh=True)

    def on_validation(self, metrics: dict[str, Any] | None, sample: dict[str, Any] | None) -> None:
        """Print how well the network predicts, and what it writes."""
        if metrics is not None:
            line = f"step {metrics['step']:,}  epoch {metrics['epoch']}  validation: {scores(metrics)}"
            self._print(_fill(self.console, line, "", "  "), "bold")
        elif sample is not None:
            self._print(f"step {sample['step']:,}  epoch {sample['epoch']}", "bold")
        if sample is not None:
            text = " ".join(visible(sample["prompt"] + sample["text"]).split())
            self._print(_fill(self.console, text, "    ", "    "), "cyan")

    def on_message(self, message: str) -> None:
        """Print the message."""
        self._print(message, "yellow")

    def _print(self, line: str, style: str = "") -> None:
        """A line that stays. Where nobody reads any more, the training ends as it does at Ctrl-C: nothing is lost."""
        try:
            self.console.print(Text(line, style=style))
        except BrokenPipeError:
            raise KeyboardInterrupt from None
