"""What is just being made: by one process at a time in each folder, out of sight until it is complete.

A process that is killed leaves its unfinished work behind; the next one at work in the same folder removes it.
"""

import contextlib
import hashlib
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fashion_mnist.errors import say
from fashion_mnist.locks import Timeout, lock_of


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process is at work in a folder, which need not exist yet, and tidies it."""
    lock = lock_of("folder", str(folder.resolve()))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"Waiting for another process that is at work in {folder}.")
            lock.acquire()
    except OSError:  # no lock can be had here: the same work may be done twice then, but never half
        yield
        return
    try:
        remove_unfinished(folder)
        yield
    finally:
        lock.release()


def tidy(folder: Path) -> None:
    """Removes what killed processes left in a folder, unless a living one is at work there."""
    if not any(folder.glob(f"{prefix()}*")):
        return
    with contextlib.suppress(Timeout, OSError), lock_of("folder", str(folder.resolve())).acquire(timeout=0):
        remove_unfinished(folder)


def remove_unfinished(folder: Path) -> None:
    """Removes unfinished work from a folder; only for whoever holds its lock."""
    for left in folder.glob(f"{prefix()}*"):
        shutil.rmtree(left, ignore_errors=True)


def workplace(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder inside of `folder`, to make something in and to move it from there into its place in one step."""
    return tempfile.TemporaryDirectory(prefix=prefix(), dir=folder)


def prefix() -> str:
    """How the names of unfinished work begin.

    Whoever cannot see the same lock, on another machine or as another person, must not take it for left behind.
    """
    domain = f"{platform.node()} {Path.home()} {tempfile.gettempdir()}"
    return f".unfinished-{hashlib.sha256(domain.encode()).hexdigest()[:8]}-"
