"""GRU.stream, step by step, against the layer over the whole sequence and against the reference in float64."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import gatewise as gw
from gatewise.errors import BackendError, InputError, ShapeError
from gatewise.kernels import ops, reference
from gatewise.layers import stream as stream_module
from gatewise.layers.stream import Stream

STATUS = ops.native_status()
native = pytest.mark.skipif(not STATUS.available, reason=str(STATUS.reason))
both_placements = pytest.mark.parametrize("reset", ops.RESETS)
both_weights = pytest.mark.parametrize("weights", [pytest.param("float32"), pytest.param("int8", marks=native)])
SHAPES = [  # T, B, I, H, L
    (3, 1, 1, 1, 1),
    (5, 1, 64, 256, 1),
    (9, 1, 5, 33, 1),
    (9, 2, 1, 17, 2),
    (7, 3, 18, 20, 3),
    (6, 4, 31, 8, 1),
    (5, 5, 9, 15, 2),
    (4, 13, 7, 40, 1),
    (5, 3, 40, 100, 2),
]


def instruction_sets() -> list[str]:
    if not STATUS.available:
        return []
    from gatewise.kernels import _native

    return _native.stream_instruction_sets()


@pytest.fixture
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    from gatewise.kernels import native_calls

    monkeypatch.setattr(native_calls, "float32_instruction_set", lambda: request.param)


each_instruction_set = pytest.mark.parametrize("instruction_set", instruction_sets(), indirect=True)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def layer(*sizes: Any, **arguments: Any) -> Any:
    """A GRU, always the same for the same arguments; as Any, because its parameters have no types."""
    torch.manual_seed(sum(sizes))
    return gw.GRU(*sizes, **arguments)


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def exact(gru: Any, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The top layer's states (T, B, H) and the last ones (L, B, H), by the reference in float64."""
    y, last = x.double(), []
    for number, weights in enumerate(gru.all_weights):
        h0 = y.new_zeros(x.shape[1], gru.hidden_size) if state is None else state[number].double()
        biases = weights[2:] if gru.bias else [None, None]
        wide: list[Any] = [None if weight is None else weight.detach().double() for weight in [*weights[:2], *biases]]
        y, hn = reference.gru(y, h0, *wide, reset=gru.reset)
        last.append(hn)
    return y, torch.stack(last)


def run(stream: Stream, x: Tensor) -> Tensor:
    return torch.stack([stream(x_t) for x_t in x])


def shape_id(shape: tuple[int, ...]) -> str:
    return "T{}-B{}-I{}-H{}-L{}".format(*shape)


@native
@each_instruction_set
@both_placements
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
def test_float32_equals_the_whole_sequence(shape, bias, reset, instruction_set):
    steps, batch_size, *sizes = shape
    gru = layer(*sizes, bias=bias, reset=reset)
    x = inputs(steps, batch_size, sizes[0])
    stream = gru.stream(batch_size)
    y, last = exact(gru, x)
    assert (run(stream, x) - y).abs().max() <= 1e-5
    assert (stream.state - last).abs().max() <= 1e-5


@native
@each_instruction_set
@both_placements
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
def test_int8_is_near_the_whole_sequence(shape, bias, reset, instruction_set):
    steps, batch_size, *sizes = shape
    gru = layer(*sizes, bias=bias, reset=reset)
    x = inputs(steps, batch_size, sizes[0])
    y, _ = exact(gru, x)
    assert (run(gru.stream(batch_size, weights="int8"), x) - y).abs().max() <= 2e-2


@native
@both_placements
@pytest.mark.parametrize(("input_size", "hidden_size"), [(16, 16), (64, 64), (64, 256), (1, 33)])
def test_the_documented_error_of_int8(input_size, hidden_size, reset):
    gru = layer(input_size, hidden_size, reset=reset)
    x = inputs(1000, 2, input_size)
    with torch.no_grad():
        y, _ = gru(x)
    error = run(gru.stream(2, weights="int8"), x) - y
    assert error.abs().max() <= 8e-3
    assert error.square().mean().sqrt() <= 1.3e-3
    with torch.no_grad():
        for parameter in gru.parameters():
            parameter.mul_(3)
        y, _ = gru(x)
    assert (run(gru.stream(2, weights="int8"), x) - y).abs().max() <= 4e-2


