"""The one table of conventions: how each library names, lays out and means the weights of one layer and direction.

Inside gatewise there is torch's form only. `conversion` has the functions that read and write the others by this table;
`docs/conventions.md` shows it.

An array is a row of blocks, each of H rows: the input matrix W, the recurrent matrix U, the input bias b or the
recurrent bias d of one gate. Gates are those of torch: r, z, n; i, f, g, o; h of a plain RNN. Where only the sum of
the biases exists, it is b. The axes of an array:

    g   the blocks          s   the blocks, in two halves
    o   the H units         i   what is multiplied: I inputs, H units, or both
    d   the directions      l   the layers

Letters that stand together are one axis: "go i" is torch's (3H, I), "i go" is Keras' (I, 3H).
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gatewise.errors import InputError

Cell = Literal["gru", "lstm", "rnn"]
Role = Literal["W", "U", "b", "d"]
GATES: dict[Cell, str] = {"gru": "rzn", "lstm": "ifgo", "rnn": "h"}  # in torch's order


@dataclass(frozen=True)
class Array:
    """An array of a convention.

    holds: "WU zrn": W and U of each gate, side by side along i; "b zrn + d zrn": first all b, then all d.
    optional: whether a layer may lack it, which then has no such bias.
    """

    name: str
    holds: str
    axes: str
    optional: bool = False

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """(what, gate) of each block: ("W", "z"), or ("WU", "z") where both matrices stand side by side."""
        groups = [group.split() for group in self.holds.split(" + ")]
        return [(what, gate) for what, gates in groups for gate in gates]

    @property
    def columns(self) -> str:
        """What stands along the axis i: "W", "U", "WU", "UW"; nothing in a bias."""
        return self.blocks[0][0] if "i" in self.axes else ""


@dataclass(frozen=True)
class Convention:
    """How a library holds a cell.

    forms: what the cell can be with these arrays: of a GRU where the reset gate acts, "after" or "before" the
        recurrent product; of an RNN its nonlinearity; the first is what the library does by default.
    letters: what the library calls the gates, in our order. z: what the update gate keeps at 1: the "old" state or
        the "new" one. forget_offset: what is added to the forget gate's bias in each step.
    """

    library: str
    cell: Cell
    what: str
    arrays: tuple[Array, ...]
    letters: str
    forms: tuple[str, ...] = ()
    z: Literal["old", "new"] = "old"
    forget_offset: float = 0.0
    note: str = ""

    def holds(self, role: Role) -> set[str]:
        """The gates of which it holds the matrix or bias."""
        return {gate for array in self.arrays for what, gate in array.blocks if role in what}

    def letter(self, gate: str) -> str:
        """What the library calls a gate."""
        return self.letters[GATES[self.cell].index(gate)]

    def array_of(self, role: Role, gate: str) -> Array | None:
        """The array that holds a gate's matrix or bias."""
        for array in self.arrays:
            if any(role in what and gate == other for what, other in array.blocks):
                return array
        return None


def _per_gate(holds: str, names: dict[str, str], axes: str, *, optional: bool = False) -> tuple[Array, ...]:
    """An array for each gate: names by gate."""
    return tuple(Array(name, f"{holds} {gate}", axes, optional) for gate, name in names.items())


def _torch(gates: str) -> tuple[Array, ...]:
    return (
        Array("weight_ih", f"W {gates}", "go i"),
        Array("weight_hh", f"U {gates}", "go i"),
        Array("bias_ih", f"b {gates}", "go", optional=True),
        Array("bias_hh", f"d {gates}", "go", optional=True),
    )


def _keras(gates: str, bias: str) -> tuple[Array, ...]:
    return (
        Array("kernel", f"W {gates}", "i go"),
        Array("recurrent_kernel", f"U {gates}", "i go"),
        Array("bias", bias, "s go" if "+" in bias else "go", optional=True),
    )


def _onnx(gates: str) -> tuple[Array, ...]:
    return (
        Array("W", f"W {gates}", "d go i"),
        Array("R", f"U {gates}", "d go i"),
        Array("B", f"b {gates} + d {gates}", "d go", optional=True),
    )


def _onednn(gates: str, bias: str) -> tuple[Array, ...]:
    return (
        Array("weights_layer", f"W {gates}", "l d i g o"),
        Array("weights_iter", f"U {gates}", "l d i g o"),
        Array("bias", bias, "l d g o"),
    )


