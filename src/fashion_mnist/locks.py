"""Locks between processes of one person on one machine; they vanish with the process that holds them."""

import hashlib
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["Timeout", "lock_of"]


def lock_of(*what: str) -> FileLock:
    """The lock of something that is named by texts.

    Its file lies in the folder for temporary files, since it could not be removed without a race, and named after the
    person too, since it belongs to whoever made it.
    """
    name = hashlib.sha256("\n".join([str(Path.home()), *what]).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"fashion-mnist-{name}.lock")
