"""How good each task's defaults are on real data, beside a baseline and what others have published.

    python bench/quality.py [snips-intents ...] [--data DIR] [--threads 2] [--results DIR] [--no-store]
    python bench/quality.py --speed [snips-intents ...]     # native against torch's own kernels

Each row is the command that a user types, with its defaults, in a process of its own; what it says with --json is the
figure. Data are looked for in --data, in $GATEWISE_DATA, and in ../shared/data beside the project; a row without its
data is skipped, with that reason. The page has what was last measured of every row. A figure that is not reached, or
not in time, makes the exit status 1.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gatewise.data.parallel import read_parallel
from record import options, store, table_of

ROOT = Path(__file__).parents[1]
SPEED_STEPS = 200
SPEED_GOAL = 1.5


@dataclass(frozen=True)
class Row:
    """A row of the table.

    name: what one types to run it alone. data: what it is trained on, below the folder of the data. about: in words.
    command: what follows `gatewise train`, with {data} for the folder of the data and {work} for a temporary one.
    metric, baseline: where the figures stand in what the command says with --json.
    to_reach, minutes: what is asked for. published: what others reached, in words.
    """

    name: str
    data: str
    about: str
    command: str
    metric: str
    baseline: str
    to_reach: float
    minutes: float
    published: str
    higher_is_better: bool = True
    percent: bool = True
    prepare: Callable[[Path, Path], None] | None = None  # makes files in {work} from those in {data}

    def reached(self, value: float) -> bool:
        return value >= self.to_reach if self.higher_is_better else value <= self.to_reach

    def written(self, value: float) -> str:
        return f"{100 * value:.2f}%" if self.percent else f"{value:.4g}"


HELD_OUT, PAIRS, MOST_WORDS = 1_000, 60_000, 10  # of French to English


def pairs_by_sentence(data: Path, work: Path) -> None:
    """train.tsv and test.tsv, French and English: the test has one pair of each of 1,000 short English sentences,
    none of which stands in training with any translation; nor does their French."""
    examples = read_parallel(data / "fra-eng" / "fra-eng.zip", source_column=2, target_column=1)
    pairs = list(zip(examples.texts, examples.target_texts, strict=True))
    draw = random.Random(0)
    draw.shuffle(pairs)
    short = dict.fromkeys(english for _, english in pairs if len(english.split()) <= MOST_WORDS)
    held = set(list(short)[:HELD_OUT])
    test: dict[str, str] = {}
    for french, english in pairs:
        if english in held:
            test.setdefault(english, french)
    french_held = set(test.values())
    training = [pair for pair in pairs if pair[1] not in held and pair[0] not in french_held][:PAIRS]
    for name, chosen in (("train", training), ("test", [(french, english) for english, french in test.items()])):
        (work / f"{name}.tsv").write_text("".join(f"{french}\t{english}\n" for french, english in chosen), "utf-8")


ROWS = [
    Row(
        name="tiny-shakespeare",
        data="tiny-shakespeare",
        about="Tiny Shakespeare, last tenth, nats per character",
        command="language-model {data}/tiny-shakespeare/input.txt --model.hidden-size 512 --model.dropout 0.2 "
        "--training.sequence-length 128 --training.epochs 7",
        metric="loss_nats",
        baseline="evaluations.validation.baseline.loss_nats",
        to_reach=1.50,
        minutes=12,
        published="1.60 (GRU 256)",
        higher_is_better=False,
        percent=False,
    ),
    Row(
        name="ewt-pos",
        data="ud-english-ewt",
        about="UD English EWT, part of speech, test, accuracy",
        command="tagger {data}/ud-english-ewt/en_ewt-ud-train.conllu.gz "
        "--validation {data}/ud-english-ewt/en_ewt-ud-dev.conllu --test {data}/ud-english-ewt/en_ewt-ud-test.conllu",
        metric="evaluations.test.metrics.accuracy.value",
        baseline="evaluations.test.baseline.accuracy",
        to_reach=0.92,
        minutes=6,
        published="88.26% (BiLSTM with vectors, an older release), 90.4% (BiGRU)",
    ),
    Row(
        name="snips-slots",
        data="snips",
        about="SNIPS slots, dev, span F1",
        command="tagger {data}/snips/train --test {data}/snips/dev",
        metric="evaluations.test.metrics.span_f1.value",
        baseline="evaluations.test.baseline.span_f1",
        to_reach=0.90,
        minutes=5,
        published="-",
    ),
    Row(
        name="jsb-chorales",
        data="jsb-chorales",
        about="JSB Chorales, next step, test, nats per frame",
        command="tagger {data}/jsb-chorales/JSB_Chorales.mat",
        metric="evaluations.test.metrics.loss_nats.value",
        baseline="evaluations.test.baseline.loss_nats",
        to_reach=8.45,
        minutes=5,
        published="8.54 (GRU, Chung 2014), 8.43 (GRU, Bai 2018)",
        higher_is_better=False,
        percent=False,
    ),
    Row(
        name="air-passengers",
        data="air-passengers",
        about="AirPassengers, last 24 months, MASE",
        command="forecaster {data}/air-passengers/airline-passengers.csv --data.test 24 --model.horizon 24",
        metric="evaluations.test.metrics.mase.value",
        baseline="evaluations.test.baselines.seasonal naive.mase",
        to_reach=1,
        minutes=1,
        published="-",
        higher_is_better=False,
        percent=False,
    ),
    Row(
        name="etth2",
        data="ett",
        about="ETTh2, 7 series, 24 hours ahead, 12/4/4 months, test, MSE standardised",
        command="forecaster {data}/ett/ETTh2.csv --model.horizon 24 "
        "--data.training-steps 8640 --data.validation 2880 --data.test 2880",
        metric="evaluations.test.metrics.mse.value",
        baseline="evaluations.test.baselines.seasonal naive.mse",
        to_reach=0.2659,
        minutes=4,
        published="-",
        higher_is_better=False,
        percent=False,
    ),
    Row(
        name="fra-eng",
        data="fra-eng",
        about="French to English, 1,000 sentences held out, BLEU",
        command="translator {work}/train.tsv --test {work}/test.tsv",
        metric="evaluations.test.metrics.bleu.value",
        baseline="evaluations.test.baseline.bleu",
        to_reach=35,
        minutes=20,
        published="-",
        percent=False,
        prepare=pairs_by_sentence,
    ),
    Row(
        name="snips-intents",
        data="snips",
        about="SNIPS intents, dev, accuracy",
        command="classifier {data}/snips/train --test {data}/snips/dev",
        metric="evaluations.test.metrics.accuracy.value",
        baseline="evaluations.test.baseline.accuracy",
        to_reach=0.975,
        minutes=5,
        published="-",
    ),
    Row(
        name="japanese-vowels",
        data="japanese-vowels",
        about="JapaneseVowels, test, accuracy",
        command="classifier {data}/japanese-vowels/JapaneseVowels_TRAIN.ts "
        "--test {data}/japanese-vowels/JapaneseVowels_TEST.ts",
        metric="evaluations.test.metrics.accuracy.value",
        baseline="evaluations.test.baseline.accuracy",
        to_reach=0.95,
        minutes=2,
        published="99.3% (FCN), 93.2% (BiGRU)",
    ),
]


def data_folder(given: Path | None) -> Path:
    return given or Path(os.environ.get("GATEWISE_DATA", ROOT.parent / "shared" / "data"))


def train(row: Row, data: Path, threads: int, *extra: str) -> tuple[dict[str, Any], float]:
    """What the row's command says of itself, and its seconds, from start to end of the process."""
    with tempfile.TemporaryDirectory() as work:
        if row.prepare is not None:
            row.prepare(data, Path(work))
        words = [word.format(data=data, work=work) for word in row.command.split()]
        command = [sys.executable, "-m", "gatewise.cli", "train", *words, "--out", f"{work}/run", "--json"]
        command += ["--training.threads", str(threads), *extra]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{row.name}: {done.stderr.strip().splitlines()[-1]}")
    said = done.stdout.replace(str(data), "{data}").replace(work, "{work}")  # no folder of this machine is kept
    return json.loads(said), seconds


