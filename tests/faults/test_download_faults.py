"""Mirrors that break in the ways in which mirrors break, and downloads that are killed or made twice at once."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import mirrors
import pytest
from conftest import assert_one_sentence, needs_real_data, run_step
from mirrors import Answer, Handler, a_trickling_body, a_web_page, agree, deliver, half_a_file, silence

from fashion_mnist.data import download as module
from fashion_mnist.data.dataset import read_card
from fashion_mnist.data.download import download
from fashion_mnist.data.official import DIGEST, OFFICIAL
from fashion_mnist.errors import SourceUnavailableError

Survived = Callable[[str, int, int], None]

REAL = Path(os.environ.get("FASHION_MNIST_DIR", "/nowhere"))
CONTENT = bytes(range(256)) * 200
DIGESTS = {"images.gz": hashlib.md5(CONTENT).hexdigest()}
TIMEOUT = 0.7


def content(name: str) -> bytes:
    return (REAL / name).read_bytes() if "ubyte" in name else CONTENT


mirror = partial(mirrors.mirror, content)


def half_a_file_that_calls_itself_whole(handler: Handler) -> None:
    handler.announce(len(handler.content) // 2)
    handler.wfile.write(handler.content[: len(handler.content) // 2])


def trickling_headers(handler: Handler) -> None:
    handler.slowly(b"HTTP/1.0 200 OK\r\n" + b"X-Patience: a virtue\r\n" * 1000)


def a_trickling_chunk_size(handler: Handler) -> None:
    """Before each chunk comes its size, as a line, which here never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    handler.slowly(b"0" * 60_000)


