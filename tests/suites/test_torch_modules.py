"""PyTorch's own module tests: the inputs and the mistakes of its module database, given to our classes.

torch keeps them in torch.testing._internal.common_modules: each entry constructs a module of torch, calls it, and says
which error a mistake must give. Ours stand in for the module; torch's own, with the same weights, is what they are
compared with.
"""

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import gatewise as gw

pytest.importorskip("expecttest", reason="torch's test inputs need expecttest, of the extra `test`")

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

LAYERS = ("GRU", "LSTM", "RNN")
MODULES = (*LAYERS, "GRUCell", "LSTMCell", "RNNCell")
COMPUTED = {  # dtype and backend, and how far from torch's values the results may be
    "float32-auto": (torch.float32, "auto", 1e-5),
    "float64-auto": (torch.float64, "auto", 1e-12),
    "float64-reference": (torch.float64, "reference", 1e-12),
}

every_module = pytest.mark.parametrize("name", MODULES)
computed = pytest.mark.parametrize(("dtype", "backend", "limit"), COMPUTED.values(), ids=COMPUTED)


class Example:
    """One entry of the database: how the module is made, and how it is called."""

    def __init__(self, name: str, entry: Any, dtype: torch.dtype) -> None:
        self.name, self.entry, self.dtype = name, entry, dtype
        self.args, self.kwargs = entry.constructor_input.args, entry.constructor_input.kwargs
        self.inputs: tuple[Any, ...] = () if entry.forward_input is None else entry.forward_input.args

    def __repr__(self) -> str:
        given = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.name}({', '.join(given)}) called with {len(self.inputs)} arguments in {self.dtype}"

    def torchs(self) -> nn.Module:
        return getattr(nn, self.name)(*self.args, **({"dtype": self.dtype} | self.kwargs))

    def ours(self, backend: str = "auto", state: dict[str, Tensor] | None = None) -> nn.Module:
        module = getattr(gw, self.name)(*self.args, **({"dtype": self.dtype} | self.kwargs), backend=backend)
        if state is not None:
            module.load_state_dict(state)
        return module


def entry_of(name: str) -> Any:
    from torch.testing._internal import common_modules  # 3 s, and it changes settings of torch: not while collecting

    return next(entry for entry in common_modules.module_db if entry.module_cls is getattr(nn, name))


def examples(name: str, dtype: torch.dtype) -> Iterator[Example]:
    """All of the database for a module, packed rows among them; of what a failure prints, the last one failed."""
    entry = entry_of(name)
    torch.manual_seed(0)
    inputs = entry.module_inputs_func(
        entry, device="cpu", dtype=dtype, requires_grad=True, training=True, with_packed_sequence=True
    )
    assert len(inputs) > 1
    for module_input in inputs:
        example = Example(name, module_input, dtype)
        print(example)
        yield example


def flat(nested: Any) -> list[Tensor]:
    """The tensors of inputs or outputs, in order."""
    if isinstance(nested, PackedSequence):
        return [nested.data]
    return [nested] if isinstance(nested, Tensor) else [tensor for part in nested for tensor in flat(part)]


def refilled(nested: Any, tensors: Iterator[Tensor]) -> Any:
    """Inputs of the same form, with other tensors."""
    if isinstance(nested, PackedSequence):
        return PackedSequence(next(tensors), *nested[1:])
    return next(tensors) if isinstance(nested, Tensor) else tuple(refilled(part, tensors) for part in nested)


