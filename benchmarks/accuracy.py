"""Accuracy over seeds: one sweep of our main job, read back from MLflow, averaged over what differs only in its seed.

    uv run python benchmarks/accuracy.py model=mlp,mlp_wide --seeds 5
    uv run python benchmarks/accuracy.py 'model.hidden=[128],[512],[1024]' --seeds 3 --json docs/accuracy.json

Without --output and --store, everything happens in a temporary folder that is removed; the table remains.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common import environment, official_folder, positive, prepare, wide_console
from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

METRICS = ("test_accuracy", "test_loss", "accuracy", "loss", "val_accuracy", "val_loss")
HEADINGS = ("configuration", "parameters", "n", "test accuracy", "min - max", "test loss", "accuracy", "seconds")
LEGEND = (
    "Mean ± sample standard deviation over n seeds. Accuracy: on the training images, in the last epoch. Seconds: of "
    "one training, from its MLflow run's start to its end, median."
)


@dataclass(frozen=True)
class Group:
    """The runs of a sweep that differ only in their seed."""

    name: str  # what makes them differ from other groups, such as `mlp hidden=[512]`
    command: str
    facts: str
    parameters: int
    seconds: float
    metrics: dict[str, list[float]]  # of the last epoch, or of the test; one value for each seed
    history: dict[str, list[float]]  # of each epoch; means over the seeds

    @property
    def row(self) -> list[str]:
        """A line of the table, in the order of `HEADINGS`."""
        accuracies = self.metrics["test_accuracy"]
        return [
            self.name,
            f"{self.parameters:,}",
            str(len(accuracies)),
            mean_and_deviation(accuracies),
            f"{min(accuracies):.4f} - {max(accuracies):.4f}",
            mean_and_deviation(self.metrics["test_loss"]),
            mean_and_deviation(self.metrics["accuracy"]),
            f"{self.seconds:.1f}",
        ]


def main() -> None:
    """Trains, unless only an existing database is to be read, and shows the table."""
    arguments = parse_arguments()
    if arguments.from_store:
        if not (arguments.store and arguments.store.is_file()):
            sys.exit("error: --from-store needs --store, the file of an existing tracking database.")
        report(arguments.store, arguments.parent, arguments.json)
        return
    official_folder()
    with tempfile.TemporaryDirectory(prefix="fashion-mnist-accuracy-") as temporary:
        output = (arguments.output or Path(temporary)).resolve()
        store = (arguments.store or output / "mlflow.db").resolve()
        store.parent.mkdir(parents=True, exist_ok=True)
        train(arguments, output, store)
        report(store, None, arguments.json)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY=VALUES", help="of the main job; several values are swept over")
    add("--seeds", type=positive, default=5, help="trainings of each combination: seeds 0, 1, ... (default: 5)")
    add("--output", type=Path, metavar="FOLDER", help="keep models, pictures, logged files and prepared data here")
    add("--store", type=Path, metavar="FILE", help="keep the tracking database here (default: mlflow.db in --output)")
    add("--from-store", action="store_true", help="train nothing; read the latest sweep from --store")
    add("--parent", metavar="RUN_ID", help="with --from-store: the sweep of this MLflow run, not the latest")
    add("--json", type=Path, metavar="FILE", help="add the results to this file, in place of older ones of that name")
    return parser.parse_args()


def train(arguments: argparse.Namespace, output: Path, store: Path) -> None:
    """Runs one sweep of the main job in the folder `output`; ends everything if it fails."""
    prepare(output / "data")
    seeds = ",".join(str(seed) for seed in range(arguments.seeds))
    command = ["python", "-m", "fashion_mnist", "-m", *arguments.overrides, f"seed={seeds}"]
    code = subprocess.run(command, cwd=output, env=environment(MLFLOW_TRACKING_URI=f"sqlite:///{store}")).returncode
    if code:
        sys.exit(f"error: the sweep ended with exit code {code}; what it said stands above.")


def report(store: Path, parent: str | None, json_file: Path | None) -> None:
    """Reads a sweep, shows its table, and keeps its results."""
    groups = read(store, parent)
    table = Table(title=groups[0].command, box=box.SIMPLE)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == HEADINGS[0] else "right")
    for group in groups:
        table.add_row(*group.row)
    console = wide_console()
    console.print(table)
    console.print(f"{LEGEND}\n{groups[0].facts}", highlight=False)
    if json_file:
        known = json.loads(json_file.read_text()) if json_file.is_file() else {}
        known |= {group.name: asdict(group) for group in groups}
        text = json.dumps(known, indent=1, sort_keys=True)
        one_line = re.sub(r"\[[^][\"{}]+\]", lambda numbers: " ".join(numbers[0].split()), text)
        json_file.write_text(one_line + "\n")


def read(store: Path, parent: str | None) -> list[Group]:
    """The evaluated runs of a sweep, of the latest one where `parent` is None; ends the program where there are none.

    Args:
        store: the SQLite file.
        parent: the sweep's run id.
    """
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    import mlflow

    from fashion_mnist.tracking.sweep import jobs_of

    mlflow.set_tracking_uri(f"sqlite:///{store.resolve()}")
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    if parent:
        found = client.search_runs(experiments, f"attributes.run_id = '{parent}'")
    else:
        newest = ["attributes.start_time DESC"]
        found = client.search_runs(experiments, "tags.sweep = 'true'", max_results=1, order_by=newest)
    if not found:
        sys.exit(f"error: there is no such sweep in {store}.")
    # The description begins with the overrides, in backquotes.
    overrides = re.search("`(.+?)`", found[0].data.tags.get("mlflow.note.content", ""))
    command = f"python -m fashion_mnist {overrides[1]}" if overrides else f"{found[0].info.run_name}"
    grouped: dict[str, list[Run]] = {}
    for run in sorted(jobs_of(client, found[0]), key=lambda job: int(job.data.tags.get("seed", 0))):
        if run.info.status == "FINISHED" and "test_accuracy" in run.data.metrics:
            grouped.setdefault(without_seed(run), []).append(run)
    if not grouped:
        sys.exit(f"error: no run of the sweep in {store} was finished and evaluated.")
    return [group_of(client, name, command, runs) for name, runs in grouped.items()]


def without_seed(run: "Run") -> str:
    """What a run has in common with those of other seeds."""
    return " ".join(word for word in f"{run.info.run_name}".split() if not word.startswith("seed="))


def group_of(client: "MlflowClient", name: str, command: str, runs: Sequence["Run"]) -> Group:
    """What is kept of runs that differ only in their seed."""
    metrics = [key for key in METRICS if all(key in run.data.metrics for run in runs)]
    curves = {
        key: [of_epochs(client.get_metric_history(run.info.run_id, key)) for run in runs]
        for key in metrics
        if not key.startswith("test_")
    }
    return Group(
        name=name,
        command=command,
        facts=describe(runs),
        parameters=int(runs[0].data.metrics["system/parameters"]),
        seconds=statistics.median(((run.info.end_time or 0) - run.info.start_time) / 1000 for run in runs),
        metrics={key: [round(run.data.metrics[key], 6) for run in runs] for key in metrics},
        # Trainings that stop early have histories of different lengths.
        history={key: [round(statistics.mean(each), 5) for each in zip(*curves[key], strict=False)] for key in curves},
    )


def of_epochs(history: "Sequence[Metric]") -> list[float]:
    """The values of the epochs; that of the epoch which early stopping has kept follows after them."""
    return [point.value for epoch, point in enumerate(history) if point.step == epoch]


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and sample standard deviation; the mean alone of a single value."""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


def describe(runs: Sequence["Run"]) -> str:
    """Hardware, versions, dataset and commit, as the runs themselves recorded them."""

    def tag(name: str, length: int | None = None) -> str:
        return " / ".join(sorted({run.data.tags.get(name, "unknown")[:length] for run in runs}))

    dirty = " with uncommitted changes" if "true" in tag("git_dirty") else ""
    return (
        f"{tag('device')}; Python {tag('python')}, TensorFlow {tag('tensorflow')}, Keras {tag('keras')}; "
        f"dataset {tag('dataset')} ({tag('dataset_digest')}); commit {tag('git_commit', 12)}{dirty}"
    )


if __name__ == "__main__":
    main()
