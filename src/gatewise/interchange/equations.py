"""The step of a cell in a convention's own letters: to be read, and, as Python, to be computed."""

from dataclasses import dataclass

from gatewise.interchange.conventions import Convention, Role


@dataclass(frozen=True)
class Notation:
    """How an equation is written. For people: `W_r x`, `h'`, `[h, x]`; as Python: `W_r @ x`, `h_new`, ..."""

    times: str = " "
    new: str = "'"
    candidate: str = "~"
    beside: str = "[{}, {}]"


READ = Notation()
COMPUTED = Notation(" @ ", "_new", "_candidate", "concatenate([{}, {}])")


def equations(convention: Convention, form: str | None = None, notation: Notation = READ) -> list[str]:
    """One step: x, h (of an LSTM h and c) to h' (and c').

    form: what the cell is, one of `convention.forms`; the first if None.
    """
    form = form or next(iter(convention.forms), "")
    step = _Step(convention, notation)
    new, old = f"h{notation.new}", "h"
    if convention.cell == "rnn":
        return [f"{new} = {form}({step.sum('h')})"]
    if convention.cell == "gru":
        r, z, n = (step.name(gate) for gate in "rzn")
        inner = step.sum("n", state=f"({r} * h)") if form == "before" else step.sum("n", reset=r)
        kept, taken = (z, f"(1 - {z})") if convention.z == "old" else (f"(1 - {z})", z)
        mixed = f"{kept} * {old} + {taken} * {n}"
        return [
            f"{r} = sigmoid({step.sum('r')})",
            f"{z} = sigmoid({step.sum('z')})",
            f"{n} = tanh({inner})",
            f"{new} = {mixed}",
        ]
    i, f, g, o = (step.name(gate) for gate in "ifgo")
    offset = f" + {convention.forget_offset:g}" if convention.forget_offset else ""
    return [
        f"{i} = sigmoid({step.sum('i')})",
        f"{f} = sigmoid({step.sum('f')}{offset})",
        f"{g} = tanh({step.sum('g')})",
        f"{o} = sigmoid({step.sum('o')})",
        f"c{notation.new} = {f} * c + {i} * {g}",
        f"{new} = {o} * tanh(c{notation.new})",
    ]


def symbol(convention: Convention, role: Role, gate: str) -> str:
    """What a gate's matrix or bias is called in the equations: its array's own name, if that holds nothing else."""
    array = convention.array_of(role, gate)
    if array is not None and len(array.blocks) == 1 and array.name.isidentifier():
        return array.name
    return f"{role}_{convention.letter(gate)}"


@dataclass(frozen=True)
class _Step:
    convention: Convention
    notation: Notation

    def name(self, gate: str) -> str:
        """What a gate is called: a candidate that has the letter of a state is marked."""
        letter = self.convention.letter(gate)
        return letter + self.notation.candidate if letter.lower() in "hc" else letter

    def sum(self, gate: str, *, state: str = "h", reset: str = "") -> str:
        """What is summed for a gate; with `reset`, the gate that multiplies what comes of the state."""
        matrix = self.convention.array_of("W", gate)
        assert matrix is not None
        biases = {
            role: f" + {symbol(self.convention, role, gate)}" if gate in self.convention.holds(role) else ""
            for role in ("b", "d")
        }
        if len(matrix.columns) == 2:
            beside = [state, "x"] if matrix.columns == "UW" else ["x", state]
            both = self.notation.beside.format(*(word.strip("()") for word in beside))
            return self._product("W", gate, both) + biases["b"]
        recurrent = self._product("U", gate, state) + biases["d"]
        return f"{self._product('W', gate, 'x')}{biases['b']} + {f'{reset} * ({recurrent})' if reset else recurrent}"

    def _product(self, role: Role, gate: str, vector: str) -> str:
        """Matrix times column, or row times matrix, as the convention lays its matrices out."""
        array = self.convention.array_of(role, gate)
        assert array is not None
        factors = [symbol(self.convention, role, gate), vector]
        if array.axes.index("i") < array.axes.index("o"):
            factors.reverse()
        return self.notation.times.join(factors)
