"""Measures a comparison of many runs: seconds from prompt to prompt, and peak memory.

    uv run python benchmarks/compare.py --runs 10,100,1000

The runs are made up, with the parameters, metrics of every epoch and 10,000 predictions that real ones have.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import ROOT, environment, peak_bytes, prepare, wide_console
from rich import box
from rich.table import Table

SEEDS = 10  # of each configuration
EPOCHS = 10


def main() -> None:
    """Fills a store, compares, and shows the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="10,100,1000", help="sizes of the store (default: 10,100,1000)")
    sizes = sorted(int(size) for size in parser.parse_args().runs.split(","))
    table = Table("runs", "seconds", "peak memory", box=box.SIMPLE)
    with tempfile.TemporaryDirectory(prefix="fashion-mnist-compare-") as temporary:
        folder = Path(temporary)
        os.chdir(folder)  # a new database keeps artifacts below the folder that it is made in
        prepare(folder / "data")
        made = 0
        for size in sizes:
            fill(folder, made, size)
            made = size
            seconds, peak = measure(folder)
            table.add_row(f"{size:,}", f"{seconds:.1f}", f"{peak / 1e6:,.0f} MB")
    wide_console().print(table)


def fill(folder: Path, first: int, last: int) -> None:
    """Adds runs to the store, as `train` and `evaluate` leave them."""
    sys.path.insert(0, str(ROOT / "src"))
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    from fashion_mnist.cli import compose
    from fashion_mnist.data.dataset import read_card
    from fashion_mnist.evaluation.predictions import write_predictions
    from fashion_mnist.tracking.description import params as params_of

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client = mlflow.MlflowClient()
    card = read_card(folder / "data/fashion_mnist")
    labels = np.load(folder / "data/fashion_mnist/test_labels.npy")
    random = np.random.default_rng(first)
    for number in range(first, last):
        config = compose([f"model.hidden=[{number // SEEDS + 1}]", f"seed={number % SEEDS}"])
        run = client.create_run("0", run_name=f"mlp hidden={number // SEEDS + 1} seed={number % SEEDS}")
        run_id = run.info.run_id
        probabilities = random.dirichlet(np.full(10, 0.1), len(labels)).astype(np.float32)
        hit = random.random(len(labels)) < 0.88
        swapped = probabilities[hit].argmax(axis=1)
        rows = np.flatnonzero(hit)
        truth = probabilities[rows, labels[hit]].copy()
        probabilities[rows, labels[hit]] = probabilities[rows, swapped]
        probabilities[rows, swapped] = np.where(swapped == labels[hit], probabilities[rows, swapped], truth)
        write_predictions(folder / "test.npz", labels, probabilities)
        kept = Path(f"{run.info.artifact_uri}".removeprefix("file://")) / "predictions"
        kept.mkdir(parents=True)
        shutil.move(folder / "test.npz", kept / "test.npz")
        curves = ("accuracy", "loss", "val_accuracy", "val_loss")
        metrics = [Metric(key, 0.8 + step / 100, 0, step) for key, step in itertools.product(curves, range(EPOCHS))]
        scores = ("test_accuracy", "test_loss", "test_macro_f1", "test_calibration_error")
        metrics += [Metric(key, float(hit.mean()), 0, 0) for key in scores]
        costs = ("training_seconds", "parameters", "flops_per_image", "prediction_microseconds")
        metrics += [Metric(f"system/{key}", 1.0 + number, 0, 0) for key in costs]
        tags = {"variant": "mlp", "seed": str(config.seed), "dataset": card.name, "dataset_digest": card.digest}
        params = [Param(key, value) for key, value in params_of(config).items()]
        client.log_batch(run_id, metrics, params, [RunTag(key, value) for key, value in tags.items()])
        client.set_terminated(run_id)


def measure(folder: Path) -> tuple[float, int]:
    """Seconds and peak memory, in bytes, of one comparison of everything in the store."""
    command = [sys.executable, "-m", "fashion_mnist.compare"]
    settings = environment(MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=settings, stdout=said, stderr=subprocess.STDOUT, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            said.seek(0)
            sys.exit(f"{said.read()[-3000:]}\nerror: the comparison failed.")
    return seconds, peak_bytes(usage)


if __name__ == "__main__":
    main()
