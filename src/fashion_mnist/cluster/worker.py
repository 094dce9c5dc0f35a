"""What one of Ray's workers does: makes a job as if it were typed where the sweep was, or sends what was kept."""

import os
import platform
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fashion_mnist.config import TrackingConfig
from fashion_mnist.errors import UserError
from fashion_mnist.tracking import lineage
from fashion_mnist.tracking.outbox import catch_up
from fashion_mnist.tracking.store import PARENT

FOLDER = "FASHION_MNIST_FOLDER"  # the variable that says where jobs of other machines work on this one
# Of the environment, by their beginnings: what a job on another machine needs, unless that machine says otherwise.
CARRIED = (
    "FASHION_MNIST_", "MLFLOW_", "PG", "AWS_", "TF_", "XLA_", "ONEDNN_", "DNNL_", "CUDNN_", "CUBLAS_", "NVIDIA_",
    "KERAS_MAX",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where one types, as an argument of each job: a runtime environment would be shown to everyone."""

    variables: Mapping[str, str]
    folder: str
    node: str  # Ray's name of the machine

    def settle(self) -> None:
        """Prepares a worker, whose own variables have the last word, but for the sweep that its jobs belong to."""
        import ray

        for key, value in self.variables.items():
            if key == PARENT or key not in os.environ:
                os.environ[key] = value
        is_here = ray.get_runtime_context().get_node_id() == self.node
        folder = Path(self.folder if is_here else os.environ.get(FOLDER) or self.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.chdir(folder)
        except OSError as error:
            raise UserError(f"{platform.node()} cannot work in {folder} ({error}); say where: {FOLDER}") from error


def environment() -> dict[str, str]:
    """The variables that jobs on other machines need."""
    return {key: value for key, value in os.environ.items() if key.startswith(CARRIED) and key != FOLDER}


def work(task: TaskFunction, config: DictConfig, place: Place, code: str) -> JobReturn:
    """Makes one job in a worker."""
    from hydra._internal.callbacks import Callbacks

    place.settle()
    if lineage.code_here() != code:
        raise UserError(
            f"{platform.node()} has other code of the project than this sweep began with, edited meanwhile or of "
            "another commit; begin again, with the same everywhere."
        )
    version.setbase("1.3")  # as cli.py says to Hydra
    setup_globals()
    HydraConfig.instance().set_config(config)
    context = HydraContext(config_loader=None, callbacks=Callbacks())  # pyright: ignore[reportArgumentType]
    outcome = run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    error = outcome._return_value
    if isinstance(error, Exception) and not isinstance(error, UserError):
        error.add_note("".join(traceback.format_exception(error)))  # which does not travel otherwise
    return outcome


def send_the_rest(config: TrackingConfig, place: Place) -> None:
    """Sends what jobs on this machine have kept."""
    place.settle()
    catch_up(config)
