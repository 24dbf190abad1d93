"""run_folder: what is written can be read back; what is damaged, half-written, newer or in the way is named."""

import errno
import json
import os

import pytest
import torch

from gatewise import run_folder
from gatewise.errors import RunError
from gatewise.run_folder import (
    RunFolder,
    append_line,
    atomic_write,
    load_tensors,
    read_header,
    read_lines,
    save_tensors,
)

TENSORS = {
    "weight": torch.linspace(-1, 1, 6).view(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "step": torch.tensor(7.0),
    "random": torch.arange(5, dtype=torch.uint8),
    "none": torch.zeros(0, 3),
    "transposed": torch.arange(6).view(2, 3).t(),
}


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_atomic_write_replaces_the_file(tmp_path):
    path = tmp_path / "file"
    for data in (b"one", b"", b"two"):
        atomic_write(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_atomic_write_keeps_the_file_when_the_disk_is_full(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(RunError) as error:
        atomic_write(path, b"after")
    assert str(error.value) == f"{path}: cannot be written: No space left on device; what it held before is kept"
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_into_a_folder_that_is_gone(tmp_path):
    path = tmp_path / "gone" / "file"
    with pytest.raises(RunError) as error:
        atomic_write(path, b"data")
    assert str(error.value) == f"{path}: cannot be written: No such file or directory"


def test_atomic_write_leaves_nothing_behind_when_interrupted(tmp_path, monkeypatch):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "file", b"data")
    assert list(tmp_path.iterdir()) == []


def test_lines_come_back(tmp_path):
    path = tmp_path / "lines.jsonl"
    lines = [
        {"step": 1, "text": "na\u00efve\nfile"},
        {"step": 2, "loss_nats": 0.1 + 0.2},
        {"step": 3, "text": "\ud800"},
    ]
    for line in lines:
        append_line(path, line)
    assert read_lines(path) == lines
    assert len(path.read_bytes().splitlines()) == 3


def test_no_file_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "lines.jsonl") == []


def test_a_line_cut_off_in_writing_does_not_count(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, {"step": 1})
    with path.open("ab") as file:
        file.write(b'{"step": 2, "lo')
    assert read_lines(path) == [{"step": 1}]


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(RunError) as error:
        read_lines(path)
    assert str(error.value) == f"{path}: line 2 is damaged: Expecting value: line 1 column 10 (char 9)"


def test_a_line_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.open", full_disk)
    with pytest.raises(RunError) as error:
        append_line(tmp_path / "lines.jsonl", {"step": 1})
    assert str(error.value) == f"{tmp_path / 'lines.jsonl'}: cannot be written: No space left on device"


def test_truncate_metrics_cuts_off_later_steps(tmp_path):
    run = RunFolder(tmp_path)
    for step in range(1, 6):
        append_line(run.metrics, {"step": step})
        append_line(run.samples, {"step": step, "text": "x"})
    with run.metrics.open("ab") as file:
        file.write(b'{"st')
    run.truncate_metrics(3)
    assert [line["step"] for line in run.read_metrics()] == [1, 2, 3]
    assert [line["step"] for line in run.read_samples()] == [1, 2, 3]
    append_line(run.metrics, {"step": 4})
    assert [line["step"] for line in run.read_metrics()] == [1, 2, 3, 4]


def test_tensors_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "model.safetensors"
    metadata = {"step": 3, "loss_nats": 0.1, "model": {"hidden_size": 4}, "none": None}
    save_tensors(path, TENSORS, metadata)
    tensors, found = load_tensors(path)
    assert found == {"format": 1, **metadata}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name
    assert {**read_header(path), "sha256": None} == {**found, "sha256": None}


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"a": torch.arange(4.0), "b": torch.tensor([1, 2])}, {"step": 3})
    whole = path.read_bytes()
    expected = load_tensors(path)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            tensors, metadata = load_tensors(path)
        except RunError as error:
            assert str(error).startswith((f"{path}: damaged: ", f"{path}: written by a newer gatewise"))  # noqa: PT017
        else:  # a bit that means nothing
            assert metadata == expected[1]
            assert all(torch.equal(tensors[name], tensor) for name, tensor in expected[0].items())


