"""The recurrent layers and cells under what works on whole programs: torch.func, torch.compile, torch.export, parallel
training, checkpoints, hooks; against the reference in float64, or against the same without."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kinds import ALL, without_projection
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor.exc import InductorError
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vjp, vmap
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint

import gatewise as gw
from gatewise.errors import BackendError, InputError
from gatewise.kernels import ops

T, B, I, H = 6, 4, 5, 7  # noqa: E741
KINDS = without_projection(ALL)
every_kind = pytest.mark.parametrize("kind", KINDS)
native = pytest.mark.skipif(not ops.native_status().available, reason=str(ops.native_status().reason))
# Where torch has no rule for vmap it loops and warns.
pytestmark = [
    pytest.mark.filterwarnings("error:There is a performance drop"),
    pytest.mark.filterwarnings(
        "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
    ),  # torch's, in forward mode
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def make(kind: str, cell: str = "", **arguments: Any) -> Any:
    name, own, *_ = KINDS[kind]
    torch.manual_seed(0)
    return getattr(gw, name + cell)(I, H, **arguments, **own)


def pair(kind: str, cell: str = "", backend: str = "native", **arguments: Any) -> tuple[Any, Any]:
    """A layer, and the reference in float64 with the same parameters."""
    layer = make(kind, cell, backend=backend, **arguments)
    exact = make(kind, cell, backend="reference", **arguments).double()
    exact.load_state_dict(layer.state_dict())
    return layer, exact


def inputs(*shape: int) -> Tensor:
    return torch.randn(*(shape or (T, B, I)), generator=torch.Generator().manual_seed(1))


def marks(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(2)) < 0.3


def parameters_of(layer: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in layer.named_parameters()}


def double(value: Any) -> Any:
    return tree_map(lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t, value)


def assert_close(found: Any, expected: Any, limit: float = 1e-5) -> None:
    found, expected = tree_leaves(found), tree_leaves(expected)
    assert [value.shape for value in found] == [value.shape for value in expected]
    errors = [
        ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-30)).item()
        for a, b in zip(found, expected, strict=True)
    ]
    assert all(error <= limit for error in errors), errors


def weighted(outputs: Any) -> Tensor:
    """A loss of which every element of every output has its own weight."""
    parts = [value for value in tree_leaves(outputs) if isinstance(value, Tensor) and value.is_floating_point()]
    return torch.stack(
        [
            (part.square() * torch.linspace(0.5, 1, part.numel(), dtype=part.dtype).view(part.shape)).sum()
            for part in parts
        ]
    ).sum()


def loss_of(layer: nn.Module) -> Callable[..., Tensor]:
    return lambda parameters, x, **how: weighted(functional_call(layer, parameters, (x,), how))


def check(transformed: Callable[..., Any], pair: tuple[Any, Any], *arguments: Any) -> None:
    """What transformed(layer) gives of parameters and arguments, by both of the pair."""
    found, expected = (
        transformed(layer)(change(parameters_of(pair[0])), *(change(argument) for argument in arguments))
        for layer, change in zip(pair, (lambda value: value, double), strict=True)
    )
    assert_close(found, expected)


# torch.func


@native
@every_kind
def test_grad_and_vjp(kind):
    layers = pair(kind, num_layers=2, bidirectional=True)
    check(lambda layer: grad(loss_of(layer), (0, 1)), layers, inputs())

    def pulled(layer: Any) -> Any:
        def of(parameters: Any, x: Tensor) -> Any:
            pulled: Any = vjp(lambda p, x: functional_call(layer, p, (x,)), parameters, x)
            return pulled[1](tree_map(lambda out: out.flip(0), pulled[0]))

        return of

    check(pulled, layers, inputs())


@native
@every_kind
def test_auto_is_native_under_transforms(kind):
    x, rows = inputs(), torch.tensor([3, 6, 0, 4])
    found, expected = (
        (
            grad(loss_of(layer))(parameters_of(layer), x, lengths=rows),
            vmap(grad(loss_of(layer)), (None, 1))(parameters_of(layer), x),
        )
        for layer in (make(kind), make(kind, backend="native"))
    )
    assert_close(found, expected, limit=0)


HOW: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": torch.tensor([[3, 1], [6, 2], [1, 0]])},
    "resets": {"resets": marks(3, T, 2)},
    "lengths-resets": {"lengths": torch.tensor([[3, 6], [5, 2], [1, 1]]), "resets": marks(3, T, 2)},
    "lengths-checkpoints": {"lengths": torch.tensor([[3, 6], [5, 2], [0, 1]]), "checkpoint_every": 2},
    "checkpoints": {"checkpoint_every": 4},
}


@native
@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@every_kind
def test_gradients_of_each_sample(kind, how):
    """Three samples of two rows each; gradients of the weights, of the inputs, and of both."""
    layers, x = pair(kind, bidirectional=True), inputs(T, 3, 2, I)
    rows = {name: value for name, value in how.items() if isinstance(value, Tensor)}
    others = {name: value for name, value in how.items() if name not in rows}

    def of_each(layer: Any) -> Any:
        loss = loss_of(layer)

        def one(parameters: Any, x: Tensor, *values: Tensor) -> Any:
            given = dict(zip(rows, values, strict=True)) | others
            run = functional_call(layer, parameters, (x,), given)
            return run, *(grad(loss, which)(parameters, x, **given) for which in (0, 1, (0, 1)))

        return vmap(one, (None, 1, *[0] * len(rows)), randomness="error")

    check(of_each, layers, x, *rows.values())
    shared = lambda layer: vmap(grad(lambda p, x: loss_of(layer)(p, x, **_first(how)), (0, 1)), (None, 1))  # noqa: E731
    check(shared, layers, x)


def _first(how: dict[str, Any]) -> dict[str, Any]:
    return {name: value[0] if isinstance(value, Tensor) else value for name, value in how.items()}


@native
@every_kind
def test_packed_rows_of_each_sample(kind):
    layers = pair(kind, bidirectional=True)
    whole = pack_padded_sequence(inputs(5, 3, I), torch.tensor([5, 3, 1]))

    def of_each(layer: Any) -> Any:
        def loss(parameters: Any, data: Tensor) -> Tensor:
            return weighted(functional_call(layer, parameters, (whole._replace(data=data),)))

        return vmap(lambda p, data: (loss(p, data), grad(loss, 0)(p, data), grad(loss, 1)(p, data)), (None, 1))

    check(of_each, layers, inputs(len(whole.data), 2, I))


@native
@every_kind
def test_ensembles(kind):
    """Weights of several layers at once, for the same input and for an input each; and rows mapped, too."""
    members = [make(kind, backend="native") for _ in range(3)]
    for member in members[1:]:
        member.reset_parameters()
    stacked, _ = stack_module_state(members)
    stacked = {name: value.detach() for name, value in stacked.items()}
    exact = pair(kind)[1]

    def all_of(layer: Any, p: Any, x: Tensor) -> Any:
        run = lambda p, x: functional_call(layer, p, (x,))  # noqa: E731
        each = x.unsqueeze(0) * torch.tensor([1, 2, 3]).view(3, 1, 1, 1)
        return (
            vmap(run, (0, None))(p, x),
            vmap(vmap(run, (None, 1)), (0, None))(p, x),
            vmap(vmap(run, (0, None)), (None, 1))(p, x),
            vmap(grad(loss_of(layer), (0, 1)))(p, each),
            grad(lambda p: weighted(vmap(run)(p, each)))(p),
        )

    assert_close(all_of(members[0], stacked, inputs()), all_of(exact, double(stacked), inputs().double()))


@native
@every_kind
def test_a_sum_over_a_map(kind):
    """A gradient may be wanted where the mapped function itself sees none: of a map, and of what lies around it."""
    layers = pair(kind)
    check(
        lambda layer: grad(lambda p, x: weighted(vmap(lambda x: functional_call(layer, p, (x,)), 1)(x)), (0, 1)),
        layers,
        inputs(),
    )
    one = torch.tensor(2.0)
    check(
        lambda layer: grad(lambda p, x, s: grad(lambda s, p, x: s * loss_of(layer)(p, x))(s, p, x), (0, 1)),
        layers,
        inputs(),
        one,
    )
    layer, exact = layers
    x = inputs().requires_grad_()
    y, last = vmap(layer, 1, 1)(x)
    leaves = [x, *layer.parameters()]
    wide = x.detach().double().requires_grad_()
    expected = torch.autograd.grad(weighted(vmap(exact, 1, 1)(wide)), [wide, *exact.parameters()])
    assert_close(torch.autograd.grad(weighted((y, last)), leaves), expected)


@native
@pytest.mark.parametrize("how", HOW)
@every_kind
def test_jacobians(kind, how):
    layers, given = pair(kind), _first(HOW[how])
    given |= {"lengths": torch.tensor([0, 3])} if "lengths" in given else {}
    given |= {"resets": marks(3, 2)} if "resets" in given else {}
    run = lambda layer: lambda p, x: functional_call(layer, p, (x,), given)[0]  # noqa: E731
    check(lambda layer: jacrev(run(layer), (0, 1)), layers, inputs(3, 2, I))
    check(lambda layer: lambda p, x: jacrev(lambda x: run(layer)(p, x))(x), layers, inputs(3, 2, I))


@native
@every_kind
def test_second_derivatives(kind):
    """Both passes of grad(grad()) run natively at first; what is then derived again is the reference."""
    layers = pair(kind, bidirectional=True)

    def penalty(layer: Any, **how: Any) -> Callable[..., Tensor]:
        return lambda p, x: weighted(grad(loss_of(layer), (0, 1))(p, x, **how))

    check(lambda layer: grad(penalty(layer), (0, 1)), layers, inputs())
    check(lambda layer: vmap(grad(penalty(layer), (0, 1)), (None, 1)), layers, inputs(T, 2, 3, I))
    rows = {"lengths": torch.tensor([3, 6, 0, 4]), "resets": marks(T, B), "checkpoint_every": 2}
    check(lambda layer: grad(penalty(layer, **rows), (0, 1)), layers, inputs())
    packed = pack_padded_sequence(inputs(), torch.tensor([6, 3, 2, 2]))
    outcomes = []
    for layer, data in zip(layers, (packed.data, packed.data.double()), strict=True):
        leaves = [data.detach().requires_grad_(), *layer.parameters()]
        outputs = layer(packed._replace(data=leaves[0]))
        slopes = torch.autograd.grad(weighted(outputs), leaves, create_graph=True)
        outcomes.append((slopes, torch.autograd.grad(weighted(slopes), leaves)))
    assert_close(*outcomes)
    check(lambda layer: lambda p, x: jacrev(jacrev(lambda x: loss_of(layer)(p, x)))(x), layers, inputs(2, 1, I))


@native
@every_kind
def test_derivatives_of_any_order(kind):
    layers = pair(kind)
    outcomes, mapped = [], []
    for layer, x in zip(layers, (inputs(), inputs().double()), strict=True):
        rows = {"lengths": torch.tensor([3, 6, 0, 4]), "resets": marks(T, B)}
        leaves = [x.requires_grad_(), *layer.parameters()]
        value, found = weighted(layer(x, **rows)), []
        for _ in range(3):
            slopes = torch.autograd.grad(value, leaves, create_graph=True)
            found.append(slopes)
            value = torch.stack([slope.square().mean() for slope in slopes]).sum()
        outcomes.append(found)
        f: Any = lambda x, layer=layer: weighted(layer(x)[0])  # noqa: E731
        for _ in range(2):
            f = lambda x, f=f: weighted(grad(f)(x))  # noqa: E731
        mapped.append(grad(f)(x.detach()))
    assert_close(*outcomes)
    assert_close(*mapped)


@every_kind
def test_forward_mode(kind):
    """By the reference, that of torch.func.hessian too; a dual number is not taken for a plain one."""
    layers = pair(kind, backend="auto", bidirectional=True)
    check(lambda layer: lambda p, x: hessian(lambda x: loss_of(layer)(p, x))(x), layers, inputs(2, 1, I))
    run = lambda layer: lambda p, x: functional_call(layer, p, (x,))  # noqa: E731
    check(lambda layer: lambda p, x: jvp(run(layer), (p, x), (p, x.flip(0))), layers, inputs())
    tangents = []
    for layer, x in zip(layers, (inputs(), inputs().double()), strict=True):
        with forward_ad.dual_level(), torch.no_grad():
            y, _ = layer(forward_ad.make_dual(x, x.flip(0)))
            tangents.append(forward_ad.unpack_dual(y).tangent)
    assert_close(*tangents)


@native
@every_kind
def test_native_has_no_forward_mode(kind):
    layer, x = make(kind, backend="native"), inputs()
    with pytest.raises(BackendError) as error:
        jvp(lambda x: layer(x)[0], (x,), (x,))
    op = KINDS[kind].layer.lower()
    assert str(error.value) == f"{op}: backend 'native' has no derivatives in forward mode; use backend='auto'"


@every_kind
def test_gates_of_each_sample(kind):
    x, rows = inputs(T, 3, 2, I), torch.tensor([[3, 6], [5, 2], [1, 0]])
    layers = pair(kind, backend="auto", bidirectional=True)
    run = lambda layer, **how: lambda p, x: functional_call(layer, p, (x,), {"return_gates": True, **how})  # noqa: E731
    check(lambda layer: vmap(run(layer), (None, 1)), layers, x)
    check(lambda layer: vmap(lambda p, x, n: run(layer, lengths=n)(p, x), (None, 1, 0)), layers, x, rows)


@native
def test_lengths_that_do_not_fit_are_an_error_under_a_map():
    layer = make("GRU", backend="native")
    for wrong in ([7, 1], [-1, 2]):
        with pytest.raises(InputError, match="expected lengths from 0 to 6, the number of steps of x, got"):
            vmap(lambda x, lengths: layer(x, lengths=lengths)[0], (1, 0))(inputs(T, 1, 2, I), torch.tensor([wrong]))


@native
@every_kind
def test_cells(kind):
    layers, x = pair(kind, "Cell"), inputs(B, I)

    def all_of(layer: Any) -> Any:
        run = lambda p, x: functional_call(layer, p, (x,))  # noqa: E731
        loss = loss_of(layer)
        penalty = lambda p, x: weighted(grad(loss, (0, 1))(p, x))  # noqa: E731
        return lambda p, x: (
            run(p, x),
            grad(loss, (0, 1))(p, x),
            vmap(run, (None, 0))(p, x),
            vmap(grad(loss, (0, 1)), (None, 0))(p, x),
            grad(penalty, (0, 1))(p, x),
            jacrev(lambda x: run(p, x))(x),
        )

    check(all_of, layers, x)


@native
@every_kind
def test_the_backward_is_registered(kind):
    layer, cell = make(kind), KINDS[kind].name
    h0 = torch.zeros(B, H)
    c0 = h0.clone() if kind == "LSTM" else None
    weights = (getattr(layer, f"{name}_l0", None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    given = [inputs(), h0, c0, *(None if weight is None else weight.detach() for weight in weights), None, None]
    y, _, _, saved = torch.ops.gatewise.recurrent(*given, cell, False, False, True, 0)
    leaves = [None if tensor is None else tensor.requires_grad_() for tensor in given]
    wanted = [tensor is not None for tensor in given[:7]]
    grads = (torch.ones_like(y).requires_grad_(), None, None)
    arguments = (*leaves, y, saved, *grads, cell, False, False, 0, wanted)
    torch.library.opcheck(
        torch.ops.gatewise.recurrent_backward.default,
        arguments,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


# torch.compile and torch.export


def trained(run: Callable[..., Any], layer: nn.Module, *arguments: Any, **how: Any) -> Any:
    """Outputs, and the gradients of the parameters."""
    outputs = run(*arguments, **how)
    return outputs, torch.autograd.grad(weighted(outputs), list(layer.parameters()))


@native
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("rows", [False, True], ids=["plain", "lengths-resets"])
@every_kind
def test_compiled_once_for_every_size(kind, rows):
    layer = make(kind, bidirectional=True, backend="native")
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    for steps, batch in ((5, 3), (9, 2), (4, 7), (13, 4)):
        x, how = inputs(steps, batch, I), {}
        torch._dynamo.mark_dynamic(x, (0, 1))
        if rows:
            how = {"lengths": torch.arange(batch) % (steps + 1), "resets": marks(steps, batch)}
            torch._dynamo.mark_dynamic(how["lengths"], 0)
            torch._dynamo.mark_dynamic(how["resets"], (0, 1))
        assert_close(trained(compiled, layer, x, **how), trained(layer, layer, x, **how), limit=1e-6)
    assert counter.frame_count == 1


@native
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_sizes_become_dynamic_by_themselves():
    layer = make("GRU", num_layers=2)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    for steps, batch in ((5, 3), (9, 2), (4, 7), (13, 4)):
        x = inputs(steps, batch, I)
        assert_close(trained(compiled, layer, x), trained(layer, layer, x), limit=1e-6)
    assert counter.frame_count == 2


@native
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("kind", ["GRU-before", "LSTM"])
def test_compiled_transforms(kind):
    layer = make(kind, backend="native")
    p, x = parameters_of(layer), inputs()
    loss = loss_of(layer)
    penalty = lambda p, x: weighted(grad(loss, (0, 1))(p, x))  # noqa: E731
    everything = lambda p, x: (  # noqa: E731
        vmap(lambda x: functional_call(layer, p, (x,)), 1)(x),
        vmap(grad(loss), (None, 1))(p, x),
        grad(penalty, (0, 1))(p, x),
    )
    compiled = torch.compile(everything, backend="aot_eager", fullgraph=True)
    assert_close(compiled(p, x), everything(p, x), limit=1e-6)


@native
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_by_inductor():
    layer = make("LSTM", backend="native")
    compute = lambda x: layer(x * 2)[0] + 1  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(compute, fullgraph=True, dynamic=True)
        for steps, batch in ((5, 3), (9, 2)):
            x = inputs(steps, batch, I)
            try:
                found = trained(compiled, layer, x)
            except InductorError as error:
                if "compiler" not in str(error).lower():
                    raise
                pytest.skip(f"inductor finds no compiler here: {str(error).splitlines()[0]}")
            assert_close(found, trained(compute, layer, x), limit=1e-6)


class Described(nn.Module):
    """A layer with lengths and resets as arguments that a graph has."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, lengths: Tensor, resets: Tensor) -> Any:
        return self.layer(x, lengths=lengths, resets=resets)


