"""The store of the runs, seen from outside: is it there, and how does one look into it? Does not import MLflow."""

import os
from pathlib import Path
from urllib.parse import urlparse

import requests

from fashion_mnist.config import TrackingConfig
from fashion_mnist.errors import UserError


def check(config: TrackingConfig) -> None:
    """Makes sure, before any work is done, that runs can be recorded.

    Raises:
        UserError: the tracking server does not answer, or the database's folder cannot be written.
    """
    address = urlparse(config.uri)
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
        folder = Path(config.uri.removeprefix("sqlite:///") or ".").absolute().parent
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise UserError(
                f"the tracking database needs the folder {folder}, which cannot be written; set tracking.uri."
            )
    elif address.scheme in ("", "file"):
        raise UserError(
            f"MLflow keeps no runs in plain folders any more; instead of '{config.uri}' use a database: "
            "tracking.uri=sqlite:///mlflow.db"
        )


def ui(config: TrackingConfig) -> str:
    """What to type, or where to go, to see the runs in MLflow's UI."""
    if config.uri.startswith("http"):
        return config.uri
    in_this_folder = config.uri in ("sqlite:///mlflow.db", f"sqlite:///{Path.cwd()}/mlflow.db")
    store = "" if in_this_folder else f" --backend-store-uri {config.uri}"
    return f"uv run mlflow ui --workers 1{store}, then open http://localhost:5000"
