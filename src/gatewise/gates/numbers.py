"""Numbers as people write them; a number and its unit are never torn apart."""

import math
from datetime import datetime

HIGHEST_LOSS = 600.0  # nats: beyond, a perplexity is no longer a float64


def plain(value: float) -> str:
    """The number, not rounded: 0.0005, 3.5, 80,000; only what is very small or large with an exponent."""
    if value != 0 and not 1e-6 <= abs(value) < 1e12:
        return f"{value:.3g}"
    return f"{value:,.10f}".rstrip("0").rstrip(".")


def significant(value: float, digits: int = 3) -> str:
    """The number rounded to so many digits: 0.0123, 3.20, 97.1, 12,300."""
    if abs(value) < 1000 or abs(value) >= 1e12:
        return f"{value:#.{digits}g}".rstrip(".")
    return f"{float(f'{value:.{digits}g}'):,.0f}"


def perplexity(loss_nats: float, digits: int = 3) -> str:
    """The perplexity of a loss."""
    return significant(math.exp(min(loss_nats, HIGHEST_LOSS)), digits)


def duration(seconds: float) -> str:
    """58.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.3g}\u00a0s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}\u00a0h\u00a0{minutes}\u00a0min" if hours else f"{minutes}\u00a0min\u00a0{seconds}\u00a0s"


def storage(size_bytes: int) -> str:
    """388 B, 3.07 kB, 1.11 MB."""
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= bytes_:
            return f"{significant(size_bytes / bytes_)}\u00a0{unit}"
    return f"{size_bytes}\u00a0B"


def moment(text: str) -> str:
    """20 November 2026, 18:50 UTC, from a time in ISO 8601; a text that is none as it is."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{time.day} {time:%B %Y, %H:%M %Z}".strip()
