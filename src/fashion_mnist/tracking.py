"""Runs in MLflow: where they are kept, and how one is found again."""

import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_mnist import lineage
from fashion_mnist.config import Config, TrackingConfig
from fashion_mnist.data.dataset import Card
from fashion_mnist.errors import UserError, say
from fashion_mnist.files import digest_here, lock_of
from fashion_mnist.startup import importing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT = "FASHION_MNIST_PARENT_RUN_ID"  # the run of the sweep, for its jobs, which may be other processes
SKIPPED = "skipped."  # and the id of a run that made a job needless: a tag of the sweep


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
    # A server that does not answer is given up in seconds, not minutes: what it is to be told is kept.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
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
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each retry; we say it once
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # that uv's environments hold no pip
    try:
        # A new database is set up on its first use, and two processes must not do so at once.
        with lock_of("store", str(Path.cwd()), config.uri):
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
            if found.lifecycle_stage == "deleted":
                raise UserError(
                    f"experiment '{config.experiment}' was deleted: mlflow experiments restore --experiment-id "
                    f"{identifier}, or choose another, tracking.experiment=..."
                ) from None
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


def log_report(config: TrackingConfig, name: str, note: str, tags: dict[str, str], files: Sequence[Path]) -> str:
    """Records a report as a run of its own, or in the run that `mlflow run` has opened.

    Returns:
        The run's id.
    """
    from fashion_mnist.parcel import UNFINISHED

    client = connect(config)
    place, mark = experiment(config, client), digest_here("report")
    with lock_of("report", mark):
        for left in client.search_runs([place], f"tags.{UNFINISHED} = '{mark}'"):  # of a process that was killed
            client.set_terminated(left.info.run_id, "KILLED")
            client.delete_tag(left.info.run_id, UNFINISHED)
        run_id = os.environ.get("MLFLOW_RUN_ID") or client.create_run(place, tags={UNFINISHED: mark}).info.run_id
        # No parameters: `mlflow run -P` has recorded its own, and a parameter never changes.
        for key, value in {
            "mlflow.runName": name[:200],
            "mlflow.note.content": note,
            "report": "comparison",
            UNFINISHED: mark,
            **tags,
        }.items():
            client.set_tag(run_id, key, value)
        for file in files:
            client.log_artifact(run_id, str(file))
        client.set_terminated(run_id)
        client.delete_tag(run_id, UNFINISHED)
    return run_id


def is_made_up(name: str | None) -> bool:
    """Whether MLflow made a run's name up, such as `brave-shrew-412`, since nobody gave it one."""
    from mlflow.utils import name_utils

    words = re.fullmatch(r"([a-z]+)-[a-z]+-\d*", name or "")
    return bool(words and words[1] in {word.lower() for word in name_utils._GENERATOR_PREDICATES})


def label_step(config: TrackingConfig, name: str, note: str, run_id: str | None = None) -> None:
    """Names the run that `mlflow run` opens for a step which records nothing in a run of its own."""
    if run_id := run_id or os.environ.get("MLFLOW_RUN_ID"):
        client = connect(config)
        client.set_tag(run_id, "mlflow.runName", name)
        client.set_tag(run_id, "mlflow.note.content", note)


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


def catch_up(config: TrackingConfig) -> None:
    """Sends what the store could not be told earlier, so that what is about to be looked up there is complete."""
    from fashion_mnist.parcel import kept, send_kept

    if kept():
        _, stays = send_kept(connect(config), config.uri)
        for folder, reason in stays.items():
            say(f"{folder} cannot be sent yet ({reason}); python -m fashion_mnist.sync tries again.")
