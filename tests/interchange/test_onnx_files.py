"""ONNX files that are damaged or hostile: each is refused by one error that says what is wrong, without much memory."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gatewise.errors import BackendError, InputError
from gatewise.interchange import onnx_file, onnx_in
from gatewise.interchange.onnx_out import to_onnx
from gatewise.models.sequential import build

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.external_data_helper import convert_model_to_external_data  # noqa: E402

ROOT = Path(__file__).parents[2]
READERS = [onnx_in.network, onnx_in.layers]


def good() -> Any:
    return to_onnx(build([{"kind": "gru", "input_size": 3, "hidden_size": 4, "num_layers": 2}]))


def refusal(path: Path, content: bytes | Any) -> str:
    """What the error says of a file, after its name; the same in both readers, or that of the whole network."""
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    texts = []
    for read in READERS:
        start = time.process_time()
        with pytest.raises(InputError) as caught:
            read(path)
        assert time.process_time() - start < 5
        texts.append(str(caught.value))
        assert texts[-1].startswith(f"{path}: ")
        assert "\n" not in texts[-1]
        assert len(texts[-1]) < 700
    return texts[0].removeprefix(f"{path}: ")


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"model.onnx: no such file$"):
        onnx_in.network(tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"is a folder; name a file$"):
        onnx_in.layers(tmp_path)


def test_without_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        BackendError, match=r"^onnx_in.network: the package onnx is not installed; install it with: pip"
    ):
        onnx_in.network(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ONNX model: it has no graph, or names no version of ONNX's operators"),
        (b"not a model at all", "not an ONNX model, or damaged: "),
        (b"\x3a\xff\xff\xff\xff\x0f", "cut off at byte 6: 4294967295 bytes are announced, 0 left"),
        (b"\x08" + b"\xff" * 11, "a number without an end at byte 11"),
        (b"\x08", "cut off at byte 1"),
        (b"\x3b\x3c", "an unknown kind of field at byte 1"),
        (b"\x12\x02\xc3\x28", "a text that is not UTF-8 at byte 2"),
        (b"\x3a\x80\x80\x80\x01" + b"\x0a\x00" * 2**20, "more than 500,000 fields"),  # a million empty nodes
    ],
)
def test_bytes_that_are_no_model(content, message, tmp_path):
    assert message in refusal(tmp_path / "model.onnx", content)


def test_a_file_that_was_cut_off(tmp_path):
    content = good().SerializeToString()
    for size in range(1, len(content), len(content) // 23):
        refusal(tmp_path / "model.onnx", content[:size])


def test_messages_in_one_another(tmp_path):
    """Deeper than protobuf itself goes."""
    content = b""
    for _ in range(60):  # the graph of an attribute of a node of a graph
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            content = tag + _varint(content)
    assert "more than 100 messages in one another" in refusal(tmp_path / "model.onnx", b"\x3a" + _varint(content))


def _varint(content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return length + bytes([size]) + content


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([2**31 - 1, 2**31 - 1, 4], "the file is damaged"),
        ([2**40], r"expected at most 16 axes of less than 2**31 each, got (1099511627776,)"),
        ([-1, 12, 3], "expected at most 16 axes of less than 2**31 each, got (-1, 12, 3)"),
        ([1] * 20, "expected at most 16 axes"),
        ([1, 12, 2], "expected 96 bytes for dimensions (1, 12, 2), got 144; the file is damaged"),
    ],
)
def test_dimensions_that_the_bytes_do_not_fill(dims, message, tmp_path):
    model = good()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "layers.0.l0.W")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    text = refusal(tmp_path / "model.onnx", model)
    assert text.startswith("initializer 'layers.0.l0.W': ")
    assert message in text


def with_weights_from(*nodes: Any, more: dict[str, np.ndarray] | None = None) -> Any:
    """A model whose GRU takes its W from these nodes."""
    model = good()
    for index, node in enumerate(nodes):
        model.graph.node.insert(index, node)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in (more or {}).items())
    next(node for node in model.graph.node if node.op_type == "GRU").input[1] = "bomb"
    return model


SHAPE = {"shape": np.array([1, 30_000, 30_000])}


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        ([helper.make_node("ConstantOfShape", ["shape"], ["bomb"], "bomb")], SHAPE),
        ([helper.make_node("Expand", ["layers.0.l0.W", "shape"], ["bomb"], "bomb")], {"shape": np.array([9**9, 1, 1])}),
        ([helper.make_node("Tile", ["layers.0.l0.W", "shape"], ["bomb"], "bomb")], SHAPE),
        (
            [
                helper.make_node(
                    "Concat", [f"bomb {n}" if n else "layers.0.l0.W"] * 2, [f"bomb {n + 1}"], "bomb", axis=0
                )
                for n in range(40)
            ]
            + [helper.make_node("Identity", ["bomb 40"], ["bomb"])],
            None,
        ),
        (
            [helper.make_node("Range", ["start", "limit", "step"], ["bomb"], "bomb")],
            {"start": np.array(0), "limit": np.array(2**31 - 2), "step": np.array(1)},
        ),
    ],
    ids=["ConstantOfShape", "Expand", "Tile", "Concat", "Range"],
)
def test_small_files_that_ask_for_large_tensors(nodes, more, tmp_path):
    text = refusal(tmp_path / "model.onnx", with_weights_from(*nodes, more=more))
    assert ' "bomb" (node ' in text
    assert "more than a file of this size may ask for" in text or "cannot be computed" in text


def test_one_weight_that_many_layers_share(tmp_path):
    """Ten thousand layers of 3 MB, whose weights are the same 3 MB of the file."""
    hidden = 500
    arrays = {name: np.zeros((1, 3 * hidden, hidden), np.float32) for name in ("W", "R")}
    nodes = [
        helper.make_node("GRU", ["x" if n == 0 else f"y{n - 1}", "W", "R"], [f"y{n}"], f"gru {n}")
        for n in range(10_000)
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", hidden])
    y = helper.make_tensor_value_info("y9999", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = helper.make_model(helper.make_graph(nodes, "graph", [x], [y], tensors), ir_version=8)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="may ask for"):
        onnx_in.layers(path)


def test_a_constant_that_many_nodes_look_at(tmp_path):
    """Of 60 MB, made of nothing, and of which each of a thousand nodes wants to know whether it is zero."""
    arrays = {"W": np.zeros((1, 3, 1), np.float32), "R": np.zeros((1, 3, 1), np.float32), "zero": np.zeros((1, 1, 1))}
    arrays["shape"] = np.array([1, 7_000_000, 1])
    nodes = [helper.make_node("Expand", ["zero", "shape"], ["h"])]
    nodes += [helper.make_node("GRU", ["x", "W", "R", "", "", "h"], ["y"], f"gru {n}") for n in range(1000)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None, 1]) for name in "xy")
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = helper.make_model(helper.make_graph(nodes, "graph", [x], [y], tensors), ir_version=8)
    assert "gru 0" in refusal(tmp_path / "model.onnx", model)


def test_copies_that_only_a_transposition_makes(tmp_path):
    """A reshape of what was transposed: each is a copy."""
    big = {"big": np.zeros((1000, 1000), np.float32), "shape": np.array([1000, 1000])}
    nodes, name = [], "big"
    for n in range(200):
        nodes += [
            helper.make_node("Transpose", [name], [f"t{n}"]),
            helper.make_node("Reshape", [f"t{n}", "shape"], [f"r{n}"], "bomb"),
        ]
        name = f"r{n}"
    text = refusal(
        tmp_path / "model.onnx", with_weights_from(*nodes, helper.make_node("Identity", [name], ["bomb"]), more=big)
    )
    assert "more than a file of this size may ask for" in text


def test_one_file_beside_the_model_that_many_tensors_read(tmp_path):
    (tmp_path / "data").write_bytes(bytes(2**20))
    model = good()
    for n in range(1000):
        tensor = model.graph.initializer.add(name=f"t{n}", data_type=TensorProto.FLOAT, dims=[2**18])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="data")
    model.graph.node.insert(0, helper.make_node("Concat", [f"t{n}" for n in range(1000)], ["bomb"], axis=0))
    next(node for node in model.graph.node if node.op_type == "GRU").input[1] = "bomb"
    assert "more than a file of this size may ask for" in refusal(tmp_path / "model.onnx", model)


def with_data_at(location: str, offset: str = "0") -> Any:
    model = good()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "layers.0.l0.W")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value=offset)
    return model


@pytest.mark.parametrize("location", ["", "../outside", "inside/../../outside", "/etc/passwd", "..\\outside", "a\0b"])
def test_data_outside_the_models_folder_are_not_read(location, tmp_path):
    (tmp_path / "outside").write_bytes(bytes(1000))
    (tmp_path / "folder").mkdir()
    text = refusal(tmp_path / "folder" / "model.onnx", with_data_at(location))
    assert text.startswith("initializer 'layers.0.l0.W': expected its data in a file of the model's folder, got ")


def test_links_that_lead_out_are_not_followed(tmp_path):
    (tmp_path / "outside").write_bytes(bytes(1000))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "outside")
    text = refusal(tmp_path / "folder" / "model.onnx", with_data_at("link"))
    assert "'link' leads out of the model's folder, which is not followed" in text


@pytest.mark.parametrize(
    ("offset", "message"),
    [("0", "which does not hold them"), ("-8", "does not hold them"), ("many", "the place of its data in 'data' is")],
)
def test_data_beside_the_model_that_are_too_short(offset, message, tmp_path):
    (tmp_path / "data").write_bytes(bytes(143))
    assert message in refusal(tmp_path / "model.onnx", with_data_at("data", offset))


def test_data_that_are_no_file(tmp_path):
    os.mkfifo(tmp_path / "data")
    assert "which is not beside the model" in refusal(tmp_path / "model.onnx", with_data_at("data"))
    assert "which is not beside the model" in refusal(tmp_path / "model.onnx", with_data_at("x" * 3000))


def test_data_beside_the_model_are_read(tmp_path):
    network = build([{"kind": "lstm", "input_size": 30, "hidden_size": 20}])
    model = to_onnx(network)
    convert_model_to_external_data(model, location="model.data", size_threshold=100)
    onnx.save(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.data").exists()
    again = onnx_in.network(tmp_path / "model.onnx")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))


def test_nodes_in_functions_are_named(tmp_path):
    model = good()
    gru = helper.make_node("GRU", ["x", "w", "r"], ["y"], "hidden one")
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Encoder", ["x", "w", "r"], ["y"], [gru], opsets))
    onnx.save(model, tmp_path / "model.onnx")
    message = r"GRU \"hidden one\" \(node 0 of the function 'Encoder'\): nodes in functions are not read; write"
    with pytest.raises(InputError, match=message):
        onnx_in.layers(tmp_path / "model.onnx")


def test_tensors_of_texts_and_segments(tmp_path):
    model = good()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "layers.0.l0.W")
    tensor.segment.begin = 1
    assert "is a segment of a tensor" in refusal(tmp_path / "model.onnx", model)
    tensor.data_type = TensorProto.STRING
    assert "expected a tensor of numbers, got type 8 of ONNX" in refusal(tmp_path / "model.onnx", model)


def test_numbers_in_every_form(tmp_path):
    """The same tensor as raw bytes and number by number, of every type that is read."""
    path = tmp_path / "model.onnx"
    onnx.save(good(), path)
    file = onnx_file.OnnxFile(path, "test")
    for name in (
        "FLOAT",
        "DOUBLE",
        "FLOAT16",
        "BFLOAT16",
        "INT8",
        "UINT8",
        "INT32",
        "INT64",
        "UINT32",
        "UINT64",
        "BOOL",
    ):
        kind = getattr(TensorProto, name)
        values = (
            np.array([[1, 0, 1], [3, -2, 0.5]]) if "FLOAT" in name or name == "DOUBLE" else np.array([[1, 0], [1, 1]])
        )
        for raw in (False, True):
            content: Any = values.astype(helper.tensor_dtype_to_np_dtype(kind)).tobytes() if raw else values.ravel()
            tensor = helper.make_tensor("t", kind, values.shape, content, raw=raw)
            np.testing.assert_array_equal(file.array(tensor, name), values, name)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit other things")
def test_mutated_files():
    """bench/fuzz_readers.py does it with more, and says what is allowed."""
    command = [sys.executable, ROOT / "bench" / "fuzz_readers.py", "onnx", "--count", "300", "--seed", "20000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.endswith("  read") for line in lines)
    assert "300 files, 0 failures" in lines[-2]
    assert len(lines) > 20
