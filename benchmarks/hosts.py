"""Two machines as Ray sees them: each with a network of its own, one core, and a folder that the other cannot see.

Where such networks may not be made, both are on this machine's own network: then only their folders are apart.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ADDRESSES = ("10.77.0.1", "10.77.0.2")
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class Host:
    """A machine that works in a folder of its own."""

    def __init__(self, folder: Path, address: str, within: Sequence[str] = ()) -> None:
        self.folder, self.address, self.within = folder, address, list(within)
        # Short, since the names of Ray's sockets begin with it, and have an end.
        self.own = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True)
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, log: str | None = None, **environment: str) -> "subprocess.Popen[str]":
        """Starts Python on the machine, in its folder; what it says can be read, or is in a file there, `log`."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "FASHION_MNIST_"))}
        process = subprocess.Popen(
            [*self.within, sys.executable, *arguments],
            cwd=self.folder,
            env={**own, **RAY, **environment},
            stdout=(self.folder / log).open("a") if log else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def join(self, *how: str) -> "subprocess.Popen[str]":
        """Lets the machine be a part of a cluster of Ray's, with one core."""
        place = [f"--node-ip-address={self.address}", f"--temp-dir={self.own.name}", "--num-cpus=1", "--block"]
        command = ["-m", "ray.scripts.scripts", "start", *how, *place, "--object-store-memory=100000000"]
        return self.start(*command, log="ray.log", FASHION_MNIST_FOLDER=str(self.folder))

    def kill(self) -> None:
        """Ends everything on the machine at once, as a power cut does; for a machine with a network of its own."""
        for process in self.processes_called(""):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def processes_called(self, beginning: str) -> list[int]:
        """The machine's processes with such a name, but for the one that holds its network."""
        network, found = Path(self.within[1].partition("=")[2]).readlink(), []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                name = (process / "cmdline").read_text(errors="replace")
                if name.startswith(beginning) and not name.startswith("sleep"):
                    found += [int(process.name)] if (process / "ns/net").readlink() == network else []
        return found

    def stop(self) -> None:
        """Ends everything that was started, the last first."""
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
        self.own.cleanup()


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Two machines that can talk with one another, as long as the context lasts."""
    folders = [folder / "first", folder / "second"]
    for each in folders:
        each.mkdir()
    alone = ["unshare", "--net", "--mount", "--propagation=private", "sleep", "infinity"]
    holders: list[subprocess.Popen[bytes]] = []
    try:
        holders += [subprocess.Popen(alone, stderr=subprocess.DEVNULL) for _ in folders]
        within = [["nsenter", f"--net=/proc/{each.pid}/ns/net", f"--mount=/proc/{each.pid}/ns/mnt"] for each in holders]
        time.sleep(0.5)
        wire(holders, within, folders)
        hosts = [
            Host(each, address, [*inside, "env", f"--chdir={each}"])  # entering a namespace ends in its root
            for each, address, inside in zip(folders, ADDRESSES, within, strict=True)
        ]
    except (OSError, subprocess.CalledProcessError) as error:
        warnings.warn(f"no networks can be made here ({error}), so both machines share one", stacklevel=2)
        hosts = [Host(each, "127.0.0.1") for each in folders]
    try:
        yield hosts[0], hosts[1]
    finally:
        for host in reversed(hosts):
            host.stop()
        for holder in holders:
            holder.kill()
            holder.wait()


def wire(holders: "list[subprocess.Popen[bytes]]", within: list[list[str]], folders: list[Path]) -> None:
    """Connects two networks by a cable, and hides each one's folder from the other."""
    first, second = (str(holder.pid) for holder in holders)
    run("ip", "link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
    for inside, address, other in zip(within, ADDRESSES, reversed(folders), strict=True):
        run(*inside, "ip", "address", "add", f"{address}/24", "dev", "cable")
        run(*inside, "ip", "link", "set", "cable", "up")
        run(*inside, "ip", "link", "set", "lo", "up")
        run(*inside, "mount", "-t", "tmpfs", "tmpfs", str(other))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Host, Host, str]]:
    """Two machines that are a cluster of Ray's; gives its address, too."""
    with two_hosts(folder) as (first, second):
        port = free_port()
        address = f"{first.address}:{port}"
        first.join("--head", f"--port={port}", "--include-dashboard=false")
        wait_for(first, address, 1)
        second.join(f"--address={address}")
        wait_for(first, address, 2)
        yield first, second, address


def wait_for(host: Host, address: str, count: int) -> None:
    """Waits until so many machines are part of a cluster."""
    code = f"""
import ray, time
for _ in range(60):
    try:
        ray.init(address="{address}", log_to_driver=False, logging_level="CRITICAL")
        break
    except Exception:
        time.sleep(0.5)
while sum(node["Alive"] for node in ray.nodes()) < {count}:
    time.sleep(0.2)
"""
    file = host.folder / "wait.py"
    file.write_text(code)
    command = [*host.within, sys.executable, str(file)]
    subprocess.run(command, env={**os.environ, **RAY}, check=True, timeout=120, capture_output=True)
