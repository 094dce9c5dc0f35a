"""Files and folders that are complete or not there, and made by one process at a time.

What is just being made lies out of sight. A process that is killed leaves its unfinished work behind; the next one at
work in the same folder removes it. Locks are between processes of one person on one machine; they vanish with the
process that holds them.
"""

import contextlib
import csv
import hashlib
import json
import os
import platform
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from rich.cells import cell_len, chop_cells

from fashion_mnist.errors import UserError, say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST_NAME = 18  # of a class in a picture, in letters, of which those of Chinese, say, count twice
FOLDER = Path("checkpoints")  # outside what DVC deletes before it runs a stage


@contextlib.contextmanager
def complete(file: Path) -> Iterator[Path]:
    """Gives a place to write at; what was written there replaces `file` once it is complete.

    Raises:
        UserError: the disk is full, or cannot be written; `file` is as it was.
    """
    partial = file.with_name(f".{domain()}-{os.getpid()}.{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for left in file.parent.glob(f".{domain()}-*.{file.name}"):
            if not is_alive(left.name.split(".")[1].partition("-")[2]):
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
    except (ValueError, OverflowError, OSError) as error:
        return not isinstance(error, ProcessLookupError)
    return True


def shorter(name: str) -> str:
    """The name of a class as there is room for it in a picture."""
    return name if cell_len(name) <= LONGEST_NAME else f"{chop_cells(name, LONGEST_NAME - 1)[0]}…"


@contextlib.contextmanager
def plain_style() -> Iterator[None]:
    """Lets Matplotlib draw as it does by itself, whatever a person's own matplotlibrc says; a decorator, too."""
    from matplotlib import style

    with style.context("default"):
        yield


def write_figure(figure: "Figure", file: Path) -> None:
    """Writes a figure as PNG; the same figure always gives the same bytes."""
    with complete(file) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks, such as an emoji, is an empty box
        with plain_style():
            figure.savefig(partial, format="png", dpi=120, facecolor="white")


def write_metrics(file: Path, metrics: Mapping[str, float]) -> None:
    """Writes named numbers, for `dvc metrics`."""
    with complete(file) as partial:
        partial.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with the same keys, for `dvc plots` and spreadsheets."""
    with complete(file) as partial, partial.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def home() -> Path:
    """The person's own folder, or where there is none, as in many a container, that for temporary files."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())


def lock_of(*what: str) -> FileLock:
    """The lock of something that is named by texts.

    Its file lies in the folder for temporary files, since it could not be removed without a race, and named after the
    person too, since it belongs to whoever made it.
    """
    name = hashlib.sha256("\n".join([str(home()), *what]).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"fashion-mnist-{name}.lock")


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process is at work in a folder, which need not exist yet, and tidies it."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # no lock can be had: the same work may be done twice then, but never half
            lock = lock_of("folder", str(folder.resolve()))
            try:
                held.enter_context(lock.acquire(timeout=0))
            except Timeout:
                say(f"Waiting for another process that is at work in {folder}.")
                held.enter_context(lock)
            remove_unfinished(folder)
        yield


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
    """How the names of unfinished work begin."""
    return f".unfinished-{domain()}-"


def domain() -> str:
    """Stands for everybody who sees the same processes and locks: this person on this machine.

    Whoever does not must not take unfinished work for left behind.
    """
    where = f"{platform.node()} {home()} {tempfile.gettempdir()}"
    return hashlib.sha256(where.encode()).hexdigest()[:8]


def digest_here(*what: str) -> str:
    """Stands for something in this folder on this machine, in tags of runs.

    A name that is made once tells apart folders on different machines with the same path; the name of the machine would
    not do, since a container has another one each time.
    """
    file = FOLDER / "id"
    with lock_of("id", str(file.absolute())):
        if not file.is_file():
            with complete(file) as partial:
                partial.write_text(uuid.uuid4().hex, encoding="utf-8")
    parts = [file.read_text(encoding="utf-8"), str(FOLDER.absolute()), *what]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