def _dense(gates: str, bias: Array) -> tuple[Array, ...]:
    """Flax' two Dense layers over all gates."""
    return Array("dense_i/kernel", f"W {gates}", "i go"), Array("dense_h/kernel", f"U {gates}", "i go"), bias


def _flax_lstm(forget: str) -> tuple[Array, ...]:
    """forget: the key of the input's forget gate."""
    return (
        *_per_gate("W", {"i": "ii/kernel", "f": f"{forget}/kernel", "g": "ig/kernel", "o": "io/kernel"}, "i o"),
        *_per_gate("U", {gate: f"h{gate}/kernel" for gate in "ifgo"}, "i o"),
        *_per_gate("b", {gate: f"h{gate}/bias" for gate in "ifgo"}, "o"),
    )


def _linen_gru() -> tuple[Array, ...]:
    return (
        *_per_gate("W", {gate: f"i{gate}/kernel" for gate in "rzn"}, "i o"),
        *_per_gate("U", {gate: f"h{gate}/kernel" for gate in "rzn"}, "i o"),
        *_per_gate("b", {gate: f"i{gate}/bias" for gate in "rzn"}, "o"),
        Array("hn/bias", "d n", "o"),
    )


def _equinox(gates: str) -> tuple[Array, ...]:
    return (
        Array("weight_ih", f"W {gates}", "go i"),
        Array("weight_hh", f"U {gates}", "go i"),
        Array("bias", f"b {gates}", "go", optional=True),
    )


def _haste(gates: str) -> tuple[Array, ...]:
    return (
        Array("kernel", f"W {gates}", "i go"),
        Array("recurrent_kernel", f"U {gates}", "i go"),
        Array("bias", f"b {gates}", "go"),
    )


def _paper() -> tuple[Array, ...]:
    return (
        *_per_gate("W", {"r": "W_r", "z": "W_z", "n": "W"}, "o i"),
        *_per_gate("U", {"r": "U_r", "z": "U_z", "n": "U"}, "o i"),
        *_per_gate("b", {"r": "b_r", "z": "b_z", "n": "b"}, "o", optional=True),
    )


def _scratch(gates: str, letters: str) -> tuple[Array, ...]:
    names = dict(zip(gates, letters, strict=True))
    return (
        *_per_gate("W", {gate: f"W_x{letter}" for gate, letter in names.items()}, "i o"),
        *_per_gate("U", {gate: f"W_h{letter}" for gate, letter in names.items()}, "i o"),
        *_per_gate("b", {gate: f"b_{letter}" for gate, letter in names.items()}, "o", optional=True),
    )


def _stacked(endings: dict[str, str]) -> tuple[Array, ...]:
    return (
        *_per_gate("UW", {gate: f"W{ending}" for gate, ending in endings.items()}, "o i"),
        *_per_gate("b", {gate: f"b{ending}" for gate, ending in endings.items()}, "o", optional=True),
    )


_NO_BIASES = "The paper leaves the biases out of its equations; the names are given to them here."
_EITHER = ("after", "before")
_RNN = ("tanh", "relu")

