"""The MLflow run of a whole sweep, below which its jobs are nested; Hydra calls it at a sweep's start and end."""

import atexit
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

from fashion_mnist import store, tracking
from fashion_mnist.config import TrackingConfig
from fashion_mnist.errors import UserError

if TYPE_CHECKING:
    from mlflow.entities import Run

METRICS = {
    "accuracy": "training",
    "val_accuracy": "validation",
    "test_accuracy": "test",
    "test_loss": "test loss",
}


class SweepRun(Callback):
    """Opens the sweep's run, hands its id to the jobs through the environment, and closes it however the sweep ends."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Opens the run; from here on, jobs nest below it."""
        if config.hydra.job.name in ("fetch", "evaluate"):  # they open no runs of their own
            return
        self.config = TrackingConfig(**OmegaConf.to_container(config.tracking, resolve=True))  # type: ignore[arg-type]
        try:
            store.check(self.config, list(config.hydra.overrides.task))
            self.run_id = open_sweep(self.config, list(config.hydra.overrides.task))
        except UserError as error:
            sys.exit(f"error: {error}")  # Hydra turns any other exception of a callback into a warning
        os.environ[tracking.PARENT] = self.run_id
        atexit.register(self.close, "FAILED")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Closes the run of a sweep in which no job failed."""
        if tracking.PARENT in os.environ:
            self.close("FINISHED")

    def close(self, status: str) -> None:
        """Shows what came out, and closes the run with it, once."""
        atexit.unregister(self.close)
        os.environ.pop(tracking.PARENT, None)
        jobs = jobs_of_sweep(self.config, self.run_id)
        if any(job.info.status == "KILLED" for job in jobs):
            status = "KILLED"
        rows = summarize(jobs)
        winner = best(jobs)
        if jobs:
            show(rows, f"best by validation accuracy: {rows[jobs.index(winner) + 1][0]}" if winner else None)
        close_sweep(self.config, self.run_id, status, markdown(rows), winner)


def open_sweep(config: TrackingConfig, overrides: list[str]) -> str:
    """Makes the run of a sweep, or continues the one of `mlflow run`, and returns its id."""
    client = tracking.connect(config)
    tags = {
        "sweep": "true",
        "mlflow.note.content": f"Sweep: `{' '.join(['-m', *overrides])}`; its runs are nested below.",
    }
    name = config.run_name or " ".join(["sweep", *overrides])[:200]
    if run_id := os.environ.pop("MLFLOW_RUN_ID", None):
        if tracking.MADE_UP.fullmatch(client.get_run(run_id).info.run_name or "") or config.run_name:
            tags["mlflow.runName"] = name
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        return run_id
    return client.create_run(tracking.experiment(config, client), run_name=name, tags=tags).info.run_id


def jobs_of_sweep(config: TrackingConfig, run_id: str) -> list["Run"]:
    """The runs that are nested below the run of a sweep, in the order in which they were started."""
    client = tracking.connect(config)
    place = [client.get_run(run_id).info.experiment_id]
    nested = f"tags.`mlflow.parentRunId` = '{run_id}'"
    return list(client.search_runs(place, nested, order_by=["attributes.start_time ASC"]))


def close_sweep(config: TrackingConfig, run_id: str, status: str, summary: str, best: "Run | None") -> None:
    """Ends the run of a sweep, with a summary and a link to its best job in its description."""
    client = tracking.connect(config)
    note = f"{client.get_run(run_id).data.tags['mlflow.note.content']}\n\n{summary}"
    if best:
        link = f"#/experiments/{best.info.experiment_id}/runs/{best.info.run_id}"
        note += f"\n\nBest by validation accuracy: [{best.info.run_name}]({link})."
        client.set_tag(run_id, "best_child", best.info.run_id)
    client.set_tag(run_id, "mlflow.note.content", note)
    client.set_terminated(run_id, status)


def best(jobs: Sequence["Run"]) -> "Run | None":
    """The finished job with the best accuracy on the validation images; the test images choose nothing."""
    validated = [job for job in jobs if job.info.status == "FINISHED" and "val_accuracy" in job.data.metrics]
    return max(validated, key=lambda job: job.data.metrics["val_accuracy"], default=None)


def summarize(jobs: Sequence["Run"]) -> list[list[str]]:
    """The jobs of a sweep side by side: the headings, and a row for each job; metrics that no job has are left out."""
    metrics = {key: heading for key, heading in METRICS.items() if any(key in job.data.metrics for job in jobs)}
    rows = [["run", *metrics.values(), "seconds"]] if jobs else []
    for job, name in zip(jobs, told_apart([job.info.run_name or job.info.run_id for job in jobs]), strict=True):
        values = [f"{job.data.metrics[key]:.4f}" if key in job.data.metrics else "" for key in metrics]
        seconds = f"{((job.info.end_time or 0) - job.info.start_time) / 1000:.1f}"
        rows.append([name, *values, seconds if job.info.status == "FINISHED" else job.info.status.lower()])
    return rows


def told_apart(names: Sequence[str]) -> list[str]:
    """The names without the words that all of them have."""
    common = set.intersection(*(set(name.split()) for name in names)) if len(set(names)) > 1 else set()
    return [" ".join(word for word in name.split() if word not in common) or name for name in names]


def show(rows: Sequence[Sequence[str]], caption: str | None) -> None:
    """Prints the table."""
    table = Table(title="Accuracies of the sweep's runs", caption=caption, box=box.SIMPLE_HEAD)
    for heading in rows[0]:
        name = heading == "run"
        table.add_column(heading, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The table for the run's description."""
    lines = [" | ".join(row) for row in rows]
    return (
        "\n".join(f"| {line} |" for line in [*lines[:1], " | ".join("---" for _ in rows[0]), *lines[1:]])
        if rows
        else ""
    )
