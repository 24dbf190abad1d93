"""The commands: parse, call, print.

Nothing here imports torch before a command needs it, so that `gatewise --help` answers at once.
"""

import difflib
import functools
import io
import json
import os
import secrets
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter, Token
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

import gatewise
from gatewise.errors import GatewiseError, InputError

app = App(
    name="gatewise",
    version=gatewise.__version__,
    help="Gated recurrent sequence models: train, look inside, stream and ship.\n\n"
    "With --debug, anywhere, an error comes with its traceback.",
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=lambda default: None if default is False else default),
    group_parameters=Group("Options", sort_key=0),
    suppress_keyboard_interrupt=False,
)
train = App(name="train", help="Train a model; writes a run folder.")
init = App(name="init", help="Print a configuration with every key, its meaning and its default.")
app.command(train)
app.command(init)


def _print_configuration(task: str) -> None:
    from gatewise.config import JOBS, commented_toml

    print(commented_toml(JOBS[task]), end="")


_ORDER = (
    "An option given here comes before the file's, and the file's before the default. With --resume the run's own "
    "configuration takes the place of the defaults, and nothing need be named: the run has kept what it reads."
)
for _task, _about in {
    "language-model": "Train a language model on a text; write what it learns, and how, to a run folder.",
    "classifier": "Train a classifier on texts or sequences with labels; sizes are decided by the examples.",
    "tagger": "Train a tagger on sequences with a tag, or numbers, for each step; sizes are decided by the sequences.",
    "forecaster": "Train a forecaster on series; season, history and sizes are decided by them.",
    "translator": "Train a translator on sentences with their translations; sizes are decided by the pairs.",
}.items():
    _function = f"gatewise.cli.train:train_{_task.replace('-', '_')}"  # imported when it is asked for
    train.command(_function, name=_task, help=f"{_about}\n\n{_ORDER}")
    init.command(
        functools.partial(_print_configuration, _task),
        name=_task,
        help=f"Print a {_task}'s configuration as TOML: save it, change it, and train with --config.",
    )
app.command(
    "gatewise.cli.interchange:export_run",
    name="export",
    help="Write a run's model for another library, with the proof that it does there what it does here.",
)
app.command(
    "gatewise.cli.interchange:import_file",
    name="import",
    help="Make a run of a model from ONNX, Keras, or a torch state dict.",
)
app.command(
    "gatewise.cli.interchange:convert_file",
    name="convert",
    help="Write the weights of a recurrent layer as another library names, lays out and means them.",
)

Device = Literal["auto", "cpu", "cuda", "mps"]
_JSON = Parameter(name="--json", help="Print one JSON document; everything else goes to standard error.")
_DEVICE = Parameter(help="Where to compute; auto: cuda, then mps, then cpu.")
_RUN = Parameter(help="The folder of a run.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, those of the process by default; returns the exit status.

    0: done. 1: it failed. 2: the arguments, or what they name, are wrong. 130: Ctrl-C. 141: the output was closed.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    # torch's threads wait for each other by spinning for milliseconds, which starves whoever has the work when another
    # process has a core: beside one busy process the Time Machine recipe ran at 9,000 to 24,000 tokens per second, and
    # at 63,000 when they sleep sooner. libgomp reads this when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    _survive_any_encoding()
    try:
        app(
            [token for token in tokens if token != "--debug"],
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try once more, and fail
        return 141
    except KeyboardInterrupt as stop:
        return _complain(stop, str(stop) or "stopped by Ctrl-C", 130, debug)
    except CycloptsError as error:
        return _complain(error, _parse_error(error), 2, debug)
    except GatewiseError as error:
        return _complain(error, str(error), 2 if isinstance(error, InputError) else 1, debug)
    except Exception as error:
        return _complain(error, f"unexpected {type(error).__name__}: {error}; --debug shows where", 1, debug)


def _complain(error: BaseException, message: str, status: int, debug: bool) -> int:
    """Print why it ended, after the traceback if that is wanted; returns the exit status."""
    if debug:
        traceback.print_exception(error)
    print("gatewise:", message if status == 130 else " ".join(message.split()), file=sys.stderr)
    return status


def _whole(kind: type, tokens: Sequence[Token]) -> int:
    """A whole number as it was typed; cyclopts itself would round `1.5`."""
    return int(tokens[0].value)


def _survive_any_encoding() -> None:
    """Let standard output and error show `?` or an escape for what their encoding lacks, where Python would raise."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


@app.command
def evaluate(
    run: Annotated[Path, _RUN],
    data: Annotated[str, Parameter(help="What the model is to be judged on: the like of what it was trained on.")],
    /,
    *,
    device: Annotated[Device, _DEVICE] = "auto",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Say how good a run's model is on some data, beside a baseline.

    A language model predicts a text: a UTF-8 file, or the name of a corpus.
    """
    from gatewise.cli.predict import evaluate_run

    evaluate_run(run, data, device, as_json)


@app.command
def predict(
    run: Annotated[Path, _RUN],
    data: Annotated[
        str, Parameter(help="What to predict for, without labels; - is standard input.", allow_leading_hyphen=True)
    ],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="A file to write to: .jsonl, .csv or .tsv; else it is printed.")] = None,
    device: Annotated[Device, _DEVICE] = "auto",
    as_json: Annotated[
        bool, Parameter(name="--json", help="Print a JSON object for each example, a line each.")
    ] = False,
) -> None:
    """Predict with a run's model, an example a line."""
    from gatewise.cli.predict import predict_run

    predict_run(run, data, out, device, as_json)