@native
@each_instruction_set
@both_placements
@pytest.mark.parametrize("input_size", [1, 2, 3, 4, 5, 17, 67])
def test_int8_is_exact_where_all_are_whole_numbers(input_size, reset, instruction_set):
    """Weights, inputs and first state that int8 can hold leave float32's rounding only; r * h is not among them."""
    gru = layer(input_size, 21, reset=reset)
    random = torch.Generator().manual_seed(2)

    def whole(*shape: int) -> Tensor:
        numbers = torch.randint(-127, 128, shape, generator=random)
        numbers[:, 0] = 127
        return numbers / 127

    with torch.no_grad():
        for name, parameter in gru.named_parameters():
            if name.startswith("weight"):
                parameter.copy_(whole(*parameter.shape))
        if reset == "before":
            gru.weight_hh_l0[42:] = 0
    stream = gru.stream(3, weights="int8")
    x, first = whole(3, input_size), whole(3, 21)
    stream.state = first[None]
    y, _ = exact(gru, x[None], first[None])
    assert (stream(x) - y[0]).abs().max() <= 2e-6


@native
def test_instruction_sets_agree_in_int8():
    from gatewise.kernels import native_stream

    gru, x = layer(13, 37, 2), inputs(5, 3, 13)
    results = []
    for name in instruction_sets():
        names: list[str | None] = [
            f"{kind}_l{number}" for number in (0, 1) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        step = native_stream.open_stream(
            dict(gru.named_parameters()), names, (2, 3, 13, 37), reset="after", int8=True, instruction_set=name
        )
        assert step.instruction_set == name
        h = np.empty((3, 37), np.float32)
        for x_t in x.numpy():
            assert step.step(x_t, h, 1) is None
        results.append(torch.from_numpy(h))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=1e-5)


@native
@both_placements
@both_weights
def test_the_number_of_threads_changes_nothing(weights, reset, two_threads):
    gru, x = layer(60, 300, 2, reset=reset), inputs(40, 4, 60)
    several = run(gru.stream(4, weights=weights), x)
    torch.set_num_threads(1)
    assert torch.equal(run(gru.stream(4, weights=weights), x), several)


@pytest.mark.parametrize(
    ("dtype", "weights"),
    [
        pytest.param(torch.float32, "float32", id="float32"),
        pytest.param(torch.float64, "float32", id="float64"),
        pytest.param(torch.float32, "int8", id="int8", marks=native),
    ],
)
def test_the_result_is_of_the_inputs_kind(dtype, weights):
    gru = layer(3, 4, dtype=dtype)
    x = inputs(1, 3).to(dtype)
    expected = gru.stream(weights=weights)(x)
    assert expected.shape == (1, 4)
    assert expected.dtype == dtype
    assert not expected.requires_grad
    assert not expected.is_inference()
    for given, shape in ((x[0], (4,)), (x.numpy(), (1, 4)), (x[0].numpy(), (4,)), (x.clone().requires_grad_(), (1, 4))):
        result = gru.stream(weights=weights)(given)
        assert type(result) is type(given)
        assert result.shape == shape
        assert np.array_equal(np.asarray(result).reshape(1, 4), expected)


@both_weights
def test_any_layout_of_the_input(weights):
    gru, x = layer(6, 5), inputs(4, 6)
    expected = gru.stream(4, weights=weights)(x)
    array = x.numpy()
    misaligned = np.frombuffer(b"\0" + array.tobytes(), np.float32, offset=1).reshape(4, 6)
    frozen = array.copy()
    frozen.flags.writeable = False
    layouts = (x.T.contiguous().T, x.repeat_interleave(2, 1)[:, ::2], np.asfortranarray(array), misaligned, frozen)
    for same in (*layouts, np.ascontiguousarray(array[::-1])[::-1]):
        assert np.array_equal(gru.stream(4, weights=weights)(same), expected)


