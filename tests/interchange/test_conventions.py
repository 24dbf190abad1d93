"""Each convention of the table against what it stands for: the library itself, or its documented equations in NumPy."""

import os

import numpy as np
import pytest
import torch

from gatewise.errors import InputError
from gatewise.interchange.conventions import GATES, LIBRARIES, SOURCES, TABLE, Convention, find
from gatewise.interchange.conversion import convert
from gatewise.interchange.equations import COMPUTED, equations, symbol
from gatewise.interchange.layouts import from_torch, to_torch
from gatewise.kernels import reference

STEPS, BATCH, INPUT, HIDDEN = 4, 2, 3, 5
CASES = [(convention, form) for convention in TABLE for form in convention.forms or (None,)]
IDS = [f"{convention.library}-{convention.cell}-{form or ''}".rstrip("-") for convention, form in CASES]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return np.maximum(a, 0)


def weights_for(convention: Convention, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights in torch's form; without a recurrent bias of n where the convention has no place for it."""
    random = np.random.default_rng(seed)
    rows = len(GATES[convention.cell]) * HIDDEN
    shapes = {"weight_ih": (rows, INPUT), "weight_hh": (rows, HIDDEN), "bias_ih": (rows,), "bias_hh": (rows,)}
    made = {name: random.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    if convention.library == "flax-nnx" and convention.cell == "gru":
        made["bias_hh"][2 * HIDDEN :] = 0
    return made


def data(seed: int = 1):
    random = np.random.default_rng(seed)
    x = random.standard_normal((STEPS, BATCH, INPUT)).astype(np.float32)
    return x, *(random.uniform(-1, 1, (BATCH, HIDDEN)).astype(np.float32) for _ in range(2))


def expected(convention: Convention, form: str | None, weights, x, *states) -> np.ndarray:
    """What the reference gives in float64."""
    name = {"gru": f"gru_{form}", "rnn": f"rnn_{form}", "lstm": "lstm"}[convention.cell]
    states = states if convention.cell == "lstm" else states[:1]
    tensors = [torch.from_numpy(array).double() for array in (x, *states)]
    given = [torch.from_numpy(array).double() for array in weights.values()]
    y, _, _ = reference.recurrent(name, tensors[0], tuple(tensors[1:]), given)
    return y.numpy()


# The equations of the table, computed


@pytest.mark.parametrize(("convention", "form"), CASES, ids=IDS)
def test_the_equations_say_what_the_cell_does(convention, form):
    weights = weights_for(convention)
    made = from_torch({name: array.astype(np.float64) for name, array in weights.items()}, convention, form)
    scope = {"sigmoid": sigmoid, "tanh": np.tanh, "relu": relu}
    scope["concatenate"] = lambda parts: np.concatenate(parts, axis=-1)
    for array in convention.arrays:
        value = made[array.name]
        columns = array.axes.index("i") < array.axes.index("o") if array.columns else False
        if array.columns and len(array.axes.split()) == 5:
            value = value[0, 0].reshape(len(value[0, 0]), -1)
        elif "d" in array.axes:
            value = value[0]
        parts = np.split(value if array.columns else value.reshape(-1), len(array.blocks), axis=-1 if columns else 0)
        for (what, gate), part in zip(array.blocks, parts, strict=True):
            scope[symbol(convention, what[0], gate)] = part
    x, h, c = data()
    lines = equations(convention, form, COMPUTED)
    y = np.empty((STEPS, BATCH, HIDDEN))
    for row in range(BATCH):
        scope |= {"h": h[row], "c": c[row]}
        for step in range(STEPS):
            scope["x"] = x[step, row]
            exec("\n".join(lines), scope)
            y[step, row] = scope["h_new"]
            scope |= {"h": scope["h_new"], "c": scope.get("c_new")}
    np.testing.assert_allclose(y, expected(convention, form, weights, x, h, c), atol=1e-12)


# The libraries themselves


def run_torch(made, cell, form, x, h, c):
    kinds = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM, "rnn": torch.nn.RNN}
    layer = kinds[cell](INPUT, HIDDEN, **({"nonlinearity": form} if cell == "rnn" else {}))
    layer.load_state_dict({f"{name}_l0": torch.from_numpy(array) for name, array in made.items()})
    states = [torch.from_numpy(state).unsqueeze(0) for state in (h, c)]
    return layer(torch.from_numpy(x), tuple(states) if cell == "lstm" else states[0])[0].detach().numpy()


def run_keras(made, cell, form, x, h, c):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    kinds = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM, "rnn": keras.layers.SimpleRNN}
    options = {"gru": {"reset_after": form == "after"}, "rnn": {"activation": form}, "lstm": {}}[cell]
    layer = kinds[cell](HIDDEN, return_sequences=True, **options)
    layer.build((BATCH, STEPS, INPUT))
    assert [weight.name for weight in layer.weights] == list(made)
    layer.set_weights(list(made.values()))
    y = layer(x.swapaxes(0, 1), initial_state=[h, c] if cell == "lstm" else [h])
    return keras.ops.convert_to_numpy(y).swapaxes(0, 1)


