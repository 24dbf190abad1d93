"""Keras files that are damaged or hostile: each is refused by one error that says what is wrong, and nothing is run."""

import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gatewise.errors import InputError
from gatewise.interchange import hdf5, keras_in
from gatewise.interchange.keras_files import CONFIG, WEIGHTS

h5py = pytest.importorskip("h5py", reason="Keras files are HDF5, of the extra `keras`")

from hdf5_forks import Forks  # noqa: E402
from keras_mutations import mutated, originals, unzipped, zipped  # noqa: E402


@pytest.fixture(scope="module")
def good() -> dict[str, bytes]:
    return originals()


def refusal(path: Path, data: bytes) -> str:
    """What the error says of a file, after its name."""
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        keras_in.network(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < 700
    return text.removeprefix(f"{path}: ")


def with_config(archive: bytes, config: bytes) -> bytes:
    return zipped(unzipped(archive) | {CONFIG: config})


def with_weights(archive: bytes, change: Callable) -> bytes:
    """An archive whose HDF5 file was changed: `change` takes the opened file and a path in it."""
    members = unzipped(archive)
    image = io.BytesIO(members[WEIGHTS])
    with h5py.File(image, "r+") as file:
        name = "layers/lstm/cell/vars/0"
        del file[name]
        change(file, name)
    return zipped(members | {WEIGHTS: image.getvalue()})


def test_the_originals_are_read(good, tmp_path):
    described = []
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)
        described.append(keras_in.network(tmp_path / name).describe())
    assert described[0] == described[1]


