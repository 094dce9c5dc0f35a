"""The servers of docs/team/, for a test: in a folder that every user may enter, on ports that nobody uses."""

import random
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from servers import WEED, Team

NEEDS_POSTGRESQL = pytest.mark.skipif(
    find_spec("psycopg") is None
    or not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))),
    reason="PostgreSQL is not installed, or no driver for it: uv sync --extra team",
)
NEEDS_S3 = pytest.mark.skipif(
    find_spec("boto3") is None or not WEED.is_file(),
    reason="there is no S3 server, or nothing to talk to it with: uv sync --extra team --group team",
)


@contextmanager
def a_team(host: str = "127.0.0.1", within: Sequence[str] = ()) -> Iterator[Team]:
    """Servers that are not started yet; their folder is not pytest's, which only its owner may enter."""
    with TemporaryDirectory(prefix="team-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        team = Team(Path(folder, "team"), free_ports(), host, within)
        try:
            yield team
        finally:
            team.stop()


def free_ports() -> int:
    """The first of six that are free, and so are those that are larger by 10,000."""
    while True:
        first = random.SystemRandom().randrange(20_000, 30_000)
        with suppress(OSError), ExitStack() as stack:
            for port in [*range(first, first + 6), *range(first + 10_000, first + 10_006)]:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
