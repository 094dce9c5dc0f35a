"""Downloads: mirrors in order, a deadline for each piece, digests checked, files moved into place when complete."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import TypeVar

import requests
import urllib3
from rich.console import Console
from rich.progress import DownloadColumn, Progress

from fashion_mnist.errors import SourceUnavailableError, UserError
from fashion_mnist.files import alone_in, workplace

PIECE = 1 << 16  # bytes: a mirror that needs longer than the time-out for so few crawls
LARGEST = 100_000_000  # bytes; the largest of the official files has a quarter of that
WAYS_OUT = "set FASHION_MNIST_DIR to a folder with the four official .gz files, or use data=auto for drawn images"

Result = TypeVar("Result")


def download(digests: dict[str, str], folder: Path, mirrors: list[str], timeout: float) -> None:
    """Completes `folder`: files that are there with the right MD5 digest stay, the others are downloaded.

    The mirrors' base addresses are tried in their order for each file. A mirror has `timeout` seconds for its answer,
    and then for each piece of 64 KiB, before it is given up.

    Raises:
        SourceUnavailableError: a file could not be had from any mirror.
        UserError: `folder` cannot be written.
    """
    with alone_in(folder):
        missing = {name: digest for name, digest in digests.items() if not has_digest(folder / name, digest)}
        if not missing:
            return
        answering = reachable(mirrors, next(iter(missing)), timeout)
        if not answering:
            raise SourceUnavailableError(f"none of the {len(mirrors)} mirrors of Fashion-MNIST answers; {WAYS_OUT}.")
        for name, digest in missing.items():
            download_one(name, digest, folder, answering, timeout)


def has_digest(file: Path, digest: str) -> bool:
    return file.is_file() and hashlib.md5(file.read_bytes()).hexdigest() == digest


def reachable(mirrors: list[str], name: str, timeout: float) -> list[str]:
    """The mirrors that answer for a file within `timeout` seconds, in the given order; asked at the same time."""
    ask = partial(requests.head, timeout=timeout, allow_redirects=True)
    answers = {mirror: in_background(partial(ask, f"{mirror.rstrip('/')}/{name}")) for mirror in mirrors}
    done, _ = wait(answers.values(), timeout)
    return [
        each for each, answer in answers.items() if answer in done and not answer.exception() and answer.result().ok
    ]


def in_background(work: Callable[[], Result]) -> Future[Result]:
    """Starts something in a thread that dies with the program, so that nobody need wait for its end.

    Time-outs do not help: the look-up of a host's name knows none, and a socket's starts anew with each byte, so that a
    mirror which trickles never meets it.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def download_one(name: str, digest: str, folder: Path, mirrors: list[str], timeout: float) -> None:
    """Downloads a file from the first mirror that delivers it."""
    reasons = []
    for mirror in mirrors:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with workplace(folder) as temporary:
                file = Path(temporary) / name
                receive(f"{mirror.rstrip('/')}/{name}", file, timeout)
                if has_digest(file, digest):
                    file.replace(folder / name)
                    return
            reasons.append(f"{mirror} delivers other bytes than the official file")
        except requests.HTTPError as error:
            reasons.append(f"{mirror} refuses ({error})")
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            reasons.append(f"{mirror} breaks off ({type(error).__name__})")
        except TimeoutError:
            reasons.append(f"{mirror} is silent or too slow")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError(f"cannot write to {folder} ({reason}); {WAYS_OUT}, or set KERAS_HOME.") from error
    raise SourceUnavailableError(f"no mirror delivers {name} ({'; '.join(reasons)}); {WAYS_OUT}.")


def receive(url: str, file: Path, timeout: float) -> None:
    """Writes what `url` delivers to `file`, up to `LARGEST` bytes, with a progress bar and the time left.

    Raises TimeoutError if the answer, or a piece of it, is not there within `timeout` seconds.
    """
    # As published: not compressed once more on the way, nor unpacked here because the server calls .gz an encoding.
    headers = {"Accept-Encoding": "identity"}
    columns, console = (*Progress.get_default_columns(), DownloadColumn()), Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with file.open("wb") as opened, bar:
        task = bar.add_task(file.name, total=None)
        get = partial(requests.get, url, stream=True, timeout=timeout, headers=headers)
        response = in_background(get).result(timeout)
        response.raise_for_status()
        bar.update(task, total=response.raw.length_remaining)
        read = partial(response.raw.read, PIECE)  # unlike `iter_content`, which unpacks
        while opened.tell() <= LARGEST and (piece := in_background(read).result(timeout)):
            bar.advance(task, opened.write(piece))
