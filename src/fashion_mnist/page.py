"""The comparison as one HTML page that needs no network: light or dark, on a phone or a screen."""

import base64
import io

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from fashion_mnist import significance, tables
from fashion_mnist.charts import charts
from fashion_mnist.comparison import Comparison, Group
from fashion_mnist.data.dataset import CLASS_NAMES

TILES = 20


def as_html(comparison: Comparison, images: np.ndarray | None) -> str:
    """The page, with its style, charts and test images, uint8 (n, 28, 28), in it."""
    other = comparison.groups[0] if comparison.groups[0] is not comparison.baseline else comparison.groups[-1]
    environment = Environment(loader=PackageLoader("fashion_mnist", "."), autoescape=True, trim_blocks=True)
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        title=comparison.tested.title,
        headings=[*tables.headings(comparison), *tables.QUALITY, *tables.cost_headings(comparison)],
        texts=len(tables.headings(comparison)),
        rows=[
            [*tables.cells(comparison, group), *tables.quality(group), *tables.costs(comparison, group)]
            for group in comparison.groups
        ],
        charts=charts(comparison),
        class_names=CLASS_NAMES,
        per_class=[(group.name, group.recall.tolist()) for group in comparison.groups],
        least=min(group.recall.min() for group in comparison.groups),
        classes_apart=tables.classes_apart(comparison).replace("`", ""),
        other=other,
        change=(other.counts - comparison.baseline.counts).round(1).tolist(),
        tiles=tiles(comparison, other, images) if images is not None else {},
        left_out=tables.left_out(comparison),
        legend=tables.LEGEND,
        method=significance.__doc__,
        facts=tables.facts(comparison),
    )


def tiles(comparison: Comparison, other: Group, images: np.ndarray) -> dict[str, list[dict[str, str]]]:
    """Test images worth looking at: where two groups disagree, and where all fail."""
    ours, base = other.right.mean(axis=0), comparison.baseline.right.mean(axis=0)
    chosen = {"hardest": np.argsort(comparison.tested.of_truth, kind="stable")[:TILES]}
    if other is not comparison.baseline:
        gain = np.argsort(base - ours, kind="stable")
        chosen |= {"won": gain[:TILES][(ours - base)[gain[:TILES]] > 0]}
        chosen |= {"lost": gain[::-1][:TILES][(base - ours)[gain[::-1][:TILES]] > 0]}
    return {kind: [tile(comparison, images[index], int(index)) for index in each] for kind, each in chosen.items()}


def tile(comparison: Comparison, image: np.ndarray, index: int) -> dict[str, str]:
    """One image with its label, and what most trainings take it for."""
    votes = comparison.tested.votes[index]
    written = io.BytesIO()
    Image.fromarray(image).save(written, "PNG", optimize=True)
    label = int(comparison.tested.labels[index])
    mistaken = int(np.where(np.arange(len(votes)) == label, -1, votes).argmax())
    return {
        "source": f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}",
        "label": CLASS_NAMES[label],
        "mistaken": CLASS_NAMES[mistaken],
        "share": f"{votes[mistaken]} of {votes.sum()}",
        "index": str(index),
    }
