"""Files that are complete or not there, whatever happens while they are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fashion_mnist.errors import UserError


@contextmanager
def complete(file: Path) -> Iterator[Path]:
    """Gives a place to write at; what was written there replaces `file` once it is complete.

    Raises:
        UserError: the disk is full, or cannot be written; `file` is as it was.
    """
    partial = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for left in file.parent.glob(f".*.{file.name}"):
            if not is_alive(left.name.split(".")[1]):
                left.unlink(missing_ok=True)
        yield partial
        partial.replace(file)
    except OSError as error:
        raise UserError(f"cannot write {file} ({error.strerror or error}); mend that, and start again.") from error
    finally:
        partial.unlink(missing_ok=True)


def is_alive(process: str) -> bool:
    """Whether there is a process with this number; what else a name may hold counts as alive."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        return True
    return True
