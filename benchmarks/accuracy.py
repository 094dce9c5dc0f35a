"""Test accuracy of the variants over seeds: one sweep of our main job, read back from MLflow and put into a table.

Without --output and --store, everything happens in a temporary folder that is removed; the table remains.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common import environment, official_folder, positive, prepare, wide_console
from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from mlflow.entities import Run

# What the references' write-ups claim for a variant; for the others they give no number.
CLAIMS = {"mlp": "0.8264 (003), ~0.82 (001)"}
HEADINGS = ("variant", "parameters", "n", "test accuracy", "min - max", "test loss", "seconds", "claimed")
LEGEND = (
    "Mean ± sample standard deviation over n seeds. Seconds: of one training, from its MLflow run's start to its end, "
    "median. Claimed: the test accuracy in the references' write-ups 003 (10 epochs) and 001 (5 epochs)."
)


@dataclass(frozen=True)
class Sweep:
    """A sweep that lies in a tracking database."""

    command: str
    runs: list["Run"]  # finished and evaluated
    left_out: int


def main() -> None:
    """Trains, unless only an existing database is to be read, and shows the table."""
    arguments = parse_arguments()
    if arguments.from_store:
        if not (arguments.store and arguments.store.is_file()):
            sys.exit("error: --from-store needs --store, the file of an existing tracking database.")
        report(arguments.store, arguments.parent, arguments.markdown)
        return
    official_folder()
    with tempfile.TemporaryDirectory(prefix="fashion-mnist-accuracy-") as temporary:
        output = (arguments.output or Path(temporary)).resolve()
        store = (arguments.store or output / "mlflow.db").resolve()
        store.parent.mkdir(parents=True, exist_ok=True)
        train(arguments, output, store)
        report(store, None, arguments.markdown)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", default="mlp,mlp_wide,cnn", help="variants to train (default: %(default)s)")
    add("--seeds", type=positive, default=5, help="trainings of each variant: seeds 0, 1, ... (default: %(default)s)")
    add("--override", action="append", default=[], metavar="KEY=VALUE", help="for all trainings; may be repeated")
    add("--output", type=Path, metavar="FOLDER", help="keep models, pictures, logged files and prepared data here")
    add("--store", type=Path, metavar="FILE", help="keep the tracking database here (default: mlflow.db in --output)")
    add("--from-store", action="store_true", help="train nothing; read the latest sweep from --store")
    add("--parent", metavar="RUN_ID", help="with --from-store: the sweep of this MLflow run, not the latest")
    add("--markdown", type=Path, metavar="FILE", help="write the table to this file as well")
    return parser.parse_args()


def train(arguments: argparse.Namespace, output: Path, store: Path) -> None:
    """Runs one sweep of the main job in the folder `output`; ends everything if it fails."""
    prepare(output / "data")
    seeds = ",".join(str(seed) for seed in range(arguments.seeds))
    command = ["python", "-m", "fashion_mnist", "-m", f"model={arguments.models}", f"seed={seeds}"]
    variables = environment(MLFLOW_TRACKING_URI=f"sqlite:///{store}")
    code = subprocess.run([*command, *arguments.override], cwd=output, env=variables).returncode
    if code:
        sys.exit(f"error: the sweep ended with exit code {code}; what it said stands above.")


def report(store: Path, parent: str | None, markdown_file: Path | None) -> None:
    """Reads a sweep and shows its table."""
    sweep = read(store, parent)
    rows = [row(name, [run for run in sweep.runs if run.data.tags["variant"] == name]) for name in variants(sweep)]
    facts = describe(sweep)
    table = Table(title=sweep.command, box=box.SIMPLE)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in (HEADINGS[0], HEADINGS[-1]) else "right")
    for cells in rows:
        table.add_row(*cells)
    console = wide_console()
    console.print(table)
    console.print(f"{LEGEND}\n{facts}", highlight=False)
    if markdown_file:
        markdown_file.parent.mkdir(parents=True, exist_ok=True)
        markdown_file.write_text(markdown(sweep.command, rows, facts))


def read(store: Path, parent: str | None) -> Sweep:
    """The evaluated runs of a sweep, of the latest one where `parent` is None; ends the program where there are none.

    Args:
        store: the SQLite file.
        parent: the sweep's run id.
    """
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    import mlflow

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
    children = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{found[0].info.run_id}'")
    runs = [run for run in children if run.info.status == "FINISHED" and "test_accuracy" in run.data.metrics]
    if not runs:
        sys.exit(f"error: no run of the sweep in {store} was finished and evaluated.")
    refuse_mixture(runs)
    # The description begins with the overrides, in backquotes.
    overrides = re.search("`(.+?)`", found[0].data.tags.get("mlflow.note.content", ""))
    command = f"python -m fashion_mnist {overrides[1]}" if overrides else f"{found[0].info.run_name}"
    return Sweep(command, runs, len(children) - len(runs))


def refuse_mixture(runs: Sequence["Run"]) -> None:
    """Ends the program if runs of one variant differ in more than the seed: their mean would mean nothing."""
    trained = [(run.data.tags["variant"], run.data.tags["seed"]) for run in runs]
    if len(trained) != len(set(trained)):
        sys.exit("error: this sweep varies more than model and seed, and its runs cannot be averaged by variant.")


def variants(sweep: Sweep) -> list[str]:
    """The variants in the order in which they were trained."""
    ordered = sorted(sweep.runs, key=lambda run: run.info.start_time)
    return list(dict.fromkeys(run.data.tags["variant"] for run in ordered))


def row(variant: str, runs: Sequence["Run"]) -> list[str]:
    """A line of the table, in the order of `HEADINGS`."""
    accuracies = [run.data.metrics["test_accuracy"] for run in runs]
    real = all(run.data.tags["dataset"] == "fashion_mnist" for run in runs)
    seconds = statistics.median(((run.info.end_time or 0) - run.info.start_time) / 1000 for run in runs)
    return [
        variant,
        parameters(runs[0]),
        str(len(runs)),
        mean_and_deviation(accuracies),
        f"{min(accuracies):.4f} - {max(accuracies):.4f}",
        mean_and_deviation([run.data.metrics["test_loss"] for run in runs]),
        f"{seconds:.1f}",
        CLAIMS.get(variant, "") if real else "",
    ]


def parameters(run: "Run") -> str:
    """The model's number of parameters, from the summary that MLflow logs; «?» where that file is gone."""
    from mlflow.artifacts import load_text
    from mlflow.exceptions import MlflowException

    try:
        summary = load_text(f"{run.info.artifact_uri}/model_summary.txt")
    except (MlflowException, OSError):
        return "?"
    # The total would include the optimizer's numbers, depending on when the summary is made.
    counts = re.findall(r"rainable params: ([\d,]+)", summary)
    return f"{sum(int(count.replace(',', '')) for count in counts):,}" if counts else "?"


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and sample standard deviation; the mean alone of a single value."""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


def describe(sweep: Sweep) -> str:
    """Hardware, versions, dataset and commit, as the runs themselves recorded them."""

    def tag(name: str, length: int | None = None) -> str:
        return " / ".join(sorted({run.data.tags.get(name, "unknown")[:length] for run in sweep.runs}))

    dirty = " with uncommitted changes" if "true" in tag("git_dirty") else ""
    left_out = f" {sweep.left_out} runs did not finish, and are left out." if sweep.left_out else ""
    return (
        f"{tag('device')}; Python {tag('python')}, TensorFlow {tag('tensorflow')}, Keras {tag('keras')}; "
        f"dataset {tag('dataset')} ({tag('dataset_digest')}); commit {tag('git_commit', 12)}{dirty}.{left_out}"
    )


def markdown(command: str, rows: Sequence[Sequence[str]], facts: str) -> str:
    """The same table in Markdown, the command above it and the facts below."""
    numbers = ["---" if heading in (HEADINGS[0], HEADINGS[-1]) else "---:" for heading in HEADINGS]
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEADINGS, numbers, *rows)]
    return "\n".join(["```", command, "```", "", *lines, "", LEGEND, "", facts, ""])


if __name__ == "__main__":
    main()