def test_no_truncation_goes_unnoticed(tmp_path):
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"a": torch.arange(4.0)}, {"step": 3})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match=r"model\.safetensors: damaged: "):
            load_tensors(path)


def test_changed_numbers_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_tensors(path, {"a": torch.arange(4.0)}, {})
    path.write_bytes(path.read_bytes()[:-1] + b"\x3f")
    with pytest.raises(RunError) as error:
        load_tensors(path)
    assert str(error.value) == f"{path}: damaged: its contents do not agree with its SHA-256"


def test_missing_weights(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(RunError) as error:
        load_tensors(path)
    assert str(error.value) == f"{path}: missing: the run folder is half-written or was not copied whole"


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]"])
def test_what_is_no_safetensors_file(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunError) as error:
        load_tensors(path)
    assert str(error.value) == f"{path}: damaged: its header cannot be read"


def test_weights_of_a_newer_version(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    monkeypatch.setattr(run_folder, "FORMAT", 2)
    save_tensors(path, TENSORS, {})
    monkeypatch.setattr(run_folder, "FORMAT", 1)
    with pytest.raises(RunError) as error:
        load_tensors(path)
    assert str(error.value) == f"{path}: written by a newer gatewise (format 2, this one reads 1); upgrade gatewise"


def test_an_existing_run_is_refused(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create()
    run.config.write_text("format = 1\n")
    with pytest.raises(RunError) as error:
        run.create()
    assert str(error.value) == (
        f"{run.path}: a run lies here already; resume it, overwrite it, or name another folder for the new one"
    )
    assert run.config.exists()


def test_overwriting_removes_the_run_and_nothing_else(tmp_path):
    run = RunFolder(tmp_path)
    run.create()
    for path in (run.config, run.metrics, run.checkpoint, run.report):
        path.write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    run.create(overwrite=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["notes.txt", "training_state"]


def test_a_folder_with_other_files_takes_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder(tmp_path).create()


def test_a_file_in_the_way(tmp_path):
    path = tmp_path / "run"
    path.write_text("a file")
    with pytest.raises(RunError) as error:
        RunFolder(path).create(overwrite=True)
    assert str(error.value) == f"{path}: is a file; name a folder for the run"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("a file")
    path = tmp_path / "file" / "run"
    with pytest.raises(RunError) as error:
        RunFolder(path).create()
    assert str(error.value) == f"{path}: the folder cannot be made: Not a directory"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "{run}: not a run folder, or half-written: it holds no config.toml"),
        ("format = \n", "{run}/config.toml: damaged: Invalid value (at line 1, column 10)"),
        ("[data]\n", "{run}/config.toml: damaged: expected format = 1, got None"),
        ("format = 0\n", "{run}/config.toml: damaged: expected format = 1, got 0"),
        (
            "format = 2\n",
            "{run}/config.toml: written by a newer gatewise (format 2, this one reads 1); upgrade gatewise",
        ),
    ],
)
def test_what_is_no_run(tmp_path, config, message):
    run = RunFolder(tmp_path)
    if config is not None:
        run.config.write_text(config)
    with pytest.raises(RunError) as error:
        run.check_existing()
    assert str(error.value) == message.format(run=tmp_path)


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(RunError) as error:
        RunFolder(tmp_path / "run").check_existing()
    assert str(error.value) == f"{tmp_path / 'run'}: no such run folder"
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError) as error:
        RunFolder(tmp_path / "run").check_existing()
    assert str(error.value) == f"{tmp_path / 'run'}: is a file; expected the folder of a run"


def test_metadata_is_plain_json_in_the_header(tmp_path):
    """Any reader of safetensors finds it."""
    from safetensors import safe_open

    path = tmp_path / "model.safetensors"
    save_tensors(path, TENSORS, {"step": 3})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    assert header["format"] == "pt"
    assert json.loads(header["gatewise"])["step"] == 3