@both_weights
def test_results_stay_as_they_are(weights):
    stream, x = layer(2, 3).stream(weights=weights), inputs(5, 1, 2)
    results = [stream(x_t) for x_t in x]
    copies = [result.clone() for result in results]
    state = stream.state
    kept = state.clone()
    results[-1].zero_()
    state.zero_()
    assert torch.equal(stream.state, kept)
    run(stream, x)
    assert all(torch.equal(*pair) for pair in zip(results[:-1], copies[:-1], strict=True))


@both_placements
@both_weights
def test_save_and_set_the_state(weights, reset):
    gru, x = layer(4, 5, 2, reset=reset), inputs(8, 3, 4)
    stream = gru.stream(3, weights=weights)
    assert torch.equal(stream.state, torch.zeros(2, 3, 5))
    run(stream, x[:4])
    saved = stream.state
    rest = run(stream, x[4:])
    assert torch.equal(stream.state[-1], rest[-1])

    stream.state = saved
    assert torch.equal(run(stream, x[4:]), rest)
    other = gru.stream(3, weights=weights)
    other.state = saved.transpose(0, 1).contiguous().transpose(0, 1).numpy()
    assert torch.equal(run(other, x[4:]), rest)
    stream.reset()
    assert torch.equal(stream.state, torch.zeros(2, 3, 5))


def test_a_stream_goes_on_where_the_layer_ended():
    gru, x = layer(4, 5, 3), inputs(8, 2, 4)
    with torch.no_grad():
        y, _ = gru(x)
        _, hn = gru(x[:5])
    stream = gru.stream(2)
    stream.state = hn
    torch.testing.assert_close(run(stream, x[5:]), y[5:])


@both_weights
def test_no_dropout_in_training_mode(weights):
    gru, x = layer(4, 6, 3, dropout=0.9), inputs(5, 2, 4)
    streams = [gru.train(mode).stream(2, weights=weights) for mode in (True, False)]
    assert torch.equal(run(streams[0], x), run(streams[1], x))


@native
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_int8_says_nan_of_what_it_cannot_hold(bad):
    gru, x = layer(5, 20), inputs(3, 5)
    x[1, 2] = bad
    h = gru.stream(3, weights="int8")(x)
    assert h.isnan().all(1).tolist() == [False, True, False]
    with torch.no_grad():
        gru.weight_hh_l0[3, 7] = bad
    h = gru.stream(3, weights="int8")(inputs(3, 5))
    assert h.isnan().any(0).nonzero().tolist() == [[3]]


@native
def test_float32_passes_infinity_and_nan_on_as_the_layer_does():
    gru, x = layer(5, 20), inputs(3, 5)
    x[1, 2], x[2, 0] = float("inf"), float("nan")
    with torch.no_grad():
        torch.testing.assert_close(gru.stream(3)(x), gru(x[None])[0][0], equal_nan=True)


@native
@pytest.mark.parametrize("factor", [0.0, 1e-38, 1e-20, 1e20])
def test_int8_of_tiny_and_huge_rows(factor):
    gru = layer(5, 20)
    with torch.no_grad():
        gru.weight_hh_l0.mul_(factor)
        x = inputs(4, 2, 5) / max(factor, 1e-30)
        y, _ = gru(x)
    assert (run(gru.stream(2, weights="int8"), x) - y).abs().max() <= 1e-2