def outcome(module: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """Every output, and every gradient of a loss in which each element of the outputs has its own weight."""
    outputs = flat(module(*inputs))
    loss = torch.stack([(y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum() for y in outputs]).sum()
    leaves = {f"input {i}": tensor for i, tensor in enumerate(flat(inputs))} | dict(module.named_parameters())
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    result = {f"output {i}": tensor.detach() for i, tensor in enumerate(outputs)}
    return result | {f"gradient of {name}": grad for name, grad in zip(leaves, gradients, strict=True)}


def assert_equal(result: dict[str, Tensor], expected: dict[str, Tensor], limit: float = 0) -> None:
    assert list(result) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            result[name], tensor, rtol=limit, atol=limit, msg=lambda m, name=name: f"{name}: {m}"
        )


@every_module
@computed
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_outputs_and_gradients_are_torchs(training, dtype, backend, limit, name):
    for example in examples(name, dtype):
        theirs = example.torchs().train(training)
        ours = example.ours(backend, theirs.state_dict()).train(training)
        assert_equal(outcome(ours, example.inputs), outcome(theirs, example.inputs), limit)


@every_module
@computed
def test_torchs_reference_function(dtype, backend, limit, name):
    """What torch itself compares a module with: here, that a single row gives what it gives in a batch."""
    compared = 0
    for example in examples(name, dtype):
        if isinstance(example.inputs[0], PackedSequence):  # of which the function knows nothing
            continue
        ours = example.ours(backend)
        expected = flat(example.entry.reference_fn(ours, *example.inputs))
        for output, tensor in zip(flat(ours(*example.inputs)), expected, strict=False):
            torch.testing.assert_close(output, tensor, rtol=limit, atol=limit)
            compared += 1
    assert compared > 0


def function_of_everything(module: nn.Module, inputs: Any) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """The module as a function of its input tensors and parameters, and these."""
    names, own = zip(*module.named_parameters(), strict=True)
    count = len(flat(inputs))

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = refilled(inputs, iter(tensors[:count]))
        weights = dict(zip(names, tensors[count:], strict=True))
        return tuple(flat(torch.func.functional_call(module, weights, given)))

    return function, [tensor.detach().clone().requires_grad_() for tensor in (*flat(inputs), *own)]


@every_module
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_gradcheck(backend, name):
    for example in examples(name, torch.float64):
        function, tensors = function_of_everything(example.ours(backend), example.inputs)
        assert torch.autograd.gradcheck(function, tensors, fast_mode=True)


@every_module
def test_gradgradcheck(name):
    """By the reference, to which the native kernel leaves second derivatives."""
    for example in examples(name, torch.float64):
        if example.kwargs.get("batch_first"):  # no input has the axis that it would move: nothing new
            continue
        function, tensors = function_of_everything(example.ours("reference"), example.inputs)
        assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@every_module
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_mistakes(dtype, name):
    entry = entry_of(name)
    mistakes = entry.module_error_inputs_func(entry, device="cpu", dtype=dtype, requires_grad=False, training=True)
    assert mistakes
    for mistake in mistakes:
        example = Example(name, mistake.module_error_input, dtype)
        if mistake.error_on.name == "CONSTRUCTION_ERROR":
            with pytest.raises(mistake.error_type, match=mistake.error_regex):
                example.ours()
        else:
            ours = example.ours()
            with pytest.raises(mistake.error_type, match=mistake.error_regex):
                ours(*example.inputs)


def saved_and_loaded(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@every_module
@pytest.mark.parametrize(
    "duplicate",
    [lambda module: pickle.loads(pickle.dumps(module)), saved_and_loaded, copy.deepcopy],
    ids=["pickle", "torch.save", "deepcopy"],
)
def test_duplicates(duplicate, name):
    for example in examples(name, torch.float32):
        ours = example.ours()
        assert_equal(outcome(duplicate(ours), example.inputs), outcome(ours, example.inputs))


@every_module
@computed
def test_inputs_that_are_not_contiguous(dtype, backend, limit, name):
    for example in examples(name, dtype):
        ours = example.ours(backend)
        expected = outcome(ours, example.inputs)
        wide = [tensor.detach().repeat_interleave(2, -1).requires_grad_() for tensor in flat(example.inputs)]
        strided = [tensor[..., ::2] for tensor in wide]
        assert not any(tensor.is_contiguous() for tensor in strided)
        assert_equal(outcome(ours, refilled(example.inputs, iter(strided))), expected, limit)


@every_module
def test_state_dicts_go_both_ways(name):
    for example in examples(name, torch.float32):
        ours, theirs = example.ours(), example.torchs()
        assert list(ours.state_dict()) == list(theirs.state_dict())
        expected = outcome(ours, example.inputs)
        theirs.load_state_dict(ours.state_dict())
        assert_equal(outcome(example.ours(state=theirs.state_dict()), example.inputs), expected)


@every_module
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_factory_arguments_and_moves(dtype, device, name):
    for example in examples(name, dtype):
        made = getattr(gw, name)(*example.args, **example.kwargs, device=device, dtype=dtype)
        moved = getattr(gw, name)(*example.args, **example.kwargs).to(device, dtype)
        emptied = copy.deepcopy(made).to_empty(device="cpu")
        for module, place in ((made, device), (moved, device), (emptied, "cpu")):
            assert {(tensor.device.type, tensor.dtype) for tensor in module.parameters()} == {(place, dtype)}
        y = flat(emptied(*example.inputs))[0]
        assert (y.device.type, y.dtype) == ("cpu", dtype)


@every_module
def test_repr_is_torchs(name):
    for example in examples(name, torch.float32):
        assert repr(example.ours()) == repr(example.torchs())


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_tells_training_from_evaluation(name):
    """torch's database says of these that the two modes differ, but none of its inputs drops anything."""
    assert entry_of(name).train_and_eval_differ
    torch.manual_seed(0)
    module = getattr(gw, name)(4, 30, num_layers=2, dropout=0.5)
    x = torch.randn(3, 2, 4)
    training = [module.train()(x)[0] for _ in range(2)]
    evaluation = [module.eval()(x)[0] for _ in range(2)]
    assert not torch.equal(*training)
    assert torch.equal(*evaluation)
