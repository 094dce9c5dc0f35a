"""Runs in MLflow: where they are kept, what every run carries, how one is found again."""

import hashlib
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from omegaconf import OmegaConf

from fashion_mnist import lineage
from fashion_mnist.config import Config, TrackingConfig
from fashion_mnist.data import Card
from fashion_mnist.errors import UserError
from fashion_mnist.startup import importing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT = "FASHION_MNIST_PARENT_RUN_ID"  # the run of the sweep, for its jobs, which may be other processes
MADE_UP = re.compile(r"[a-z]+-[a-z]+-\d+")  # MLflow names runs that nobody named `brave-shrew-412` and the like


def import_mlflow(uri: str) -> None:
    """Imports MLflow, and for a database what its first use would import."""
    if "mlflow" not in sys.modules:
        with importing():
            import mlflow

            if not uri.startswith("http"):
                import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def connect(config: TrackingConfig) -> "MlflowClient":
    """A client of the configured store.

    Raises:
        UserError: the store refuses.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # for files that are here already
    import_mlflow(config.uri)
    import mlflow
    from mlflow.exceptions import MlflowException

    for chatter in (
        "alembic",
        "mlflow.store.db.utils",
        "mlflow.tracking.fluent",
        "mlflow.utils.uv_utils",
        "mlflow.pyfunc",
    ):
        logging.getLogger(chatter).setLevel(logging.WARNING)
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # that uv's environments hold no pip
    # A new database is set up on its first use, and two processes must not do so at once.
    name = hashlib.sha256(f"{Path.home()} {Path.cwd()} {config.uri}".encode()).hexdigest()[:16]
    try:
        with FileLock(Path(tempfile.gettempdir()) / f"fashion-mnist-{name}.lock"):
            mlflow.set_tracking_uri(config.uri)
            client = mlflow.MlflowClient()
            client.search_experiments(max_results=1)
    except (MlflowException, ImportError, ValueError) as error:  # an address of a kind that nothing here can serve
        raise UserError(f"the tracking store {config.uri} refuses: {str(error).splitlines()[0]}") from error
    return client


def given_experiment(config: TrackingConfig) -> str | None:
    """The id of the experiment that `mlflow run` has chosen, unless the configuration names another."""
    by_default = config.experiment == os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
    return os.environ.get("MLFLOW_EXPERIMENT_ID") if by_default else None


def experiment(config: TrackingConfig, client: "MlflowClient") -> str:
    """The id of the experiment that runs belong to; made, and set up for the UI, when it is not there yet."""
    from mlflow.exceptions import MlflowException

    identifier = given_experiment(config)
    if identifier is None:
        try:
            identifier = client.create_experiment(config.experiment)
        except MlflowException:  # it is there already, perhaps since another process was quicker
            found = client.get_experiment_by_name(config.experiment)
            if found is None:
                raise
            identifier = found.experiment_id
    present = client.get_experiment(identifier).tags
    wanted = {
        "mlflow.experimentKind": "custom_model_development",  # else the UI opens in its mode for language models
        "mlflow.note.content": "One run per training. Compare `test_accuracy` across the tag `variant`; models are "
        "found by the tag `model_digest`.",
    }
    for key, value in wanted.items():
        if key not in present:
            client.set_experiment_tag(identifier, key, value)
    return identifier


@contextmanager
def training_run(config: Config, card: Card, tags: dict[str, str]) -> Iterator[str]:
    """Records one training: parameters, inputs and tags at its start, and its end however it ends.

    Continues the run of `MLFLOW_RUN_ID`, which `mlflow run` sets, and nests below the sweep's run where there is one.

    Yields:
        The run's id.
    """
    client = connect(config.tracking)
    import mlflow

    parent = os.environ.get(PARENT)
    with mlflow.start_run(
        run_id=None if parent else os.environ.pop("MLFLOW_RUN_ID", None),
        experiment_id=experiment(config.tracking, client),
        parent_run_id=parent,
        nested=parent is not None,
    ) as run:
        identifier = run.info.run_id
        try:
            describe(client, run, config, card, tags)
            yield identifier
        except KeyboardInterrupt:
            mlflow.end_run("KILLED")
            raise


def describe(client: "MlflowClient", run: "Run", config: Config, card: Card, tags: dict[str, str]) -> None:
    """Puts into a run everything that is known before training starts."""
    import mlflow
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Param, RunTag

    identifier = run.info.run_id
    tags = {**tags, "mlflow.note.content": lineage.note(config, card, tags)}
    if MADE_UP.fullmatch(run.info.run_name or "") or config.tracking.run_name:
        tags["mlflow.runName"] = lineage.run_name(config, card)
    # `mlflow run -P` has recorded its own parameters, and a parameter never changes.
    params = {key: value for key, value in lineage.params(config).items() if key not in run.data.params}
    client.log_batch(
        identifier,
        params=[Param(key, value[:6000]) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    client.log_text(identifier, OmegaConf.to_yaml(config.composed()), "config.yaml")
    client.log_text(identifier, OmegaConf.to_yaml(config.overrides), "overrides.yaml")
    official = card.source.startswith("http")
    source = HTTPDatasetSource(card.source) if official else CodeDatasetSource({"mlflow.source.name": card.source})
    mlflow.log_input(MetaDataset(source, card.name, card.digest), "training")


def log_report(config: TrackingConfig, name: str, note: str, tags: dict[str, str], files: Sequence[Path]) -> str:
    """Records a report as a run of its own, or in the run that `mlflow run` has opened.

    Returns:
        The run's id.
    """
    client = connect(config)
    run_id = os.environ.get("MLFLOW_RUN_ID") or client.create_run(experiment(config, client)).info.run_id
    # No parameters: `mlflow run -P` has recorded its own, and a parameter never changes.
    for key, value in {
        "mlflow.runName": name[:200],
        "mlflow.note.content": note,
        "report": "comparison",
        **tags,
    }.items():
        client.set_tag(run_id, key, value)
    for file in files:
        client.log_artifact(run_id, str(file))
    client.set_terminated(run_id)
    return run_id


def label_step(config: TrackingConfig, name: str, note: str) -> None:
    """Names the run that `mlflow run` opens for a step which records nothing in a run of its own."""
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        client = connect(config)
        client.set_tag(run_id, "mlflow.runName", name)
        client.set_tag(run_id, "mlflow.note.content", note)


def recorder() -> Any:
    """The callback with which `mlflow.autolog` records epochs and the model's summary; needs an active run.

    Autologging itself would add TensorBoard's callback, which costs a short epoch some percent, and a parameter for
    every argument of `fit` and of the optimizer, which repeat those of the configuration.
    """
    import mlflow
    from mlflow.tensorflow.callback import MlflowCallback

    # One write every two seconds, not one for each epoch, of which there may be several a second.
    os.environ.setdefault("MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS", "2")

    class Recorder(MlflowCallback):
        def on_train_begin(self, logs: Any = None) -> None:
            """Records the model's summary, and starts the clock."""
            lines: list[str] = []
            self.model.summary(print_fn=lambda line, **_: lines.append(line))
            mlflow.log_text("\n".join(lines), "model_summary.txt")
            self.start = time.perf_counter()

        def on_test_end(self, logs: Any = None) -> None:
            """Records nothing: `on_epoch_end` has the validation's metrics too."""

        def on_train_end(self, logs: Any = None) -> None:
            """Records the time, and waits until everything is written."""
            mlflow.log_metric("system/training_seconds", time.perf_counter() - self.start)
            mlflow.flush_async_logging()

    return Recorder()