EDITS: dict[str, Callable[[Any], Any]] = {
    "in-place": lambda gru: gru.weight_hh_l0.add_(1),
    "one-element": lambda gru: gru.bias_ih_l1[3].fill_(1),
    "and-back": lambda gru: gru.weight_ih_l0.add_(1).sub_(1),
    "optimizer": lambda gru: optimizer_step(gru),
    "load_state_dict": lambda gru: gru.load_state_dict(gru.state_dict()),
    "load-and-assign": lambda gru: gru.load_state_dict(gru.state_dict(), assign=True),
    "assignment": lambda gru: setattr(gru, "bias_hh_l1", nn.Parameter(gru.bias_hh_l1.clone())),
    "deletion": lambda gru: delattr(gru, "bias_hh_l1"),
    "data-swap": lambda gru: setattr(gru.weight_hh_l1, "data", gru.weight_hh_l1.data.clone()),
    "double": lambda gru: gru.double(),
    "parametrization": lambda gru: parametrizations.weight_norm(gru, "weight_hh_l1"),
    "data-transposed": lambda gru: setattr(gru.weight_ih_l0, "data", gru.weight_ih_l0.data.t()),
}
CHANGED_NAMES = {
    "in-place": "weight_hh_l0",
    "one-element": "bias_ih_l1",
    "and-back": "weight_ih_l0",
    "assignment": "bias_hh_l1",
    "deletion": "bias_hh_l1",
    "data-swap": "weight_hh_l1",
    "parametrization": "weight_hh_l1",
}


def optimizer_step(gru: Any) -> None:
    with torch.enable_grad():
        gru(inputs(3, 2, 12))[0].sum().backward()
    torch.optim.SGD(gru.parameters(), 0.1).step()


@both_weights
@pytest.mark.parametrize("edit", EDITS)
def test_a_weight_that_has_changed(edit, weights):
    gru = layer(12, 4, 2)
    stream = gru.stream(2, weights=weights)
    x = inputs(2, 12)
    stream(x)
    state = stream.state
    with torch.no_grad():
        EDITS[edit](gru)
    for _ in range(2):
        with pytest.raises(InputError) as error:
            stream(x)
        again = "layer.stream(2)" if weights == "float32" else "layer.stream(2, weights='int8')"
        name = CHANGED_NAMES.get(edit, "weight_ih_l0")
        expected = f"GRU.stream: {name} has changed since the stream was opened; open a new one by {again}"
        assert str(error.value) == expected
        assert torch.equal(stream.state, state)


@both_weights
def test_a_swap_back_to_the_same_address(weights):
    """The allocator may give the old weight's memory to the new one, unless the stream keeps it."""
    gru = layer(12, 40)
    stream = gru.stream(weights=weights)
    gru.weight_hh_l0.data = gru.weight_hh_l0.data.clone()
    gru.weight_hh_l0.data = gru.weight_hh_l0.data * 2
    with pytest.raises(InputError, match="weight_hh_l0 has changed"):
        stream(inputs(1, 12))


BEHIND_TORCHS_BACK: dict[str, Callable[[Any], Any]] = {
    "data": lambda gru: gru.weight_hh_l0.data.mul_(0.5),
    "negated": lambda gru: gru.weight_ih_l0.data.neg_(),
    "zeroed": lambda gru: gru.weight_ih_l0.data.zero_(),
    "numpy": lambda gru: gru.weight_hh_l0.detach().numpy().fill(0),
    "rows-swapped": lambda gru: gru.weight_hh_l0.data.copy_(gru.weight_hh_l0.data.flip(0)),
    "columns-swapped": lambda gru: gru.weight_hh_l0.data.copy_(gru.weight_hh_l0.data.flip(1)),
    "biases-exchanged": lambda gru: exchange(gru.bias_ih_l0.data, gru.bias_hh_l0.data),
}


def exchange(a: Tensor, b: Tensor) -> None:
    kept = a.clone()
    a.copy_(b)
    b.copy_(kept)


@native
@both_weights
@each_instruction_set
@pytest.mark.parametrize("edit", BEHIND_TORCHS_BACK)
@pytest.mark.parametrize("hidden_size", [2, 33, 256])
def test_an_edit_behind_torchs_back_is_noticed_at_once(hidden_size, edit, weights, instruction_set):
    gru = layer(20, hidden_size)
    stream, x = gru.stream(weights=weights), inputs(1, 20)
    stream(x)
    state = stream.state
    BEHIND_TORCHS_BACK[edit](gru)
    for _ in range(2):
        with pytest.raises(InputError) as error:
            stream(x)
        assert "GRU.stream: a weight's content has changed since the stream was opened; open a new" in str(error.value)
        assert torch.equal(stream.state, state)


