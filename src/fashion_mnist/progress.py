"""How far long work is."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def progress(items: Sequence[Item], description: str) -> Iterator[Item]:
    """The items, with a progress bar on stderr where there are many and somebody looks."""
    console = Console(stderr=True)
    return iter(track(items, description, console=console, disable=len(items) < 20 or not console.is_terminal))
