"""Jobs of a sweep, given to whoever makes them: to Ray, one by one, or to another of Hydra's launchers, in batches.

Ray works on this machine, or on the machines of a cluster that is there already. Every machine needs the project
installed; nothing of it travels but the name of the step and the job's configuration.
"""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from fashion_mnist.checks import cluster_of
from fashion_mnist.cluster.worker import Place, environment, send_the_rest, work
from fashion_mnist.config import TrackingConfig
from fashion_mnist.errors import UserError, reason_of, say
from fashion_mnist.tracking import lineage

CLOSING = 9.0  # seconds that jobs have to close their runs when the sweep is interrupted
ONLY_HERE = re.compile(r"(localhost|127\..*|::1|0\.0\.0\.0|)")  # hosts in addresses
STORES = {"tracking.uri": "http://SERVER:5000", "hydra.sweeper.storage": "postgresql://SERVER/optuna"}
OBJECTS = 100_000_000  # bytes; jobs send each other nothing large


class Cluster:
    """Gives jobs to Ray's workers; a free one takes the next job that was started."""

    def __init__(self, context: HydraContext, config: DictConfig, task: TaskFunction) -> None:
        self.context, self.config, self.task = context, config, task
        settings = cluster_of(config.hydra)
        assert settings is not None
        self.settings = settings
        self.running: dict[Any, tuple[int, Sequence[str]]] = {}

    @cached_property
    def ray(self) -> Any:
        """Ray, connected."""
        ray = connect(self.settings.init)
        storage = self.config.hydra.sweeper.get("storage")
        check_reach(ray, {"tracking.uri": self.config.tracking.uri, "hydra.sweeper.storage": storage})
        return ray

    @cached_property
    def worker(self) -> Any:
        """What a job is given to; one for all, since Ray counts the calls of each."""
        calls = 1 if self.needs["GPU"] else self.settings.max_calls  # TensorFlow keeps a GPU until its process ends
        options = {"num_cpus": self.needs["CPU"], "num_gpus": self.needs["GPU"], "max_calls": calls}
        return self.ray.remote(**options, max_retries=self.settings.max_retries)(work)

    @cached_property
    def needs(self) -> dict[str, float]:
        """What a job counts for, in Ray's words."""
        gpus = self.settings.num_gpus
        if gpus is None:
            gpus = float(any(node["Resources"].get("GPU") for node in nodes(self.ray)))
        return {"CPU": self.settings.num_cpus, "GPU": gpus}

    def launch(self, jobs: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Makes all jobs of a sweep, numbered from `first`, and returns what came of them, in their order."""
        start, outcomes = time.monotonic(), dict[int, JobReturn]()
        say(f"{len(jobs)} jobs, {self.room()} at a time.")
        try:
            for number, overrides in enumerate(jobs, start=first):
                self.start(overrides, number)
            while self.running:
                outcomes |= dict(self.ended())
                left = (time.monotonic() - start) / len(outcomes) * len(self.running)
                say(f"{len(outcomes)} of {len(jobs)} jobs; about {left / 60:.1f} min left.")
            self.collect()
        except BaseException:
            self.cancel()
            raise
        return [outcomes[number] for number in sorted(outcomes)]

    def room(self, wanted: int | None = None) -> int:
        """How many jobs can be made at a time, where so many are wanted."""
        rooms = [
            min(shares(node["Resources"].get(kind, 0)) // shares(need) for kind, need in self.needs.items() if need)
            for node in nodes(self.ray)
        ]
        if not any(rooms):
            raise UserError(
                f"hydra.launcher: no machine has what a job is to get: num_cpus={self.needs['CPU']:g} and "
                f"num_gpus={self.needs['GPU']:g}."
            )
        there = int(sum(rooms))
        return min(wanted or there, there)

    def start(self, overrides: Sequence[str], number: int) -> None:
        """Gives a job to the first worker that is free."""
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            config.tracking = OmegaConf.to_container(config.tracking, resolve=True)  # by the variables of this machine
        reference = self.worker.remote(self.task, config, self.place, lineage.code_here())
        self.running[reference] = number, overrides

    def ended(self) -> Iterator[tuple[int, JobReturn]]:
        """Waits for a job to end, and gives the numbers and the outcomes of those that have."""
        from ray.exceptions import RayError

        for reference in self.ray.wait(list(self.running))[0]:
            number, overrides = self.running.pop(reference)
            try:
                outcome = self.ray.get(reference)
            except RayError as error:
                cause = getattr(error, "cause", None)
                lost = UserError(f"job {number} has lost its worker: {reason_of(cause or error)}")
                outcome = JobReturn(overrides=list(overrides), status=JobStatus.FAILED)
                outcome.return_value = cause if isinstance(cause, UserError) else lost
            yield number, outcome

    def cancel(self) -> None:
        """Interrupts all jobs as Ctrl-C does one, and waits until they have closed their runs."""
        for reference in self.running:
            self.ray.cancel(reference)
        with suppress(KeyboardInterrupt):
            if self.running:
                self.ray.wait(list(self.running), num_returns=len(self.running), timeout=CLOSING)
        self.running.clear()

    def collect(self) -> None:
        """Lets every machine send what it could not tell the tracking server while that was away."""
        from ray.exceptions import RayError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        config, sent = TrackingConfig(**OmegaConf.to_container(self.config.tracking, resolve=True)), []  # type: ignore[arg-type]
        for node in nodes(self.ray):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            remote = self.ray.remote(num_cpus=0, scheduling_strategy=there)(send_the_rest)
            sent.append(remote.remote(config, self.place))
        for reference in sent:
            try:
                self.ray.get(reference)
            except RayError as error:
                say(f"a machine cannot send what it has kept: {reason_of(getattr(error, 'cause', None) or error)}")

    @property
    def place(self) -> "Place":
        return Place(environment(), str(Path.cwd()), self.ray.get_runtime_context().get_node_id())


class Batches:
    """Gives jobs to a launcher that only knows batches, and returns when all of one are done."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.waiting: list[tuple[int, Sequence[str]]] = []

    def room(self, wanted: int | None) -> int:
        return wanted or 1

    def start(self, overrides: Sequence[str], number: int) -> None:
        self.waiting.append((number, overrides))

    def ended(self) -> Iterator[tuple[int, JobReturn]]:
        """Makes what was started, and gives the numbers and the outcomes."""
        batch, self.waiting = self.waiting, []
        outcomes = self.launcher.launch([overrides for _, overrides in batch], initial_job_idx=batch[0][0])
        yield from zip((number for number, _ in batch), outcomes, strict=True)

    def cancel(self) -> None:
        """Does nothing: such a launcher has interrupted its jobs itself."""

    def collect(self) -> None:
        """Does nothing: the next job in this folder sends what is left."""


def workers_of(launcher: Any) -> Cluster | Batches:
    """Who makes the jobs of a launcher."""
    return getattr(launcher, "cluster", None) or Batches(launcher)


def connect(init: Mapping[str, Any]) -> Any:
    """Ray, which is started here where no address is given; what workers print stays in its own logs."""
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # else `uv run` would build an environment for each worker
    import ray

    given = {key: value for key, value in init.items() if value is not None}
    check_answer(str(given.get("address", "")))
    local = {"address": "local", "include_dashboard": False, "object_store_memory": OBJECTS}
    settings = {"log_to_driver": False, "logging_level": "ERROR", **({} if "address" in given else local), **given}
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        if not ray.is_initialized():
            ray.init(**settings)
    except Exception as error:  # of whatever kind Ray has for it
        how = "; type on a machine of the cluster, with its RAY_AUTH_MODE and token" if "address" in given else ""
        raise UserError(f"hydra.launcher.init: {reason_of(error).rstrip('.')}{how}") from error
    finally:
        signal.signal(signal.SIGTERM, terminate)  # which means Ctrl-C here, and the end to Ray
    return ray


def check_answer(address: str) -> None:
    """Refuses the address of a machine that does not answer; Ray would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise UserError(
                f"hydra.launcher.init.address={address} does not answer ({error}); `ray start --head` begins a cluster."
            ) from error


def shares(amount: float) -> int:
    """What Ray counts in, ten-thousandths: of floats, a tenth would fit into one only nine times."""
    return round(10_000 * amount)


def nodes(ray: Any) -> list[dict[str, Any]]:
    """The machines of a cluster that are there."""
    return [node for node in ray.nodes() if node["Alive"]]


def is_of_one_machine(address: str) -> bool:
    """Whether the address of a store means another one on each machine."""
    return ONLY_HERE.fullmatch(urlsplit(address).hostname or "") is not None


def check_reach(ray: Any, addresses: Mapping[str, str | None]) -> None:
    """Refuses addresses that other machines of the cluster would take for something of their own."""
    here = ray.util.get_node_ip_address()
    others = [node["NodeManagerAddress"] for node in nodes(ray) if node["NodeManagerAddress"] != here]
    for key, address in addresses.items():
        if others and address and is_of_one_machine(address):
            raise UserError(f"{key}={address} cannot be reached by jobs on {others[0]}; {key}={STORES[key]} can.")