@native
@every_kind
def test_exported(kind):
    steps, batch = torch.export.Dim("steps", min=2), torch.export.Dim("batch", min=2)
    layer = make(kind, num_layers=2, bidirectional=True, backend="native")
    program = torch.export.export(layer, (inputs(),), dynamic_shapes={"input": {0: steps, 1: batch}})
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "gatewise.recurrent.default" in operators
    for x in (inputs(), inputs(11, 2, I), inputs(2, 9, I)):
        assert_close(program.module()(x), layer(x), limit=0)

    rows = {"x": {0: steps, 1: batch}, "lengths": {0: batch}, "resets": {0: steps, 1: batch}}
    given = (inputs(), torch.tensor([3, 6, 0, 4]), marks(T, B))
    described = Described(layer)
    program = torch.export.export(described, given, dynamic_shapes=rows)
    for arguments in (given, (inputs(9, 3, I), torch.tensor([9, 0, 4]), marks(9, 3))):
        assert_close(program.module()(*arguments), described(*arguments), limit=0)
    with pytest.raises(RuntimeError, match="expected lengths from 0 to"):
        program.module()(inputs(), torch.tensor([3, 7, 0, 4]), marks(T, B))


# What else goes around a layer


@every_kind
def test_layers_that_share_weights(kind):
    """Gradients of both places add up."""
    name, own, *_ = KINDS[kind]
    torch.manual_seed(0)
    tied, apart = (nn.ModuleList([getattr(gw, name)(H, H, **own) for _ in range(2)]) for _ in range(2))
    for parameter_name, parameter in tied[0].named_parameters():
        setattr(tied[1], parameter_name, parameter)
    for layer in apart:
        layer.load_state_dict(tied[0].state_dict())
    assert len(list(tied.parameters())) == len(list(tied[0].parameters()))
    for first, second in (tied, apart):
        weighted(second(first(inputs(T, B, H))[0])).backward()
    for name, parameter in tied[0].named_parameters():
        copies: Any = [layer.get_parameter(name).grad for layer in apart]
        torch.testing.assert_close(parameter.grad, copies[0] + copies[1])


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["", "reentrant"])
@every_kind
def test_under_torchs_checkpoint(kind, use_reentrant):
    layer, x = make(kind, num_layers=2, dropout=0.3), inputs().requires_grad_()
    leaves, outcomes = [x, *layer.parameters()], []
    flat = lambda x: tuple(tree_leaves(layer(x)))  # noqa: E731  # reentrant checkpoints see no tensors within tuples
    for run in (flat, lambda x: checkpoint(flat, x, use_reentrant=use_reentrant)):
        torch.manual_seed(1)
        outputs: Any = run(x)
        weighted(outputs).backward()
        outcomes.append([*tree_leaves(outputs), *(leaf.grad for leaf in leaves)])
        for leaf in leaves:
            leaf.grad = None
    assert_close(outcomes[1], outcomes[0], limit=0)