@app.command
def translate(
    run: Annotated[Path, _RUN],
    file: Annotated[Path | None, Parameter(help="A sentence a line, UTF-8; by default standard input.")] = None,
    /,
    *,
    beams: Annotated[int, Parameter(help="Hypotheses that are kept open; 1: greedy.", converter=_whole)] = 5,
    alpha: Annotated[float, Parameter(help="How much long translations are favoured; 0: not.")] = 0.6,
    temperature: Annotated[float | None, Parameter(help="Draw each token instead, with this temperature.")] = None,
    seed: Annotated[int, Parameter(help="Of the draws.", converter=_whole)] = 0,
    device: Annotated[Device, _DEVICE] = "auto",
    as_json: Annotated[
        bool, Parameter(name="--json", help="Print a JSON object for each line, with attention.")
    ] = False,
) -> None:
    """Translate line by line with a translator's run: each line as soon as it is read."""
    from gatewise.cli.predict import translate_lines

    translate_lines(run, file, device, as_json, beams=beams, alpha=alpha, temperature=temperature, seed=seed)


@app.command
def generate(
    run: Annotated[Path, _RUN],
    /,
    *,
    prompt: Annotated[
        str, Parameter(help="What the text begins with.", allow_leading_hyphen=True, show_default=False)
    ] = "",
    length: Annotated[int, Parameter(help="Tokens to write.", converter=_whole)] = 200,
    temperature: Annotated[float, Parameter(help="Below 1: likelier tokens; 0: always the likeliest.")] = 1.0,
    top_k: Annotated[int | None, Parameter(help="Draw from the K likeliest tokens only.", converter=_whole)] = None,
    top_p: Annotated[float | None, Parameter(help="Draw from the likeliest that sum to this probability.")] = None,
    seed: Annotated[int | None, Parameter(help="Of the draws; by default another each time.", converter=_whole)] = None,
    device: Annotated[Device, _DEVICE] = "auto",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Let a run's model write: the prompt and what follows, as it comes.

    With --json, `text` is what follows the prompt, and `seed` gives the same text again.
    """
    from gatewise.cli import terminal
    from gatewise.run_folder import RunFolder
    from gatewise.training.language_model import LanguageModel

    if seed is not None and not 0 <= seed < 2**63:
        raise InputError(f"--seed: expected a whole number >= 0 and < 2**63, got {seed}")
    chosen = secrets.randbits(32) if seed is None else seed
    pieces = LanguageModel.from_run(RunFolder(run), device).stream(
        prompt, length, temperature=temperature, top_k=top_k, top_p=top_p, seed=chosen
    )
    if as_json:
        terminal.print_json({"prompt": prompt, "text": "".join(pieces), "seed": chosen})
        return
    shown = terminal.visible if sys.stdout.isatty() else str
    print(shown(prompt), end="", flush=True)
    for piece in pieces:
        print(shown(piece), end="", flush=True)
    print(flush=True)
    if seed is None:
        print(f"(--seed {chosen} writes this again)", file=sys.stderr)


@app.command
def doctor(*, as_json: Annotated[bool, _JSON] = False) -> None:
    """Say what this installation can do: versions, native kernel, backends, threads, devices."""
    from gatewise.cli import terminal
    from gatewise.cli.doctor import NATIVE_ADVICE, diagnose, rows

    found = diagnose()
    if as_json:
        terminal.print_json(found)
        return
    console = terminal.console()
    terminal.print_rows(console, rows(found))
    if found.get("native") is False:
        terminal.print_rows(console, {"": NATIVE_ADVICE})


def _parse_error(error: CycloptsError) -> str:
    """What is wrong with the arguments, in one line: which one, what was expected, what came."""
    from gatewise.config import in_words, nearest

    see_help = f"see `{' '.join(['gatewise', *(error.command_chain or ()), '--help'])}`"
    match error:
        case UnknownOptionError():
            name = error.token.keyword or error.token.value
            options = [option for argument in error.argument_collection for option in argument.names]
            keys = {option.lstrip("-").replace("-", "_"): option for option in options}
            near = nearest(name.lstrip("-"), keys)
            return f"unknown option {name}; {f'did you mean {keys[near]}?' if near else see_help}"
        case UnknownCommandError(unused_tokens=[token, *_], app=App() as parent):
            known = [name for name in parent if not name.startswith("-")]
            near = difflib.get_close_matches(token, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            return f"unknown {'option' if token.startswith('-') else 'command'} {token}; {hint}"
        case UnusedCliTokensError(unused_tokens=[token, *_]):
            return f"unexpected argument {token}; {see_help}"
        case RepeatArgumentError():
            return f"{error.token.keyword}: given twice"
        case MissingArgumentError(argument=argument) if argument is not None:
            if option := getattr(error, "keyword", None) or (argument.name if argument.name.startswith("-") else None):
                return f"{option}: expected {in_words(argument.hint)} after it, got nothing"
            return f"{argument.name} is missing; {see_help}"
        case CoercionError(argument=argument, token=token) if argument is not None and token is not None:
            option = token.keyword or argument.name
            return f"{option}: expected {in_words(argument.hint)}, got {json.dumps(token.value)}"
    return str(error)
