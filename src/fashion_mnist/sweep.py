"""The MLflow run of a whole sweep, below which its jobs are nested; Hydra calls it at a sweep's start and end."""

import atexit
import os
import sys
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from fashion_mnist import store, tracking
from fashion_mnist.config import TrackingConfig
from fashion_mnist.errors import UserError


class SweepRun(Callback):
    """Opens the sweep's run, hands its id to the jobs through the environment, and closes it however the sweep ends."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Opens the run; from here on, jobs nest below it."""
        if config.hydra.job.name in ("fetch", "evaluate"):  # they open no runs of their own
            return
        self.config = TrackingConfig(**OmegaConf.to_container(config.tracking, resolve=True))  # type: ignore[arg-type]
        try:
            store.check(self.config, list(config.hydra.overrides.task))
            self.run_id = tracking.open_sweep(self.config, list(config.hydra.overrides.task))
        except UserError as error:
            sys.exit(f"error: {error}")  # Hydra turns any other exception of a callback into a warning
        os.environ[tracking.PARENT] = self.run_id
        atexit.register(self.close, "FAILED")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Closes the run of a sweep in which no job failed."""
        if tracking.PARENT in os.environ:
            self.close("FINISHED")

    def close(self, status: str) -> None:
        """Closes the run, once."""
        atexit.unregister(self.close)
        os.environ.pop(tracking.PARENT, None)
        tracking.close_sweep(self.config, self.run_id, status)