@every_kind
def test_hooks(kind):
    """Of gradients on parameters and outputs, and of the module."""
    layer, x = make(kind), inputs().requires_grad_()
    plain = torch.autograd.grad(weighted(layer(x)[0]), list(layer.parameters()))
    seen: list[str] = []
    handles = [
        layer.bias_ih_l0.register_hook(lambda d: 2 * d),
        layer.weight_ih_l0.register_post_accumulate_grad_hook(lambda p: seen.append("accumulated")),
        layer.register_forward_hook(lambda *_: seen.append("forward")),
        layer.register_full_backward_hook(lambda module, d, outputs: seen.append("backward")),
    ]
    y, _ = layer(x)
    y.register_hook(lambda d: 3 * d)
    weighted(y).backward()
    assert sorted(seen) == ["accumulated", "backward", "forward"]
    for (name, parameter), expected in zip(layer.named_parameters(), plain, strict=True):
        torch.testing.assert_close(parameter.grad, expected * (6 if name == "bias_ih_l0" else 3))
    for handle in handles:
        handle.remove()


@every_kind
def test_gradients_of_what_was_not_used(kind):
    layer, x, stranger = make(kind), inputs().requires_grad_(), torch.ones(3, requires_grad=True)
    outputs = layer(x)
    leaves = [stranger, x, *layer.parameters()]
    for output in tree_leaves(outputs):
        found = torch.autograd.grad(output.sum(), leaves, allow_unused=True, retain_graph=True)
        assert [gradient is None for gradient in found] == [True, *[False] * (len(leaves) - 1)]


