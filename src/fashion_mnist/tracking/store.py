"""Where the runs are kept: is the store there, how is it opened, and how does one look into it?

MLflow is imported by `connect`, and not before.
"""

import contextlib
import logging
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_mnist.config import TrackingConfig
from fashion_mnist.errors import UserError, say
from fashion_mnist.files import lock_of
from fashion_mnist.startup import importing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.entities.paged_list import PagedList

PARENT = "FASHION_MNIST_PARENT_RUN_ID"  # the run of the sweep, for its jobs, which may be other processes
UNFINISHED = "unfinished"  # the tag of runs that a checkpoint belongs to
USED = {"variant", "sweep", "report"}  # tags of runs in which something is recorded
PAGE = 500  # runs at a time
LOCAL = "record in a local database: tracking.uri=sqlite:///mlflow.db"


def check(config: TrackingConfig, overrides: Sequence[str] = ()) -> None:
    """Makes sure, before any work is done, that runs can be recorded; else a UserError says why not.

    What was typed (`overrides`) cannot decide where to under `mlflow run`, which has opened the run already.
    """
    typed = {override.partition("=")[0].lstrip("+") for override in overrides}
    if "MLFLOW_RUN_ID" in os.environ and typed & {"tracking.uri", "tracking.experiment"}:
        raise UserError(
            "`mlflow run` opens the run itself: name the experiment with --experiment-name, and the store in the "
            "environment variable MLFLOW_TRACKING_URI; outside of it, unset MLFLOW_RUN_ID."
        )
    if config.uri.lower().startswith(("http:", "https:")):
        import requests  # which a local database does without

        user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
        address, login = f"{config.uri.rstrip('/')}/version", (user, password) if password else None
        try:
            version = requests.get(address, auth=login, timeout=config.timeout).text.strip()
            if re.fullmatch(r"[0-2]\.[\w.]+", version):
                raise UserError(f"the server {config.uri} is of MLflow {version}, not MLflow 3; update it, or {LOCAL}")
        except requests.exceptions.SSLError:
            pass  # it is there, and MLflow has settings of its own for certificates
        except requests.RequestException as error:
            raise UserError(
                f"the tracking server {config.uri} does not answer ({type(error).__name__}); start it, or {LOCAL}"
            ) from error
    elif config.uri.lower().startswith("sqlite:"):
        check_database(config.uri)
    elif re.fullmatch(r"(?!databricks)[^:]*|file:.*|[\w.-]+:\d+(/.*)?", config.uri):
        raise UserError(
            f"tracking.uri={config.uri} is no store: a server's address begins with http:// or https://, a database's "
            f"with sqlite:/// or the like, and MLflow keeps no runs in plain folders any more; {LOCAL}"
        )


def check_database(uri: str) -> None:
    file = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not file.name:
        raise UserError(f"tracking.uri={uri} names no file; write tracking.uri=sqlite:///mlflow.db")
    if not (file.absolute().parent.is_dir() and os.access(file.absolute().parent, os.W_OK)):
        raise UserError(f"the folder of the tracking database {file} cannot be written; set tracking.uri.")
    if file.exists():
        try:
            with contextlib.closing(sqlite3.connect(file)) as database:
                database.execute("PRAGMA schema_version")
        except sqlite3.Error as error:
            raise UserError(f"{file} is not a tracking database ({error}); set tracking.uri to another.") from error


def ui(config: TrackingConfig) -> str:
    """What to type, or where to go, to see the runs in MLflow's UI."""
    if config.uri.startswith("http"):
        return config.uri
    in_this_folder = config.uri in ("sqlite:///mlflow.db", f"sqlite:///{Path.cwd()}/mlflow.db")
    store = "" if in_this_folder else f" --backend-store-uri {config.uri}"
    return f"uv run mlflow ui --workers 1{store}, then open http://localhost:5000"


def connect(config: TrackingConfig) -> "MlflowClient":
    """Opens the configured store, or says in a UserError why the store refuses."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # for files that are here already
    # A server that does not answer is given up in seconds, not minutes: what it is to be told is kept.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"  # which drops what does not arrive, and says so nowhere
    if "mlflow" not in sys.modules:
        with importing():
            import mlflow

            if not config.uri.startswith("http"):  # what the first use of a database would import
                import mlflow.store.tracking.sqlalchemy_store
    import mlflow
    from mlflow.exceptions import MlflowException

    chatter = ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent", "mlflow.utils.uv_utils", "mlflow.pyfunc")
    for name in chatter:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each retry; we say it once
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # that uv's environments hold no pip
    try:
        # A new database is set up on its first use, and two processes must not do so at once.
        with lock_of("store", str(Path.cwd()), config.uri):
            mlflow.set_tracking_uri(config.uri)
            client = mlflow.MlflowClient()
            client.search_experiments(max_results=1)
    except (MlflowException, ImportError, ValueError) as error:  # an address of a kind that nothing here can serve
        way = "; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" if "error code 401" in str(error) else ""
        raise UserError(f"the tracking store {config.uri} refuses: {str(error).splitlines()[0]}{way}") from error
    return client


def search(client: "MlflowClient", experiment: str, wanted: str) -> "list[Run]":
    """All runs of an experiment, by its id, that MLflow finds for `wanted`, newest first; it gives some at a time."""
    from mlflow.utils import get_results_from_paginated_fn

    def page(most: int, token: str | None) -> "PagedList[Run]":
        return client.search_runs([experiment], wanted, max_results=most, page_token=token)

    return get_results_from_paginated_fn(page, PAGE)


def given_run(client: "MlflowClient") -> "Run | None":
    """The run that `mlflow run` has opened for this process to record in, once; not one that is used already."""
    if (run_id := os.environ.pop("MLFLOW_RUN_ID", None)) is None:
        return None
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"MLFLOW_RUN_ID={run_id} names no run in {client.tracking_uri}; unset it, or, since `mlflow run` reads "
            f'relative addresses in {Path.cwd()}, set an absolute one: MLFLOW_TRACKING_URI="sqlite:///$PWD/mlflow.db"'
        ) from error
    if run.info.status == "RUNNING" and not USED & set(run.data.tags):
        return run
    say(f"MLFLOW_RUN_ID={run_id} is not heeded: something is recorded in that run already.")
    return None


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
    present = client.get_experiment(identifier)
    if present.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {identifier}"
        raise UserError(f"experiment '{present.name}' was deleted: {restore}, or take another, tracking.experiment=...")
    wanted = {
        "mlflow.experimentKind": "custom_model_development",  # else the UI opens in its mode for language models
        "mlflow.note.content": "One run per training. Compare `test_accuracy` across the tag `variant`; models are "
        "found by the tag `model_digest`.",
    }
    for key, value in wanted.items():
        if key not in present.tags:
            even_if_raced(client.set_experiment_tag, identifier, key, value)
    return identifier


def even_if_raced(add: Callable[..., object], *arguments: object) -> None:
    """Adds what another process may be adding to the store at the same moment.

    MLflow looks whether it is there, and adds it if not: who is slower is refused by the database, and finds it there
    the second time.
    """
    from mlflow.exceptions import MlflowException

    try:
        add(*arguments)
    except MlflowException:
        add(*arguments)


def label_step(config: TrackingConfig, name: str, note: str, run: "Run | None" = None) -> None:
    """Names the run that `mlflow run` opens for a step which records nothing in a run of its own."""
    if run or "MLFLOW_RUN_ID" in os.environ:
        client = connect(config)
        if run := run or given_run(client):
            client.set_tag(run.info.run_id, "mlflow.runName", name)
            client.set_tag(run.info.run_id, "mlflow.note.content", note)