def found(document: Any, path: str) -> float:
    for key in path.split("."):
        document = document[key]
    return float(document)


def quality(row: Row, data: Path, threads: int) -> dict[str, Any]:
    """What the row's command reaches, beside its baseline, and in what time."""
    document, seconds = train(row, data, threads)
    value = found(document, row.metric)
    return {
        "value": value,
        "baseline": found(document, row.baseline),
        "seconds": seconds,
        "reached": row.reached(value) and seconds <= 60 * row.minutes,
        "outside_share": outside_share(document),
        "command": f"gatewise train {row.command}",
        **{key: document[key] for key in ("step", "steps", "choices") if key in document},
    }


def quality_table(results: dict[Row, dict[str, Any]]) -> Table:
    """One line for each row, with its figure, what is asked for and what others have."""
    names = ("data", "ours", "to reach", "baseline", "published", "minutes", "within", "outside the steps")
    table = table_of("Quality", *names)
    for row, result in results.items():
        value = result["value"]
        table.add_row(
            row.about,
            row.written(value) + ("" if row.reached(value) else " (missed)"),
            f"{'≥' if row.higher_is_better else '≤'} {row.written(row.to_reach)}",
            row.written(result["baseline"]),
            row.published,
            f"{result['seconds'] / 60:.1f}",
            f"{row.minutes:g}",
            f"{result['outside_share']:.1%}",
        )
    return table


