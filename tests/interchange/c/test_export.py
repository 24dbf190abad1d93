"""The C library of a network: what it gives, called from here; how it compiles; what refuses to become one."""

import ctypes
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewise.config import LanguageModelConfig
from gatewise.errors import ExportError, InputError, ShapeError
from gatewise.interchange.c import CParity, compilers, export_c
from gatewise.interchange.c.source import Weights
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.models.sequential import SequentialNetwork, build

COMPILERS = {
    "gcc": ["gcc"],
    "clang": ["clang"],
    **compilers.TARGETS,
}


def gru(inputs, units, **more):
    return {"kind": "gru", "input_size": inputs, "hidden_size": units, **more}


def lstm(inputs, units, **more):
    return {"kind": "lstm", "input_size": inputs, "hidden_size": units, **more}


def rnn(inputs, units, **more):
    return {"kind": "rnn", "input_size": inputs, "hidden_size": units, **more}


def linear(inputs, outputs, **more):
    return {"kind": "linear", "input_size": inputs, "output_size": outputs, **more}


def activation(function):
    return {"kind": "activation", "function": function}


def pooling(kind):
    return {"kind": "pooling", "pooling": kind}


def embedding(tokens, size):
    return {"kind": "embedding", "vocabulary_size": tokens, "size": size}


def one_hot(tokens):
    return {"kind": "one-hot", "vocabulary_size": tokens}


DROPOUT = {"kind": "dropout", "probability": 0.5}
NETWORKS = {
    "language-model": [
        embedding(33, 7),
        DROPOUT,
        gru(7, 33, num_layers=2, dropout=0.1),
        linear(33, 33),
        activation("log-softmax"),
    ],
    "one-hot-before": [one_hot(9), gru(9, 17, reset="before", num_layers=2), linear(17, 9, bias=False)],
    "one-hot-linear": [one_hot(9), linear(9, 5), rnn(5, 6, nonlinearity="relu"), activation("softmax")],
    "one-hot-alone": [one_hot(3), activation("softmax"), lstm(3, 1)],
    "gru-alone": [gru(1, 1)],
    "no-bias": [
        gru(5, 8, bias=False),
        lstm(8, 3, bias=False),
        rnn(3, 7, bias=False),
        gru(7, 2, bias=False, reset="before"),
    ],
    "activations": [
        activation("tanh"),
        gru(3, 5),
        activation("relu"),
        linear(5, 4),
        activation("sigmoid"),
        linear(4, 4),
    ],
    "both-placements": [gru(4, 6), gru(6, 5, reset="before"), activation("tanh")],
    "last": [lstm(12, 20, num_layers=2), pooling("last"), linear(20, 9), activation("softmax")],
    "last-linear": [gru(4, 5), linear(5, 3), pooling("last")],
    "mean": [gru(3, 8), pooling("mean"), activation("relu"), linear(8, 2)],
    "max": [embedding(11, 3), rnn(3, 5), pooling("max")],
    "no-recurrence": [linear(3, 2), pooling("max")],
    "stateless": [embedding(5, 3)],
    "bidirectional": [gru(12, 40, num_layers=2, bidirectional=True), linear(80, 5)],
    "bidirectional-tokens": [
        embedding(20, 6),
        lstm(6, 5, bidirectional=True),
        activation("relu"),
        gru(10, 7, reset="before"),
        linear(7, 4),
        activation("log-softmax"),
    ],
    "bidirectional-one-hot": [one_hot(6), rnn(6, 4, bidirectional=True, num_layers=2)],
    "bidirectional-last": [activation("tanh"), gru(3, 4, bidirectional=True), pooling("last"), linear(8, 5)],
    "bidirectional-linear-last": [gru(3, 4, bidirectional=True), linear(8, 6), activation("relu"), pooling("last")],
    "bidirectional-mean": [
        gru(3, 4, bidirectional=True),
        pooling("mean"),
        linear(8, 3),
        activation("relu"),
        linear(3, 2),
    ],
    "bidirectional-max": [lstm(3, 4, bidirectional=True), DROPOUT, pooling("max"), activation("sigmoid")],
}


