"""Texts: every corpus, the cleaning, the pieces, and every way in which a text can be wrong."""

import gzip
import hashlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pooch
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatewise.config import TextConfig
from gatewise.data import text
from gatewise.data.text import iter_text
from gatewise.errors import TextError

TIME_MACHINE = b"The Time Traveller (for so it will be convenient to speak of him)\r\n"
# Letters of one to four bytes, both sigmas, characters that grow in lower case, and every kind of white space.
ALPHABET = "abAB1_.,'’-\"ΟΣσéßİ\u0301中😀 \n\r\t\x0b\x1c\x85\xa0\u2028\ufeff"
TEXTS = st.text(ALPHABET, min_size=1, max_size=60)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text") / "text.txt"


def read(source: str | Path, *, piece_size: int = text.PIECE_SIZE, **settings: Any) -> str:
    return "".join(iter_text(source, TextConfig.model_validate(settings), piece_size=piece_size))


def error_of(source: str | Path, *, piece_size: int = text.PIECE_SIZE, **settings: Any) -> str:
    with pytest.raises(TextError) as caught:
        read(source, piece_size=piece_size, **settings)
    return str(caught.value)


def cleaned_at_once(data: bytes, config: TextConfig) -> str:
    """The definition of the cleaning, on a text in memory."""
    whole = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    if config.letters_only:
        whole = re.sub("[^A-Za-z]+", " ", whole)
    if config.lower_case:
        whole = whole.lower()
    return whole[: config.max_characters]


# Cleaning and pieces


@settings(deadline=None)
@given(
    content=TEXTS,
    mark=st.booleans(),
    config=st.builds(
        TextConfig,
        letters_only=st.booleans(),
        lower_case=st.booleans(),
        max_characters=st.none() | st.integers(1, 40),
    ),
    piece_size=st.integers(1, 9),
)
@example(content="ΟΣ", mark=False, config=TextConfig(lower_case=True), piece_size=2)
@example(content="ΟΣ\u0301Ο", mark=False, config=TextConfig(lower_case=True), piece_size=4)
@example(content="a\r\n\r\nb", mark=True, config=TextConfig(), piece_size=2)
@example(content="a. \n-b", mark=False, config=TextConfig(letters_only=True), piece_size=2)
def test_pieces_equal_the_whole(file: Path, content: str, mark: bool, config: TextConfig, piece_size: int):
    data = (b"\xef\xbb\xbf" if mark else b"") + content.encode()
    file.write_bytes(data)
    expected = cleaned_at_once(data, config)
    if not expected.strip():
        with pytest.raises(TextError):
            list(iter_text(file, config, piece_size=piece_size))
    else:
        pieces = list(iter_text(file, config, piece_size=piece_size))
        assert "".join(pieces) == expected
        assert all(pieces)


def test_pieces_end_at_the_end_of_a_word(file: Path):
    file.write_text("one two, three\nfour  five", encoding="utf-8", newline="\n")
    assert list(iter_text(file, TextConfig(), piece_size=4)) == ["one", " two, three", "\nfour", "  five"]


def test_text_without_white_space_is_not_held_back(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "LONGEST_WORD", 8)
    file.write_text("abcd" * 5)
    assert [len(piece) for piece in iter_text(file, TextConfig(), piece_size=4)] == [8, 8, 4]


def test_gzip(file: Path):
    text = "déjà vu\r\n" * 50
    file.write_bytes(gzip.compress(text.encode()))
    assert read(file, piece_size=16) == text.replace("\r", "")