@native
@both_weights
@pytest.mark.parametrize("hidden_size", [24, 256])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
def test_every_element_is_compared_within_31_steps(name, hidden_size, weights):
    gru = layer(20, hidden_size)
    x = inputs(1, 20)
    values = gru.get_parameter(name).detach().numpy().reshape(-1)
    for i in (0, 16 * 5 + 3, values.size // 2, values.size - 1):
        i %= values.size
        stream = gru.stream(weights=weights)
        values[i] = np.nextafter(values[i], np.float32(1))
        allowed = 1 if hidden_size == 24 else 31
        noticed = 0
        for _ in range(allowed):
            try:
                stream(x)
            except InputError:
                noticed += 1
        assert noticed > 0


@native
def test_until_an_edit_is_noticed_float32_uses_the_weights_as_they_are():
    gru, x = layer(64, 256), inputs(31, 1, 64)
    stream = gru.stream()
    gru.weight_hh_l0.detach().numpy()[700, 100] = 3
    state, seen = None, 0
    for x_t in x:
        before = stream.state
        try:
            h = stream(x_t)
        except InputError:
            break
        y, state = exact(gru, x_t[None], before)
        assert (h - y[0]).abs().max() <= 1e-5
        seen += 1
    assert 0 < seen < 31
    assert state is not None


MISTAKES: dict[str, tuple[Any, type[Exception], str]] = {
    "list": ([1.0], InputError, "GRU.stream: expected x_t to be a NumPy array or a tensor, got list"),
    "float64-array": (
        np.zeros((2, 3)),
        ShapeError,
        "GRU.stream: expected x_t in float32 like the weights, got float64; convert it",
    ),
    "int-tensor": (
        torch.zeros(2, 3, dtype=torch.int64),
        ShapeError,
        "GRU.stream: expected x_t in float32 like the weights, got int64; convert it",
    ),
    "bfloat16-tensor": (
        torch.zeros(2, 3, dtype=torch.bfloat16),
        ShapeError,
        "GRU.stream: expected x_t in float32 like the weights, got bfloat16; convert it",
    ),
    "big-endian": (
        np.zeros((2, 3), ">f4"),
        ShapeError,
        "GRU.stream: expected x_t in float32 like the weights, got >f4; convert it",
    ),
    "device": (
        torch.zeros(2, 3, device="meta"),
        ShapeError,
        "GRU.stream: expected x_t on cpu like the weights, got meta",
    ),
    "batch": (
        torch.zeros(4, 3),
        ShapeError,
        "GRU.stream: expected x_t (B, I) = (2, 3), got (4, 3); this stream was opened by layer.stream(2)",
    ),
    "features": (
        np.zeros((2, 4), np.float32),
        ShapeError,
        "GRU.stream: expected x_t (B, I) = (2, 3), got (2, 4); this stream was opened by layer.stream(2)",
    ),
    "sequence": (
        torch.zeros(1, 2, 3),
        ShapeError,
        "GRU.stream: expected x_t (B, I) = (2, 3), got (1, 2, 3); this stream was opened by layer.stream(2)",
    ),
    "single": (
        torch.zeros(3),
        ShapeError,
        "GRU.stream: expected x_t (B, I) = (2, 3), got (3,); this stream was opened by layer.stream(2)",
    ),
    "scalar": (
        np.zeros((), np.float32),
        ShapeError,
        "GRU.stream: expected x_t (B, I) = (2, 3), got (); this stream was opened by layer.stream(2)",
    ),
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("x", "kind", "message"), MISTAKES.values(), ids=MISTAKES)
def test_inputs_that_do_not_fit(x, kind, message, backend):
    stream = layer(3, 5, backend=backend).stream(2)
    with pytest.raises(kind) as error:
        stream(x)
    assert str(error.value) == message
    assert torch.equal(stream.state, torch.zeros(1, 2, 5))


def test_batch_one_names_both_forms():
    with pytest.raises(ShapeError) as error:
        layer(3, 5).stream()(torch.zeros(2, 3))
    assert str(error.value) == (
        "GRU.stream: expected x_t (B, I) = (1, 3) or (3,), got (2, 3); this stream was opened by layer.stream(1)"
    )


def test_states_that_do_not_fit():
    stream = layer(3, 5, 2).stream(4)
    with pytest.raises(ShapeError) as error:
        stream.state = torch.zeros(4, 5)
    assert str(error.value) == (
        "GRU.stream: expected state (L, B, H) = (2, 4, 5), got (4, 5); this stream was opened by layer.stream(4)"
    )
    with pytest.raises(ShapeError) as error:
        stream.state = np.zeros((2, 4, 5))
    assert str(error.value) == "GRU.stream: expected state in float32 like the weights, got float64; convert it"
    with pytest.raises(InputError) as error:
        stream.state = 0  # pyright: ignore[reportAttributeAccessIssue]
    assert str(error.value) == "GRU.stream: expected state to be a NumPy array or a tensor, got int"


def test_requests_that_make_no_sense():
    gru = layer(3, 5)
    with pytest.raises(InputError) as error:
        gru.stream(weights="int4")
    assert str(error.value) == "GRU.stream: unknown weights 'int4'; expected one of float32, int8"
    for batch_size in (0, -1, 2.0, None):
        with pytest.raises(InputError) as error:
            gru.stream(batch_size)
        expected = f"GRU.stream: expected batch_size to be a whole number >= 1, got {batch_size!r}"
        assert str(error.value) == expected
    with pytest.raises(InputError) as error:
        layer(3, 5, bidirectional=True).stream()
    assert str(error.value) == (
        "GRU.stream: a bidirectional layer cannot stream: its backward direction begins at the last step, which a "
        "stream does not know"
    )
    prune.l1_unstructured(gru, "weight_hh_l0", amount=0.5)
    with pytest.raises(InputError) as error:
        gru.stream()
    assert str(error.value) == (
        "GRU.stream: weight_hh_l0 is computed by a hook, which a stream does not run; remove the hook"
    )


def transposed(gru: Any) -> Any:
    gru.weight_hh_l0.data = gru.weight_hh_l0.data.t().contiguous().t()
    return gru


UNSERVED: dict[str, tuple[Callable[[], Any], str]] = {
    "dtype": (
        lambda: layer(3, 5).double(),
        "it reads float32 on the CPU, but weight_ih_l0 is torch.float64 on cpu",
    ),
    "bfloat16": (
        lambda: layer(3, 5, 2).bfloat16(),
        "it reads float32 on the CPU, but weight_ih_l0 is torch.bfloat16 on cpu",
    ),
    "backend": (lambda: layer(3, 5, backend="reference"), "the layer insists on backend='reference'"),
    "torch": (lambda: layer(3, 5, bias=False, backend="torch"), "the layer insists on backend='torch'"),
    "parametrized": (
        lambda: parametrizations.weight_norm(layer(3, 5), "weight_hh_l0"),
        "weight_hh_l0 is parametrized",
    ),
    "not-contiguous": (lambda: transposed(layer(3, 5)), "weight_hh_l0 is not contiguous"),
}


@native
@pytest.mark.parametrize(("make", "reason"), UNSERVED.values(), ids=UNSERVED)
def test_what_the_native_step_cannot_serve(make, reason):
    gru = make()
    with pytest.raises(BackendError) as error:
        gru.stream(weights="int8")
    assert str(error.value) == (f"GRU.stream: weights='int8' needs the native kernel, which cannot serve: {reason}")
    x = inputs(6, 2, 3).to(gru.weight_ih_l0.dtype)
    stream = gru.stream(2)
    with torch.no_grad():
        y, hn = gru(x)
    tolerance = 2e-2 if x.dtype == torch.bfloat16 else 1e-6
    result = run(stream, x)
    torch.testing.assert_close(result, y, atol=tolerance, rtol=0)
    torch.testing.assert_close(stream.state, hn, atol=tolerance, rtol=0)
    assert result.dtype == x.dtype
    with torch.no_grad():
        next(gru.parameters()).add_(1)
    with pytest.raises(InputError, match="has changed since the stream was opened"):
        stream(x[0])


@native
def test_a_backend_that_is_insisted_on_is_the_one_used():
    with pytest.raises(BackendError) as error:
        layer(3, 5, backend="native").double().stream()
    assert str(error.value) == (
        "GRU.stream: backend='native' needs the native kernel, which cannot serve: it reads float32 on the CPU, but "
        "weight_ih_l0 is torch.float64 on cpu"
    )


def test_without_the_native_kernel(monkeypatch):
    monkeypatch.setattr(stream_module, "native_stream", None)
    status = ops.NativeStatus(False, None, False, "it is not part of this installation")
    monkeypatch.setattr(ops, "native_status", lambda: status)
    gru, x = layer(3, 5, 2, reset="before"), inputs(4, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = run(gru.stream(2), x)
    assert (result - exact(gru, x)[0]).abs().max() <= 1e-5
    with pytest.raises(BackendError) as error:
        gru.stream(weights="int8")
    assert str(error.value) == (
        "GRU.stream: weights='int8' needs the native kernel, which cannot serve: it is not part of this installation"
    )


@native
def test_too_long_rows_for_int8(monkeypatch):
    monkeypatch.setattr(stream_module.native_stream, "MOST_INT8_INPUTS", 8)
    layer(8, 8).stream(weights="int8")
    with pytest.raises(BackendError) as error:
        layer(8, 9).stream(weights="int8")
    assert str(error.value) == (
        "GRU.stream: weights='int8' needs the native kernel, which cannot serve: rows of 9 weights are too long for "
        "int8; at most 8"
    )


@native
def test_the_longest_rows_that_int8_takes():
    """The largest sums that can come about fit into int32."""
    gru = layer(65_536, 1)
    with torch.no_grad():
        gru.weight_ih_l0.fill_(1e-5)
    x = torch.ones(1, 65_536)
    y, _ = exact(gru, x[None])
    assert (gru.stream(weights="int8")(x) - y[0]).abs().max() <= 1e-5


@both_weights
def test_layers_and_streams_under_inference_mode(weights):
    x = inputs(4, 1, 3)
    expected = run(layer(3, 5).stream(weights=weights), x)
    with torch.inference_mode():
        gru = layer(3, 5)
        assert torch.equal(run(gru.stream(weights=weights), x), expected)
    stream = gru.stream(weights=weights)
    assert torch.equal(run(stream, x), expected)
    gru.weight_hh_l0.data = gru.weight_hh_l0.data.clone()
    with pytest.raises(InputError, match="weight_hh_l0 has changed"):
        stream(x[0])


@both_weights
@pytest.mark.parametrize("hidden_size", [16, 400], ids=["short-steps", "long-steps"])
def test_streams_in_several_threads(hidden_size, weights):
    gru, x = layer(8, hidden_size), inputs(30, 3, 8)
    expected = run(gru.stream(3, weights=weights), x)
    streams = [gru.stream(3, weights=weights) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda stream: run(stream, x), streams):
            assert torch.equal(result, expected)
        # One stream, called by all: some order of the steps.
        shared = gru.stream(3, weights=weights)
        list(pool.map(shared, [x[0]] * 20))
    alone = gru.stream(3, weights=weights)
    run(alone, x[:1].expand(20, -1, -1))
    assert torch.equal(shared.state, alone.state)


def test_a_stream_keeps_its_layer_alive():
    x = inputs(3, 1, 3)
    stream = layer(3, 5).stream()
    assert torch.equal(run(stream, x), run(layer(3, 5).stream(), x))


@both_weights
def test_a_stream_begins_with_the_state_that_the_layer_has_learned(weights):
    layer = gw.GRU(5, 12, num_layers=2, learn_initial_state=True)
    torch.nn.init.uniform_(layer.h0)
    stream = layer.stream(3, weights=weights)
    expected = layer.h0.detach().unsqueeze(1).expand(2, 3, 12)
    torch.testing.assert_close(stream.state, expected)
    stream(torch.randn(3, 5))
    stream.reset()
    torch.testing.assert_close(stream.state, expected)
