"""Passwords in addresses: moved to where the tools themselves look for them, so that nothing here writes one down."""

import os
import re
import sys
from collections.abc import Iterable
from urllib.parse import unquote

from fashion_mnist.errors import UserError

# Up to the last @, since people forget that the @ and / of a password are written as %40 and %2F.
STORE = re.compile(
    r"(?is)(\+*(?:tracking\.uri|hydra\.sweeper\.storage)=['\"]?|MLFLOW_\w+_URI=)(https?|postgresql(?:\+psycopg2?)?)://([^:/@\s]*)(?::((?:(?!://).)*))?@"
)
SECRET_NAME = re.compile("(?i)(passw|pwd|secret|token(?!iz)|credential|(access|api|private|account)_?key)")
SECRET = re.compile(r"://[^/@\s]*:.*@|https?://[^/@\s]+@|://.*(password|passwd|pwd|token|secret)(=|%3d)", re.I | re.S)


def tidy_environment() -> None:
    """Takes passwords out of the addresses of MLflow's stores; a variable that is empty is as if it were not set."""
    for name, value in list(os.environ.items()):
        if not value.strip() and name.startswith(("MLFLOW_", "FASHION_MNIST_")):
            del os.environ[name]
        elif name in ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"):
            os.environ[name] = without_password(f"{name}={value}").partition("=")[2]


def without_password(setting: str) -> str:
    """Moves the password of a store, in `key=address`, to the environment; refuses that of anything else."""
    if found := STORE.match(setting):
        key, scheme, *secrets = found.groups()
        of_server = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        names = ("PGUSER", "PGPASSWORD") if scheme.lower().startswith("p") else of_server
        os.environ |= {name: unquote(secret) for name, secret in zip(names, secrets, strict=True) if secret}
        setting = f"{key}{scheme}://{setting[found.end() :]}"
    refuse(re.split("[=:]", setting)[0], setting)
    return setting


def refuse_variables(names: Iterable[str]) -> None:
    """Refuses secrets among Hydra's own settings, such as in hydra.job.env_set: it writes them beside every job."""
    if found := [name for name in names if SECRET_NAME.search(name)]:
        raise UserError(
            f"Hydra would write {found[0]} into .hydra/hydra.yaml of every job; set it in the environment: "
            f"export {found[0]}=..."
        )


def refuse_in_command_line() -> None:
    """Refuses a password that was typed, where Ray would show the command line to everyone on a cluster."""
    if any(SECRET.search(word) for word in sys.orig_argv):
        raise UserError(
            "Ray shows this command line, and the password in it, to everyone on a cluster; keep it in PGPASSWORD, "
            "or in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )


def refuse(key: str, value: str) -> None:
    if SECRET.search(value):
        raise UserError(
            f"{key} holds a password, which every run would write down; keep it in MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, PGPASSWORD (PostgreSQL), ~/.netrc (a mirror), or read_default_file=... (MySQL)."
        )