@pytest.mark.parametrize("frozen", ["weight_ih", "weight_hh", "bias_ih", "bias_hh"])
@every_kind
def test_second_derivatives_with_frozen_weights(kind, frozen):
    if frozen.endswith("hh") and not KINDS[kind].cell.has_recurrent_weights:
        pytest.skip("there are no recurrent weights")
    outcomes = []
    for layer, x in zip(pair(kind, backend="auto"), (inputs(), inputs().double()), strict=True):
        layer.get_parameter(f"{frozen}_l0").requires_grad_(False)
        leaves = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        slopes = torch.autograd.grad(weighted(layer(x)), leaves, create_graph=True)
        outcomes.append((slopes, torch.autograd.grad(weighted(slopes), leaves)))
    assert_close(*outcomes)


@every_kind
def test_inference_mode(kind):
    layer, x = make(kind, num_layers=2), inputs()
    expected = layer(x)
    with torch.inference_mode():
        made_inside = x.clone()
        results = layer(made_inside)
    assert all(value.is_inference() for value in tree_leaves(results))
    assert_close(results, expected, limit=0)
    with torch.no_grad():
        assert_close(layer(made_inside), expected, limit=0)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        layer(made_inside)


@every_kind
def test_deterministic_mode(kind):
    """In which torch fills new memory with NaN."""
    layer, x = make(kind, num_layers=2, bidirectional=True), inputs()
    rows = {"lengths": torch.tensor([3, 6, 0, 4]), "resets": marks(T, B)}
    expected = [trained(layer, layer, x, **how) for how in ({}, rows, rows | {"checkpoint_every": 2})]
    torch.use_deterministic_algorithms(True)
    try:
        found = [trained(layer, layer, x, **how) for how in ({}, rows, rows | {"checkpoint_every": 2})]
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(found, expected, limit=0)


PARALLEL = """
import os
import sys
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import gatewise as gw

torch.set_num_threads(1)
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([gw.GRU(5, 7, reset="before", bidirectional=True), gw.LSTM(14, 6), gw.RNN(6, 3)])

    def forward(self, x):
        for layer in self.layers:
            x, _ = layer(x)
        return x


torch.manual_seed(rank)  # the first process's weights go to all
net = DistributedDataParallel(Net())
x = torch.randn(6, 8, 5, generator=torch.Generator().manual_seed(1))
for _ in range(2):
    net.zero_grad()
    net(x[:, 4 * rank : 4 * rank + 4]).square().mean().backward()
gradients = [parameter.grad for parameter in net.parameters()]
net.module.zero_grad()
net.module(x).square().mean().backward()
for found, parameter in zip(gradients, net.parameters(), strict=True):
    torch.testing.assert_close(found, parameter.grad)
torch.distributed.barrier()
os._exit(0)  # at the end of the interpreter gloo's threads now and then abort the process
"""


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch lacks gloo"
)
def test_two_processes_train_as_one(tmp_path):
    """DistributedDataParallel: the mean of the gradients of both halves is the gradient of the whole batch."""
    command = [sys.executable, "-c", PARALLEL]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