def test_large_text_is_not_held_in_memory(file: Path):
    line = b"In the beginning there was a line that came again.\n"
    file.write_bytes(line * (16 << 20 >> 5))  # 26 MB
    tracemalloc.start()
    characters = sum(map(len, iter_text(file, TextConfig(lower_case=True, letters_only=False))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert characters == file.stat().st_size
    assert peak < 1 << 20
    file.unlink()


def test_text_after_max_characters_is_not_read(file: Path):
    file.write_bytes(b"good words " * 10 + b"\xff")
    assert read(file, piece_size=16, max_characters=20) == "good words good word"


# Corpora


def test_python_topics_is_english_prose_and_always_the_same():
    topics = read("python-topics")
    assert len(topics) > 300_000
    assert topics.count(" the ") > 3_000
    assert topics == read("python-topics", piece_size=1000)


def test_path_with_the_name_of_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("python-topics").write_text("mine")
    assert read("./python-topics") == read(Path("python-topics")) == "mine"
    assert read("python-topics") != "mine"


def test_time_machine_as_in_the_tutorials(data_dir: Path):
    path = data_dir / "time-machine" / "timemachine.txt"
    assert hashlib.sha1(path.read_bytes()).hexdigest() == text.TIME_MACHINE_SHA1
    cleaned = read(path, letters_only=True, lower_case=True)
    assert len(cleaned) == 173_428
    assert set(cleaned) == set(" abcdefghijklmnopqrstuvwxyz")
    assert read(path, letters_only=True, lower_case=True, max_characters=10_000) == cleaned[:10_000]


class Server(http.server.ThreadingHTTPServer):
    """A web server on 127.0.0.1 that holds one file."""

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/timemachine.txt"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.content
        self.server.requests.append(self.path)
        self.send_response(200 if content else 503)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in the user's cache, which is empty; the corpus is a short one."""
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(text, "TIME_MACHINE_SHA1", hashlib.sha1(TIME_MACHINE).hexdigest())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "gatewise" / "timemachine.txt"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Server]]:
    servers: list[Server] = []

    def start(content: bytes) -> Server:
        servers.append(Server(content))
        monkeypatch.setattr(text, "TIME_MACHINE_URL", servers[-1].url)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_time_machine_is_downloaded_once(cache: Path, serve: Callable[[bytes], Server]):
    server = serve(TIME_MACHINE)
    assert read("time-machine") == read("time-machine") == TIME_MACHINE.decode().replace("\r\n", "\n")
    assert server.requests == ["/timemachine.txt"]
    assert cache.read_bytes() == TIME_MACHINE


def test_time_machine_with_another_sha1(cache: Path, serve: Callable[[bytes], Server]):
    server = serve(TIME_MACHINE[:-10])
    assert error_of("time-machine") == (
        f"time-machine: {server.url} sent a file with another SHA-1; "
        f"put the file with SHA-1 {text.TIME_MACHINE_SHA1} at {cache}"
    )
    assert list(cache.parent.iterdir()) == []


def test_time_machine_damaged_in_the_cache_is_downloaded_again(cache: Path, serve: Callable[[bytes], Server]):
    serve(TIME_MACHINE)
    cache.parent.mkdir(parents=True)
    cache.write_bytes(TIME_MACHINE[:20])
    assert read("time-machine").startswith("The Time Traveller")
    assert cache.read_bytes() == TIME_MACHINE


def test_time_machine_from_a_server_that_fails(cache: Path, serve: Callable[[bytes], Server]):
    server = serve(b"")
    assert error_of("time-machine") == (
        f"time-machine: cannot be downloaded from {server.url} (HTTPError); "
        f"put the file with SHA-1 {text.TIME_MACHINE_SHA1} at {cache}"
    )


