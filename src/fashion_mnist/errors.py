"""What users are told when something is not as it should be."""

import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


class UserError(Exception):
    """Something that the user can mend; the message is one sentence that says what is wrong and the way out."""


class SourceUnavailableError(UserError):
    """No source of the dataset could be reached; `data=auto` falls back on this error and on no other."""


class StorageAwayError(UserError):
    """A search's storage does not answer, which says nothing of the values that are tried."""


class Pruned(Exception):  # noqa: N818
    """A trial of a search ended early, since it had no promise: nothing went wrong."""


class Lasting(io.FileIO):
    """Where a stream ends; it goes on when its reader, such as `head`, has gone."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def make_streams_last() -> None:
    """Lets neither a closed pipe end a training, nor a letter that the terminal does not know."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and stream is not None:  # not what a test or notebook put there
            buffer = io.BufferedWriter(Lasting(stream.fileno(), "w", closefd=False))
            lasting = io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", line_buffering=True)
            setattr(sys, name, lasting)


def terminal(stderr: bool = False) -> Console:
    """Shows texts, which may be other people's, as they are: square brackets and all."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(sentence: str) -> None:
    """Tells what is going on, apart from results, which go to stdout."""
    print(sentence, file=sys.stderr)


def progress(items: Sequence[Item], description: str) -> Iterator[Item]:
    """The items, with a progress bar on stderr where there are many and somebody looks."""
    console = terminal(stderr=True)
    return iter(track(items, description, console=console, disable=len(items) < 20 or not console.is_terminal))


def reason_of(error: BaseException) -> str:
    """The first line of what went wrong, without the details of retries."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    text = text.rpartition("failed with exception ")[2]
    return text.partition(" with url")[0].partition(" for url")[0].partition("(Background")[0].strip()[:200]
