"""Forecast airline passengers two years ahead, and say whether that is any better than repeating the last year.

    python examples/forecaster.py [series.csv]

Without a file it makes a monthly series of its own: a trend, a year, noise.
"""

import sys

import numpy as np

import gatewise as gw
from gatewise.config import ForecasterData, ForecasterTraining
from gatewise.data.series_arrays import series_of
from gatewise.training.observer import Observer

HORIZON = 24


class Told(Observer):
    """Prints what was guessed and decided, with reasons."""

    def on_message(self, message: str) -> None:
        """Print the message."""
        print(" ", message)


def made_up() -> object:
    """Fourteen years of a monthly series."""
    months = np.arange(168)
    year = np.sin(2 * np.pi * months / 12) + 0.5 * np.cos(4 * np.pi * months / 12)
    values = (100 + 2 * months) * (1 + 0.15 * year + 0.03 * np.random.default_rng(0).standard_normal(168))
    return series_of(values, times=np.datetime64("2010-01") + months, target_names=["sales"])


def main() -> None:
    """Train, judge on the last two years, forecast the next."""
    series = sys.argv[1] if len(sys.argv) > 1 else made_up()
    model = gw.Forecaster(
        horizon=HORIZON,
        data=ForecasterData(test=float(HORIZON)),  # the last two years are held out
        training=ForecasterTraining(threads=1),
    )
    model.fit(series, observer=Told())
    found = model.evaluations["test"]
    for name, metric in found.metrics.items():
        others = [f"{kind} {scores[name]:.3f}" for kind, scores in found.baselines.items() if name in scores]
        print(f"{name:9} {metric.value:8.3f}   {', '.join(others)}")
    print(found.verdict)
    print(model.predict(series).select("time", "target", "point", "lower", "upper").head(12))


if __name__ == "__main__":
    main()