def speed(row: Row, data: Path, threads: int, rounds: int) -> dict[str, Any]:
    """How fast the native kernels train the row's job over torch's own, in turn."""
    speeds: dict[str, list[float]] = {"native": [], "torch": []}
    for _ in range(rounds):
        for backend, seen in speeds.items():
            limits = ["--training.max-steps", str(SPEED_STEPS), "--model.backend", backend]
            document, _ = train(row, data, threads, *limits)
            seen.append(next(value for key, value in document.items() if key.endswith("_per_second")))
    ratio = statistics.median(ours / theirs for ours, theirs in zip(*speeds.values(), strict=True))
    return {"native over torch": ratio, "per_second": speeds, "reached": ratio >= SPEED_GOAL}


def speed_table(results: dict[Row, dict[str, Any]]) -> Table:
    """One line for each row, with the ratio and the native speed."""
    table = table_of("Speed", "data", "native over torch", "per second")
    for row, result in results.items():
        shown = f"{result['native over torch']:.2f}{'' if result['reached'] else ' (missed)'}"
        table.add_row(row.about, shown, f"{statistics.median(result['per_second']['native']):,.0f}")
    return table


def outside_share(document: dict[str, Any]) -> float:
    """Of the time of a training, what was not steps: data, validations, checkpoints, report."""
    return 1 - document["step_seconds"] / document["seconds"]


def stored(folder: Path, kind: str) -> dict[Row, dict[str, Any]]:
    """What was last measured of each row."""
    files = {row: folder / f"{kind}-{row.name}.json" for row in ROWS}
    return {row: json.loads(file.read_text())["results"][row.name] for row, file in files.items() if file.exists()}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("rows", nargs="*", choices=[[], *(row.name for row in ROWS)], help="which rows; all of them")
    parser.add_argument("--data", type=Path, help="the folder of the data")
    parser.add_argument("--speed", action="store_true", help="time the jobs instead")
    parser.add_argument("--rounds", type=int, default=3, help="of --speed")
    chosen = parser.parse_args()
    console = Console()
    data = data_folder(chosen.data)
    kind, table = ("speed", speed_table) if chosen.speed else ("quality", quality_table)
    results: dict[Row, dict[str, Any]] = {}
    packages = ["torch", "numpy"]
    for row in ROWS:
        if chosen.rows and row.name not in chosen.rows:
            continue
        if not (data / row.data).exists():
            console.print(f"{row.name}: skipped, for there is no {data / row.data}")
            continue
        more = [chosen.rounds] if chosen.speed else []
        results[row] = (speed if chosen.speed else quality)(row, data, chosen.threads, *more)
        console.print(table({row: results[row]}))
        if not chosen.no_store:
            path = chosen.results / f"{kind}-{row.name}"
            store(path, chosen.threads, packages, {row.name: results[row]}, page=None)
    if not results:
        sys.exit("no row to run")
    if not chosen.no_store:
        everything = stored(chosen.results, kind)
        command = " ".join(["python bench/quality.py", *(["--speed"] if chosen.speed else [])])
        notes = [f"Each row with what it was measured on is in {kind}-NAME.json."]
        page = (f"Tasks: {kind}", command, [table(everything)], notes)
        by_name = {row.name: result for row, result in everything.items()}
        store(chosen.results / f"tasks-{kind}", chosen.threads, packages, by_name, page=page)
    sys.exit(0 if all(result["reached"] for result in results.values()) else 1)


if __name__ == "__main__":
    main()
