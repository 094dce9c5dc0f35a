"""Results as files that DVC and people read: JSON for metrics, CSV for tables and curves. Same results, same bytes."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


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