@pytest.fixture
def without_cross_compilers(monkeypatch):
    monkeypatch.setattr(compilers, "TARGETS", {})


@pytest.fixture(scope="module")
def cc():
    compiler, why_not = compilers.host_compiler()
    if compiler is None:
        pytest.skip(why_not)
    return compiler


def network_of(name: str) -> SequentialNetwork:
    torch.manual_seed(0)
    network = build(NETWORKS[name])
    for parameter in network.parameters():  # biases and embeddings of the weights' size, so that each counts
        torch.nn.init.uniform_(parameter, -0.6, 0.6)
    return network.eval()


class Library:
    """A C artifact as a shared library of this process."""

    def __init__(self, folder: Path, made: Path, cc):
        cc.compile([folder / "model.c"], made / "model.so", ["-std=c99", "-O2", "-shared", "-fPIC"])
        self._library = ctypes.CDLL(str(made / "model.so"))
        self.state = (ctypes.c_float * 100_000)()
        self("init", self.state)

    def __call__(self, function: str, *arguments) -> int:
        given = [
            a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray)
            else ctypes.c_int32(int(a)) if isinstance(a, np.integer)
            else ctypes.c_size_t(a) if isinstance(a, int)
            else a
            for a in arguments
        ]  # fmt: skip
        return getattr(self._library, f"model_{function}")(*given)


def inputs_of(network: SequentialNetwork, steps: int) -> np.ndarray:
    random = np.random.default_rng(2)
    if network.reads_tokens:
        return random.integers(network.input_size, size=steps).astype(np.int32)
    return random.standard_normal((steps, network.input_size)).astype(np.float32)


def expected_of(network: SequentialNetwork, x: np.ndarray) -> np.ndarray:
    given = torch.from_numpy(x.astype(np.int64 if network.reads_tokens else np.float32)).unsqueeze(1)
    with torch.no_grad():
        y = network(given)[0]
    return (y[0] if network.pools else y[:, 0]).numpy()


def run(library: Library, network: SequentialNetwork, x: np.ndarray, shape) -> np.ndarray:
    got = np.full(shape, np.nan, np.float32)
    scratch = [np.empty(500 * len(x), np.float32)] if any(r.bidirectional for r in network.recurrent_layers) else []
    assert library("run", library.state, x, len(x), got, *scratch) == 0
    return got


# int8 changes the maps, wherever they stand; so these are enough
INT8 = ("language-model", "one-hot-before", "one-hot-linear", "no-bias", "last", "mean", "bidirectional-tokens")
CASES: list[tuple[str, Weights]] = [(name, "float32") for name in NETWORKS]
CASES.extend((name, "int8") for name in INT8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, cc):
    """Gives the folder of a network's library, made and proven once."""
    made = {}

    def folder(name: str, weights: Weights = "float32"):
        if (name, weights) not in made:
            made[name, weights] = tmp_path_factory.mktemp("exported") / "c"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(compilers, "TARGETS", {})
                assert export_c(network_of(name), made[name, weights], weights=weights).verdict == "passed"
        return made[name, weights]

    return folder


@pytest.mark.parametrize(("name", "weights"), CASES)
def test_what_it_gives(name, weights, tmp_path, cc, exported):
    network, folder = network_of(name), exported(name, weights)
    assert {file.name for file in folder.iterdir()} == {
        *("model.h", "model.c", "selftest.c", "README.md", "golden.npz", "parity.json", "parity.md")
    }
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["sanitized"] == cc.works_with(compilers.SANITIZERS)
    # by another way than the proof's: called from here, against torch in float32
    library, x = Library(folder, tmp_path, cc), inputs_of(network, 21)
    expected = expected_of(network, x)
    tolerance = 2e-5 if weights == "float32" else 5e-2
    np.testing.assert_allclose(run(library, network, x, expected.shape), expected, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("bidirectional")])
