"""Results as files: JSON for metrics, CSV for tables and curves, NPZ for predictions. Same results, same bytes."""

import csv
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fashion_mnist.errors import UserError


def write_metrics(file: Path, metrics: Mapping[str, float]) -> None:
    """Writes named numbers, for `dvc metrics`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with the same keys, for `dvc plots` and spreadsheets."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class Predictions(NamedTuple):
    """What a model says of the test images."""

    labels: np.ndarray  # the truth, uint8 (n,)
    predicted: np.ndarray  # uint8 (n,)
    probabilities: np.ndarray  # float16 (n, classes)


def write_predictions(file: Path, labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Writes what a model says of all test images, in about 100 kB.

    Args:
        file: ending in `.npz`.
        labels: the truth, (n,).
        probabilities: float32 (n, classes); kept as float16, and the most probable class beside it, since rounding
            can make two classes equal.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    predicted = probabilities.argmax(axis=1).astype(np.uint8)
    np.savez_compressed(
        file, labels=labels.astype(np.uint8), predicted=predicted, probabilities=probabilities.astype(np.float16)
    )


def read_predictions(file: Path) -> Predictions:
    """Reads what `write_predictions` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            return Predictions(content["labels"], content["predicted"], content["probabilities"])
    except FileNotFoundError:
        raise UserError(f"there are no predictions in {file}; python -m fashion_mnist.evaluate makes them.") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file} is damaged; python -m fashion_mnist.evaluate makes it again.") from error
