"""Downloads from real mirrors on this machine: some good, some broken in the ways in which mirrors break."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fashion_mnist.data import download as module
from fashion_mnist.data.download import download, reachable
from fashion_mnist.errors import SourceUnavailableError, UserError

FILES = {"images.gz": bytes(range(256)) * 200, "labels.gz": b"labels"}
DIGESTS = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}
TIMEOUT = 0.7


class Handler(BaseHTTPRequestHandler):
    """Leaves HEAD and GET to its mirror."""

    server: "Mirror"  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def content(self) -> bytes:
        return FILES[self.path.rpartition("/")[2]]

    def do_HEAD(self) -> None:
        self.server.greet(self)

    def do_GET(self) -> None:
        self.server.asked.append(self.path.rpartition("/")[2])
        self.server.answer(self)

    def announce(self, length: int, kind: str = "application/gzip") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


class Mirror(ThreadingHTTPServer):
    """An HTTP server on a free port of this machine that keeps a list of what it was asked for."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Handler], None], greet: Callable[[Handler], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.greet, self.asked, self.closing = answer, greet, [], threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/fashion"

    def handle_error(self, request: object, client_address: object) -> None:
        """Keeps quiet about clients that hang up, which is what they should do."""


def say_yes(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()


def say_yes_letter_by_letter(handler: Handler) -> None:
    for byte in b"HTTP/1.0 200 OK\r\nServer: slow" * 100:
        handler.wfile.write(bytes([byte]))
        if handler.server.closing.wait(0.1):
            return


def deliver(handler: Handler) -> None:
    handler.announce(len(handler.content))
    handler.wfile.write(handler.content)


def answer_with_html(handler: Handler) -> None:
    page = b"<html>Please sign in to this hotel's network.</html>"
    handler.announce(len(page), "text/html")
    handler.wfile.write(page)


def hang_up_halfway(handler: Handler) -> None:
    handler.announce(len(handler.content))
    handler.wfile.write(handler.content[: len(handler.content) // 2])


def break_off_a_chunk(handler: Handler) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"1000\r\n" + handler.content[:100])
    handler.close_connection = True


def end_early_without_a_length(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(handler.content[:3])


def fall_silent_at_once(handler: Handler) -> None:
    handler.server.closing.wait(30)


def fall_silent_halfway(handler: Handler) -> None:
    hang_up_halfway(handler)
    handler.server.closing.wait(30)


def trickle(handler: Handler) -> None:
    handler.announce(len(handler.content))
    for byte in handler.content:
        handler.wfile.write(bytes([byte]))
        if handler.server.closing.wait(0.02):
            return


def fail(handler: Handler) -> None:
    handler.send_error(503)


def redirect_without_end(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()


BROKEN = [
    answer_with_html,
    hang_up_halfway,
    break_off_a_chunk,
    end_early_without_a_length,
    fall_silent_at_once,
    fall_silent_halfway,
    trickle,
    fail,
    redirect_without_end,
]
broken = pytest.mark.parametrize("answer", BROKEN, ids=lambda answer: answer.__name__)


@pytest.fixture(autouse=True)
def _here_and_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands between the tests and their mirrors, and a trickle is judged early."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(module, "SLOW_FOR", 0.3)


@pytest.fixture
def serve() -> Iterator[Callable[..., Mirror]]:
    """Starts mirrors, and stops them after the test."""
    mirrors: list[Mirror] = []

    def start(answer: Callable[[Handler], None] = deliver, greet: Callable[[Handler], None] = say_yes) -> Mirror:
        mirror = Mirror(answer, greet)
        threading.Thread(target=mirror.serve_forever, args=(0.01,), daemon=True).start()
        mirrors.append(mirror)
        return mirror

    yield start
    for mirror in mirrors:
        mirror.closing.set()
        mirror.shutdown()
        mirror.server_close()


@pytest.fixture
def silent() -> Iterator[str]:
    """A mirror that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def dead() -> str:
    """A mirror that does not run: a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that lies in the folder, half-written and hidden files included."""
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else {}


def test_all_files_arrive_in_a_folder_that_did_not_exist(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    download(DIGESTS, tmp_path / "new" / "cache", [serve().url], TIMEOUT)
    assert contents(tmp_path / "new" / "cache") == FILES


def test_an_address_with_a_slash_at_its_end_works_too(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    download(DIGESTS, tmp_path, [f"{serve().url}/"], TIMEOUT)
    assert contents(tmp_path) == FILES


def test_files_that_are_there_are_not_asked_for(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    mirror = serve()
    (tmp_path / "images.gz").write_bytes(FILES["images.gz"])
    download(DIGESTS, tmp_path, [mirror.url], TIMEOUT)
    assert mirror.asked == ["labels.gz"]


def test_a_complete_folder_needs_no_mirror(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    download(DIGESTS, tmp_path, [], TIMEOUT)
    assert contents(tmp_path) == FILES


def test_a_file_with_another_digest_is_replaced(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    (tmp_path / "images.gz").write_bytes(FILES["images.gz"][:100])
    download(DIGESTS, tmp_path, [serve().url], TIMEOUT)
    assert contents(tmp_path) == FILES


def test_a_file_with_another_digest_stays_until_a_better_one_is_complete(
    tmp_path: Path, serve: Callable[..., Mirror]
) -> None:
    (tmp_path / "images.gz").write_bytes(b"old")
    with pytest.raises(SourceUnavailableError):
        download(DIGESTS, tmp_path, [serve(hang_up_halfway).url], TIMEOUT)
    assert contents(tmp_path) == {"images.gz": b"old"}


def test_the_second_mirror_helps_when_the_first_does_not_run(
    tmp_path: Path, dead: str, serve: Callable[..., Mirror]
) -> None:
    download(DIGESTS, tmp_path, [dead, serve().url], TIMEOUT)
    assert contents(tmp_path) == FILES


def test_the_second_mirror_helps_when_the_first_never_answers(
    tmp_path: Path, silent: str, serve: Callable[..., Mirror]
) -> None:
    download(DIGESTS, tmp_path, [silent, serve().url], TIMEOUT)
    assert contents(tmp_path) == FILES


def test_mirrors_are_asked_in_the_given_order(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    first, second = serve(), serve()
    download(DIGESTS, tmp_path, [first.url, second.url], TIMEOUT)
    assert (first.asked, second.asked) == (list(FILES), [])


@broken
def test_the_second_mirror_helps_when_the_first_is_broken(
    answer: Callable[[Handler], None], tmp_path: Path, serve: Callable[..., Mirror]
) -> None:
    first = serve(answer)
    labels = {"labels.gz": DIGESTS["labels.gz"]} if answer is not trickle else {"images.gz": DIGESTS["images.gz"]}
    download(labels, tmp_path, [first.url, serve().url], TIMEOUT)
    assert contents(tmp_path) == {name: FILES[name] for name in labels}
    assert first.asked


@broken
def test_a_broken_mirror_alone_is_given_up_with_the_way_out(
    answer: Callable[[Handler], None], tmp_path: Path, serve: Callable[..., Mirror]
) -> None:
    mirror, start = serve(answer), time.monotonic()
    with pytest.raises(SourceUnavailableError) as caught:
        download(DIGESTS, tmp_path, [mirror.url], TIMEOUT)
    assert time.monotonic() - start < 3
    for words in ("images.gz", mirror.url, "data=auto", "FASHION_MNIST_DIR"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {}


def test_a_mirror_that_never_answers_is_given_up_within_the_timeout(tmp_path: Path, silent: str) -> None:
    start = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="none of the 1 mirrors"):
        download(DIGESTS, tmp_path, [silent], TIMEOUT)
    assert time.monotonic() - start < TIMEOUT + 1
    assert contents(tmp_path) == {}


def test_files_that_arrived_before_a_failure_stay(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    def deliver_images_only(handler: Handler) -> None:
        deliver(handler) if handler.path.endswith("images.gz") else fail(handler)

    with pytest.raises(SourceUnavailableError, match=r"labels\.gz"):
        download(DIGESTS, tmp_path, [serve(deliver_images_only).url], TIMEOUT)
    assert contents(tmp_path) == {"images.gz": FILES["images.gz"]}


def test_each_file_may_come_from_another_mirror(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    def deliver_labels_only(handler: Handler) -> None:
        deliver(handler) if handler.path.endswith("labels.gz") else fail(handler)

    def deliver_images_only(handler: Handler) -> None:
        deliver(handler) if handler.path.endswith("images.gz") else fail(handler)

    download(DIGESTS, tmp_path, [serve(deliver_labels_only).url, serve(deliver_images_only).url], TIMEOUT)
    assert contents(tmp_path) == FILES


def test_many_unreachable_mirrors_cost_one_timeout_together(tmp_path: Path, dead: str, silent: str) -> None:
    unreachable = [dead, silent, "http://192.0.2.1", "http://mirror.invalid", "not an address", silent, silent]
    start = time.monotonic()
    with pytest.raises(SourceUnavailableError, match=f"none of the {len(unreachable)} mirrors") as caught:
        download(DIGESTS, tmp_path, unreachable, TIMEOUT)
    assert time.monotonic() - start < TIMEOUT + 1
    assert "data=auto" in str(caught.value)
    assert contents(tmp_path) == {}


def test_mirrors_that_answer_letter_by_letter_cost_one_timeout_together(serve: Callable[..., Mirror]) -> None:
    """Each letter starts the clock of the socket anew, so that the request itself never times out."""
    mirrors = [serve(greet=say_yes_letter_by_letter).url for _ in range(4)]
    start = time.monotonic()
    assert reachable(mirrors, "images.gz", TIMEOUT) == []
    assert time.monotonic() - start < TIMEOUT + 1


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("address", ["not an address", "http://[", f"http://{'a' * 64}.org", "ftp://127.0.0.1", ""])
def test_an_address_that_is_none_counts_as_unreachable(address: str) -> None:
    assert reachable([address], "images.gz", TIMEOUT) == []


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="there is no folder here in which not even root may write")
def test_a_cache_that_cannot_be_written_is_refused_in_one_sentence(serve: Callable[..., Mirror]) -> None:
    with pytest.raises(UserError, match="cannot write to /sys/fashion-mnist"):
        download(DIGESTS, Path("/sys/fashion-mnist"), [serve().url], TIMEOUT)
