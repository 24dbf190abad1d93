"""What metrics are called, and how their values are written, wherever people read them: one line for each metric."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """A metric in words.

    write: its value, with the unit. higher_is_better: what is good. name_last: whether the name comes after the value.
    """

    name: str
    write: Callable[[float], str]
    higher_is_better: bool
    name_last: bool = False

    def interval(self, low: float, high: float) -> str:
        """`97.1% to 97.8%`; empty where there was nothing to draw one from."""
        return f"{self.write(low)} to {self.write(high)}" if low < high else ""


def percent(value: float) -> str:
    """`97.4%` of 0.974."""
    return f"{100 * value:.1f}%"


def _decimals(value: float) -> str:
    return f"{value:.3f}"


def _of_hundred(value: float) -> str:
    return f"{value:.1f}%"


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _nats(value: float) -> str:
    return f"{value:.3f} nats"


def _of_size(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


METRICS = {
    "loss": Metric("loss", _decimals, False),
    "loss_nats": Metric("loss", _nats, False),
    "perplexity": Metric("perplexity", _of_size, False),
    "bits_per_char": Metric("bits per character", _decimals, False, name_last=True),
    "accuracy": Metric("accuracy", percent, True),
    "macro_f1": Metric("macro F1", _decimals, True),
    "micro_f1": Metric("micro F1", _decimals, True),
    "mase": Metric("MASE", _decimals, False),
    "smape": Metric("sMAPE", _of_hundred, False),
    "mse": Metric("MSE, standardised", _decimals, False),
    "mae": Metric("MAE, standardised", _decimals, False),
    "crps": Metric("CRPS, standardised", _decimals, False),
    "coverage": Metric("coverage of the interval", percent, True),
    "skill": Metric("less error than the naive forecast", percent, True),
    "unknown_accuracy": Metric("accuracy on unknown words", percent, True),
    "span_f1": Metric("span F1", percent, True),
    "span_precision": Metric("span precision", percent, True),
    "span_recall": Metric("span recall", percent, True),
    "bleu": Metric("BLEU", _tenths, True),
    "chrf": Metric("chrF", _tenths, True),
    "calibration_error": Metric("calibration error", _decimals, False),
}


def in_words(metrics: Mapping[str, Any]) -> str:
    """`loss 1.512 nats, perplexity 4.536, 2.181 bits per character`: those of the metrics that have a name."""
    parts = []
    for key, value in metrics.items():
        if key in METRICS and value is not None:
            metric = METRICS[key]
            words = [metric.name, metric.write(value)]
            parts.append(" ".join(reversed(words) if metric.name_last else words))
    return ", ".join(parts)
