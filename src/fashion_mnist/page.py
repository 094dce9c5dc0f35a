"""The comparison as one HTML page that needs no network: light or dark, on a phone or a screen."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from fashion_mnist import significance, tables
from fashion_mnist.charts import charts
from fashion_mnist.comparison import Comparison, Group
from fashion_mnist.config import CompareConfig
from fashion_mnist.data import load_test, read_card
from fashion_mnist.errors import UserError
from fashion_mnist.sources import prepare
from fashion_mnist.trainings import Tested

TILES = 20


class Pictures(NamedTuple):
    """The test images, to be shown in the report."""

    images: np.ndarray  # uint8 (n, 28, 28)


def pictures_of(config: CompareConfig, tested: Tested) -> Pictures | str:
    """The test images, from `data_root` or else from the dataset's sources; or a sentence that says why not."""
    folder = Path(config.data_root) / tested.dataset
    try:
        if tested.dataset == "fashion_mnist":
            folder = prepare(config.data, config.data_root)
        card = read_card(folder)
        test = load_test(folder, card)
    except UserError as error:
        return f"The report shows no images: {error}"
    if not np.array_equal(test.labels, tested.labels):
        return f"The report shows no images: those in {folder} are not the ones that the models were tested on."
    return Pictures(test.images)


def as_html(comparison: Comparison, pictures: Pictures | None) -> str:
    """The page, with its style, charts and images in it."""
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
        class_names=comparison.tested.class_names,
        per_class=[(group.name, group.recall.tolist()) for group in comparison.groups],
        least=min(group.recall.min() for group in comparison.groups),
        classes_apart=tables.classes_apart(comparison).replace("`", ""),
        other=other,
        change=(other.counts - comparison.baseline.counts).round(1).tolist(),
        tiles=tiles(comparison, other, pictures) if pictures else {},
        left_out=tables.left_out(comparison),
        legend=tables.LEGEND,
        method=significance.__doc__,
        facts=tables.facts(comparison),
    )


def tiles(comparison: Comparison, other: Group, pictures: Pictures) -> dict[str, list[dict[str, str]]]:
    """Test images worth looking at: where two groups disagree, and where all fail."""
    ours, base = other.right.mean(axis=0), comparison.baseline.right.mean(axis=0)
    chosen = {"hardest": np.argsort(comparison.tested.of_truth, kind="stable")[:TILES]}
    if other is not comparison.baseline:
        gain = np.argsort(base - ours, kind="stable")
        chosen |= {"won": gain[:TILES][(ours - base)[gain[:TILES]] > 0]}
        chosen |= {"lost": gain[::-1][:TILES][(base - ours)[gain[::-1][:TILES]] > 0]}
    return {kind: [tile(comparison, pictures, int(index)) for index in each] for kind, each in chosen.items()}


def tile(comparison: Comparison, pictures: Pictures, index: int) -> dict[str, str]:
    """One image with its label, and what most trainings take it for."""
    names, votes = comparison.tested.class_names, comparison.tested.votes[index]
    written = io.BytesIO()
    Image.fromarray(pictures.images[index]).save(written, "PNG", optimize=True)
    label = int(comparison.tested.labels[index])
    mistaken = int(np.where(np.arange(len(votes)) == label, -1, votes).argmax())
    return {
        "source": f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}",
        "label": names[label],
        "mistaken": names[mistaken],
        "share": f"{votes[mistaken]} of {votes.sum()}",
        "index": str(index),
    }
