"""Downloads: mirrors in order, time-outs in seconds, digests checked, files moved into place when complete."""

import logging
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pooch
import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from urllib3.exceptions import HTTPError

from fashion_mnist.errors import SourceUnavailableError, UserError

SLOWEST = 20_000  # bytes a second: below that, another mirror is worth a try
SLOW_FOR = 5.0  # seconds of patience before the speed is judged
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
    missing = {
        name: digest
        for name, digest in digests.items()
        if not ((folder / name).is_file() and pooch.file_hash(str(folder / name), alg="md5") == digest)
    }
    if not missing:
        return
    answering = reachable(mirrors, next(iter(missing)), timeout)
    if not answering:
        raise SourceUnavailableError(f"none of the {len(mirrors)} mirrors of Fashion-MNIST answers; {WAYS_OUT}.")
    pooch.get_logger().setLevel(logging.WARNING)

    def downloader(url: str, path: str, _: object) -> None:
        with Path(path).open("wb") as file:
            stream(url, file, timeout)

    for name, digest in missing.items():
        reasons = []
        for mirror in answering:
            url = f"{mirror.rstrip('/')}/{name}"
            try:
                # pooch hands `stream` a temporary file, and moves it into place when its digest is right.
                pooch.retrieve(url, f"md5:{digest}", name, folder, downloader=downloader)  # pyright: ignore[reportArgumentType]
                break
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
        else:
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


def stream(url: str, file: BinaryIO, timeout: float) -> None:
    """Writes what `url` delivers to `file`, with a progress bar and the time left.

    Raises:
        requests.RequestException: the mirror refuses, breaks off or falls silent.
        TimeoutError: it crawls.
    """
    # The digest is that of the file as published, so no server may compress it once more on the way.
    headers = {"Accept-Encoding": "identity"}
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with (
        requests.get(url, stream=True, timeout=timeout, headers=headers) as response,
        Progress("{task.description}", *columns, transient=True) as progress,
    ):
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0)) or None
        task = progress.add_task(url.rpartition("/")[2], total=total)
        start, received = time.monotonic(), 0
        while chunk := response.raw.read1(1 << 16):  # what has come so far, so that a trickle is noticed
            received += file.write(chunk)
            progress.update(task, completed=received)
            elapsed = time.monotonic() - start
            if elapsed > SLOW_FOR and received / elapsed < SLOWEST:
                raise TimeoutError(f"too slow, {received / elapsed:.0f} bytes a second")
