"""Compares variants over seeds: which is better, by how much, and is that sure?

Reads finished runs from MLflow, or what `dvc repro` has built (variants=[mlp,cnn]). Runs that differ only in their seed
form a group, and each group is set against a baseline, over test images and seeds. The report goes to the terminal, to
reports/ and to MLflow.
"""

from pathlib import Path

from fashion_mnist.cli import main
from fashion_mnist.config import CompareConfig
from fashion_mnist.errors import UserError


def compare(config: CompareConfig) -> None:
    """Reads, compares, reports; with `promote`, moves the alias `champion` to a winner that is shown to be better."""
    from fashion_mnist import comparison, page, report, runs, store, tracking

    store.check(config.tracking, config.overrides)
    trainings, left_out, tested = runs.read(config)
    compared = comparison.compare(trainings, left_out, tested, config.baseline)
    try:
        images = page.test_images(config, tested)
    except UserError as error:
        if config.variants:  # nothing else tells that they are about Fashion-MNIST
            raise UserError(f"{error} What variants=... names must be of Fashion-MNIST: `dvc repro`.") from error
        print(f"The report shows no images: {error}")
        images = None
    files = report.write(compared, Path(config.reports).expanduser(), images)
    report.show(compared, files)
    names = [group.name for group in compared.groups]
    name = f"compare {', '.join(names)}" if len(names) < 4 else f"compare {len(names)} with {compared.baseline.name}"
    name = config.tracking.run_name or name
    tags = {"baseline": compared.baseline.name, "compared": str(len(compared.trainings))}
    note = report.as_note(compared, trainings[0].experiment)
    run_id = tracking.log_report(config.tracking, name, note, tags, files)
    if config.promote:
        from fashion_mnist import promotion

        print(promotion.promote(config, compared, images, run_id))


if __name__ == "__main__":
    main(compare, "compare")