def test_a_stream_is_the_whole(name, tmp_path, cc, exported):
    network = network_of(name)
    library, x = Library(exported(name), tmp_path, cc), inputs_of(network, 12)
    whole = run(library, network, x, expected_of(network, x).shape)
    library("init", library.state)
    for t, x_t in enumerate(x):  # each step's output is that of the sequence so far
        got = np.full(whole.shape[-1], np.nan, np.float32)
        assert library("step", library.state, x_t, got) == 0
        if network.pools:
            np.testing.assert_allclose(got, expected_of(network, x[: t + 1]), atol=2e-5)
        else:
            np.testing.assert_array_equal(got, whole[t])
    if not network.pools:
        library("init", library.state)
        parts = [run(library, network, part, part_of_whole.shape) for part, part_of_whole in
                 ((x[:5], whole[:5]), (x[5:], whole[5:]))]  # fmt: skip
        np.testing.assert_array_equal(np.concatenate(parts), whole)


FOR_ALL_COMPILERS = ("language-model", "one-hot-linear", "activations", "mean", "max", "bidirectional-tokens")
COMPILATIONS = [("gcc", *case) for case in CASES]
COMPILATIONS += [(c, *case) for c in COMPILERS if c != "gcc" for case in CASES if case[0] in FOR_ALL_COMPILERS]


@pytest.mark.parametrize(("compiler", "name", "weights"), COMPILATIONS)
def test_it_compiles_without_a_warning(compiler, name, weights, tmp_path, sources):
    found = compilers.find(COMPILERS[compiler])
    if found is None:
        pytest.skip(f"{COMPILERS[compiler][0]} is not here")
    for file in ("model.c", "selftest.c"):
        found.compile([sources(name, weights) / file], tmp_path / "made.o", [*compilers.STRICT, "-O2", "-c"])


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Gives the folder of a network's library, made once, without a proof."""
    made = {}

    def folder(name, weights):
        if (name, weights) not in made:
            made[name, weights] = tmp_path_factory.mktemp("sources") / "c"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CC", "no-such-compiler")
                patch.setattr(compilers, "TARGETS", {})
                assert export_c(network_of(name), made[name, weights], weights=weights).verdict == "not run"
        return made[name, weights]

    return folder


@st.composite
def networks(draw):
    """Tables of recurrent layers with random sizes, and what follows them."""
    width = draw(st.integers(1, 40))
    tables = [embedding(draw(st.integers(1, 40)), width)] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        kind, units = draw(st.sampled_from([gru, lstm, rnn])), draw(st.integers(1, 40))
        more = {
            "num_layers": draw(st.integers(1, 3)),
            "bidirectional": draw(st.booleans()),
            "bias": draw(st.booleans()),
        }
        if kind is gru:
            more["reset"] = draw(st.sampled_from(["after", "before"]))
        tables.append(kind(width, units, **more))
        width = units * (2 if more["bidirectional"] else 1)
    if draw(st.booleans()):
        tables.append(pooling(draw(st.sampled_from(["last", "mean", "max"]))))
    if draw(st.booleans()):
        tables.append(linear(width, draw(st.integers(1, 40))))
    return tables


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tables=networks(), weights=st.sampled_from(["float32", "int8"]))
def test_random_networks_pass(tables, weights, tmp_path, cc, without_cross_compilers):
    torch.manual_seed(0)
    parity = export_c(build(tables), tmp_path / "c", weights=weights, overwrite=True)
    assert parity.verdict == "passed", tables


