"""Mirrors of Fashion-MNIST on this machine, which answer well, or break in the ways in which mirrors break."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Leaves HEAD and GET to its mirror."""

    server: "Mirror"  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def name(self) -> str:
        """Of the file that is asked for."""
        return self.path.rpartition("/")[2]

    @property
    def content(self) -> bytes:
        return self.server.content(self.name)

    def do_HEAD(self) -> None:
        self.server.head(self)

    def do_GET(self) -> None:
        self.server.asked.append(self.name)
        self.server.get(self)

    def announce(self, length: int, **headers: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def slowly(self, content: bytes) -> None:
        """Says something byte by byte, until the mirror closes."""
        for byte in content:
            self.wfile.write(bytes([byte]))
            if self.server.closing.wait(self.server.pace):
                return

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


Answer = Callable[[Handler], None]


class Mirror(ThreadingHTTPServer):
    """An HTTP server on a free port that keeps a list of the files it was asked for."""

    daemon_threads = True

    def __init__(self, content: Callable[[str], bytes], get: Answer, head: Answer, pace: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.get, self.head, self.pace = content, get, head, pace
        self.asked: list[str] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/fashion"

    def handle_error(self, request: object, client_address: object) -> None:
        """Keeps quiet about clients that hang up, which is what they should do."""


def agree(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()


def deliver(handler: Handler) -> None:
    handler.announce(len(handler.content))
    handler.wfile.write(handler.content)


def a_web_page(handler: Handler) -> None:
    page = b"<html>Please sign in to this hotel's network.</html>"
    handler.announce(len(page), Content_Type="text/html")
    handler.wfile.write(page)


def half_a_file(handler: Handler) -> None:
    handler.announce(len(handler.content))
    handler.wfile.write(handler.content[: len(handler.content) // 2])


def a_trickling_body(handler: Handler) -> None:
    handler.announce(len(handler.content))
    handler.slowly(handler.content)


def silence(handler: Handler) -> None:
    handler.server.closing.wait(60)


@contextmanager
def mirror(
    content: Callable[[str], bytes], get: Answer = deliver, head: Answer = agree, pace: float = 0.1
) -> Iterator[Mirror]:
    """Runs a mirror.

    Args:
        content: of a file, by its name.
        get: how it answers when it is asked for a file.
        head: how it answers when it is asked whether it has a file.
        pace: seconds between two bytes, where it speaks slowly.
    """
    server = Mirror(content, get, head, pace)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
