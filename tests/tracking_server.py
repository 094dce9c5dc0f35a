"""MLflow's tracking server, which is its UI too, for tests that need a real one."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests


class Server:
    """A server over the database in a folder, which can be stopped, killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        store = f"sqlite:///{self.folder}/mlflow.db"
        command = ["server", "--workers", "1", "--port", str(self.port), "--backend-store-uri", store]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight more processes, for language models
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--artifacts-destination", str(self.folder / "artifacts")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        for _ in range(300):
            try:
                requests.get(f"{self.url}/health", timeout=1).raise_for_status()
                return
            except requests.RequestException:
                time.sleep(0.2)
        raise TimeoutError("the tracking server does not answer")

    def send(self, kind: signal.Signals) -> None:
        """Sends a signal to the server and its workers."""
        os.killpg(self.process.pid, kind)
        if kind == signal.SIGKILL:
            self.process.wait()


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """A server that has started, for as long as the context lasts."""
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.send(signal.SIGKILL)