def test_time_machine_without_a_network(cache: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/timemachine.txt"
    monkeypatch.setattr(text, "TIME_MACHINE_URL", url)
    assert error_of("time-machine") == (
        f"time-machine: cannot be downloaded from {url} (ConnectionError); "
        f"put the file with SHA-1 {text.TIME_MACHINE_SHA1} at {cache}"
    )
    cache.write_bytes(TIME_MACHINE)  # as the message says
    assert read("time-machine").startswith("The Time Traveller")


# Texts that cannot be read


def test_missing(tmp_path: Path):
    path = tmp_path / "book.txt"
    assert error_of(path) == (
        f"{path}: no such text; give the path of a UTF-8 text, or the name of a corpus: python-topics, time-machine"
    )


def test_missing_is_said_at_the_call(tmp_path: Path):
    with pytest.raises(TextError):
        iter_text(tmp_path / "book.txt", TextConfig())


def test_misspelt_corpus():
    assert error_of("time_machine") == "time_machine: no such text; did you mean the corpus time-machine?"


def test_text_in_the_place_of_its_path():
    expected = "expected the path of a UTF-8 text or the name of a corpus, got a text of {} characters"
    assert error_of("to be\nor not to be") == expected.format(18)
    assert error_of("to be or not " * 100) == expected.format(1300)


def test_folder(tmp_path: Path):
    assert error_of(tmp_path) == f"{tmp_path}: is a folder; give one UTF-8 text file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe(tmp_path: Path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    expected = f"{path}: is a pipe or a device, and a text is read more than once; write it to a file first"
    assert error_of(path) == expected


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read every file")
def test_forbidden(file: Path):
    file.write_text("secret")
    file.chmod(0)
    assert error_of(file) == f"{file}: cannot be read: Permission denied"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="this system has no file that fails when it is read")
def test_unreadable():
    assert error_of("/proc/self/mem") == "/proc/self/mem: cannot be read: Input/output error"


@pytest.mark.parametrize("settings", [{}, {"letters_only": True}, {"max_characters": 5}], ids=str)
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"], ids=["nothing", "byte order mark"])
def test_empty(file: Path, content: bytes, settings: dict[str, Any]):
    file.write_bytes(content)
    assert error_of(file, **settings) == f"{file}: empty; give a text with something to read"


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        (" \n\t\n", {}, ""),
        ("123 456", {"letters_only": True}, " with letters_only = true"),
        ("     words", {"max_characters": 5}, " with max_characters = 5"),
        ("12 a", {"letters_only": True, "max_characters": 1}, " with letters_only = true, max_characters = 1"),
    ],
    ids=["white space", "no letters", "cut", "both"],
)
def test_nothing_left(file: Path, content: str, settings: dict[str, Any], said: str):
    file.write_text(content)
    assert error_of(file, **settings) == f"{file}: nothing but white space to read{said}"


@pytest.mark.parametrize("piece_size", [1, 3, 7, 1 << 16])
@pytest.mark.parametrize(
    ("content", "byte", "offset"),
    [
        ("déjà vu".encode() + b" \xe9t\xe9", 0xE9, 10),
        (b"\xff\xfeh\x00i\x00", 0xFF, 0),
        ("\ufeff中".encode() + b"\xf0\x9f\x98", 0xF0, 6),
        (b"a" * 10 + "€".encode()[:-1] + b" end", 0xE2, 10),
    ],
    ids=["latin-1", "utf-16", "cut off", "broken"],
)
def test_not_utf8(file: Path, content: bytes, byte: int, offset: int, piece_size: int):
    file.write_bytes(content)
    assert error_of(file, piece_size=piece_size) == (
        f"{file}: not UTF-8: byte 0x{byte:02x} at offset {offset}; convert it to UTF-8 first, for example with iconv"
    )


def test_damaged_gzip(file: Path):
    whole = gzip.compress(b"some text that is long enough")
    file.write_bytes(whole[:-9])
    assert error_of(file) == (
        f"{file}: damaged gzip: compressed file ended before the end-of-stream marker was reached"
    )
    file.write_bytes(whole[:-8] + b"\0" * 8)
    assert error_of(file).startswith(f"{file}: damaged gzip: CRC check failed")
    file.write_bytes(gzip.compress(b"ab\xff"))
    assert error_of(file) == (
        f"{file}: not UTF-8: byte 0xff at offset 2; convert it to UTF-8 first, for example with iconv"
    )


def test_texts_and_tokenizers_need_no_torch():
    code = "import sys, gatewise.data.text, gatewise.data.tokenizers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
