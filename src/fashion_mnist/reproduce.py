"""Makes a run again from nothing but the tracking store, and says whether it came out the same.

First it says what differs here from where the run was made: code, data, packages, machine. Then it trains again, as a
new run that links the original, and compares the model, its weights and every metric of every epoch. With checkout=true
the run's own code trains, from its commit and the uncommitted changes that the run has kept.

Exit code: 0 identical, byte for byte; 3 equal within the tolerance; 4 different; 1 an error. With --check-only, which
trains nothing: 0 nothing differs, 4 something does.
"""

import sys

from rich.table import Column, Table
from rich.text import Text

from fashion_mnist.cli import main
from fashion_mnist.config import Config, ReproduceConfig
from fashion_mnist.data.dataset import Dataset
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import UserError, terminal
from fashion_mnist.evaluate import add_evaluation, evaluate_model
from fashion_mnist.reproduction import original
from fashion_mnist.reproduction.outcome import outcome_of, record
from fashion_mnist.startup import import_tensorflow
from fashion_mnist.tracking import store
from fashion_mnist.tracking.run import opened
from fashion_mnist.train import train_model

EXIT_CODES = {"identical": 0, "equal within tolerance": 3, "different": 4}


def reproduce(config: ReproduceConfig) -> None:
    store.check(config.tracking, config.overrides)
    client = store.connect(config.tracking)
    run = original.find(client, config.run)
    settings = original.configuration(client, run, config)
    dataset = prepare(settings.data, config.data_root)
    settings.data.name = dataset.card.name
    import_tensorflow()
    origins = original.origins(client, run, settings, dataset.card)
    show_origins(origins, run.info.run_name or config.run)
    if config.check_only:
        other = ", ".join(row.what for row in origins if row.differs)
        store.label_step(config.tracking, f"check {run.info.run_name}", f"Differs here: {other or 'nothing'}.")
        sys.exit(EXIT_CODES["different"] if other else 0)

    if config.checkout:
        again = original.with_own_code(client, run, settings)
        store.label_step(config.tracking, f"reproduce {run.info.run_name}", f"Recorded in run `{again}`.")
    else:
        again = with_this_code(settings, dataset, evaluated="test_accuracy" in run.data.metrics)
    made = client.get_run(again)
    if made.info.status != "FINISHED":
        raise UserError(
            f"the new run {again} is {made.info.status}, perhaps since the store did not answer for a while; after "
            "python -m fashion_mnist.sync it is complete, and the same command makes another one to be compared."
        )
    outcome = outcome_of(client, run, made, config.tolerance)
    record(client, run, again, outcome)
    print(f"{outcome.word}: {outcome.sentence}\nResults in {settings.output_dir}, MLflow run {again}")
    sys.exit(EXIT_CODES[outcome.word])


def with_this_code(settings: Config, dataset: Dataset, evaluated: bool) -> str:
    """Trains the same, evaluates it if the run was, and returns the id of the new run."""
    settings.make_folders()
    with opened(settings, dataset) as (model, again, checkpoint):
        train_model(model, settings, dataset, again, checkpoint)
        if evaluated:
            add_evaluation(settings, dataset.card, evaluate_model(settings, dataset), again)
    return again.run_id


def show_origins(origins: list[original.Origin], name: str) -> None:
    columns = [Column(heading, overflow="fold") for heading in ("", "the run", "here", "")]
    table = Table(*columns, title=f"What made {name}, and what is here")
    for row in origins:
        table.add_row(row.what, row.there, row.here, Text("differs", "bold red") if row.differs else "same")
    terminal().print(table)


if __name__ == "__main__":
    main(reproduce, "reproduce")
