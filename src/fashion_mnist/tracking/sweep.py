"""The MLflow run of a whole sweep, below which its jobs are nested; Hydra calls it at a sweep's start and end."""

import atexit
import itertools
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.table import Table

from fashion_mnist.cli import UNTRAINED, explain
from fashion_mnist.config import CONF, TrackingConfig
from fashion_mnist.errors import reason_of, say, terminal
from fashion_mnist.files import digest_here, lock_of
from fashion_mnist.tracking import lineage, store
from fashion_mnist.tracking.description import MOST_CHARACTERS, is_made_up
from fashion_mnist.tracking.outbox import Parcel, catch_up
from fashion_mnist.tracking.run import SKIPPED
from fashion_mnist.trials.space import search_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

METRICS = {
    "accuracy": "training",
    "val_accuracy": "validation",
    "test_accuracy": "test",
    "test_macro_f1": "test F1",
    "test_loss": "test loss",
}


class SweepRun(Callback):
    """Opens a sweep's run at its start, and closes it at its end; a search has a run of its own."""

    sweep: "Sweep | None" = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a launcher sends callbacks to the processes of the jobs, where the sweep has no business

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        step = config.hydra.job.name
        if step in UNTRAINED or search_of(config.hydra):  # they open no runs of their own
            return
        try:
            self.sweep = Sweep(config)
            self.sweep.open(sweep_digest(step, self.sweep.overrides), config.skip_finished)
        except Exception as error:  # Hydra would turn it into a warning
            sys.exit(f"error: {explain(error) or reason_of(error)}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra calls this only where no job failed."""
        if self.sweep:
            self.sweep.close("FINISHED")


class Sweep:
    """A sweep's run, whose id the jobs find in the environment; it is closed however the sweep ends."""

    def __init__(self, config: DictConfig, tell: "Callable[[MlflowClient, str, str], None] | None" = None) -> None:
        self.tell = tell or conclude
        self.lock: BaseFileLock | None = None
        self.config = TrackingConfig(**OmegaConf.to_container(config.tracking, resolve=True))  # type: ignore[arg-type]
        if OmegaConf.is_interpolation(config.tracking, "run_name"):  # which gives each job its own
            self.config.run_name = None
        # As typed, whatever a job makes of it; and with what a search is told.
        typed: Any = OmegaConf.to_container(config.hydra.overrides)
        self.overrides: list[str] = typed["task"]
        told = [word for word in typed["hydra"] if word.lstrip("+").startswith("hydra.sweeper.")]
        self.typed = [*self.overrides, *told]
        store.check(self.config, self.overrides)

    def open(self, digest: str, go_on: bool) -> None:
        """Makes the run, or continues the one of `mlflow run` or of the same sweep."""
        self.lock = lock_of("sweep", digest)
        with suppress(Timeout):  # another process is at the same sweep
            self.lock.acquire(timeout=0)
        catch_up(self.config)  # how the same sweep ended before
        self.begin(open_sweep(self.config, self.typed, digest, self.lock.is_locked and go_on))

    def resume(self, run_id: str) -> bool:
        """Continues the run with this id; says False if there is none in the store, or if it was deleted."""
        from mlflow.exceptions import MlflowException

        catch_up(self.config)
        client = store.connect(self.config)
        try:
            info = client.get_run(run_id).info
        except MlflowException:
            return False
        if info.lifecycle_stage == "deleted":
            return False
        if given := store.given_run(client):
            store.label_step(self.config, f"goes on: {info.run_name}", f"Recorded in run `{run_id}`.", given)
        client.update_run(run_id, "RUNNING")
        self.begin(run_id)
        return True

    def begin(self, run_id: str) -> None:
        self.run_id = os.environ[store.PARENT] = run_id
        atexit.register(self.close, "FAILED")

    def leave(self) -> None:
        """Leaves the run as it is to other processes that are at the same."""
        atexit.unregister(self.close)
        os.environ.pop(store.PARENT, None)
        if self.lock:
            self.lock.release()

    def close(self, status: str) -> None:
        """Shows what came out, and closes the run with it, once."""
        if store.PARENT not in os.environ:
            return
        try:
            self.tell(store.connect(self.config), self.run_id, status)
        except Exception as error:
            end = Parcel(self.config.uri, self.run_id, status=status, ended=int(time.time() * 1000)).keep()
            say(f"{self.config.uri} cannot be told the sweep's end ({reason_of(error)}). It is {end}")
        self.leave()


def sweep_digest(step: str, overrides: list[str]) -> str:
    """Stands for the same sweep with the same code and the same files that Hydra composes, in the same folder."""
    options = [lineage.file_digest(file) for file in (CONF / "config.yaml", *sorted(CONF.glob("*/*.yaml")))]
    return digest_here(step, lineage.code_here(), *options, *overrides)


def open_sweep(config: TrackingConfig, overrides: list[str], digest: str, go_on: bool) -> str:
    """Makes the run of a sweep, or continues the one of `mlflow run` or of the same sweep, and returns its id."""
    client = store.connect(config)
    run = store.given_run(client)
    place = store.experiment(config, client)
    tags = {"sweep": "true", "sweep_digest": digest, "mlflow.note.content": note(overrides)}
    name = config.run_name or " ".join(["sweep", *overrides])[:200]
    if not run and go_on and (found := client.search_runs([place], f"tags.sweep_digest = '{digest}'", max_results=1)):
        (run,) = found
        say(f"The sweep goes on in run {run.info.run_id}; skip_finished=false starts it anew.")
        client.update_run(run.info.run_id, "RUNNING")
    if not run:
        return client.create_run(place, run_name=name, tags=tags).info.run_id
    if is_made_up(run.info.run_name) or config.run_name:
        tags["mlflow.runName"] = name
    for key, value in tags.items():
        client.set_tag(run.info.run_id, key, value)
    return run.info.run_id


def note(overrides: Sequence[str]) -> str:
    return f"Sweep: `{shlex.join(['-m', *overrides])}`; its runs are nested below."


def conclude(client: "MlflowClient", run_id: str, status: str) -> None:
    if status == "FINISHED":
        close_abandoned(client, run_id)
    jobs = jobs_of(client, sweep := client.get_run(run_id))
    rows, winner = summarize(jobs), best(jobs)
    if jobs:
        show(rows, f"best by validation accuracy: {rows[jobs.index(winner) + 1][0]}" if winner else None)
    told = sweep.data.tags["mlflow.note.content"]
    if winner:
        told += f"\n\nBest by validation accuracy: {link(winner)}."
        client.set_tag(run_id, "best_child", winner.info.run_id)
    client.set_tag(run_id, "mlflow.note.content", f"{told}\n\n{fitting(rows, MOST_CHARACTERS - len(told))}")
    killed = status != "FINISHED" and any(job.info.status == "KILLED" for job in jobs)
    client.set_terminated(run_id, "KILLED" if killed else status)


def jobs_of(client: "MlflowClient", sweep: "Run") -> "list[Run]":
    """The runs of a sweep's jobs in the order of their starts; of those that were skipped, what made them needless."""
    jobs = store.search(client, sweep.info.experiment_id, f"tags.`mlflow.parentRunId` = '{sweep.info.run_id}'")
    jobs += [client.get_run(key.removeprefix(SKIPPED)) for key in sweep.data.tags if key.startswith(SKIPPED)]
    return sorted(jobs, key=lambda job: job.info.start_time)


def close_abandoned(client: "MlflowClient", run_id: str) -> None:
    """Closes runs whose machine has died, of a sweep whose jobs have all ended: those began anew on another machine."""
    for job in jobs_of(client, client.get_run(run_id)):
        if job.info.status == "RUNNING":
            client.set_terminated(job.info.run_id, "FAILED")


def link(run: "Run") -> str:
    return f"[{run.info.run_name}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})"


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


def show(rows: Sequence[Sequence[str]], caption: str | None, title: str = "Accuracies of the sweep's runs") -> None:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD)
    for heading in rows[0]:
        name = heading == "run"
        table.add_column(heading, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    terminal().print(table)


def fitting(rows: Sequence[Sequence[str]], room: int) -> str:
    """As many rows of a table as so many characters hold, and how many more there are."""
    lines = markdown(rows).splitlines()
    lengths = itertools.accumulate(len(line) + 1 for line in lines)
    kept = lines[: sum(length < room - 100 for length in lengths)]  # and the sentence below
    more = len(lines) - len(kept)
    return "\n".join(kept) + (f"\n\n{more} more are nested below." if more else "")


def markdown(rows: Sequence[Sequence[str]]) -> str:
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]] if rows else []
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in ruled)