TABLE: tuple[Convention, ...] = (
    Convention("gatewise", "gru", "gatewise.GRU", _torch("rzn"), "rzn", _EITHER),
    Convention("gatewise", "lstm", "gatewise.LSTM", _torch("ifgo"), "ifgo"),
    Convention("gatewise", "rnn", "gatewise.RNN", _torch("h"), "h", _RNN),
    Convention("torch", "gru", "torch.nn.GRU", _torch("rzn"), "rzn", ("after",)),
    Convention("torch", "lstm", "torch.nn.LSTM", _torch("ifgo"), "ifgo"),
    Convention("torch", "rnn", "torch.nn.RNN", _torch("h"), "h", _RNN),
    Convention("keras", "gru", "keras.layers.GRU(reset_after=True)", _keras("zrn", "b zrn + d zrn"), "rzh", ("after",)),
    Convention("keras", "gru", "keras.layers.GRU(reset_after=False)", _keras("zrn", "b zrn"), "rzh", ("before",)),
    Convention(
        "keras",
        "lstm",
        "keras.layers.LSTM",
        _keras("ifgo", "b ifgo"),
        "ifco",
        note="`unit_forget_bias` puts its 1 into the first weights: nothing is added in a step.",
    ),
    Convention("keras", "rnn", "keras.layers.SimpleRNN", _keras("h", "b h"), "h", _RNN),
    Convention(
        "onnx",
        "gru",
        "GRU",
        _onnx("zrn"),
        "rzh",
        ("before", "after"),
        note="`linear_before_reset=0`, the default, is before; 1 is after.",
    ),
    Convention("onnx", "lstm", "LSTM", _onnx("iofg"), "ifco"),
    Convention("onnx", "rnn", "RNN", _onnx("h"), "h", _RNN),
    Convention("onednn", "gru", "gru_forward", _onednn("zrn", "b zrn"), "ruo", ("before",)),
    Convention(
        "onednn",
        "gru",
        "lbr_gru_forward",
        _onednn("zrn", "b zrn + d n"),
        "ruo",
        ("after",),
        note="The fourth bias, which its pages call that of u', is the recurrent one of o.",
    ),
    Convention("onednn", "lstm", "lstm_forward", _onednn("ifgo", "b ifgo"), "ifco"),
    Convention("onednn", "rnn", "vanilla_rnn_forward", _onednn("h", "b h"), "h", _RNN),
    Convention(
        "flax-nnx",
        "gru",
        "flax.nnx.GRUCell",
        _dense("rzn", Array("dense_i/bias", "b rzn", "go")),
        "rzn",
        ("after",),
        note="Its page has a recurrent bias of n in the equations; the cell has none.",
    ),
    Convention(
        "flax-nnx",
        "lstm",
        "flax.nnx.OptimizedLSTMCell",
        _dense("ifgo", Array("dense_h/bias", "b ifgo", "go")),
        "ifgo",
        note="The arrays of `flax.nnx.LSTMCell` are other ones: flax-nnx-lstm-cell.",
    ),
    Convention("flax-nnx", "rnn", "flax.nnx.SimpleCell", _dense("h", Array("dense_i/bias", "b h", "go")), "h", _RNN),
    Convention("flax-nnx-lstm-cell", "lstm", "flax.nnx.LSTMCell", _flax_lstm("if_"), "ifgo"),
    Convention("flax-linen", "gru", "flax.linen.GRUCell", _linen_gru(), "rzn", ("after",)),
    Convention("flax-linen", "lstm", "flax.linen.LSTMCell and OptimizedLSTMCell", _flax_lstm("if"), "ifgo"),
    Convention(
        "flax-linen",
        "rnn",
        "flax.linen.SimpleCell",
        (Array("i/kernel", "W h", "i o"), Array("h/kernel", "U h", "i o"), Array("i/bias", "b h", "o")),
        "h",
        _RNN,
    ),
    Convention(
        "equinox",
        "gru",
        "equinox.nn.GRUCell",
        (*_equinox("rzn"), Array("bias_n", "d n", "o", optional=True)),
        "rzn",
        ("after",),
    ),
    Convention("equinox", "lstm", "equinox.nn.LSTMCell", _equinox("ifgo"), "ifgo"),
    Convention(
        "haiku",
        "gru",
        "haiku.GRU",
        (Array("w_i", "W zrn", "i go"), Array("w_h", "U zrn", "i go"), Array("b", "b zrn", "go")),
        "rza",
        ("before",),
        z="new",
    ),
    Convention(
        "haiku",
        "lstm",
        "haiku.LSTM",
        (Array("linear/w", "WU igfo", "i go"), Array("linear/b", "b igfo", "go")),
        "ifgo",
        forget_offset=1.0,
        note="It adds 1 to the forget gate in each step; in a conversion that 1 goes into the bias, or out of it.",
    ),
    Convention(
        "haiku",
        "rnn",
        "haiku.VanillaRNN",
        (
            Array("linear/w", "W h", "i o"),
            Array("linear/b", "b h", "o"),
            Array("linear_1/w", "U h", "i o"),
            Array("linear_1/b", "d h", "o", optional=True),
        ),
        "h",
        ("relu",),
        note="With `double_bias=False` there is no linear_1/b.",
    ),
    Convention(
        "haste",
        "gru",
        "haste_pytorch.GRU",
        (*_haste("zrn"), Array("recurrent_bias", "d zrn", "go")),
        "rzg",
        ("after",),
    ),
    Convention(
        "haste",
        "lstm",
        "haste_pytorch.LSTM",
        _haste("igfo"),
        "ifgo",
        note="`forget_bias` is put into the first weights: nothing is added in a step.",
    ),
    Convention("cho2014", "gru", "Cho et al. 2014, section 2.3", _paper(), "rzh", ("before",), note=_NO_BIASES),
    Convention(
        "chung2014", "gru", "Chung et al. 2014, section 3.2", _paper(), "rzh", ("before",), z="new", note=_NO_BIASES
    ),
    Convention("tutorial", "gru", "the GRU from scratch", _scratch("zrn", "zrh"), "rzh", ("before",)),
    Convention("tutorial", "lstm", "the LSTM from scratch", _scratch("ifog", "ifoc"), "ifco"),
    Convention("tutorial", "rnn", "the RNN from scratch", _scratch("h", "h"), "h", _RNN),
    Convention(
        "tutorial-stacked",
        "gru",
        "a matrix a gate over [h, x]",
        _stacked({"z": "_z", "r": "_r", "n": ""}),
        "rzh",
        ("before",),
        z="new",
    ),
    Convention(
        "tutorial-stacked",
        "lstm",
        "a matrix a gate over [h, x]",
        _stacked({"f": "_f", "i": "_i", "g": "_C", "o": "_o"}),
        "ifCo",
    ),
)
SOURCES: dict[str, str] = {  # of each library where it says so
    "gatewise": "https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers",
    "torch": "https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers",
    "keras": "https://keras.io/api/layers/recurrent_layers/",
    "onnx": "https://onnx.ai/onnx/operators/",
    "onednn": "https://uxlfoundation.github.io/oneDNN/dev_guide_rnn.html",
    "flax-nnx": "https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/recurrent.html",
    "flax-nnx-lstm-cell": "https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/recurrent.html",
    "flax-linen": "https://flax-linen.readthedocs.io/en/latest/api_reference/flax.linen/layers.html",
    "equinox": "https://docs.kidger.site/equinox/api/nn/rnn/",
    "haiku": "https://dm-haiku.readthedocs.io/en/latest/api.html#recurrent",
    "haste": "https://github.com/lmnt-com/haste/tree/master/docs/pytorch",
    "cho2014": "https://arxiv.org/abs/1406.1078",
    "chung2014": "https://arxiv.org/abs/1412.3555",
    "tutorial": "https://d2l.ai/chapter_recurrent-modern/index.html",
    "tutorial-stacked": "https://colah.github.io/posts/2015-08-Understanding-LSTMs/",
}
LIBRARIES: tuple[str, ...] = tuple(dict.fromkeys(convention.library for convention in TABLE))


