"""Jobs of a sweep, given to whoever makes them: to Ray, one by one, or to another of Hydra's launchers, in batches.

Ray works on this machine, or on the machines of a cluster that is there already. Every machine needs the project
installed; nothing of it travels but the name of the step and the job's configuration.
"""

import os
import platform
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from fashion_mnist.checks import cluster_of
from fashion_mnist.config import TrackingConfig
from fashion_mnist.errors import UserError, reason_of, say
from fashion_mnist.tracking import lineage
from fashion_mnist.tracking.outbox import catch_up
from fashion_mnist.tracking.store import PARENT

CLOSING = 9.0  # seconds that jobs have to close their runs when the sweep is interrupted
# Of the environment, by their beginnings: what a job on another machine needs, unless that machine says otherwise.
CARRIED = ("FASHION_MNIST_", "MLFLOW_", "PG", "AWS_", "TF_", "XLA_", "CUDA_", "ONEDNN_")
FOLDER = "FASHION_MNIST_FOLDER"  # the variable that says where jobs work on a machine
ONLY_HERE = re.compile(r"sqlite:|\w+://([^/@]*@)?(localhost|127\.|\[::1\])")
STORES = {
    "tracking.uri": "`mlflow server --host 0.0.0.0` makes a database one that they can",
    "hydra.sweeper.storage": "they can reach PostgreSQL: postgresql://HOST/DATABASE",
}
OBJECTS = 100_000_000  # bytes; jobs send each other nothing large


class Cluster:
    """Gives jobs to Ray's workers; a free one takes the next job that was started."""

    def __init__(self, context: HydraContext, config: DictConfig, task: TaskFunction) -> None:
        self.context, self.config, self.task = context, config, task
        settings = cluster_of(config.hydra)
        assert settings is not None
        self.settings = settings
        self.running: dict[Any, int] = {}

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
        options = {key: getattr(self.settings, key) for key in ("num_cpus", "num_gpus", "max_retries", "max_calls")}
        return self.ray.remote(**options)(work)

    def launch(self, jobs: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Makes all jobs of a sweep, numbered from `first`, and returns what came of them, in their order."""
        start, outcomes = time.monotonic(), dict[int, JobReturn]()
        say(f"{len(jobs)} jobs, {self.room} at a time.")
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

    @property
    def room(self) -> int:
        """How many jobs can be made at a time."""
        needs = {"CPU": self.settings.num_cpus, "GPU": self.settings.num_gpus}
        rooms = [
            min(node["Resources"].get(kind, 0) // need for kind, need in needs.items() if need)
            for node in nodes(self.ray)
        ]
        if not any(rooms):
            raise UserError(
                "hydra.launcher: no machine has num_cpus={num_cpus:g} cores and num_gpus={num_gpus:g} GPUs.".format(
                    **vars(self.settings)
                )
            )
        return int(sum(rooms))

    def start(self, overrides: Sequence[str], number: int) -> None:
        """Gives a job to the first worker that is free."""
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        reference = self.worker.remote(self.task, config, environment(), self.folder, lineage.code_digest())
        self.running[reference] = number

    def ended(self) -> Iterator[tuple[int, JobReturn]]:
        """Waits for a job to end, and gives the numbers and the outcomes of those that have."""
        from ray.exceptions import RayError

        for reference in self.ray.wait(list(self.running))[0]:
            number = self.running.pop(reference)
            try:
                outcome = self.ray.get(reference)
            except RayError as error:
                cause = getattr(error, "cause", None)
                known = isinstance(cause, UserError)
                lost = UserError(f"job {number} has lost its worker: {reason_of(cause or error)}")
                outcome = JobReturn(status=JobStatus.FAILED)
                outcome.return_value = cause if known else lost
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
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            remote = self.ray.remote(num_cpus=0, scheduling_strategy=place)(send_the_rest)
            sent.append(remote.remote(config, environment(), self.folder))
        for reference in sent:
            try:
                self.ray.get(reference)
            except RayError as error:
                say(f"a machine cannot send what it has kept: {reason_of(getattr(error, 'cause', None) or error)}")

    @property
    def folder(self) -> str:
        return self.settings.folder or str(Path.cwd())


class Batches:
    """Gives jobs to a launcher that only knows batches, and returns when all of one are done."""

    room = 1  # unless more are asked for

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.waiting: list[tuple[int, Sequence[str]]] = []

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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a job without GPUs sees what the machine has
    import ray

    given = {key: value for key, value in init.items() if value is not None}
    check_answer(str(given.get("address", "")))
    local = {} if "address" in given else {"include_dashboard": False, "object_store_memory": OBJECTS}
    try:
        if not ray.is_initialized():
            ray.init(**{"log_to_driver": False, "logging_level": "ERROR", **local, **given})
    except Exception as error:  # of whatever kind Ray has for it
        how = "; is RAY_AUTH_MODE the same there, and the token?" if "address" in given else ""
        raise UserError(f"hydra.launcher.init: {reason_of(error).rstrip('.')}{how}") from error
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


def nodes(ray: Any) -> list[dict[str, Any]]:
    """The machines of a cluster that are there."""
    return [node for node in ray.nodes() if node["Alive"]]


def check_reach(ray: Any, addresses: Mapping[str, str | None]) -> None:
    """Refuses addresses that other machines of the cluster would take for something of their own."""
    here = ray.util.get_node_ip_address()
    others = [node["NodeManagerAddress"] for node in nodes(ray) if node["NodeManagerAddress"] != here]
    for key, address in addresses.items():
        if others and address and ONLY_HERE.match(address):
            raise UserError(f"{key}={address} cannot be reached by jobs on {others[0]}; {STORES[key]}.")


def environment() -> dict[str, str]:
    """What a job is to find in its environment, as an argument: Ray shows a runtime environment to everyone."""
    return {key: value for key, value in os.environ.items() if key.startswith(CARRIED)}


def settle_in(variables: Mapping[str, str], folder: str) -> None:
    """Prepares a worker, whose own variables have the last word, but for the sweep that its jobs belong to."""
    for key, value in variables.items():
        if key == PARENT or key not in os.environ:
            os.environ[key] = value
    place = Path(os.environ.get(FOLDER) or folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        os.chdir(place)
    except OSError as error:
        raise UserError(f"{platform.node()} cannot work in {place} ({error}); say where: {FOLDER}") from error


def work(task: TaskFunction, config: DictConfig, variables: dict[str, str], folder: str, code: str) -> JobReturn:
    """Makes one job in a worker."""
    from hydra._internal.callbacks import Callbacks

    settle_in(variables, folder)
    if lineage.code_digest() != code:
        raise UserError(f"{platform.node()} has other code of the project than this machine; bring both to one commit.")
    version.setbase("1.3")  # as cli.py says to Hydra
    setup_globals()
    HydraConfig.instance().set_config(config)
    context = HydraContext(config_loader=None, callbacks=Callbacks())  # pyright: ignore[reportArgumentType]
    return run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def send_the_rest(config: TrackingConfig, variables: dict[str, str], folder: str) -> None:
    """Sends what jobs on this machine have kept."""
    settle_in(variables, folder)
    catch_up(config)
