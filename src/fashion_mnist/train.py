"""Trains one variant, and records the training as one MLflow run with its model.

Fetches the dataset first when it is missing. `-m` with several values trains every combination, as a sweep.
"""

from typing import TYPE_CHECKING

from fashion_mnist.cli import main
from fashion_mnist.config import Config
from fashion_mnist.data.dataset import SAMPLES, Dataset
from fashion_mnist.files import write_figure, write_metrics, write_table
from fashion_mnist.tracking import lineage, logged_model
from fashion_mnist.tracking.outbox import Outbox
from fashion_mnist.tracking.run import finished_run, opened, ready, recorder
from fashion_mnist.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    import keras


def train(config: Config) -> str:
    """Trains in a run of its own, and returns the run's id; in a sweep, that of one which has finished the same."""
    dataset = ready(config)
    if finished := finished_run(config, dataset.card, evaluated=False):
        return finished.info.run_id
    with opened(config, dataset) as (model, run, checkpoint):
        train_model(model, config, dataset, run, checkpoint)
    place = f"model in {config.model_file}, MLflow run {run.run_id}"
    print(f"{config.variant}: {place}")
    return run.run_id


def train_model(model: "keras.Model", config: Config, dataset: Dataset, run: Outbox, checkpoint: Checkpoint) -> None:
    """Fits and saves the model; writes what came of it, and tells the run."""
    from fashion_mnist.training import history, saving
    from fashion_mnist.training.fit import fit

    run.add(dataset.folder / SAMPLES, "plots")
    with run.sending():
        epochs = fit(model, dataset.training, dataset.validation, config, [recorder(run, checkpoint)], checkpoint)
    saved = saving.save(model, config.model_file, dataset.card)
    kept = history.epoch_kept(epochs, config)
    metrics = {name: values[kept] for name, values in epochs.items()}
    write_metrics(config.folder("metrics") / "train.json", metrics | {"parameters": model.count_params()})
    write_table(config.folder("plots") / "history.csv", history.by_epoch(epochs))
    curves = config.folder("plots") / "learning_curves.png"
    title = f"{config.variant} on {dataset.card.title}, seed {config.seed}"
    write_figure(history.learning_curves(epochs, title), curves)

    if config.trainer.patience is not None:
        # Early stopping has restored an earlier epoch: its metrics are the run's, as with MLflow's autologging.
        # There is a gap between the last epoch and this step.
        run.measure(metrics, config.trainer.epochs + 1)
        run.measure({"stopped_epoch": len(epochs["loss"]) - 1, "restored_epoch": kept})
    if config.trainer.tensorboard:
        logs = config.folder("logs")
        for file in sorted(logs.rglob("events.*")):
            run.add(file, f"tensorboard_logs/{file.parent.relative_to(logs)}")
    run.add(curves, "plots")
    digest = lineage.file_digest(config.model_file)
    run.tag({"model_digest": digest})
    logged_model.save_model(saved, run.folder / "model", digest, dataset.training.images[:3], dataset.card)
    run.parcel.model = str(run.folder / "model")


if __name__ == "__main__":
    main(train)
