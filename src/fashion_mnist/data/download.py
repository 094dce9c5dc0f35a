"""Downloads: mirrors in order, time-outs in seconds, digests checked, files moved into place when complete."""

import logging
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pooch
import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from urllib3.exceptions import HTTPError

from fashion_mnist.errors import SourceUnavailableError, UserError
from fashion_mnist.files import alone_in, workplace

SLOWEST = 20_000  # bytes a second: below that, another mirror is worth a try
SLOW_FOR = 5.0  # seconds of patience before the speed is judged
LARGEST = 100_000_000  # bytes; the largest of the official files has a quarter of that
WATCH_EVERY = 0.05  # seconds
WAYS_OUT = "set FASHION_MNIST_DIR to a folder with the four official .gz files, or use data=auto for drawn images"


def download(digests: dict[str, str], folder: Path, mirrors: list[str], timeout: float) -> None:
    """Completes `folder`: files that are there with the right digest stay, the others are downloaded.

    Args:
        digests: the MD5 digest of each file, by name.
        folder: where the files go.
        mirrors: base addresses, tried in this order for each file.
        timeout: seconds without an answer before a mirror is given up.

    Raises:
        SourceUnavailableError: a file could not be had from any mirror.
        UserError: `folder` cannot be written.
    """
    if not missing(digests, folder):
        return
    with alone_in(folder):
        absent = missing(digests, folder)  # another process may have been quicker
        if not absent:
            return
        answering = reachable(mirrors, next(iter(absent)), timeout)
        if not answering:
            raise SourceUnavailableError(f"none of the {len(mirrors)} mirrors of Fashion-MNIST answers; {WAYS_OUT}.")
        for name, digest in absent.items():
            download_one(name, digest, folder, answering, timeout)


def missing(digests: dict[str, str], folder: Path) -> dict[str, str]:
    """The files that are not there, or not with their digest."""
    return {
        name: digest
        for name, digest in digests.items()
        if not ((folder / name).is_file() and pooch.file_hash(str(folder / name), alg="md5") == digest)
    }


def download_one(name: str, digest: str, folder: Path, mirrors: list[str], timeout: float) -> None:
    """Downloads a file from the first mirror that delivers it.

    Raises:
        SourceUnavailableError: none does.
        UserError: `folder` cannot be written.
    """
    pooch.get_logger().setLevel(logging.WARNING)

    def downloader(url: str, path: str, _: object) -> None:
        with Path(path).open("wb") as file:
            stream(url, file, timeout)

    reasons = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with workplace(folder) as temporary:
                pooch.retrieve(url, f"md5:{digest}", name, temporary, downloader=downloader)  # pyright: ignore[reportArgumentType]
                (Path(temporary) / name).replace(folder / name)
            return
        except requests.HTTPError as error:
            reasons.append(f"{mirror} refuses ({error})")
        except (requests.RequestException, HTTPError) as error:
            reasons.append(f"{mirror} breaks off ({type(error).__name__})")
        except TimeoutError as error:
            reasons.append(f"{mirror} is {error}")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError(f"cannot write to {folder} ({reason}); {WAYS_OUT}, or set KERAS_HOME.") from error
        except ValueError:
            reasons.append(f"{mirror} delivers other bytes than the official file")
    raise SourceUnavailableError(f"no mirror delivers {name} ({'; '.join(reasons)}); {WAYS_OUT}.")


def reachable(mirrors: list[str], name: str, timeout: float) -> list[str]:
    """The mirrors that answer for a file within `timeout` seconds, in the given order.

    They are asked at the same time, in threads that die with the program, since a look-up of a host's name can hang
    for longer than any time-out that can be set on it.
    """
    answers: dict[str, bool] = {}

    def ask(mirror: str) -> None:
        try:
            url = f"{mirror.rstrip('/')}/{name}"
            answers[mirror] = requests.head(url, timeout=timeout, allow_redirects=True).ok
        except (requests.RequestException, HTTPError):
            answers[mirror] = False

    threads = [threading.Thread(target=ask, args=(mirror,), daemon=True) for mirror in mirrors]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [mirror for mirror in mirrors if answers.get(mirror)]


@dataclass
class Transfer:
    """One download, which a thread makes while another one watches it.

    A socket's own time-out starts anew with each byte, so that a mirror which trickles would never meet it.
    """

    url: str
    file: BinaryIO
    timeout: float
    total: int | None = None
    answered: float | None = None  # when the answer began, in seconds of `time.monotonic`
    received: int = 0
    given_up: bool = False
    end: Future[None] = field(default_factory=Future)

    def run(self) -> None:
        """Receives everything; errors go to whoever asks for `end`."""
        try:
            # The digest is that of the file as published, so no server may compress it once more on the way.
            headers = {"Accept-Encoding": "identity"}
            with requests.get(self.url, stream=True, timeout=self.timeout, headers=headers) as response:
                response.raise_for_status()
                self.total = int(response.headers.get("Content-Length", 0)) or None
                self.answered = time.monotonic()
                # What has come so far, so that a trickle is noticed.
                while not self.given_up and (chunk := response.raw.read1(1 << 16)):
                    self.received += self.file.write(chunk)
                    if self.received > LARGEST:
                        raise ValueError("a file without end")
            self.end.set_result(None)
        except Exception as error:
            self.end.set_exception(error)

    def give_up_if_slow(self, started: float) -> None:
        """Gives up a mirror that takes too long.

        Raises:
            TimeoutError: it has not answered yet, or crawls.
        """
        now = time.monotonic()
        if self.answered is None:
            if now - started > self.timeout:
                raise TimeoutError(f"silent for {self.timeout:g} seconds")
        elif now - self.answered > SLOW_FOR and self.received / (now - self.answered) < SLOWEST:
            raise TimeoutError(f"too slow, {self.received / (now - self.answered):.0f} bytes a second")


def stream(url: str, file: BinaryIO, timeout: float) -> None:
    """Writes what `url` delivers to `file`, with a progress bar and the time left.

    Raises:
        requests.RequestException: the mirror refuses, breaks off or falls silent.
        TimeoutError: it does not answer within `timeout` seconds, or it crawls.
    """
    transfer, started = Transfer(url, file, timeout), time.monotonic()
    threading.Thread(target=transfer.run, daemon=True).start()
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress("{task.description}", *columns, transient=True) as progress:
        task = progress.add_task(url.rpartition("/")[2], total=None)
        try:
            while not wait([transfer.end], timeout=WATCH_EVERY).done:
                progress.update(task, completed=transfer.received, total=transfer.total)
                transfer.give_up_if_slow(started)
        finally:
            transfer.given_up = True
    transfer.end.result()
