"""Jobs of a sweep, given to whoever makes them: to Ray, one by one, or to another of Hydra's launchers, in batches.

Ray works on this machine, or on the machines of a cluster that is there already. Every machine needs the project
installed; nothing of it travels but the name of the step and the job's configuration.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from fashion_mnist.errors import UserError, reason_of, say

CLOSING = 9.0  # seconds that jobs have to close their runs when the sweep is interrupted
CARRIED = (
    "FASHION_MNIST_",
    "MLFLOW_",
    "PG",
    "AWS_",
    "TF_",
    "XLA_",
    "CUDA_",
    "ONEDNN_",
)  # variables, by their beginning
FOLDER = "FASHION_MNIST_FOLDER"  # where jobs work on a machine


class Cluster:
    """Gives jobs to Ray's workers; a free one takes the next job that was started."""

    def __init__(self, context: HydraContext, config: DictConfig, task: TaskFunction) -> None:
        self.context, self.config, self.task = context, config, task
        self.settings: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        self.running: dict[Any, int] = {}
        self.remote: Any = None

    def launch(self, jobs: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Makes all jobs of a sweep, numbered from `first`, and returns what came of them, in their order."""
        for number, overrides in enumerate(jobs, start=first):
            self.start(overrides, number)
        outcomes: dict[int, JobReturn] = {}
        while self.running:
            outcomes |= dict(self.ended())
            say(f"{len(outcomes)} of {len(jobs)} jobs.")
        return [outcomes[number] for number in sorted(outcomes)]

    def start(self, overrides: Sequence[str], number: int) -> None:
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        self.running[self.worker().remote(self.task, config, environment(), self.folder())] = number

    def ended(self) -> Iterator[tuple[int, JobReturn]]:
        """Waits for a job to end, and gives the numbers and the outcomes of those that have; all end on Ctrl-C."""
        import ray
        from ray.exceptions import RayError

        try:
            for reference in ray.wait(list(self.running))[0]:
                number = self.running.pop(reference)
                try:
                    yield number, ray.get(reference)
                except RayError as error:
                    raise UserError(f"job {number} has lost its worker: {reason_of(error)}") from error
        except KeyboardInterrupt:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Interrupts all jobs as Ctrl-C does one, and waits until they have closed their runs."""
        import ray

        for reference in self.running:
            ray.cancel(reference)
        with suppress(KeyboardInterrupt):
            ray.wait(list(self.running), num_returns=len(self.running), timeout=CLOSING)
        self.running.clear()

    def worker(self) -> Any:
        """What a job is given to; connects with Ray first."""
        if self.remote is None:
            ray = connected(self.settings["init"])
            options = {key: self.settings[key] for key in ("num_cpus", "num_gpus", "max_retries", "max_calls")}
            self.remote = ray.remote(**options)(work)
        return self.remote

    def folder(self) -> str:
        return self.settings["folder"] or str(Path.cwd())


class Batches:
    """Gives jobs to a launcher that only knows batches, and returns when all of one are done."""

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


def workers_of(launcher: Any) -> "Cluster | Batches":
    """Who makes the jobs of a launcher."""
    return getattr(launcher, "cluster", None) or Batches(launcher)


def connected(init: dict[str, Any]) -> Any:
    """Ray, on this machine or as part of a cluster; what workers print stays in Ray's own logs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a job without GPUs sees what the machine has
    import ray

    given = {key: value for key, value in init.items() if value is not None}
    try:
        if not ray.is_initialized():
            local = {} if "address" in given else {"include_dashboard": False}
            ray.init(**{"log_to_driver": False, "logging_level": "ERROR", **local, **given})
    except Exception as error:  # of whatever kind Ray has for it
        raise UserError(f"hydra.launcher.init: Ray cannot be reached: {reason_of(error)}") from error
    return ray


def environment() -> dict[str, str]:
    """What a job is to find in its environment, as an argument: Ray shows a runtime environment to everyone."""
    return {key: value for key, value in os.environ.items() if key.startswith(CARRIED)}


def work(task: TaskFunction, config: DictConfig, variables: dict[str, str], folder: str) -> JobReturn:
    """Makes one job in a worker, whose own variables have the last word, but for the sweep that it belongs to."""
    from hydra._internal.callbacks import Callbacks

    for key, value in variables.items():
        if key == "FASHION_MNIST_PARENT_RUN_ID" or key not in os.environ:
            os.environ[key] = value
    os.chdir(os.environ.get(FOLDER, folder))
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
