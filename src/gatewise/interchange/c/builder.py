"""How a network becomes a program: layer by layer, the constants and the statements."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from gatewise.errors import InputError
from gatewise.interchange.c.arrays import Constants
from gatewise.interchange.c.program import ACTIVATIONS, Field, Program, Stage, stages_of, width_of
from gatewise.interchange.c.rounding import Ranges, cell_of, layer_name, suffixes
from gatewise.interchange.parity import state_names
from gatewise.layers.recurrent import RecurrentLayer
from gatewise.models.embeddings import OneHot
from gatewise.models.sequential import Pooling, SequentialNetwork

NEEDS = {  # of a function of the templates those that it calls
    "gru_after": ("affine", "sigmoid"),
    "gru_before": ("affine", "sigmoid"),
    "lstm": ("affine", "sigmoid"),
    "rnn_tanh": ("affine",),
    "rnn_relu": ("affine",),
    "sigmoid_of_all": ("sigmoid",),
    "softmax": ("largest",),
    "log_softmax": ("largest",),
}


def program_of(network: SequentialNetwork, ranges: Ranges | None) -> Program:
    """The program of a network; ranges: for int8 weights, which the network's must be then. Raises InputError."""
    return _Builder(network, ranges).program


class _Builder:
    """Makes the program, layer by layer."""

    def __init__(self, network: SequentialNetwork, ranges: Ranges | None) -> None:
        self._network = network
        self._constants = Constants(ranges)
        self._locals: list[tuple[str, int]] = []  # arrays of the function that is being written
        self._most_sums = 0
        self._used: set[str] = set()
        stages = stages_of(list(network.layers))
        try:
            input_size = network.input_size
        except StopIteration:
            raise InputError("export_c: expected a layer that says how many inputs there are, got none") from None
        pooling = next((place for place, stage in enumerate(stages) if isinstance(stage.layer, Pooling)), None)
        sequence = any(layer.bidirectional for layer in network.recurrent_layers)
        self.program = Program(network.reads_tokens, pooling is not None, sequence, input_size, 0)
        self._by_token = len(stages) > 1 and self._is_plain_one_hot(stages)
        if self._by_token:
            stages.pop(0)
            pooling = pooling and pooling - 1
        self._declare_fields()
        (self._write_sequence if sequence else self._write_steps)(stages, pooling)
        self._finish()

    @staticmethod
    def _is_plain_one_hot(stages: list[Stage]) -> bool:
        """Whether the first matrix can be read by tokens."""
        plain = isinstance(stages[0].layer, OneHot) and not stages[0].activations
        return plain and isinstance(stages[1].layer, RecurrentLayer | nn.Linear)

    def _name(self, index: int) -> str:
        return layer_name(self._network, index)

    def _declare_fields(self) -> None:
        """The states of the recurrent layers, as parts of the program's state."""
        network = self._network
        names = iter(state_names(network))
        for index, layer in enumerate(network.layers):
            if isinstance(layer, RecurrentLayer):
                shape = (len(suffixes(layer)), layer.hidden_size)
                for name in next(names):
                    identifier = f"{self._name(index)}_{name[-1]}"
                    what = "of each layer and direction" if layer.bidirectional else "of each layer"
                    self.program.fields.append(
                        Field(
                            f"float {identifier}[{shape[0]}][{shape[1]}]",
                            f"{name[-1]} {what}",
                            shape[0] * shape[1],
                            name,
                            shape,
                        )
                    )

    def _finish(self) -> None:
        program, constants = self.program, self._constants
        if not program.fields:
            program.advance.append("(void)state;")
            program.fields.append(Field("uint32_t unused", "C has no empty structs", 1))
        for function in list(self._used):
            self._used.update(NEEDS.get(function, ()))
        names = {*NEEDS, *ACTIVATIONS.values(), *(n for needs in NEEDS.values() for n in needs)}
        names |= {"affine_of_token", "one_hot", "lookup", "pool_mean", "pool_max"}
        program.uses = {name: name in self._used for name in names}
        program.arrays = constants.arrays
        program.most_columns = constants.most_columns
        program.weight_bytes, program.weight_bytes_float32 = constants.bytes, constants.float32_bytes
        quantised = 0 if constants.ranges is None else 2 * constants.most_columns
        program.working_bytes += 4 * (self._most_sums + program.most_gru_units) + quantised

    # ---- Steps ----

    def _write_steps(self, stages: list[Stage], pooling: int | None) -> None:
        """The statements of `advance`, and of `answer` if it pools."""
        program = self.program
        source, size = ("token" if program.reads_tokens else "input"), program.input_size
        before = stages if pooling is None else stages[:pooling]
        for place, stage in enumerate(before):
            last = pooling is None and place == len(before) - 1
            source, size = self._stage(program.advance, stage, source, size, "output" if last else None)
        program.macs_per_step = self._macs(before)
        if pooling is None:
            program.output_size = size
            self._declare_locals(program.advance)
            return
        pool = stages[pooling].layer
        assert isinstance(pool, Pooling)
        source = self._pool_step(pool, source, size)
        self._declare_locals(program.advance)
        self._head(program.answer, stages[pooling + 1 :], source, size, "output")
        self._declare_locals(program.answer)

    def _head(self, lines: list[str], stages: list[Stage], source: str, size: int, target: str) -> None:
        """The statements from what was pooled to the output."""
        if not stages:
            lines.append(f"memcpy({target}, {source}, {size} * sizeof *{target});")
        for stage in stages:
            source, size = self._stage(lines, stage, source, size, target if stage is stages[-1] else None)
        self.program.output_size = size
        self.program.macs_per_answer = self._macs(stages)

    def _stage(self, lines: list[str], stage: Stage, source: str, size: int, target: str | None) -> tuple[str, int]:
        """Where a stage's output lies, and its size; `target` if one is given."""
        layer, name = stage.layer, self._name(stage.index)
        width = size if layer is None else width_of(layer)
        lies_elsewhere = isinstance(layer, RecurrentLayer) or self._is_table(layer)
        if target is None and (stage.activations or not lies_elsewhere):
            target = f"y_{stage.index}"
            self._locals.append((target, width))
        match layer:
            case RecurrentLayer():
                found = self._recurrent_step(lines, layer, name, source)
            case nn.Linear():
                assert target is not None
                found = target
                lines.append(self._linear(layer, name, source, target))
            case nn.Embedding():
                found = self._embedding(lines, layer, name, source, target)
            case OneHot():
                assert target is not None
                found = target
                self._used.add("one_hot")
                lines.append(f"one_hot({source}, {width}, {target});")
            case _:
                found = source
        if target is not None and found != target:
            lines.append(f"memcpy({target}, {found}, {width} * sizeof *{target});")
        lines += self._activate(stage, target or "", width)
        return target or found, width

    def _is_table(self, layer: nn.Module | None) -> bool:
        """Whether it is an embedding whose vectors can be read where they are kept."""
        return isinstance(layer, nn.Embedding) and self._constants.ranges is None

    def _activate(self, stage: Stage, target: str, size: int) -> list[str]:
        functions = [ACTIVATIONS[type(activation)] for activation in stage.activations]
        self._used.update(functions)
        return [f"{function}({target}, {size});" for function in functions]

    def _recurrent_step(self, lines: list[str], layer: RecurrentLayer, name: str, source: str) -> str:
        for number, suffix in enumerate(suffixes(layer)):
            lines += self._cell(layer, name, number, suffix, source)
            source = f"state->{name}_h[{number}]"
        return source

    def _pool_step(self, pool: Pooling, source: str, size: int) -> str:
        """Where what has been pooled lies, after the statements of `advance` that see to it."""
        program = self.program
        if pool.pooling == "last" and source.startswith("state->"):
            return source
        program.pooled_size, program.pools_max = size, pool.pooling == "max"
        meaning = {"last": "the last vector", "mean": "mean so far", "max": "largest so far"}[pool.pooling]
        program.fields.append(Field(f"float pooled[{size}]", meaning, size))
        if pool.pooling == "last":
            program.advance.append(f"memcpy(state->pooled, {source}, sizeof state->pooled);")
        elif pool.pooling == "max":
            self._used.add("pool_max")
            program.advance.append(f"pool_max(state->pooled, {source}, {size});")
        else:
            self._used.add("pool_mean")
            program.fields.append(Field("uint32_t steps", "that have been read", 1))
            program.advance += ["if (state->steps < UINT32_MAX)", "    state->steps++;"]
            program.advance.append(f"pool_mean(state->pooled, {source}, (float)state->steps, {size});")
        return "state->pooled"

    # ---- Whole sequences ----

    def _write_sequence(self, stages: list[Stage], pooling: int | None) -> None:
        """The statements of `run` that take each layer over all steps before the next one."""
        program, lines = self.program, self.program.run
        before = stages if pooling is None else stages[:pooling]
        widths = [w for stage in before for w in self._sequence_widths(stage)]
        written = widths if pooling is not None else widths[:-1]
        widest = max(written, default=0)
        buffers = min(2, len(written))
        program.scratch_floats = max(1, buffers * widest)
        targets = [("even", "odd")[place % 2] for place in range(len(written))] + ["outputs"]
        declared = ["float *even = scratch;", f"float *odd = scratch + steps * {widest};"][:buffers]
        lines += declared or ["(void)scratch;"]
        if program.pools:
            lines += ["if (steps == 0)", "    return -1;"]
        if program.reads_tokens:
            lines += [
                "for (size_t t = 0; t < steps; t++)",
                f"    if (inputs[t] < 0 || inputs[t] >= {program.input_size})",
                "        return -1;",
            ]
        source, size = "inputs", program.input_size
        for stage in before:
            source, size = self._sequence_stage(stage, source, size, targets)
        program.macs_per_step = self._macs(before)
        if pooling is None:
            program.output_size = size
        else:
            pool = stages[pooling].layer
            assert isinstance(pool, Pooling)
            self._pool_sequence(pool, source, size)
            self._head(lines, stages[pooling + 1 :], "pooled", size, "outputs")
        self._declare_locals(lines)

    def _sequence_widths(self, stage: Stage) -> list[int]:
        """The widths of the sequences that a stage writes, one after another."""
        if isinstance(stage.layer, RecurrentLayer):
            return [width_of(stage.layer)] * stage.layer.num_layers
        return [self.program.input_size if stage.layer is None else width_of(stage.layer)]

    def _sequence_stage(self, stage: Stage, source: str, size: int, targets: list[str]) -> tuple[str, int]:
        """Where the stage's outputs lie, and the size of one. targets: where sequences go, the next one first."""
        layer, name, lines = stage.layer, self._name(stage.index), self.program.run
        width = size if layer is None else width_of(layer)
        at = "inputs[t]" if source == "inputs" and self.program.reads_tokens else f"{source} + t * {size}"
        if isinstance(layer, RecurrentLayer):
            directions = 2 if layer.bidirectional else 1
            for number, suffix in enumerate(suffixes(layer)):
                direction = number % directions
                target = targets[0]
                offset = f" + {layer.hidden_size}" if direction else ""
                size_of_h = f"{layer.hidden_size} * sizeof *{target}"
                copy = f"memcpy({target} + t * {width}{offset}, state->{name}_h[{number}], {size_of_h});"
                order = "size_t t = steps; t-- > 0;" if direction else "size_t t = 0; t < steps; t++"
                body = [*self._cell(layer, name, number, suffix, at), copy]
                lines += [f"for ({order}) {{", *(f"    {line}" for line in body), "}"]
                if direction == directions - 1:
                    targets.pop(0)
                    at = f"{target} + t * {width}"
        else:
            target = targets.pop(0)
            body: list[str] = []
            self._stage(body, Stage(stage.index, layer), at, size, f"({target} + t * {width})")
            lines += ["for (size_t t = 0; t < steps; t++)", *(f"    {line}" for line in body)]
        if stage.activations:
            body = self._activate(stage, f"{target} + t * {width}", width)
            lines += ["for (size_t t = 0; t < steps; t++) {", *(f"    {line}" for line in body), "}"]
        return target, width

    def _pool_sequence(self, pool: Pooling, source: str, size: int) -> None:
        lines, layers = self.program.run, list(self._network.layers)
        # The last layer before that mixes features; those of a linear one are of both directions.
        mixing = [layer for layer in layers[: layers.index(pool)] if isinstance(layer, RecurrentLayer | nn.Linear)][-1]
        bidirectional = isinstance(mixing, RecurrentLayer) and mixing.bidirectional
        self._locals.append(("pooled", size))
        each = "for (size_t t = 0; t < steps; t++)"
        if pool.pooling == "last":
            half = (size + 1) // 2 if bidirectional else size
            lines.append(f"memcpy(pooled, {source} + (steps - 1) * {size}, {half} * sizeof *pooled);")
            if half < size:
                lines.append(f"memcpy(pooled + {half}, {source} + {half}, {size - half} * sizeof *pooled);")
        elif pool.pooling == "max":
            self._used.add("pool_max")
            lines.append(f"memcpy(pooled, {source}, sizeof pooled);")
            lines += [each, f"    pool_max(pooled, {source} + t * {size}, {size});"]
        else:
            self._used.add("pool_mean")
            lines.append("memset(pooled, 0, sizeof pooled);")
            lines += [each, f"    pool_mean(pooled, {source} + t * {size}, (float)(t + 1), {size});"]

    # ---- Layers ----

    def _cell(self, layer: RecurrentLayer, name: str, number: int, suffix: str, source: str) -> list[str]:
        """The statements of one step of one layer in one direction, whose constants they declare."""
        cell, kind = cell_of(layer), cell_of(layer).partition("_")[0]
        first = suffix in ("l0", "l0_reverse")
        by_token = first and self._by_token_now(layer)
        constants = f"{name}_{suffix}"
        self._declare_cell(layer, constants, number, by_token)
        self._used.add(cell)
        states = f"state->{name}_h[{number}]" + (f", state->{name}_c[{number}]" if kind == "lstm" else "")
        return [self._affine(f"&{constants}.i", source, "a", by_token), f"{cell}(&{constants}, a, {states});"]

    def _by_token_now(self, layer: nn.Module) -> bool:
        """Whether this layer is the one that reads tokens."""
        first = next(other for other in self._network.layers if isinstance(other, RecurrentLayer | nn.Linear))
        return self._by_token and layer is first

    def _affine(self, map_: str, source: str, target: str, by_token: bool) -> str:
        function = "affine_of_token" if by_token else "affine"
        self._used.add(function)
        return f"{function}({map_}, {source}, {target});"

    def _declare_cell(self, layer: RecurrentLayer, name: str, number: int, by_token: bool) -> None:
        cell, H = cell_of(layer), layer.hidden_size  # noqa: N806 (the reference's letter)
        weights = [_array(parameter) for parameter in layer.all_weights[number]]
        w_ih, w_hh = weights[:2]
        self._most_sums = max(self._most_sums, len(w_ih))
        b_i = b_n = None
        if layer.bias:
            b_i, b_n = weights[2] + weights[3], weights[3][2 * H :]
        if cell == "gru_after":  # b_hn stands inside of r * (...), all other biases can be added beforehand
            b_i = b_i if b_i is None else np.concatenate([b_i[: 2 * H], weights[2][2 * H :]])
        else:
            b_n = None
        maps = [self._constants.map(f"{name}_i", f"{name}, of its input", w_ih, b_i, f"{name}.x", by_token)]
        if cell.startswith("gru"):
            self.program.most_gru_units = max(self.program.most_gru_units, H)
            maps += [
                self._constants.map(f"{name}_h_rz", f"{name}, r and z of h", w_hh[: 2 * H], None, f"{name}.h"),
                self._constants.map(f"{name}_h_n", f"{name}, n of h", w_hh[2 * H :], b_n, f"{name}.h"),
            ]
        else:
            maps.append(self._constants.map(f"{name}_h", f"{name}, of h", w_hh, None, f"{name}.h"))
        kind = cell.partition("_")[0]
        lines = [f"static const {kind}_layer {name} = {{", f"    {H},", *(f"    {text}," for text in maps), "};"]
        self.program.declarations.append("\n".join(lines))

    def _linear(self, layer: nn.Linear, name: str, source: str, target: str) -> str:
        by_token = self._by_token_now(layer)
        bias = None if layer.bias is None else _array(layer.bias)
        text = self._constants.map(name, name, _array(layer.weight), bias, f"{name}.x", by_token)
        self.program.declarations.append(f"static const affine_map {name} = {text};")
        return self._affine(f"&{name}", source, target, by_token)

    def _embedding(self, lines: list[str], layer: nn.Embedding, name: str, source: str, target: str | None) -> str:
        self._constants.table(name, name, _array(layer.weight))
        if self._is_table(layer):
            return f"({name}_w + (size_t){source} * {layer.embedding_dim})"
        assert target is not None
        self._used.add("lookup")
        lines.append(f"lookup({name}_w, {name}_scale, {source}, {layer.embedding_dim}, {target});")
        return target

    def _macs(self, stages: Sequence[Stage]) -> int:
        """Multiply-accumulates of the stages' matrices for one vector; a matrix read by tokens has none."""
        macs = 0
        for stage in stages:
            layer = stage.layer
            if isinstance(layer, RecurrentLayer):
                weights = [w for names in layer.all_weights for w in names if w.dim() == 2]
                macs += sum(w.numel() for w in weights)
                if self._by_token_now(layer):
                    directions = 2 if layer.bidirectional else 1
                    macs -= directions * layer.weight_ih_l0.numel()
            elif isinstance(layer, nn.Linear) and not self._by_token_now(layer):
                macs += layer.weight.numel()
        return macs

    def _declare_locals(self, lines: list[str]) -> None:
        """Put the declarations of the arrays that the statements use before them."""
        declared = [f"float {name}[{size}];" for name, size in self._locals]
        if any(line.strip().endswith(", a);") for line in lines):
            declared.append(f"float a[{self._most_sums}]; /* W_i x + b of a cell */")
        self.program.working_bytes += 4 * sum(size for _, size in self._locals)
        self._locals = []
        lines[:0] = declared


def _array(parameter: Tensor) -> np.ndarray:
    return parameter.detach().cpu().double().numpy()