def a_file_without_end(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.closing.is_set():
        handler.wfile.write(bytes(1 << 20))


FAULTS: dict[str, tuple[Answer, Answer]] = {
    "a web page with status 200": (a_web_page, agree),
    "half a file": (half_a_file, agree),
    "half a file that calls itself whole": (half_a_file_that_calls_itself_whole, agree),
    "a body byte by byte": (a_trickling_body, agree),
    "headers byte by byte": (trickling_headers, agree),
    "headers byte by byte, from the first request on": (trickling_headers, trickling_headers),
    "the size of a chunk byte by byte": (a_trickling_chunk_size, agree),
    "no answer": (silence, agree),
    "no answer, from the first request on": (silence, silence),
    "a file without end": (a_file_without_end, agree),
}


@pytest.fixture(autouse=True)
def _here_and_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands between the tests and their mirrors, and what is too long is judged early."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(module, "LARGEST", 10_000_000)


def test_a_broken_mirror_is_given_up_and_the_next_one_asked(tmp_path: Path, survived: Survived) -> None:
    count = 0
    for fault, (get, head) in FAULTS.items():
        folder = tmp_path / fault
        with mirror(get, head) as broken, mirror() as good:
            start = time.monotonic()
            download(DIGESTS, folder, [broken.url, good.url], TIMEOUT)
            assert time.monotonic() - start < 3, fault
            count += bool(broken.asked or head is not agree) and {
                file.name: file.read_bytes() for file in folder.iterdir()
            } == {"images.gz": CONTENT}
    survived("a broken mirror (web page, half a file, a trickle, nothing): the next is asked", count, 10)


def test_broken_mirrors_alone_end_in_one_sentence_and_leave_nothing(tmp_path: Path, survived: Survived) -> None:
    count = 0
    for fault, (get, head) in FAULTS.items():
        folder = tmp_path / fault
        with mirror(get, head) as broken:
            start = time.monotonic()
            with pytest.raises(SourceUnavailableError) as caught:
                download(DIGESTS, folder, [broken.url], TIMEOUT)
            assert time.monotonic() - start < 3, fault
            said = "data=auto" in str(caught.value) and "\n" not in str(caught.value)
            count += said and not (folder.exists() and list(folder.iterdir()))
    survived("a broken mirror, and no other: given up in one sentence, nothing half-written", count, 10)


@pytest.mark.slow
@pytest.mark.parametrize("get", [a_trickling_body, trickling_headers, silence], ids=lambda get: get.__name__)
def test_one_byte_a_second_is_given_up_with_the_usual_settings(get: Answer, empty_folder: Path, full: bool) -> None:
    if get is not trickling_headers and not full:
        pytest.skip("with --full")
    with mirror(get, pace=1) as broken:
        start = time.monotonic()
        arguments = ["data.dir=null", f"data.mirrors=[{broken.url}]"]
        process = run_step(*arguments, step="fetch", KERAS_HOME=str(empty_folder / "keras"))
        assert time.monotonic() - start < 15
    assert_one_sentence(process, broken.url, "no mirror delivers train-images", "data=auto")
    assert not (empty_folder / "data").exists()
    assert not list((empty_folder / "keras").rglob("*.*"))


def start_fetch(home: Path, url: str, root: Path) -> subprocess.Popen[str]:
    """A real `fetch` of the real images from a mirror, not waited for."""
    command = [sys.executable, "-m", "fashion_mnist.fetch", "data.dir=null", f"data.mirrors=[{url}]"]
    return subprocess.Popen(
        [*command, f"data_root={root}"],
        env={**os.environ, "KERAS_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_complete(home: Path, root: Path) -> bool:
    """Whether the four files and the prepared dataset are there, and nothing else."""
    cached = sorted(file.name for file in (home / "datasets/fashion-mnist").iterdir())
    return (
        cached == sorted(name for name, _, _ in OFFICIAL.values())
        and list(root.iterdir()) == [root / "fashion_mnist"]
        and read_card(root / "fashion_mnist").digest == DIGEST
    )


@needs_real_data
@pytest.mark.slow
def test_a_killed_download_is_made_up_for_by_the_next(empty_folder: Path, full: bool, survived: Survived) -> None:
    count, names = 0, [name for name, _, _ in OFFICIAL.values()][: 4 if full else 1]
    for number, stops_at in enumerate(names):
        halfway = threading.Event()

        def deliver_until(handler: Handler, stops_at: str = stops_at, halfway: threading.Event = halfway) -> None:
            if not handler.path.endswith(stops_at):
                deliver(handler)
                return
            half_a_file(handler)
            halfway.set()
            silence(handler)

        home, root = empty_folder / f"keras{number}", empty_folder / f"root{number}"
        with mirror(deliver_until) as server:
            process = start_fetch(home, server.url, root)
            assert halfway.wait(30)
            time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        unfinished = list((home / "datasets/fashion-mnist").glob(".unfinished-*"))
        assert [file for folder in unfinished for file in folder.iterdir()]  # else the kill came too early
        with mirror() as server:
            again = start_fetch(home, server.url, root)
            output = again.communicate(timeout=60)
            assert again.returncode == 0, output
            assert server.asked == [name for name, _, _ in OFFICIAL.values()][number:]
        count += is_complete(home, root)
        shutil.rmtree(home)
        shutil.rmtree(root)
    survived("`fetch` killed in the middle of a download, then started again", count, len(names))


@needs_real_data
@pytest.mark.slow
def test_fetches_that_download_at_once_share_one_download(empty_folder: Path, full: bool, survived: Survived) -> None:
    rounds, count = [2, 2, 4] if full else [2], 0
    for turn, number in enumerate(rounds):
        home, root = empty_folder / f"keras{turn}", empty_folder / f"root{turn}"
        with mirror() as server, ExitStack() as stack:
            processes = [stack.enter_context(start_fetch(home, server.url, root)) for _ in range(number)]
            outputs = [process.communicate(timeout=120) for process in processes]
            assert [process.returncode for process in processes] == [0] * number, outputs
            count += is_complete(home, root) and sorted(server.asked) == sorted(
                name for name, _, _ in OFFICIAL.values()
            )
    survived("2 or 4 `fetch` that download at once: each file is asked for once", count, len(rounds))