def test_what_is_no_keras_file(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(InputError, match=r"model\.keras: no such file$"):
        keras_in.network(path)
    with pytest.raises(
        InputError, match=r": is a folder \(a TensorFlow SavedModel\?\); expected a \.keras or \.h5 file"
    ):
        keras_in.network(tmp_path)
    for data in (b"", b"just a text", b"\x89HD"):
        assert refusal(path, data) == "expected a .keras archive or an HDF5 file, got neither"


class _Mischief:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_is_never_read(good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(_Mischief())
    assert "it looks like a pickle, which is never read: it could execute" in refusal(tmp_path / "m.keras", pickled)
    for member in (CONFIG, WEIGHTS):
        refusal(tmp_path / "m.keras", zipped(unzipped(good["model.keras"]) | {member: pickled}))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_truncated(name, good, tmp_path):
    for size in np.linspace(9, len(good[name]) - 1, 12).astype(int):
        assert "damaged" in refusal(tmp_path / name, good[name][:size])


def test_members_that_point_out_of_the_archive(good, tmp_path):
    for name in ("../evil", "a/../../evil", "/etc/passwd", "C:\\evil", "..\\evil"):
        data = zipped(unzipped(good["model.keras"]) | {name: b"x"})
        assert refusal(tmp_path / "m.keras", data) == f"the archive has a member that points out of it: {name!r}"


def test_members_that_are_missing_or_twice_there(good, tmp_path):
    members = unzipped(good["model.keras"])
    for name in (CONFIG, WEIGHTS):
        some = {key: data for key, data in members.items() if key != name}
        assert refusal(tmp_path / "m.keras", zipped(some)).startswith(f"the archive holds no {name}; expected config.j")
    file = io.BytesIO(good["model.keras"])
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr(CONFIG, members[CONFIG])
    assert refusal(tmp_path / "m.keras", file.getvalue()) == "the archive has two members of the name 'config.json'"


@pytest.mark.parametrize(("name", "size"), [(CONFIG, 5_000_000), (WEIGHTS, 70_000_000)])
def test_zip_bombs(name, size, good, tmp_path):
    data = zipped(unzipped(good["model.keras"]) | {name: bytes(size)}, zipfile.ZIP_DEFLATED)
    assert len(data) < 200_000
    assert refusal(tmp_path / "m.keras", data).startswith(f"{name} unpacks to {size} bytes, more than the ")
    # The size that it declares is another one than that which comes.
    declared = data.replace(struct.pack("<L", size), struct.pack("<L", 1000))
    assert "damaged: the zip archive cannot be read: Bad CRC-32" in refusal(tmp_path / "m.keras", declared)


def test_an_archive_of_very_many_members(tmp_path):
    data = zipped({f"{number:x}": b"" for number in range(25_000)})
    assert "the list of the archive's members takes" in refusal(tmp_path / "m.keras", data)


def test_members_packed_otherwise(good, tmp_path):
    data = zipped(unzipped(good["model.keras"]), zipfile.ZIP_BZIP2)
    assert refusal(tmp_path / "m.keras", data) == "config.json is packed in a way that Keras never uses"
    encrypted = bytearray(good["model.keras"])
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    assert refusal(tmp_path / "m.keras", bytes(encrypted)) == (
        "'metadata.json' is encrypted; save the model without a password"
    )


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_configurations_that_are_none(name, good, tmp_path):
    def refused(config: bytes) -> str:
        if name == "model.keras":
            return refusal(tmp_path / name, with_config(good[name], config))
        image = io.BytesIO(good[name])
        with h5py.File(image, "r+") as file:
            file.attrs["model_config"] = np.bytes_(config)
        return refusal(tmp_path / name, image.getvalue())

    nested = b'{"class_name":' * 20_000 if name == "model.keras" else b"[" * 60_000
    assert "nested too deep to be the configuration of a model" in refused(nested)
    assert "damaged: no JSON: Expecting" in refused(b'{"class_name": ')
    assert "damaged: expected the configuration of a model, got [1]" in refused(b"[1]")
    assert "a model of class 'Mine': its structure is Python code" in refused(b'{"class_name": "Mine", "config": {}}')
    entry = b'{"class_name": "Sequential", "config": {"layers": [%s]}}'
    assert "expected the configuration of a layer, got 3" in refused(entry % b"3")
    assert "the model has no layer" in refused(entry % b"")
    many = b",".join([b'{"class_name":"Dropout","config":{}}'] * 1001)
    assert "layers: 1001 entries, more than the 1000 that are read" in refused(entry % many)


def test_sizes_that_the_weights_do_not_have(good, tmp_path):
    """Nothing is allocated by what a configuration says alone."""
    config = json.loads(unzipped(good["model.keras"])[CONFIG])
    options = {layer["config"]["name"]: layer["config"] for layer in config["config"]["layers"]}
    for name, key, expected in (
        ("dense", "units", r"kernel: expected an array (2, 2147483647), got (2, 3)"),
        ("lstm", "units", r"kernel: expected an array (8, 8589934588), got (8, 8)"),
        ("embedding", "input_dim", r"embeddings: expected an array (2147483647, 3), got (7, 3)"),
    ):
        usual, options[name][key] = options[name][key], 2**31 - 1
        said = refusal(tmp_path / "m.keras", with_config(good["model.keras"], json.dumps(config).encode()))
        assert said.endswith(expected)
        for wrong in (2**31, -1, 0, 1.5, True, None, "3", [[3]]):
            options[name][key] = wrong
            said = refusal(tmp_path / "m.keras", with_config(good["model.keras"], json.dumps(config).encode()))
            assert f"{key}: expected a whole number from 1 to 2147483647, got {wrong!r}" in said
        options[name][key] = usual


def _virtual(file, name):
    layout = h5py.VirtualLayout((8, 8), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (8, 8))
    file.create_virtual_dataset(name, layout)


def _deep(file, name):
    for depth in range(20):
        file.create_group("/".join(["layers", *["deep"] * (depth + 1)]))


def _many_names(file, name):
    file["layers/0"] = np.zeros(4096, np.float32)
    for number in range(1, 20):
        file[f"layers/{number}"] = file["layers/0"]


DATASETS: dict[str, tuple[Callable, str]] = {
    "never stored": (
        lambda file, name: file.create_dataset(name, shape=(2**20, 2**20), dtype="f4"),
        "layers/lstm/cell/vars/0 is declared as (1048576, 1048576) float32, 4398046511104 bytes, but the file holds 0",
    ),
    "chunks": (
        lambda file, name: file.create_dataset(name, (2**16, 2**16), "f4", chunks=(2**14, 2**14), compression="gzip"),
        "layers/lstm/cell/vars/0 is stored in chunks, as Keras never does, and perhaps compressed; write it again",
    ),
    "soft link": (lambda file, name: file.__setitem__(name, h5py.SoftLink("/layers")), "is a soft or external link; n"),
    "external link": (
        lambda file, name: file.__setitem__(name, h5py.ExternalLink("/etc/passwd", "/x")),
        "is a soft or external link; no link is followed",
    ),
    "external storage": (
        lambda file, name: file.create_dataset(name, (8, 8), "f4", external=[("/etc/passwd", 0, 256)]),
        "lies in another file, which is not opened",
    ),
    "virtual": (_virtual, "lies in another file, which is not opened"),
    "ring": (lambda file, name: file.__setitem__(name, file["/"]), "nested deeper than 16 groups"),
    "deep": (_deep, "nested deeper than 16 groups"),
    "many": (
        lambda file, name: [file.create_group(f"layers/{number}") for number in range(10_001)],
        "more than 10000 groups and datasets",
    ),
    "missing": (lambda file, name: None, "kernel: the file holds no array at layers/lstm/cell/vars/0"),
    "integers": (
        lambda file, name: file.create_dataset(name, data=np.zeros((8, 8), np.int32)),
        "kernel: expected float16, float32 or float64 at layers/lstm/cell/vars/0, got int32 [8, 8]",
    ),
    "texts": (lambda file, name: file.create_dataset(name, data=["a", "b"]), "vars/0, got object [2]"),
    "nothing": (lambda file, name: file.create_dataset(name, data=h5py.Empty("f4")), "vars/0, got float32 None"),
    "transposed": (
        lambda file, name: file.create_dataset(name, data=np.zeros((5, 8), np.float32)),
        "layer 'lstm' (LSTM): kernel: expected an array (8, 8), got (5, 8)",
    ),
    "twice the same bytes": (_many_names, "its datasets hold more bytes than the file"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATASETS)
def test_weights_that_are_not_read(name, good, tmp_path):
    change, message = DATASETS[name]
    assert message in refusal(tmp_path / "m.keras", with_weights(good["model.keras"], change))


def test_weights_alone_are_no_model(good, tmp_path):
    said = refusal(tmp_path / "m.h5", unzipped(good["model.keras"])[WEIGHTS])
    assert said.startswith("holds no model_config: weights alone do not say what the layers are; save the whole model")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os; os.abort()", "the HDF5 library crashed over it, or took more than 3 s (the process that read it"),
        ("while True: pass", "the HDF5 library crashed over it, or took more than 3 s (the process that read it"),
        ("bytes(10**10)", "damaged: it asks for more memory than a file of its size can need"),
        ("open('/etc/passwd')", "damaged: [Errno 24] Too many open files: '/etc/passwd'"),
    ],
    ids=["crash", "loop", "memory", "files"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit other things")
def test_the_process_that_reads_hdf5_is_limited(program, message, good, tmp_path, monkeypatch):
    """The program as it is, but that it does this in the place of opening the file."""
    source = hdf5.PROGRAM.read_text()
    start = source.index("    entries: list[dict[str, Any]] = []\n")
    changed = f'{source[:start]}    if b"model_weights" in data:\n        {program}\n{source[start:]}'
    monkeypatch.setattr(hdf5, "PROGRAM", tmp_path / "program.py")
    hdf5.PROGRAM.write_text(changed)
    assert message in refusal(tmp_path / "m.h5", good["model.h5"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process is forked, to be quick")
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_mutated_files(good, tmp_path, monkeypatch):
    """bench/fuzz_keras.py does it with more."""
    ends = set()
    with Forks(tmp_path) as forks:
        monkeypatch.setattr(hdf5, "run_program", forks.run)
        for seed in range(200):
            random = np.random.default_rng(seed)
            name = list(good)[seed % 2]
            path = tmp_path / name
            path.write_bytes(mutated(name, good[name], random))
            try:
                keras_in.network(path)
                ends.add("a network")
            except InputError as error:
                place, _, message = str(error).partition(": ")
                ends.add(message.split()[0])
                if place != str(path) or "\n" in message:
                    pytest.fail(f"seed {seed}: not one line that begins with the file: {error}")
    assert ends >= {"a network", "damaged:", "layer"}