def find_run(client: "MlflowClient", config: Config, card: Card) -> "Run":
    """The latest run that trained the model in the variant's folder on this dataset; else a run of its own."""
    digest = lineage.file_digest(config.model_file)
    everywhere = [place.experiment_id for place in client.search_experiments()]
    latest = ["attributes.start_time DESC"]
    same = f"tags.model_digest = '{digest}' AND tags.dataset_digest = '{card.digest}'"
    if found := client.search_runs(everywhere, same, order_by=latest, max_results=1):
        return found[0]
    tags = {
        "model_digest": digest,
        "variant": config.variant,
        "dataset": card.name,
        "dataset_digest": card.digest,
        "mlflow.note.content": "Evaluation of a model that was trained elsewhere or on other data.",
    }
    place = experiment(config.tracking, client)
    run = client.create_run(place, run_name=f"{config.variant} (evaluation only)", tags=tags)
    client.set_terminated(run.info.run_id)
    return run


def log_evaluation(config: Config, card: Card, metrics: dict[str, float], run_id: str | None) -> str:
    """Adds test metrics, pictures, tables and predictions to the run of the model that was evaluated.

    Args:
        config: says which model, and where the files lie.
        card: the dataset it was tested on.
        metrics: to be logged.
        run_id: the run that trained the model; None to find it by the model's digest.

    Returns:
        The id of that run.

    Raises:
        UserError: the model in its folder is not the one that the run trained.
    """
    client = connect(config.tracking)
    from mlflow.entities import Metric

    run = client.get_run(run_id) if run_id else find_run(client, config, card)
    if run_id and run.data.tags.get("model_digest") != lineage.file_digest(config.model_file):
        raise UserError(
            f"another run has replaced {config.model_file} meanwhile; give each of them a folder: output_dir=..."
        )
    logged = run.outputs.model_outputs if run.outputs else []
    about = {"model_id": logged[0].model_id if logged else None, "run_id": run.info.run_id}
    about |= {"dataset_name": card.name, "dataset_digest": card.digest}
    now = int(time.time() * 1000)
    client.log_batch(run.info.run_id, [Metric(name, value, now, 0, **about) for name, value in metrics.items()])
    client.log_artifacts(run.info.run_id, str(config.folder("plots") / "test"), "plots")
    client.log_artifact(run.info.run_id, str(config.predictions_file), "predictions")
    description = run.data.tags.get("mlflow.note.content", "").partition("\n\nTest accuracy")[0]
    result = f"Test accuracy {metrics['test_accuracy']:.4f}, loss {metrics['test_loss']:.4f} on {card.title}."
    client.set_tag(run.info.run_id, "mlflow.note.content", f"{description}\n\n{result}")
    return run.info.run_id
