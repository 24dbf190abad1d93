"""Tag: words with their part of speech, spans in sentences, and every step of a signal.

python examples/tagger.py                                    # on data that it makes, in seconds
python examples/tagger.py train.conllu [test.conllu]         # on yours
"""

import sys

import numpy as np

import gatewise as gw
from gatewise.config import TaggerTraining
from gatewise.training.observer import Observer

NAMES = ["Ada", "Alan", "Grace", "Kurt", "Emmy", "Srinivasa"]
SURNAMES = ["Lovelace", "Turing", "Hopper", "Gödel", "Noether", "Ramanujan"]
PLACES = ["London", "Brno", "Erlangen", "Madras", "New York", "Buenos Aires"]


class Progress(Observer):
    """Prints what was decided, and each validation."""

    def on_message(self, message: str) -> None:
        """Print it."""
        print(f"  {message}")

    def on_validation(self, metrics, sample) -> None:
        """Print how much is right."""
        print(f"  epoch {metrics['epoch']}: {metrics.get('span_f1', metrics['accuracy']):.1%} on validation")


def sentences(count: int, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Who was where: words, and BIO tags of persons and places."""
    draw = np.random.default_rng(seed)
    words, tags = [], []
    for _ in range(count):
        person = [draw.choice(NAMES), draw.choice(SURNAMES)][draw.integers(2) :]
        place = draw.choice(PLACES).split()
        words.append([*person, "was", "in", *place, "."])
        spans = [["B-person", "I-person"][: len(person)], ["B-place", "I-place"][: len(place)]]
        tags.append([*spans[0], "O", "O", *spans[1], "O"])
    return words, tags


def signals(count: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Noise with bursts, and at every step whether there is one."""
    draw = np.random.default_rng(seed)
    x, y = [], []
    for _ in range(count):
        length = int(draw.integers(30, 80))
        burst = np.convolve(draw.random(length) < 0.03, np.ones(8), "full")[:length] > 0
        x.append((draw.normal(0, 1 + 3 * burst)[:, None]).astype(np.float32))
        y.append(burst[:, None].astype(np.float32))
    return x, y


def main() -> None:
    """Fit, judge, predict."""
    if len(sys.argv) > 1:
        test = (sys.argv[2:] or [None])[0]
        model = gw.Tagger().fit(sys.argv[1], run="runs/tagger", test=test, overwrite=True, observer=Progress())
    else:
        print("persons and places")
        quick = TaggerTraining(epochs=15)
        model = gw.Tagger(training=quick).fit(*sentences(300, 0), test=sentences(100, 1), observer=Progress())
        print(model.predict([["Rosalind", "Franklin", "was", "in", "London", "."]]))
        print("bursts")
        model = gw.Tagger(training=quick).fit(*signals(300, 0), test=signals(100, 1), observer=Progress())
    found = model.result.evaluation
    for name, metric in found.metrics.items():
        baseline = f", baseline {found.baseline[name]:.3f}" if name in found.baseline else ""
        print(f"{name} {metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f}{baseline})")


if __name__ == "__main__":
    main()
