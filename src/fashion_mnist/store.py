"""The store of the runs, seen from outside: is it there, and how does one look into it? Does not import MLflow."""

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import requests

from fashion_mnist.config import TrackingConfig
from fashion_mnist.errors import UserError


def check(config: TrackingConfig, overrides: Sequence[str] = ()) -> None:
    """Makes sure, before any work is done, that runs can be recorded.

    Args:
        config: where to.
        overrides: what was typed; `mlflow run` has opened the run already, so it decides where that is.

    Raises:
        UserError: the tracking server does not answer, or the database cannot be used.
    """
    typed = {override.partition("=")[0].lstrip("+") for override in overrides}
    if "MLFLOW_RUN_ID" in os.environ and typed & {"tracking.uri", "tracking.experiment"}:
        raise UserError(
            "`mlflow run` opens the run itself: name the experiment with --experiment-name, and the store in the "
            "environment variable MLFLOW_TRACKING_URI."
        )
    try:
        address = urlparse(config.uri)
    except ValueError as error:
        raise UserError(f"tracking.uri={config.uri} is no address ({error}).") from error
    if address.scheme in ("http", "https"):
        try:
            requests.get(f"{config.uri.rstrip('/')}/health", timeout=config.timeout)
        except requests.exceptions.SSLError:
            pass  # it is there, and MLflow has settings of its own for certificates
        except requests.RequestException as error:
            raise UserError(
                f"the tracking server {config.uri} does not answer ({type(error).__name__}); start it, or record in a "
                "local database: tracking.uri=sqlite:///mlflow.db"
            ) from error
    elif address.scheme == "sqlite":
        check_database(config.uri)
    elif address.scheme in ("", "file"):
        raise UserError(
            f"MLflow keeps no runs in plain folders any more; instead of '{config.uri}' use a database: "
            "tracking.uri=sqlite:///mlflow.db"
        )


def check_database(uri: str) -> None:
    """Makes sure that an SQLite file can be written.

    Raises:
        UserError: it cannot, or it is no database.
    """
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
            raise UserError(
                f"{file} is not a tracking database ({error}); set tracking.uri to another file."
            ) from error


def ui(config: TrackingConfig) -> str:
    """What to type, or where to go, to see the runs in MLflow's UI."""
    if config.uri.startswith("http"):
        return config.uri
    in_this_folder = config.uri in ("sqlite:///mlflow.db", f"sqlite:///{Path.cwd()}/mlflow.db")
    store = "" if in_this_folder else f" --backend-store-uri {config.uri}"
    return f"uv run mlflow ui --workers 1{store}, then open http://localhost:5000"
