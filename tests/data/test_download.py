"""Downloads from real mirrors on this machine: some good, some broken in the ways in which mirrors break."""

import gzip
import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mirrors import Answer, Handler, Mirror, a_trickling_body, a_web_page, deliver, half_a_file, mirror, silence

from fashion_mnist.data.download import PIECE, download, reachable
from fashion_mnist.errors import SourceUnavailableError, UserError

FILES = {"images.gz": bytes(range(256)) * 200, "labels.gz": b"labels"}
DIGESTS = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}
TIMEOUT = 0.7


def say_yes_letter_by_letter(handler: Handler) -> None:
    handler.slowly(b"HTTP/1.0 200 OK\r\nServer: slow" * 100)


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


def fall_silent_halfway(handler: Handler) -> None:
    half_a_file(handler)
    silence(handler)


def fail(handler: Handler) -> None:
    handler.send_error(503)


def redirect_without_end(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()


BROKEN = [
    a_web_page,
    half_a_file,
    break_off_a_chunk,
    end_early_without_a_length,
    silence,
    fall_silent_halfway,
    a_trickling_body,
    fail,
    redirect_without_end,
]
broken = pytest.mark.parametrize("answer", BROKEN, ids=lambda answer: answer.__name__)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands between the tests and their mirrors."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def serve() -> Iterator[Callable[..., Mirror]]:
    """Starts mirrors, and stops them after the test."""
    with ExitStack() as stack:
        yield lambda *answer, **head: stack.enter_context(mirror(FILES.__getitem__, *answer, **head))


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
        download(DIGESTS, tmp_path, [serve(half_a_file).url], TIMEOUT)
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


def test_a_slow_mirror_that_keeps_going_is_waited_for(tmp_path: Path, serve: Callable[..., Mirror]) -> None:
    content = bytes(4 * PIECE)

    def deliver_slowly(handler: Handler) -> None:
        handler.announce(len(content))
        for start in range(0, len(content), PIECE):
            handler.wfile.write(content[start : start + PIECE])
            handler.server.closing.wait(TIMEOUT / 2)

    first, second, start = serve(deliver_slowly), serve(), time.monotonic()
    download({"images.gz": hashlib.md5(content).hexdigest()}, tmp_path, [first.url, second.url], TIMEOUT)
    assert time.monotonic() - start > TIMEOUT
    assert contents(tmp_path) == {"images.gz": content}
    assert second.asked == []


def test_a_server_that_calls_gzip_an_encoding_is_not_helped_to_unpack(
    tmp_path: Path, serve: Callable[..., Mirror]
) -> None:
    content = gzip.compress(b"labels")

    def deliver_as_encoded(handler: Handler) -> None:
        handler.announce(len(content), Content_Encoding="gzip")
        handler.wfile.write(content)

    download({"labels.gz": hashlib.md5(content).hexdigest()}, tmp_path, [serve(deliver_as_encoded).url], TIMEOUT)
    assert contents(tmp_path) == {"labels.gz": content}


@broken
def test_the_second_mirror_helps_when_the_first_is_broken(
    answer: Answer, tmp_path: Path, serve: Callable[..., Mirror]
) -> None:
    first = serve(answer)
    name = "images.gz" if answer is a_trickling_body else "labels.gz"  # of six bytes, which trickle fast enough
    download({name: DIGESTS[name]}, tmp_path, [first.url, serve().url], TIMEOUT)
    assert contents(tmp_path) == {name: FILES[name]}
    assert first.asked


@broken
def test_a_broken_mirror_alone_is_given_up_with_the_way_out(
    answer: Answer, tmp_path: Path, serve: Callable[..., Mirror]
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
    mirrors = [serve(head=say_yes_letter_by_letter).url for _ in range(4)]
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