def test_two_models_in_one_program(tmp_path, cc, without_cross_compilers):
    export_c(network_of("mean"), tmp_path / "one", name="one")
    export_c(network_of("language-model"), tmp_path / "two", name="Two_2", weights="int8")
    main = """
        #include "one.h"
        #include "Two_2.h"
        int main(void) {
            static one_state one; static Two_2_state two;
            static const float x[ONE_INPUT_SIZE] = {0.5f};
            float y[ONE_OUTPUT_SIZE], logits[TWO_2_OUTPUT_SIZE];
            one_init(&one); Two_2_init(&two);
            return one_step(&one, x, y) + Two_2_step(&two, 3, logits) + 1 + Two_2_step(&two, TWO_2_TOKENS, logits);
        }"""
    (tmp_path / "main.c").write_text(main)
    sources = [tmp_path / "main.c", tmp_path / "one" / "one.c", tmp_path / "two" / "Two_2.c"]
    flags = [*compilers.STRICT, f"-I{tmp_path / 'one'}", f"-I{tmp_path / 'two'}"]
    cc.compile(sources, tmp_path / "main", flags)
    assert subprocess.run([tmp_path / "main"]).returncode == 0


def test_the_header_is_one_for_cpp_too(tmp_path, sources):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not here")
    folder = sources("mean", "float32")
    (tmp_path / "main.cpp").write_text('#include "model.h"\nint main() { model_state s; model_init(&s); }\n')
    subprocess.run(["gcc", "-c", folder / "model.c", "-o", tmp_path / "model.o"], check=True)
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{folder}"]
    subprocess.run(["g++", *strict, "main.cpp", "model.o", "-lm", "-o", "main"], cwd=tmp_path, check=True)


def test_what_cannot_be_read_changes_nothing(tmp_path, cc, exported):
    library = Library(exported("max"), tmp_path, cc)
    first = bytes(library.state)
    y = np.zeros(5, np.float32)
    for token in (-1, 11):
        assert library("step", library.state, np.int32(token), y) == -1
        assert library("run", library.state, np.array([1, token], np.int32), 2, y) == -1
    assert library("run", library.state, np.array([1], np.int32), 0, y) == -1  # nothing to answer to
    assert bytes(library.state) == first
    assert not y.any()


def test_sizes(tmp_path, cc):
    network = build([embedding(65, 32), gru(32, 64, num_layers=2), linear(64, 65)])
    float32 = export_c(network, tmp_path / "float32").sizes
    int8 = export_c(network, tmp_path / "int8", weights="int8").sizes
    assert float32 is not None
    assert int8 is not None
    matrices = 3 * 64 * (32 + 64) + 3 * 64 * (64 + 64) + 65 * 64
    assert float32.multiply_accumulates == int8.multiply_accumulates == matrices
    # b_ir + b_hr and b_iz + b_hz are one
    assert float32.weights == float32.weights_float32 == 4 * (65 * 32 + matrices + 2 * 4 * 64 + 65)
    assert int8.weights <= 0.3 * float32.weights
    assert float32.state == int8.state == 4 * 2 * 64
    here = [target for target, command in compilers.TARGETS.items() if compilers.find(command)]
    assert [made.target for made in float32.compiled] == here
    for made in float32.compiled:
        assert made.flash == made.code + float32.weights
        assert 0 < made.code < 10_000
        assert made.static_ram == 0
        assert made.stack is None or float32.working < made.stack < float32.working + 1000


def test_the_report(tmp_path, cc, without_cross_compilers):
    network = LanguageModelNetwork(30, LanguageModelConfig(hidden_size=16, embedding_size=8)).as_sequential()
    parity = export_c(network, tmp_path / "c", weights="int8", description="Of a book; */ é.\n#error")
    assert isinstance(parity, CParity)
    content = json.loads((tmp_path / "c" / "parity.json").read_text())
    assert content["verdict"] == "passed"
    assert content["sizes"]["state"] == 64
    assert content["errors_of_model"]["y"] > content["errors"]["y"]
    page = (tmp_path / "c" / "parity.md").read_text()
    assert [error.layer for error in parity.layer_errors] == ["embedding_0", "gru_1", "linear_2"]
    for said in ("c (int8) artifact: PASSED", "| gru_1 |", "No cross compiler was here", "bytes, 0.3"):
        assert said in page
    assert "Of a book; * / é. #error" in (tmp_path / "c" / "model.h").read_text()


