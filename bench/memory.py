"""Whether memory grows: 10,000 training steps of gw.GRU(28, 64) with Adam, T = 35 and B = 32.

    python bench/memory.py [--threads 2] [--steps 10000] [--results DIR] [--no-store]

Comes out: the resident memory of the process after each tenth of the steps, and what it grew by from the first tenth
to the last. Where the system does not tell it, the peak so far stands in its place.
"""

import os
import sys
from pathlib import Path

from rich.console import Console

from record import options, store, table_of
from turns import Contestant


def resident_mb() -> float:
    """Resident memory of this process in MB (10^6 bytes), or else the most that it ever was."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 1e6 if sys.platform == "darwin" else most / 1e3
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Training:
    """The layer, its optimizer and one batch."""

    def __init__(self):
        import torch

        import gatewise as gw

        torch.manual_seed(0)
        self._layer = gw.GRU(28, 64, backend="native")
        self._optimizer = torch.optim.Adam(self._layer.parameters())
        self._x = torch.randn(35, 32, 28)

    def train(self, steps: int) -> float:
        """Resident memory in MB after so many steps more."""
        for _ in range(steps):
            self._optimizer.zero_grad()
            self._layer(self._x)[0].square().mean().backward()
            self._optimizer.step()
        return resident_mb()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    chosen = parser.parse_args()
    console = Console(width=120)

    training = Contestant("gatewise", Training, chosen.threads)
    part = chosen.steps // 10
    after_mb = {part * tenth: training.ask("train", part) for tenth in range(1, 11)}
    training.stop()
    first, *_, last = after_mb.values()
    table = table_of("resident memory", "after steps", "MB")
    for steps, mb in after_mb.items():
        table.add_row(f"{steps:,}", f"{mb:.1f}")
    growth = f"From step {part:,} to step {10 * part:,} it grew by {last - first:.2f} MB."
    console.print(table)
    console.print(growth)
    if not chosen.no_store:
        page = ("Memory over a long training", "python bench/memory.py", [table], [growth])
        results = {"resident_mb": after_mb, "growth_mb": last - first}
        store(chosen.results / "memory", chosen.threads, ["torch", "numpy"], results, page=page)


if __name__ == "__main__":
    main()
