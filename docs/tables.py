"""What the tables of README.md and docs/ have in common."""

import statistics
from collections.abc import Sequence

Accuracies = dict[str, dict]  # what benchmarks/accuracy.py measured, by configuration


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation; nothing where there are fewer than two values."""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table whose first columns hold text, and the others numbers."""
    rule = ["---" if column < texts else "---:" for column in range(len(headings))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows))