def test_calibration(tmp_path, cc, without_cross_compilers):
    network = build([gru(2, 8)])
    tiny = np.random.default_rng(0).normal(0, 1e-3, (50, 3, 2))
    calibrated = export_c(network, tmp_path / "c", weights="int8", calibration=tiny)
    # with steps of the normal inputs' size, such small ones were lost
    np.testing.assert_array_less(np.abs(np.load(tmp_path / "c" / "golden.npz")["T13-B7/x"]), 1e-2)
    assert calibrated.tolerance < 1e-3
    for wrong, error, text in [
        (tiny[..., :1], ShapeError, r"^export_c: expected calibration \(T, B, 2\), got \(50, 3, 1\)$"),
        (tiny * np.inf, InputError, r"^export_c: calibration holds an infinity or NaN$"),
    ]:
        with pytest.raises(error, match=text):
            export_c(network, tmp_path / "x", weights="int8", calibration=wrong)
    with pytest.raises(InputError, match=r"^export_c: calibration is for weights='int8' only$"):
        export_c(network, tmp_path / "x", calibration=tiny)
    tokens = np.array([[1, 20]])
    with pytest.raises(InputError, match=r"^export_c: expected tokens of 0 to 10 in calibration, got 1 to 20$"):
        export_c(network_of("max"), tmp_path / "x", weights="int8", calibration=tokens)
    with pytest.raises(ShapeError, match=r"^export_c: expected calibration \(T, B\) of whole numbers, got \(1, 2\) of"):
        export_c(network_of("max"), tmp_path / "x", weights="int8", calibration=tokens / 2)


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "é", "_a", "a" * 41, "a/b"])
def test_names_that_c_does_not_take(name, tmp_path):
    with pytest.raises(InputError, match=r"^export_c: expected name to begin C identifiers: a letter, then up to 39"):
        export_c(network_of("gru-alone"), tmp_path / "c", name=name)


@pytest.mark.parametrize("name", ["math", "String", "selftest"])
def test_names_of_other_files(name, tmp_path):
    with pytest.raises(InputError, match=rf"^export_c: name '{name}' is that of a file of C or of the artifact"):
        export_c(network_of("gru-alone"), tmp_path / "c", name=name)


def test_what_cannot_become_one(tmp_path):
    network = network_of("gru-alone")
    with pytest.raises(InputError, match=r"^export_c: expected weights to be one of float32, int8, got 'int4'$"):
        export_c(network, tmp_path / "c", weights="int4")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"^export_c: expected a SequentialNetwork, got GRU; .* as_sequential\(\)$"):
        export_c(network.layers[0], tmp_path / "c")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"^export_c: expected a layer that says how many inputs there are, got none$"):
        export_c(build([activation("tanh")]), tmp_path / "c")
    with torch.no_grad():
        next(network.parameters())[0] = torch.nan
    with pytest.raises(InputError, match=r"^export_c: layers\.0\.weight_ih_l0 holds an infinity or NaN"):
        export_c(network, tmp_path / "c")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine").touch()
    with pytest.raises(InputError, match=r"c: exists already; overwrite it, or name another folder"):
        export_c(network_of("gru-alone"), tmp_path / "c")
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["mine"]


@pytest.mark.parametrize("asked", ["no-such-compiler -O2", "'cc", None])
def test_without_a_compiler_it_says_so(asked, tmp_path, monkeypatch):
    if asked is None:
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setenv("CC", asked)
    parity = export_c(network_of("mean"), tmp_path / "c", weights="int8")
    assert parity.verdict == "not run"
    called = "cc" if asked is None else f"CC={asked}"
    expected = f"**NOT RUN: no C compiler is here ({called} is not found; set CC to one).**"
    assert expected in (tmp_path / "c" / "parity.md").read_text()
    assert (tmp_path / "c" / "model.c").exists()