def run_onnx(made, cell, form, x, h, c):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    options = {"gru": {"linear_before_reset": int(form == "after")}, "rnn": {"activations": [str(form).title()]}}
    inputs = {"X": x, **made, "": None, "initial_h": h[None], "initial_c": c[None]}
    if cell != "lstm":
        del inputs["initial_c"]
    node = onnx.helper.make_node(cell.upper(), list(inputs), ["Y"], hidden_size=HIDDEN, **options.get(cell, {}))
    given = {name: array for name, array in inputs.items() if array is not None}
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info(name, kind, array.shape) for name, array in given.items()],
        [onnx.helper.make_tensor_value_info("Y", kind, [STEPS, 1, BATCH, HIDDEN])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)[0][:, 0]


def run_steps(step, x, carry):
    """step(carry, x) -> (carry, y) over all steps."""
    outputs = []
    for inputs in x:
        carry, y = step(carry, inputs)
        outputs.append(np.asarray(y))
    return np.stack(outputs)


def run_flax_nnx(made, cell, form, x, h, c, kind=None):
    nnx, jax = pytest.importorskip("flax.nnx"), pytest.importorskip("jax")
    kinds = {"gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell, "rnn": nnx.SimpleCell}
    activation = {"tanh": jax.nn.tanh, "relu": jax.nn.relu}
    options = {"activation_fn": activation[form]} if cell == "rnn" else {}
    module = (kind or kinds[cell])(INPUT, HIDDEN, rngs=nnx.Rngs(0), **options)
    names = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    assert jax.tree.structure(names) == jax.tree.structure(nested(made))
    nnx.update(module, nested(made))
    return run_steps(module, x, (c, h) if cell == "lstm" else h)


def run_flax_nnx_lstm_cell(made, cell, form, x, h, c):
    return run_flax_nnx(made, cell, form, x, h, c, pytest.importorskip("flax.nnx").LSTMCell)


def run_flax_linen(made, cell, form, x, h, c):
    linen, jax = pytest.importorskip("flax.linen"), pytest.importorskip("jax")
    kinds = {"gru": linen.GRUCell, "lstm": linen.OptimizedLSTMCell, "rnn": linen.SimpleCell}
    activation = {"tanh": jax.nn.tanh, "relu": jax.nn.relu}
    module = kinds[cell](HIDDEN, **({"activation_fn": activation[form]} if cell == "rnn" else {}))
    carry = (c, h) if cell == "lstm" else h
    params = nested(made)
    assert jax.tree.structure(module.init(jax.random.key(0), carry, x[0])["params"]) == jax.tree.structure(params)
    return run_steps(lambda state, inputs: module.apply({"params": params}, state, inputs), x, carry)


def run_equinox(made, cell, form, x, h, c):
    equinox, jax = pytest.importorskip("equinox"), pytest.importorskip("jax")
    kinds = {"gru": equinox.nn.GRUCell, "lstm": equinox.nn.LSTMCell}
    module = kinds[cell](INPUT, HIDDEN, key=jax.random.key(0))
    module = equinox.tree_at(lambda m: [getattr(m, name) for name in made], module, list(made.values()))

    def step(carry, inputs):
        carry = jax.vmap(module)(inputs, carry)
        return carry, carry[0] if cell == "lstm" else carry

    return run_steps(step, x, (h, c) if cell == "lstm" else h)


def run_haiku(made, cell, form, x, h, c):
    haiku = pytest.importorskip("haiku")
    kinds = {"gru": haiku.GRU, "lstm": haiku.LSTM, "rnn": haiku.VanillaRNN}

    def step(inputs, state):
        return kinds[cell](HIDDEN, name="core")(inputs, state)

    transformed = haiku.without_apply_rng(haiku.transform(step))
    arrays = nested(made)
    params = {"core": arrays} if cell == "gru" else {f"core/{name}": inner for name, inner in arrays.items()}
    carry = haiku.LSTMState(h, c) if cell == "lstm" else h
    return run_steps(lambda state, inputs: transformed.apply(params, inputs, state)[::-1], x, carry)


def nested(made):
    """linear/w as {"linear": {"w": ...}}."""
    tree: dict = {}
    for name, array in made.items():
        *path, last = name.split("/")
        inner = tree
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = array
    return tree


# The documented equations of what cannot be installed here, and of the texts


def run_onednn(made, cell, form, x, h, c):
    w, u, b = made["weights_layer"][0, 0], made["weights_iter"][0, 0], made["bias"][0, 0]

    def step(carry, x):
        h, c = carry

        def both(gate):
            return x @ w[:, gate] + h @ u[:, gate] + b[gate]

        if cell == "rnn":
            h = {"tanh": np.tanh, "relu": relu}[form](both(0))
        elif cell == "lstm":
            c = sigmoid(both(1)) * c + sigmoid(both(0)) * np.tanh(both(2))
            h = np.tanh(c) * sigmoid(both(3))
        else:
            update, reset = sigmoid(both(0)), sigmoid(both(1))
            recurrent = reset * (h @ u[:, 2] + b[3]) if form == "after" else (reset * h) @ u[:, 2]
            h = update * h + (1 - update) * np.tanh(x @ w[:, 2] + recurrent + b[2])
        return (h, c), h

    return run_steps(step, x, (h, c))


def run_haste(made, cell, form, x, h, c):
    def step(carry, x):
        h, c = carry
        if cell == "gru":
            wx, uh = x @ made["kernel"] + made["bias"], h @ made["recurrent_kernel"] + made["recurrent_bias"]
            (wz, wr, wg), (uz, ur, ug) = np.split(wx, 3, -1), np.split(uh, 3, -1)
            z = sigmoid(wz + uz)
            h = z * h + (1 - z) * np.tanh(wg + sigmoid(wr + ur) * ug)
        else:
            i, g, f, o = np.split(x @ made["kernel"] + h @ made["recurrent_kernel"] + made["bias"], 4, -1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        return (h, c), h

    return run_steps(step, x, (h, c))


def run_paper(made, x, h, mix):
    def step(h, x):
        z = sigmoid(x @ made["W_z"].T + h @ made["U_z"].T + made["b_z"])
        r = sigmoid(x @ made["W_r"].T + h @ made["U_r"].T + made["b_r"])
        h = mix(z, h, np.tanh(x @ made["W"].T + (r * h) @ made["U"].T + made["b"]))
        return h, h

    return run_steps(step, x, h)


def run_cho2014(made, cell, form, x, h, c):
    return run_paper(made, x, h, lambda z, old, new: z * old + (1 - z) * new)


def run_chung2014(made, cell, form, x, h, c):
    return run_paper(made, x, h, lambda z, old, new: (1 - z) * old + z * new)


def run_tutorial(made, cell, form, x, h, c):
    def step(carry, x):
        h, c = carry

        def both(gate, h=h):
            return x @ made[f"W_x{gate}"] + h @ made[f"W_h{gate}"] + made[f"b_{gate}"]

        if cell == "rnn":
            h = {"tanh": np.tanh, "relu": relu}[form](both("h"))
        elif cell == "lstm":
            c = sigmoid(both("f")) * c + sigmoid(both("i")) * np.tanh(both("c"))
            h = sigmoid(both("o")) * np.tanh(c)
        else:
            z, r = sigmoid(both("z")), sigmoid(both("r"))
            h = z * h + (1 - z) * np.tanh(both("h", r * h))
        return (h, c), h

    return run_steps(step, x, (h, c))


def run_tutorial_stacked(made, cell, form, x, h, c):
    def step(carry, x):
        h, c = carry

        def both(gate, h=h):
            return np.concatenate([h, x], -1) @ made[f"W{gate}"].T + made[f"b{gate}"]

        if cell == "lstm":
            c = sigmoid(both("_f")) * c + sigmoid(both("_i")) * np.tanh(both("_C"))
            h = sigmoid(both("_o")) * np.tanh(c)
        else:
            z, r = sigmoid(both("_z")), sigmoid(both("_r"))
            h = (1 - z) * h + z * np.tanh(both("", r * h))
        return (h, c), h

    return run_steps(step, x, (h, c))


RUNS = {name.removeprefix("run_").replace("_", "-"): value for name, value in globals().items() if name[:4] == "run_"}


@pytest.mark.parametrize(("convention", "form"), CASES[5:], ids=IDS[5:])  # the first five are gatewise's own
def test_the_library_does_what_torch_form_says(convention, form):
    weights, (x, h, c) = weights_for(convention), data()
    made = from_torch(weights, convention, form)
    y = RUNS[convention.library](made, convention.cell, form, x, h, c)
    np.testing.assert_allclose(y, expected(convention, form, weights, x, h, c), atol=2e-6)
    back = to_torch(made, convention)
    np.testing.assert_allclose(y, expected(convention, form, back, x, h, c), atol=2e-6)


@pytest.mark.parametrize(("convention", "form"), CASES, ids=IDS)
def test_without_biases(convention, form):
    """An array that a library insists on is zeros; from it come biases of zeros, or of the offset."""
    weights = {name: array for name, array in weights_for(convention).items() if "weight" in name}
    back = to_torch(from_torch(weights, convention, form), convention)
    for name, array in weights.items():
        np.testing.assert_array_equal(back.pop(name), array)
    assert all(not array.any() for array in back.values())
    assert bool(back) == any(not array.optional for array in convention.arrays if not array.columns)


def test_every_convention_is_complete():
    for convention in TABLE:
        gates = set(GATES[convention.cell])
        assert convention.holds("W") == convention.holds("U") == convention.holds("b") == gates
        assert len(convention.letters) == len(gates)
    assert set(SOURCES) == set(LIBRARIES)


# What does not exist


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("kerras", "gru"),
            r"unknown convention 'kerras'; known are gatewise, torch, keras, .*; did you mean \"keras\"\?",
        ),
        (("cuda", "gru"), r"unknown convention 'cuda'; known are gatewise, .*, tutorial-stacked"),
        (("keras", "gruu"), r"expected cell to be one of gru, lstm, rnn, got 'gruu'"),
        (("haste", "rnn"), r"haste has no rnn, only gru, lstm; conventions with rnn: gatewise, torch, keras, .*"),
        (
            ("haiku", "gru", "after"),
            "the GRU of haiku has its reset gate before the recurrent product, this one after it; these are different "
            "functions, and there are no weights with which one does what the other does; conventions that hold it: "
            "gatewise, torch, .*",
        ),
        (("haiku", "rnn", "tanh"), "the RNN of haiku has the nonlinearity relu, this one tanh; conventions that .*"),
        (("onnx", "gru", "between"), "expected the gru of onnx to be before, after, got 'between'"),
        (("keras", "lstm", "after"), "expected the lstm of keras to be given no form, got 'after'"),
    ],
)
def test_find_refuses(arguments, message):
    with pytest.raises(InputError, match=f"^convert: {message}$"):
        find(*arguments)


def test_find_takes_the_default_of_the_library():
    assert [find(library, "gru").forms[0] for library in ("torch", "keras", "onnx", "onednn")] == [
        *("after", "after", "before", "before")
    ]
    with pytest.raises(InputError, match="these are different functions"):
        convert({"w_i": np.zeros((3, 6)), "w_h": np.zeros((2, 6)), "b": np.zeros(6)}, "haiku", "torch")
