"""A whole training job, the Time Machine recipe, with gatewise's own kernels against torch's.

    python bench/jobs.py [--text time-machine] [--epochs 60] [--rounds 3] [--threads 2] [--results DIR] [--no-store]
    python bench/jobs.py --quality      # the whole recipe, 500 epochs, for both reset placements, and in bfloat16

Each job is the command that a user types, in a process of its own, with backend="native" and backend="torch" in turn.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import options, store

RECIPE = Path(__file__).parents[1] / "examples" / "time_machine.toml"


def train(text: str, *options: str) -> dict:
    """What `gatewise train --json` says of the recipe."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gatewise.cli", "train", "language-model", text, "--config", str(RECIPE)]
        done = subprocess.run(
            [*command, "--out", f"{folder}/run", "--json", *options], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)


def speed(text: str, epochs: int, rounds: int, threads: int) -> dict:
    """Tokens per second of both backends, round by round, and the median ratio."""
    found: dict[str, list[float]] = {"native": [], "torch": []}
    for _ in range(rounds):
        for backend, speeds in found.items():
            options = ["--training.epochs", str(epochs), "--training.threads", str(threads)]
            speeds.append(train(text, *options, "--model.backend", backend)["tokens_per_second"])
            print(f"{backend:8} {speeds[-1]:10.0f} tokens/s")
    ratio = statistics.median(ours / theirs for ours, theirs in zip(*found.values(), strict=True))
    print(f"native over torch: {ratio:.2f} (median of {rounds} rounds)")
    return {"epochs": epochs, "tokens_per_second": found, "native over torch": ratio}


def quality(text: str, threads: int) -> dict:
    """Training perplexity, tokens per second and seconds of the whole recipe, by reset placement and precision."""
    found = {}
    for reset, precision in (("after", "float32"), ("before", "float32"), ("after", "bf16"), ("before", "bf16")):
        options = ["--model.reset", reset, "--training.precision", precision, "--training.threads", str(threads)]
        done = train(text, *options)
        found[f"{reset}, {precision}"] = {key: done[key] for key in ("perplexity", "tokens_per_second", "seconds")}
        print(f"{reset}, {precision}: training perplexity {done['perplexity']:.3f} in {done['seconds']:.0f} s")
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--text", default="time-machine", help="the corpus, or the path of its file")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quality", action="store_true", help="train the whole recipe instead")
    chosen = parser.parse_args()

    if chosen.quality:
        name, results = "time-machine-quality", quality(chosen.text, chosen.threads)
    else:
        name, results = "time-machine-speed", speed(chosen.text, chosen.epochs, chosen.rounds, chosen.threads)
    if not chosen.no_store:
        store(chosen.results / name, chosen.threads, ["torch", "numpy"], results, page=None)


if __name__ == "__main__":
    main()
