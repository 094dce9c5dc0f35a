"""What users are told when something is not as it should be."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


class UserError(Exception):
    """Something that the user can mend; the message is one sentence that says what is wrong and the way out."""


class SourceUnavailableError(UserError):
    """No source of the dataset could be reached; `data=auto` falls back on this error and on no other."""


def say(sentence: str) -> None:
    """Tells what is going on, apart from results, which go to stdout."""
    print(sentence, file=sys.stderr)


def progress(items: Sequence[Item], description: str) -> Iterator[Item]:
    """The items, with a progress bar on stderr where there are many and somebody looks."""
    console = Console(stderr=True)
    return iter(track(items, description, console=console, disable=len(items) < 20 or not console.is_terminal))


def reason_of(error: BaseException) -> str:
    """The first line of what went wrong, without the details of retries."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    text = text.rpartition("failed with exception ")[2]
    return text.partition(" with url")[0].partition(" for url")[0].partition("(Background")[0].strip()[:200]
