"""How long a sweep takes one job after the other, in several processes, and on several machines.

    uv run python benchmarks/scale.py --json scale.json

Every way makes the same sweep of trainings as they are by default, from the prompt to the prompt; the machines of Ray's
cluster are two networks of their own on this one, with a core each and no folder in common. The first of each group is
what the others are set against; their models must have the same bytes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from common import environment, machine, official_folder, positive, wide_console
from hosts import RAY as RAY_VARIABLES
from hosts import Host, free_port, two_hosts, wait_for
from rich import box
from rich.table import Table

from fashion_mnist.files import complete

JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
RAY = ("hydra/launcher=ray",)
# This machine: the keys of each way. A job that counts for two cores leaves room for one.
HERE = {
    "one after the other": (),
    "joblib, two workers": JOBLIB,
    "Ray, one worker": (*RAY, "hydra.launcher.num_cpus=2"),
    "Ray, two workers": RAY,
}
HOSTS = {"one machine of one core": 1, "two machines of one core": 2}
LEGEND = (
    "Seconds from the prompt to the prompt, median, of one sweep; memory: the largest process that trains. Beside: "
    "seconds of the group's first line, over those of this one, measured in the same round: above 1 is faster. Same "
    "models: how many have the bytes of the first line's. Ray is started anew here; the cluster is there already."
)


@dataclass(frozen=True)
class Measurement:
    """One sweep, made in one way."""

    way: str
    seconds: float
    megabytes: float
    digests: list[str]  # of the models, by seed


def main() -> None:
    """Measures each way in turn, round by round, and shows."""
    arguments = parse_arguments()
    official_folder()
    load, measured = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory(prefix="fashion-mnist-scale-") as temporary:
        for turn in range(arguments.rounds):
            for way in arguments.ways:
                folder = Path(temporary) / f"{turn}-{len(measured)}"
                folder.mkdir()
                measured.append(measure(way, folder, arguments.jobs))
                last = measured[-1]
                print(f"{last.seconds:7.1f} s {last.megabytes:6.0f} MB  {way}", file=sys.stderr)
    facts = {**machine(), "load_before": round(load, 2)}
    show(measured, facts, arguments.jobs)
    if arguments.json:
        with complete(arguments.json) as partial:
            content = {"legend": LEGEND, "machine": facts, "jobs": arguments.jobs}
            partial.write_text(
                json.dumps({**content, "measured": [asdict(each) for each in measured]}, indent=2) + "\n"
            )


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, ways = parser.add_argument, [*HERE, *HOSTS]
    add("--jobs", type=positive, default=10, help="trainings of the sweep (default: %(default)s)")
    add("--rounds", type=positive, default=3, help="how often each way is measured (default: %(default)s)")
    add("--ways", default=";".join(ways), help="which ways, with ; between them (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write every measurement to this file")
    arguments = parser.parse_args()
    arguments.ways = arguments.ways.split(";")
    if unknown := set(arguments.ways) - set(ways):
        parser.error(f"argument --ways: there is no '{min(unknown)}'; choose from {'; '.join(ways)}")
    return arguments


def measure(way: str, folder: Path, jobs: int) -> Measurement:
    """Makes the sweep in one way, in an empty folder."""
    typed = ["-m", "fashion_mnist", "-m", f"seed=range({jobs})"]
    if way in HERE:
        store = f"sqlite:///{folder}/mlflow.db"
        command = [sys.executable, *typed, *HERE[way]]
        seconds, megabytes = watched(command, folder, environment(MLFLOW_TRACKING_URI=store))
        return Measurement(way, seconds, megabytes, digests_of(store))
    with two_hosts(folder) as hosts:
        if not hosts[0].within:
            sys.exit("error: no networks can be made here; choose other --ways, or work as root.")
        for core, host in enumerate(hosts):
            host.within += ["taskset", "--cpu-list", str(core)]
        address = f"{hosts[0].address}:{free_port()}"
        for number, host in enumerate(hosts[: HOSTS[way]], start=1):
            host.join(*(["--head", f"--port={address.partition(':')[2]}"] if number == 1 else [f"--address={address}"]))
            wait_for(hosts[0], address, number)
        store, server = f"sqlite:///{hosts[0].folder}/mlflow.db", serve(hosts[0])
        keys = ["hydra/launcher=ray", f"hydra.launcher.init.address={address}"]
        command = [*hosts[0].within, sys.executable, *typed, *keys]
        seconds, megabytes = watched(command, hosts[0].folder, environment(**RAY_VARIABLES, MLFLOW_TRACKING_URI=server))
        return Measurement(way, seconds, megabytes, digests_of(store))


def serve(host: Host) -> str:
    """An MLflow server on a machine; its address."""
    port = free_port()
    served = ["-m", "mlflow", "server", "--host", host.address, "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{host.folder}/mlflow.db"]
    files = ["--artifacts-destination", str(host.folder / "artifacts")]
    host.start(*served, *store, *files, log="mlflow.log", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    ask = f"import requests, sys; sys.exit(requests.get('http://{host.address}:{port}/health').status_code != 200)"
    while subprocess.run([*host.within, sys.executable, "-c", ask], capture_output=True).returncode:
        time.sleep(0.5)
    return f"http://{host.address}:{port}"


def watched(command: Sequence[str], folder: Path, variables: dict[str, str]) -> tuple[float, float]:
    """Seconds that a command took, and the largest memory, in megabytes, of a process that trained meanwhile."""
    largest, ended, before = [0.0], threading.Event(), {each for each in processes() if memory(each)}

    def look() -> None:
        while not ended.wait(0.5):
            for process in set(processes()) - before:
                largest[0] = max(largest[0], memory(process))

    watcher = threading.Thread(target=look)
    watcher.start()
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    if done.returncode:
        sys.exit(f"{done.stderr[-3000:]}\nerror: {' '.join(command)} ended with code {done.returncode}.")
    return seconds, largest[0]


def processes() -> list[Path]:
    return list(Path("/proc").glob("[0-9]*"))


def memory(process: Path) -> float:
    """Peak resident memory in megabytes; none of a process that has ended, or of one that does not train."""
    with suppress(OSError):
        if "libtensorflow" in (process / "maps").read_text():
            for line in (process / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
    return 0


def digests_of(store: str) -> list[str]:
    """The models' digests of a sweep's runs, by seed."""
    import mlflow

    client = mlflow.MlflowClient(store)
    runs = [run for run in client.search_runs(["0"]) if "model_digest" in run.data.tags]
    runs.sort(key=lambda run: int(run.data.tags["seed"]))
    return [run.data.tags["model_digest"] for run in runs]


def show(measured: Sequence[Measurement], facts: dict, jobs: int) -> None:
    """Prints the table, and what was measured."""
    table = Table(title=f"A sweep of {jobs} trainings", box=box.SIMPLE)
    table.add_column("way")
    for heading in ("seconds", "min - max", "beside", "memory, MB", "same models"):
        table.add_column(heading, justify="right")
    for group in (HERE, HOSTS):
        ways = [way for way in group if any(each.way == way for each in measured)]
        for way in ways:
            table.add_row(*row(way, [[each for each in measured if each.way == name] for name in (ways[0], way)]))
    console = wide_console()
    console.print(table)
    console.print(LEGEND, highlight=False)
    console.print(
        f"{facts['processor']}, {facts['cores']} cores (load {facts['load_before']} before); TensorFlow "
        f"{facts['tensorflow']}; commit {facts['git_commit'][:12]}{', changed' if facts['git_dirty'] else ''}.",
        highlight=False,
    )


def row(way: str, beside: Sequence[Sequence[Measurement]]) -> list[str]:
    """A line of the table: a way beside the first of its group, round by round."""
    first, own = beside
    pairs = list(zip(first, own, strict=True))
    seconds = [each.seconds for each in own]
    same = [a == b for base, each in pairs for a, b in zip(base.digests, each.digests, strict=True)]
    return [
        way,
        f"{statistics.median(seconds):.1f}",
        f"{min(seconds):.1f} - {max(seconds):.1f}",
        f"{statistics.median(base.seconds / each.seconds for base, each in pairs):.2f}",
        f"{max(each.megabytes for each in own):,.0f}",
        "" if first == own else f"{sum(same)} of {len(same)}",
    ]


if __name__ == "__main__":
    main()