def test_a_compiler_that_makes_nothing(tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert "cannot make a program that runs" in (export_c(network_of("gru-alone"), tmp_path / "c").why_not_run or "")


def broken_templates(monkeypatch, before: str, after: str):
    """Have the libraries be written with `after` in place of `before`."""
    from gatewise.interchange.c import export

    write = export.write_library

    def write_wrong(folder, name, *rest):
        write(folder, name, *rest)
        content = (folder / f"{name}.c").read_text()
        assert before in content
        (folder / f"{name}.c").write_text(content.replace(before, after))

    monkeypatch.setattr(export, "write_library", write_wrong)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("(1.0f - z) * n", "z * n", r"^c \(float32\): the artifact does not give what the model gives: y is off by"),
        ("float past", "flaot past", r"does not compile the library: .*flaot.*; nothing was left behind$"),
        ("return 0;", "return 7;", r"^c: the compiled library ends with status 5; nothing was left behind$"),
        ("memset(state, 0, sizeof *state)", "*(volatile int *)0 = 1", r"^c: the compiled library ends with status -11"),
    ],
)
def test_a_wrong_artifact_leaves_nothing(before, after, message, tmp_path, cc, monkeypatch, without_cross_compilers):
    broken_templates(monkeypatch, before, after)
    with pytest.raises(ExportError, match=message):
        export_c(network_of("gru-alone"), tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_a_write_beyond_an_array_is_found(tmp_path, cc, monkeypatch, without_cross_compilers):
    if not cc.works_with(compilers.SANITIZERS):
        pytest.skip(f"{cc.version} has no sanitizers")
    before = "float past[1];"
    broken_templates(monkeypatch, before, before + " ((volatile float *)past)[layer->units] = 0.0f;")
    with pytest.raises(ExportError, match=r"^c: (selftest\.c|the compiled library) ends with status"):
        export_c(network_of("gru-alone"), tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_the_selftest_fails_on_other_outputs(tmp_path, cc, exported):
    folder = shutil.copytree(exported("last"), tmp_path / "c")
    sources = [folder / "model.c", folder / "selftest.c"]
    cc.compile(sources, tmp_path / "selftest", ["-std=c99"])
    passed = subprocess.run([tmp_path / "selftest"], capture_output=True, text=True)
    assert passed.returncode == 0
    assert passed.stdout.endswith("passed\n")
    content = (folder / "selftest.c").read_text()
    other = content.replace("outputs[9] = {\n    0.", "outputs[9] = {\n    1.")
    assert other != content
    (folder / "selftest.c").write_text(other)
    cc.compile(sources, tmp_path / "selftest", ["-std=c99"])
    failed = subprocess.run([tmp_path / "selftest"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stdout.endswith("FAILED\n")


def test_the_same_network_gives_the_same_files(sources, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(compilers, "TARGETS", {})
    first = sources("language-model", "int8")
    export_c(network_of("language-model"), tmp_path / "c", weights="int8")
    for file in ("model.h", "model.c", "selftest.c", "parity.md"):
        assert (first / file).read_bytes() == (tmp_path / "c" / file).read_bytes()


def test_nothing_of_libc_but_a_little(sources):
    for weights in ("float32", "int8"):
        text = (sources("bidirectional-tokens", weights) / "model.c").read_text()
        text += (sources("bidirectional-tokens", weights) / "model.h").read_text()
        included = {line.split()[1] for line in text.splitlines() if line.startswith("#include")}
        assert included == {'"model.h"', "<math.h>", "<stdint.h>", "<string.h>"}
        assert "alloc(" not in text
        assert "double " not in text.replace("no double is", "")
