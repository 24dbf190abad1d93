"""The table of conventions as a page: `python -m gatewise.interchange.conventions_page docs/conventions.md`.

Writes it anew between the two marks of the page; what stands around them is written by hand.
"""

import sys
from pathlib import Path

from gatewise.interchange.conventions import GATES, LIBRARIES, SOURCES, TABLE, Array, Convention, of_library
from gatewise.interchange.equations import equations
from gatewise.interchange.layouts import shape_in_words

BEGIN, END = "<!-- the table begins: make docs -->", "<!-- the table ends -->"
_ROLES = {"W": "input matrix", "U": "recurrent matrix", "b": "bias", "d": "recurrent bias"}


def main(path: Path) -> None:
    """Write the table anew into the page."""
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


def renewed(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def table() -> str:
    """All conventions: first the GRUs side by side, then each library with its arrays and equations."""
    parts = [_grus(), *(_library(library) for library in LIBRARIES)]
    return "\n".join(parts)


def _grus() -> str:
    """What sets the GRUs apart, a row each."""
    lines = [
        "### The GRUs side by side",
        "",
        "| convention | reset gate | z = 1 keeps the | order of the gates | biases | matrices |",
        "|---|---|---|---|---|---|",
    ]
    for convention in TABLE:
        if convention.cell == "gru":
            biases = sum(len(array.blocks) for array in convention.arrays if not array.columns)
            first = convention.arrays[0]
            order = " ".join(convention.letter(gate) for _, gate in first.blocks)
            order = order if len(first.blocks) > 1 else "one array a gate"
            rows = "row vectors: x W" if first.axes.index("i") < first.axes.index("o") else "column vectors: W x"
            forms, z = " or ".join(convention.forms), f"{convention.z} state"
            lines.append(f"| `{convention.library}` | {forms} | {z} | {order} | {biases}H | {rows} |")
    return "\n".join([*lines, ""])


def _library(library: str) -> str:
    parts = [f"### `{library}`", "", f"Source: <{SOURCES[library]}>", ""]
    for convention in of_library(library):
        parts += [_cell(convention)]
    return "\n".join(parts)


def _cell(convention: Convention) -> str:
    """Arrays and equations of one cell."""
    lines = [f"**{convention.cell.upper()}: {convention.what}**" + (f". {convention.note}" if convention.note else "")]
    lines += ["", "| array | shape | holds |", "|---|---|---|"]
    lines += [f"| `{a.name}` | {shape_in_words(a)} | {_holds(a, convention)} |" for a in convention.arrays]
    lines.append("")
    if convention.cell == "rnn":
        lines += ["```text", *(equations(convention, form)[0] for form in convention.forms), "```", ""]
        return "\n".join(lines)
    for form in convention.forms or (None,):
        title = [f"Reset {form}:", ""] if form else []
        lines += [*title, "```text", *equations(convention, form), "```", ""]
    return "\n".join(lines)


def _holds(array: Array, convention: Convention) -> str:
    """The content of an array in words: `input matrix of z, r, h`."""
    parts = []
    for group in array.holds.split(" + "):
        what, gates = group.split()
        names = " beside ".join(_ROLES[role] for role in what)
        of = "" if GATES[convention.cell] == "h" else f" of {', '.join(convention.letter(gate) for gate in gates)}"
        parts.append(names + of)
    return "; then ".join(parts) + (" (may be absent)" if array.optional else "")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
