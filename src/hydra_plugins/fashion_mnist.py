"""What Hydra finds of the project by itself: it takes plugins from here alone, and imports them at each start."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """`hydra/sweeper=optuna`; its settings are those of conf/hydra/sweeper/optuna.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.search: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from fashion_mnist.search import Search

        self.search = Search(hydra_context, config)

    def sweep(self, arguments: Sequence[str]) -> None:
        self.search.run(arguments)


class RayLauncher(Launcher):
    """`hydra/launcher=ray`; its settings are those of conf/hydra/launcher/ray.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.cluster: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from fashion_mnist.cluster.jobs import Cluster

        self.cluster = Cluster(hydra_context, config, task_function)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self.cluster.launch(job_overrides, initial_job_idx)
