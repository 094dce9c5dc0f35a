"""What a team shares, on this machine: runs and studies in PostgreSQL, files in an S3 store, and MLflow's server.

    uv run python docs/team/servers.py --folder ../team

Works until Ctrl-C; started again, it goes on with what the folder holds. The page beside it says how to use it, and how
the same is done for real.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
USER = "team"
DATABASES, BUCKETS = ("mlflow", "optuna"), ("mlflow", "dvc")
WEED = Path(sys.executable).with_name("weed")  # SeaweedFS
PATIENCE = 60.0  # seconds that a server has to begin


class Team:
    """The three servers: MLflow's on `port`, PostgreSQL on the next, S3 on the one after."""

    def __init__(self, folder: Path, port: int, host: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        """Makes passwords, once.

        Args:
            folder: holds everything; it is made where it is not there.
            port: the first of six that are free, and so must be those that are larger by 10,000.
            host: the address to answer at.
            within: how a command begins that is run elsewhere, such as in a network of its own.
        """
        self.folder, self.port, self.host, self.within = folder.resolve(), port, host, list(within)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "password"
        if not file.is_file():
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(16))
        self.password = file.read_text()
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def variables(self) -> dict[str, str]:
        """What everybody in the team sets."""
        return {
            "MLFLOW_TRACKING_URI": f"http://{self.host}:{self.port}",
            "PGUSER": USER,
            "PGPASSWORD": self.password,
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": self.password,
            "AWS_ENDPOINT_URL": f"http://{self.host}:{self.port + 2}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def storage(self) -> str:
        """The address of the studies of searches."""
        return f"postgresql://{self.host}:{self.port + 1}/optuna"

    def start(self) -> None:
        """Starts all three, and writes down what everybody sets."""
        self.start_postgresql()
        self.start_s3()
        self.start_mlflow()
        file = self.folder / "environment"
        file.touch(mode=0o600)
        file.write_text("".join(f"export {key}={value}\n" for key, value in self.variables.items()))

    def start_postgresql(self) -> None:
        """Starts PostgreSQL, which refuses to work as root, and makes what is not there."""
        place = self.folder / "postgresql"
        if not place.is_dir():
            new = self.folder / "postgresql.new"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=0o700)
            word = self.folder / "postgresql.password"
            word.touch(mode=0o600)
            word.write_text(self.password)
            give_to_postgres(new, word)
            how = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={word}", "--no-sync"]
            command = [*self.within, *unprivileged(), program("initdb"), f"--pgdata={new}", *how]
            done = subprocess.run(command, capture_output=True, text=True, cwd="/")
            word.unlink()
            if done.returncode:
                raise RuntimeError(f"PostgreSQL's initdb: {done.stderr.strip().splitlines()[-1]}")
            with (new / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet scram-sha-256\n")
            new.rename(place)
        options = ["-D", str(place), "-p", str(self.port + 1), "-h", self.host, "-k", ""]
        self.run("postgresql", [*unprivileged(), program("postgres"), *options])
        make = (
            "import psycopg, sys; database = psycopg.connect(sys.argv[1], dbname='postgres', autocommit=True)\n"
            "there = [name for name, in database.execute('SELECT datname FROM pg_database')]\n"
            "[database.execute('CREATE DATABASE ' + name) for name in sys.argv[2:] if name not in there]"
        )
        self.ask("postgresql", make, self.address, *DATABASES)

    @property
    def address(self) -> str:
        return f"postgresql://{self.host}:{self.port + 1}"

    def start_s3(self) -> None:
        """Starts SeaweedFS, with a bucket for MLflow's files and one for DVC's."""
        place, file = self.folder / "s3", self.folder / "s3.json"
        place.mkdir(exist_ok=True)
        key = {"accessKey": USER, "secretKey": self.password}
        file.touch(mode=0o600)
        file.write_text(json.dumps({"identities": [{"name": USER, "credentials": [key], "actions": ["Admin"]}]}))
        names = ("s3", "master", "volume", "filer")
        ports = [f"-{name}.port={self.port + number}" for number, name in enumerate(names, start=2)]
        off = ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        options = [f"-dir={place}", f"-ip={self.host}", f"-ip.bind={self.host}", f"-s3.config={file}"]
        self.run("s3", [str(WEED), "mini", *options, *ports, *off, f"-bucket={','.join(BUCKETS)}"])
        ask = "import boto3, sys; store = boto3.client('s3'); [store.head_bucket(Bucket=name) for name in sys.argv[1:]]"
        self.ask("s3", ask, *BUCKETS)

    def start_mlflow(self) -> None:
        """Starts MLflow's server, which alone talks with the database and with S3."""
        stores = ["--backend-store-uri", f"{self.address}/mlflow", "--artifacts-destination", "s3://mlflow"]
        where = ["--host", self.host, "--port", str(self.port), "--workers", "2"]
        self.run("mlflow", [sys.executable, "-m", "mlflow", "server", *stores, *where])
        ask = "import requests, sys; requests.get(sys.argv[1]).raise_for_status()"
        self.ask("mlflow", ask, f"{self.variables['MLFLOW_TRACKING_URI']}/health")

    def run(self, name: str, command: Sequence[str]) -> None:
        """Starts a server; what it says is in the folder."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*self.within, *command],
                cwd="/",
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def environment(self) -> Mapping[str, str]:
        others = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PG", "AWS_"))}
        ours = {key: value for key, value in self.variables.items() if not key.startswith("MLFLOW_")}
        return {**others, **ours, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def ask(self, name: str, code: str, *arguments: str) -> None:
        """Asks a server until it answers."""
        command = [*self.within, sys.executable, "-c", code, *arguments]
        end, said = time.monotonic() + PATIENCE, ""
        while time.monotonic() < end and self.running[name].poll() is None:
            done = subprocess.run(command, env=self.environment(), capture_output=True, text=True)
            if done.returncode == 0:
                return
            said = done.stderr.strip().rpartition("\n")[2]
            time.sleep(0.3)
        raise RuntimeError(f"{name} does not answer; {self.folder / name}.log says why ({said}).")

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        """Ends a server with everything that it has started."""
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop(self) -> None:
        """Ends all, the last first."""
        for name in reversed(list(self.running)):
            self.kill(name, signal.SIGINT if name == "postgresql" else signal.SIGTERM)


def program(name: str) -> str:
    """One of PostgreSQL's, which Debian keeps where no PATH finds them."""
    found = shutil.which(name) or next((str(file) for file in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    if found is None:
        sys.exit("error: PostgreSQL is not installed: apt install postgresql, or what your system has for it.")
    return found


def unprivileged() -> list[str]:
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []


def give_to_postgres(*paths: Path) -> None:
    """Gives what is root's to PostgreSQL's user, who must be able to come there."""
    if os.getuid() == 0:
        if closed := [parent for parent in paths[0].parents if not parent.stat().st_mode & 0o001]:
            sys.exit(f"error: the user postgres cannot enter {closed[-1]}; choose another --folder, such as /srv/team.")
        for path in paths:
            shutil.chown(path, "postgres", "postgres")


def main() -> None:
    """Starts the servers, says how to use them, and stays until Ctrl-C or the end of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="keeps databases, files, passwords and logs")
    parser.add_argument("--port", type=int, default=5000, help="the first of six, of MLflow's server (default: 5000)")
    arguments = parser.parse_args()
    if any(find_spec(module) is None for module in ("psycopg", "boto3")) or not WEED.is_file():
        sys.exit("error: the servers need more packages: uv sync --inexact --extra team --group team")
    for ended in (signal.SIGTERM, signal.SIGHUP):  # as when its terminal is closed
        signal.signal(ended, signal.default_int_handler)
    check_ports(arguments.port)
    try:
        team = Team(arguments.folder, arguments.port)
    except OSError as error:
        sys.exit(f"error: {arguments.folder} cannot be written ({error}); choose another --folder.")
    try:
        team.start()
        print(told(team), flush=True)
        while all(process.poll() is None for process in team.running.values()):
            time.sleep(0.5)
        names = [name for name, process in team.running.items() if process.poll() is not None]
        sys.exit(f"error: {names[0]} has ended; {team.folder / names[0]}.log says why.")
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
    finally:
        for ended in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # once is enough
            signal.signal(ended, signal.SIG_IGN)
        team.stop()


def check_ports(first: int) -> None:
    """Ends the program where another one answers already: it would be taken for one of these."""
    for port in range(first, first + 6):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                sys.exit(f"error: port {port} is in use; choose another --port.")


def told(team: Team) -> str:
    """What somebody in the team types next."""
    lines = [
        f"MLflow: {team.variables['MLFLOW_TRACKING_URI']}",
        f"in every terminal:  source {team.folder / 'environment'}",
        f"a search:           hydra.sweeper.storage={team.storage}",
        "DVC:                uv run dvc remote add --local --default team s3://dvc",
        "Ctrl-C ends the servers; what they hold stays.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
