"""What all recurrent layers share: the forms of input and output, the stack of layers, the checks."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from gatewise.errors import InputError, ShapeError
from gatewise.kernels import arguments, ops
from gatewise.kernels.backends import native_plain
from gatewise.kernels.regularisation import Regularisation
from gatewise.layers.options import check_choice, check_flag, check_probabilities, check_probability, shown
from gatewise.layers.stream import Stream, Weights

Norm = Literal["norm_ih", "norm_hh", "norm_c", "norm_c_bias"]
States = list[tuple[Tensor, ...]]  # of each layer and direction the first or last state, (h,) or (h, c)


class RecurrentLayer(RNNBase):
    """Layers of a cell over whole sequences. A subclass says which: `_run` and what is around it.

    The attributes that torch's layers lack have their default here, so that such an object can become one of ours.
    """

    backend: str = "auto"
    learn_initial_state: bool = False
    weight_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: float | tuple[float, float] = 0.0
    layer_norm: bool = False
    weight_ih_l0: Tensor
    h0: Tensor

    _options: ClassVar[tuple[str, ...]] = (
        "backend",
        "learn_initial_state",
        "weight_dropout",
        "recurrent_dropout",
        "zoneout",
        "layer_norm",
    )
    _products: ClassVar[int] = 2  # W x and W h, each with a bias
    _rank_words: ClassVar[str] = "D instead"  # the end of torch's message

    def _add_options(
        self,
        backend: str,
        learn_initial_state: bool,
        weight_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | Sequence[float] = 0.0,
        layer_norm: bool = False,
    ) -> None:
        """What a constructor does after torch's."""
        name = type(self).__name__
        self.backend = check_choice(name, "backend", backend, ops.BACKENDS)
        self.learn_initial_state = check_flag(name, "learn_initial_state", learn_initial_state)
        self.weight_dropout = check_probability(
            name, "weight_dropout", weight_dropout, "the probability of a recurrent weight to be dropped"
        )
        self.recurrent_dropout = check_probability(
            name, "recurrent_dropout", recurrent_dropout, "the probability of a unit of h to be hidden from its cell"
        )
        meaning = "the probability of a unit to keep its value in a step"
        if len(self._state_sizes()) == 1:
            self.zoneout = check_probability(name, "zoneout", zoneout, meaning)
        else:
            self.zoneout = check_probabilities(name, "zoneout", zoneout, meaning)
        self.layer_norm = check_flag(name, "layer_norm", layer_norm)

        weight = self.weight_ih_l0
        if learn_initial_state:
            for state, size in zip(("h0", "c0"), self._state_sizes(), strict=False):
                self.register_parameter(state, nn.Parameter(weight.new_zeros(len(self._all_weights), size)))
        if layer_norm:
            for suffix in self._suffixes():
                for norm, size in self._norm_sizes().items():
                    self.register_parameter(f"{norm}_{suffix}", nn.Parameter(weight.new_empty(size)))
            self._reset_norms()

    def _replace_weights(self, blocks: int, device: Any, dtype: torch.dtype | None) -> None:
        """Instead of torch's weights those of a cell that torch lacks, without recurrent ones.

        They are weight_ih of so many blocks of H rows, and bias_ih. The layer was made on the meta device.
        """
        for name in self._flat_weights_names:
            columns = self.get_parameter(name).shape[1:]
            delattr(self, name)
            if "_ih_" in name:
                weight = torch.empty(blocks * self.hidden_size, *columns, device=device, dtype=dtype)
                self.register_parameter(name, nn.Parameter(weight))
        self._all_weights = [[name for name in names if "_ih_" in name] for names in self._all_weights]
        self._flat_weights_names = [name for names in self._all_weights for name in names]
        self._init_flat_weights()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as torch's layer does; learned first states are zeros, gains of layer_norm ones."""
        super().reset_parameters()
        if self.learn_initial_state:
            for name in ("h0", "c0")[: len(self._state_sizes())]:
                nn.init.zeros_(getattr(self, name))
        if self.layer_norm:
            self._reset_norms()

    def _reset_norms(self) -> None:
        for suffix in self._suffixes():
            for norm in self._norm_sizes():
                nn.init.constant_(getattr(self, f"{norm}_{suffix}"), 0.0 if norm.endswith("bias") else 1.0)

    def _suffixes(self) -> list[str]:
        """How the parameters' names of each layer and direction end: "l0", "l0_reverse", "l1", ..."""
        return [names[0].removeprefix("weight_ih_") for names in self._all_weights]

    def _norm_sizes(self) -> dict[Norm, int]:
        """The parameters that a layer with layer_norm has of it in each direction, and their sizes."""
        rows = self.weight_ih_l0.shape[0]
        return {"norm_ih": rows, "norm_hh": rows}

    def _state_sizes(self) -> tuple[int, ...]:
        """The sizes of a layer's states: of h, and of c where there is one."""
        return (self.hidden_size,)

    def _run(self, x: Tensor, states: tuple[Tensor, ...], weights: Sequence[Any], **how: Any) -> tuple[Any, ...]:
        """One layer in one direction: y, the last states, and gates if they are asked for."""
        raise NotImplementedError

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        lengths: Tensor | int | None = None,
        resets: Tensor | None = None,
        return_gates: bool = False,
        checkpoint_every: int | None = None,
    ) -> tuple[Any, ...]:
        """The top layer's state at every step (T, B, D*H), and the last states of each layer and direction.

        The last states are hn (L*D, B, H), of an LSTM (hn, cn). D is 2 if bidirectional, else 1. The output takes the
        input's form. A third result, if return_gates: a dict "l0", "l0_reverse", "l1", ... of dicts of what each gate
        was at every step, (T, B, H), without gradient; packed rows are (sum of lengths, H).

        input (T, B, I) float: inputs; (B, T, I) if batch_first, (T, I) for a single sequence, or a PackedSequence.
        hx (L*D, B, H) float: first states, of an LSTM (h0, c0); zeros, or what was learned, if None; (L*D, H) for a
            single sequence.
        lengths (B,) integer: steps of each row, in any order, 0 too. What lies beyond them is not read, the output is
            zero there, and the backward direction starts at each row's own end. A number for a single sequence.
        resets (T, B) bool: True where a new sequence begins: the state is the first one again, and gradients stop.
            (B, T) if batch_first, (T,) for a single sequence.
        checkpoint_every: keep the states of every so many steps for the backward sweep, and compute the rest again.

        Raises ShapeError, InputError and BackendError.
        """
        if resets is None and checkpoint_every is None and not return_gates:
            found = self._plainly(input, hx, lengths)
            if found is not None:
                return found
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx, lengths, resets, return_gates, checkpoint_every)
        rank = input.dim()
        if rank not in (2, 3):
            name = type(self).__name__
            raise ShapeError(f"{name}: Expected input to be 2D or 3D, got {rank}{self._rank_words}")
        if hx is not None:
            self._check_ranks(hx, rank)
        how: dict[str, Any] = {}
        if lengths is not None or resets is not None or checkpoint_every is not None or return_gates:
            how = self._described(input, lengths, resets, return_gates, checkpoint_every)

        if rank == 2:
            input = input.unsqueeze(1)
        elif self.batch_first:
            input = input.transpose(0, 1)
        y, last, gates = self._stack(input, self._first_states(input, hx, input.shape[1], rank), how)
        hn = self._joined(last)
        if rank == 2:
            y, hn = y.squeeze(1), hn.squeeze(1) if isinstance(hn, Tensor) else tuple(s.squeeze(1) for s in hn)
        elif self.batch_first:
            y = y.transpose(0, 1)
        if gates is None:
            return y, hn
        if rank == 2 or self.batch_first:
            gates = {
                layer: {name: g.squeeze(1) if rank == 2 else g.transpose(0, 1) for name, g in named.items()}
                for layer, named in gates.items()
            }
        return y, hn, gates

    def stream(self, batch_size: int = 1, *, weights: Weights = "float32") -> Stream:
        """A stream that runs these layers one step a call, for inputs that arrive one by one; see Stream.

        weights: "int8", of a GRU, is faster and less exact. Raises InputError; BackendError where int8 cannot be had.
        """
        return Stream(self, batch_size, weights)

    def _plainly(self, input: Any, hx: Any, lengths: Any) -> tuple[Any, ...] | None:
        """What forward gives, by a short way; None where the call is not as plain as that, or wrong."""
        if (
            native_plain is None
            or torch.compiler.is_compiling()
            or self.bidirectional
            or (self.backend != "auto" and self.backend != "native")
            or self.learn_initial_state
            or self.layer_norm
            or self.zoneout
            or (self.training and (self.weight_dropout or self.recurrent_dropout or self.dropout))
        ):
            return None
        cell, own = self._plain_cell(), self._parameters
        if cell is None:
            return None
        weights = [[own.get(name) for name in names] for names in self._all_weights]
        return native_plain.run(cell, input, hx, weights, self.input_size, self.hidden_size, self.batch_first, lengths)

    def _plain_cell(self) -> str | None:
        """The name of the cell, as in reference.CELLS, if it has a short way, and one for both directions."""
        return None

    def _described(self, input, lengths, resets, return_gates, checkpoint_every) -> dict[str, Any]:
        """The arguments that ops takes for those that are given here: checked, time first, with rows."""
        name, how = type(self).__name__, {}
        batched = input.dim() == 3
        steps, batch = (input.shape[0], 1) if not batched else input.shape[:2]
        if batched and self.batch_first:
            steps, batch = batch, steps
        if lengths is not None:
            if not batched:
                lengths = _single_length(name, lengths)
            how["lengths"] = arguments.checked_lengths(name, lengths, steps, batch)
        if resets is not None:
            shape, axes = ((batch, steps), "(B, T)") if self.batch_first else ((steps, batch), "(T, B)")
            arguments.check_resets(name, resets, shape if batched else (steps,), axes if batched else "(T,)")
            if not batched:
                resets = resets.unsqueeze(1)
            elif self.batch_first:
                resets = resets.transpose(0, 1)
            how["resets"] = resets
        return how | self._kept(return_gates, checkpoint_every)

    def _kept(self, return_gates: bool, checkpoint_every: int | None) -> dict[str, Any]:
        """What is to be kept of a call, as the arguments that ops takes, where it is not what is usual."""
        how: dict[str, Any] = {"return_gates": True} if return_gates else {}
        if checkpoint_every is not None:
            arguments.check_checkpoint_every(type(self).__name__, checkpoint_every)
            how["checkpoint_every"] = checkpoint_every
        return how

    def _forward_packed(self, input, hx, lengths, resets, return_gates, checkpoint_every) -> tuple[Any, ...]:
        """As forward; data (sum of lengths, I) hold the steps one after another, rows sorted by falling length."""
        name = type(self).__name__
        data, batch_sizes, sorted_indices, unsorted_indices = input
        if data.dim() != 2:
            raise ShapeError(f"input must have 2 dimensions, got {data.dim()}")
        for argument, value in (("lengths", lengths), ("resets", resets)):
            if value is not None:
                raise InputError(
                    f"{name}: {argument} cannot be given together with a PackedSequence, which has its own order of "
                    f"rows; pass the padded batch with lengths instead"
                )
        how = {"batch_sizes": batch_sizes, **self._kept(return_gates, checkpoint_every)}
        first = self._first_states(data, hx, int(batch_sizes[0]), 3)
        if sorted_indices is not None:
            first = [tuple(state.index_select(0, sorted_indices) for state in states) for states in first]
        y, last, gates = self._stack(data, first, how)
        if unsorted_indices is not None:
            last = [tuple(state.index_select(0, unsorted_indices) for state in states) for states in last]
        output = PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices)
        return (output, self._joined(last)) if gates is None else (output, self._joined(last), gates)

    def _check_ranks(self, hx: Any, rank: int) -> None:
        """Raise ShapeError, in torch's words, unless hx has the rank of the input."""
        if hx.dim() != rank:
            form = "batched" if rank == 3 else "unbatched"
            raise ShapeError(f"For {form} {rank}-D input, hx should also be {rank}-D but got {hx.dim()}-D tensor")

    def _first_states(self, x: Tensor, hx: Any, batch_size: int, rank: int) -> States:
        """The first states of each layer and direction; ShapeError, in torch's words, if x or hx is wrong."""
        weight = self._parameters.get("weight_ih_l0")
        dtype = (self.weight_ih_l0 if weight is None else weight).dtype
        if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            raise ShapeError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert model: model.to({x.dtype})"
            )
        if x.shape[-1] != self.input_size:
            raise ShapeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.size(-1)}"
            )
        count = len(self._all_weights)
        if hx is not None:
            return self._split(hx if rank == 3 else self._with_rows(hx), batch_size)
        if self.learn_initial_state:
            learned = [getattr(self, name) for name in ("h0", "c0")[: len(self._state_sizes())]]
            return [tuple(state[i].expand(batch_size, -1) for state in learned) for i in range(count)]
        return [tuple([x.new_zeros(batch_size, size) for size in self._state_sizes()])] * count

    def _with_rows(self, hx: Any) -> Any:
        """First states of a single sequence as those of a batch."""
        return hx.unsqueeze(1)

    def _split(self, hx: Any, batch_size: int) -> States:
        """The first states that were given, of each layer and direction."""
        expected = (len(self._all_weights), batch_size, self.hidden_size)
        if hx.shape != expected:
            raise ShapeError(f"Expected hidden size {expected}, got {list(hx.shape)}")
        return [(h,) for h in hx.unbind()]

    def _joined(self, last: States) -> Any:
        """The last states of all layers and directions as forward gives them."""
        if len(last) == 1:
            return last[0][0].unsqueeze(0)
        return torch.stack([h for (h,) in last])

    def _stack(self, x: Tensor, first: States, how: dict[str, Any]) -> tuple[Tensor, States, dict | None]:
        """The states of the top layer, the last states of each layer and direction, and the gates if asked for."""
        weights = self._weights()
        regularised = self.layer_norm or self.recurrent_dropout or self.zoneout
        last, gates = [], {} if "return_gates" in how else None
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout > 0:
                x = dropout(x, self.dropout, self.training)
            if self.bidirectional and not regularised and gates is None:
                found = self._both(x, first[len(last) :][:2], weights[len(last) :][:2], how)
                if found is not None:
                    x, *ends = found
                    last += ends
                    continue
            outputs = []
            for reverse in (False, True) if self.bidirectional else (False,):
                if regularised:
                    how["regularisation"] = self._regularisation(len(last), x, len(first[0][0]))
                y, *states = self._run(x, first[len(last)], weights[len(last)], reverse=reverse, **how)
                if gates is not None:
                    gates[self._suffixes()[len(last)]] = states.pop()
                outputs.append(y)
                last.append(tuple(states))
            x = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
        return x, last, gates

    def _both(self, x, states, weights, how: dict[str, Any]) -> tuple[Any, ...] | None:
        """What both directions of a layer give at once; None where they run one after the other."""
        cell = self._plain_cell()
        return None if cell is None else ops.both_directions(cell, x, states, weights, backend=self.backend, **how)

    def _weights(self) -> list[list[Any]]:
        """Of each layer and direction weight_ih, weight_hh, bias_ih, bias_hh, and weight_hr of an LSTM that has it.

        Of a cell without recurrent weights weight_ih and bias_ih.

        Read at each call, for parametrizations and functional_call exchange them.
        """
        weights = self._own_weights()
        if self.weight_dropout > 0 and self.training:
            for given in weights:
                given[1] = dropout(given[1], self.weight_dropout)
        return weights

    def _own_weights(self) -> list[list[Any]]:
        """The same, before any of them are dropped."""
        own = self._parameters  # the way through __getattr__ takes 2 us
        weights = [[own[name] if name in own else getattr(self, name) for name in names] for names in self._all_weights]
        if not self.bias:
            n = self._products
            weights = [[*given[:n], *[None] * n, *given[n:]] for given in weights]
        return weights

    def _regularisation(self, index: int, x: Tensor, batch_size: int) -> Regularisation | None:
        """What regularises a layer in one direction in this call, with masks that are drawn here; None if nothing does.

        index: that of the layer and direction; x (T, B, I), or packed (sum of lengths, I): its inputs.
        """
        given: dict[str, Any] = {}
        sizes, suffix = self._state_sizes(), self._suffixes()[index]
        p = self.recurrent_dropout
        if self.training and p > 0:
            given["dropout"] = dropout(torch.ones(batch_size, sizes[0], dtype=x.dtype, device=x.device), p)
        zoneout = self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout, self.zoneout)
        for name, p, size in zip(("zoneout_h", "zoneout_c"), zoneout, sizes, strict=False):
            if p > 0:
                given[name] = p
                if self.training:
                    given[name] = _drawn_mask((*x.shape[:-1], size), p, x.device)
        if self.layer_norm:
            given |= {norm: getattr(self, f"{norm}_{suffix}") for norm in self._norm_sizes()}
        return Regularisation(**given) if given else None

    def extra_repr(self) -> str:
        """The arguments that repr shows: torch's, then those of ours that are not the default."""
        return f"{super().extra_repr()}{shown(self, self._options)}"


def _drawn_mask(shape: tuple[int, ...], p: float, device: torch.device) -> Tensor:
    """Booleans of that shape, each true with probability p to within 2**-17, or 2**-16 if p is less than that.

    Each takes 16 random bits, which torch draws four at a time: 2 to 8 times as fast as torch.bernoulli.
    """
    count = math.prod(shape)
    words = torch.randint(-(2**63), 2**63 - 1, ((count + 3) // 4,), dtype=torch.int64, device=device)
    numbers = words.view(torch.int16)[:count].view(shape)
    return numbers <= max(round(p * 2**16), 1) - 2**15 - 1


def _single_length(layer: str, length: Any) -> Tensor:
    """The length of a single sequence, a number or a tensor of one, as lengths (1,)."""
    if isinstance(length, int) and not isinstance(length, bool):
        return torch.tensor([length])
    if not isinstance(length, Tensor) or length.dim() != 0:
        got = tuple(length.shape) if isinstance(length, Tensor) else type(length).__name__
        raise ShapeError(f"{layer}: expected lengths of a single sequence (T, I) to be one whole number, got {got}")
    return length.unsqueeze(0)
