"""Trains one variant, and records the training as one MLflow run with its model.

Fetches the dataset first when it is missing. `-m` with several values trains every combination, as a sweep.
"""

from collections.abc import Callable

from rich.console import Console

from fashion_mnist.cli import main
from fashion_mnist.config import Config
from fashion_mnist.data.dataset import SAMPLES, load_training, read_card
from fashion_mnist.data.prepare import prepare
from fashion_mnist.files import write_figure, write_metrics, write_table
from fashion_mnist.startup import import_tensorflow
from fashion_mnist.tracking import lineage, logged_model, store
from fashion_mnist.tracking.outbox import Outbox, catch_up
from fashion_mnist.tracking.run import finished_run, recorded, recorder
from fashion_mnist.training.checkpoint import Checkpoint


def train(config: Config, then: Callable[[Outbox], object] | None = None) -> str:
    """Trains, saves and records; what can fail early is done before TensorFlow is imported.

    Args:
        config: what, on what, and where.
        then: what else belongs to the run, such as an evaluation.

    Returns:
        The id of the MLflow run.
    """
    store.check(config.tracking, config.overrides)
    catch_up(config.tracking)
    config.make_folders()
    folder = prepare(config.data, config.data_root)
    card = read_card(folder)
    if config.data.name == "auto":
        config.data.name = card.name  # decided once
    if finished := finished_run(config, card, evaluated=then is not None):
        return finished.info.run_id
    training, validation = load_training(folder, card, config.data.validation)

    with Checkpoint(lineage.checkpoint_file(config, card), config.trainer.resume) as checkpoint:
        import_tensorflow()
        from fashion_mnist.training import saving
        from fashion_mnist.training.build import build
        from fashion_mnist.training.fit import fit
        from fashion_mnist.training.history import by_epoch, epoch_kept, learning_curves

        checkpoint.read(lineage.origin())
        model = build(config)
        with recorded(config, card, lineage.tags(config, card), checkpoint) as outbox:
            with outbox.sending():
                history = fit(model, training, validation, config, [recorder(outbox, checkpoint)], checkpoint)
            saved = saving.save(model, config.model_file)
            kept = epoch_kept(history, config)
            metrics = {name: values[kept] for name, values in history.items()}
            write_metrics(config.folder("metrics") / "train.json", metrics | {"parameters": model.count_params()})
            write_table(config.folder("plots") / "history.csv", by_epoch(history))
            curves = config.folder("plots") / "learning_curves.png"
            title = f"{config.variant} on {card.title}, seed {config.seed}"
            write_figure(learning_curves(history, title), curves)

            digest = lineage.file_digest(config.model_file)
            if config.trainer.patience is not None:
                # Early stopping has restored an earlier epoch: its metrics are the run's, as with MLflow's autologging.
                # There is a gap between the last epoch and this step.
                outbox.measure(metrics, config.trainer.epochs + 1)
                outbox.measure({"stopped_epoch": len(history["loss"]) - 1, "restored_epoch": kept})
            if config.trainer.tensorboard:
                logs = config.folder("logs")
                for file in sorted(logs.rglob("events.*")):
                    outbox.add(file, f"tensorboard_logs/{file.parent.relative_to(logs)}")
            outbox.add(folder / SAMPLES, "plots")
            outbox.add(curves, "plots")
            outbox.tag({"model_digest": digest})
            logged_model.save_model(saved, outbox.folder / "model", digest, training.images[:3])
            outbox.parcel.model = str(outbox.folder / "model")
            if then:
                then(outbox)
    Console().print(
        f"{config.variant}: model in {config.model_file}, MLflow run {outbox.run_id}", highlight=False, soft_wrap=True
    )
    return outbox.run_id


if __name__ == "__main__":
    main(train)
