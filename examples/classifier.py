"""Classify: texts into what they ask for, and sequences of numbers into the movement that made them.

python examples/classifier.py                        # on data that it makes, in seconds
python examples/classifier.py train.csv [test.csv]   # on yours: a column of texts, a column of labels
"""

import sys

import numpy as np

import gatewise as gw
from gatewise.config import ClassifierTraining
from gatewise.training.observer import Observer

PHRASES = {
    "weather": ["will it rain in {}", "how warm is {} today", "do i need an umbrella in {}"],
    "music": ["play something by {}", "add {} to my playlist", "skip this song by {}"],
    "travel": ["book a train to {}", "how far is it to {}", "when does the bus to {} leave"],
}
SYLLABLES = ["os", "lo", "el", "la", "gra", "ni", "po", "bach", "tu", "rin", "ber", "gen", "mi", "les", "ly", "on"]


class Progress(Observer):
    """Prints what was decided, and each validation."""

    def on_message(self, message: str) -> None:
        """Print it."""
        print(f"  {message}")

    def on_validation(self, metrics, sample) -> None:
        """Print the accuracy."""
        print(f"  epoch {metrics['epoch']}: {metrics['accuracy']:.1%} right on validation")


def texts(examples: int, seed: int) -> tuple[list[str], list[str]]:
    """Questions and what they are about."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(list(PHRASES), examples).tolist()
    names = ["".join(draw.choice(SYLLABLES, 4)) for _ in labels]
    return [draw.choice(PHRASES[label]).format(name) for label, name in zip(labels, names, strict=True)], labels


def movements(examples: int, seed: int) -> tuple[list[np.ndarray], list[str]]:
    """Two coordinates over time: circles to the left, to the right, or a movement back and forth; and which it is."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(["left", "right", "forth"], examples).tolist()
    paths = []
    for label in labels:
        angle = np.linspace(0, draw.uniform(6, 12), draw.integers(20, 60)) + draw.uniform(0, 6)
        turn = {"left": 1, "right": -1, "forth": 0}[label]
        paths.append(np.stack([np.cos(angle), turn * np.sin(angle)], 1) + draw.normal(0, 0.4, (len(angle), 2)))
    return paths, labels


def main() -> None:
    """Fit, judge, predict."""
    if len(sys.argv) > 1:
        model = gw.Classifier().fit(
            sys.argv[1], run="runs/classifier", test=(sys.argv[2:] or [None])[0], overwrite=True
        )
    else:
        quick = ClassifierTraining(epochs=8)
        print("texts")
        model = gw.Classifier(training=quick).fit(*texts(400, seed=0), test=texts(200, seed=1), observer=Progress())
        print(model.predict(["will it rain in osloel", "play something by gentu"]))
        print("movements")
        model = gw.Classifier(training=quick).fit(*movements(400, 0), test=movements(200, 1), observer=Progress())
    found = model.result.evaluation
    accuracy = found.metrics["accuracy"]
    print(f"{accuracy.value:.1%} right on {model.result.split} ({accuracy.low:.1%} to {accuracy.high:.1%})")
    for label in found.labels:
        print(f"  {label.label:10} F1 {label.f1:.3f}")


if __name__ == "__main__":
    main()
