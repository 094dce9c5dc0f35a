"""Compares variants over seeds: which is better, by how much, and is that sure?

Reads finished runs from MLflow, or what `dvc repro` has built (variants=all). Runs that differ only in their seed
form a group, and each group is set against a baseline, over test images and seeds, and against the variant that it
builds on. The report goes to the terminal, to reports/ and to MLflow.
"""

from pathlib import Path

import numpy as np

from fashion_mnist.cli import main
from fashion_mnist.comparison.trainings import Tested
from fashion_mnist.config import CompareConfig
from fashion_mnist.data.dataset import read_dataset
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import UserError, say
from fashion_mnist.tracking import store
from fashion_mnist.tracking.run import log_report


def compare(config: CompareConfig) -> None:
    """Reads, compares, reports; with `promote`, moves the alias `champion` to a winner that is shown to be better."""
    from fashion_mnist.comparison import champion, groups, page, reading, report

    store.check(config.tracking, config.overrides)
    trainings, left_out, tested = reading.read(config)
    compared = groups.compare(trainings, left_out, tested, config.baseline, config.steps or {})
    try:
        images = test_images(config, tested)
    except UserError as error:
        if config.variants:  # nothing else tells which images they are about
            raise UserError(f"{error} What variants=... names must be of {tested.title}: `dvc repro`.") from error
        say(f"The report shows no images: {error}")
        images = None
    folder = Path(config.reports).expanduser()
    files = report.write(compared, folder, page.as_html(compared, images))
    if config.variants:
        report.write_curves(trainings, folder / "curves.csv")
    report.show(compared, files)
    names = [group.name for group in compared.groups]
    name = f"compare {', '.join(names)}" if len(names) < 4 else f"compare {len(names)} with {compared.baseline.name}"
    tags = {"baseline": compared.baseline.name, "compared": str(len(compared.trainings))}
    note = report.as_note(compared, trainings[0].experiment)
    run_id = log_report(config.tracking, config.tracking.run_name or name, note, tags, files)
    if config.promote:
        print(champion.promote(config, compared, images, run_id))


def test_images(config: CompareConfig, tested: Tested) -> np.ndarray:
    """The images that the models were tested on, uint8, from `data_root` or the dataset's sources."""
    if tested.dataset == "fashion_mnist" or config.variants:
        dataset = prepare(config.data, config.data_root)
    else:
        dataset = read_dataset(Path(config.data_root) / tested.dataset)
    test = dataset.test
    if not np.array_equal(test.labels, tested.labels):
        raise UserError(f"the images in {dataset.folder} are not the ones that the models were tested on.")
    return test.images


if __name__ == "__main__":
    main(compare, "compare")