def of_library(library: str, cell: str | None = None) -> list[Convention]:
    """The conventions of a library, of one cell or of all. InputError, with the valid ones, if there is none."""
    if library not in LIBRARIES:
        near = difflib.get_close_matches(library.lower(), LIBRARIES, n=1, cutoff=0.5)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise InputError(f"convert: unknown convention {library!r}; known are {', '.join(LIBRARIES)}{hint}")
    if cell is not None and cell not in GATES:
        raise InputError(f"convert: expected cell to be one of {', '.join(GATES)}, got {cell!r}")
    found = [c for c in TABLE if c.library == library and cell in (None, c.cell)]
    if not found:
        cells = _listed(c.cell for c in TABLE if c.library == library)
        having = _listed(c.library for c in TABLE if c.cell == cell)
        raise InputError(f"convert: {library} has no {cell}, only {cells}; conventions with {cell}: {having}")
    return found


def find(library: str, cell: str, form: str | None = None) -> Convention:
    """The convention of a library for a cell of a form, by default the library's own default.

    form: of a GRU "after" or "before", of an RNN "tanh" or "relu". Raises InputError if there is none, saying what is.
    """
    found = of_library(library, cell)
    for convention in found:
        if form is None or form in convention.forms:
            return convention
    raise InputError(_no_such_form(found, form or ""))


def _no_such_form(found: Sequence[Convention], form: str) -> str:
    """Why a library's cell cannot have a form, and which libraries' can."""
    library, cell = found[0].library, found[0].cell
    others = _listed(c.library for c in TABLE if c.cell == cell and form in c.forms)
    can = f"; conventions that hold it: {others}" if others else ""
    if cell == "gru" and form in _EITHER:
        return (
            f"convert: the GRU of {library} has its reset gate {found[0].forms[0]} the recurrent product, this one "
            f"{form} it; these are different functions, and there are no weights with which one does what the other "
            f"does{can}"
        )
    if cell == "rnn" and form in _RNN:
        return f"convert: the RNN of {library} has the nonlinearity {found[0].forms[0]}, this one {form}{can}"
    known = _listed(form for convention in found for form in convention.forms)
    return f"convert: expected the {cell} of {library} to be {known or 'given no form'}, got {form!r}"


def _listed(names: Iterable[str]) -> str:
    """The names, each once."""
    return ", ".join(dict.fromkeys(names))
