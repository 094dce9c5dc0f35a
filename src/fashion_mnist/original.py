"""The run that is to be made again: what it was made of, and a training of the same."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from fashion_mnist import lineage
from fashion_mnist.checks import check_ranges, check_training, example_of
from fashion_mnist.config import CONF, ROOT, Config, ReproduceConfig, TrackingConfig
from fashion_mnist.data import Card
from fashion_mnist.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ELSEWHERE = ("tracking.", "output_dir=", "data_root=", "data.dir=", "data.mirrors=", "data.timeout=", "hydra.")


class Difference(NamedTuple):
    """One thing that a run was made of, and what is here in its place."""

    what: str
    there: str
    here: str

    @property
    def differs(self) -> bool:
        """Whether it is not the same."""
        return self.there != self.here


def find(client: "MlflowClient", run_id: str) -> "Run":
    """The run of a finished training.

    Raises:
        UserError: there is none with this id.
    """
    from mlflow.exceptions import MlflowException

    if not re.fullmatch(r"[0-9a-f]{32}", run_id):
        raise UserError(
            f"run={run_id} is no id of a run: those have 32 digits and letters, and MLflow's page shows them."
        )
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UserError(f"there is no run {run_id} in {client.tracking_uri}: {str(error).splitlines()[0]}") from error
    if "config_digest" not in run.data.tags:
        raise UserError(f"run {run_id} ({run.info.run_name}) is no training; choose one with the tag config_digest.")
    if run.info.status != "FINISHED":
        raise UserError(f"run {run_id} is {run.info.status}: there is no result to be reproduced.")
    return run


def artifact(client: "MlflowClient", run: "Run", name: str) -> str | None:
    """The text of one of the run's artifacts; None if it has none of this name.

    Raises:
        UserError: it cannot be had.
    """
    if name not in [file.path for file in client.list_artifacts(run.info.run_id)]:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(client.download_artifacts(run.info.run_id, name, folder))
            return file.read_bytes().decode(errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{name} of run {run.info.run_id} cannot be had ({error}).") from error


def configuration(client: "MlflowClient", run: "Run", config: ReproduceConfig) -> Config:
    """The composed configuration that the run keeps; places and addresses are those of here.

    Raises:
        UserError: the run keeps none, the code here cannot follow it, or it names code that is not the project's own.
    """
    text = artifact(client, run, "config.yaml")
    if text is None:
        raise UserError(f"run {run.info.run_id} keeps no config.yaml; it cannot be made again.")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.create(text))
        for group, option in {
            "augment": "none",
            "trainer": "default",
        }.items():  # for keys that are younger than the run
            content[group] = {**example_of(group, option), **content.get(group, {})}
        content["data"] |= {"name": run.data.tags["dataset"], "dir": config.data.dir}
        content["data"] |= {"mirrors": config.data.mirrors, "timeout": config.data.timeout}
        content["data_root"] = config.data_root
        content["output_dir"] = config.output_dir or f"outputs/reproduced/{run.info.run_id}"
        del content["tracking"]
        options = {group: option_of(content[group], group, run.info.run_id) for group in ("model", "optimizer")}
        place = client.get_experiment(run.info.experiment_id).name
        content["tracking"] = vars(
            TrackingConfig(config.tracking.uri, place, f"{run.info.run_name} (again)", config.tracking.timeout)
        )
        settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), content))
        check_ranges(settings)
        check_training(settings, options)
    except ConfigKeyError as error:
        raise UserError(
            f"run {run.info.run_id} has a key that the code here does not know ({error.full_key}); "
            "checkout=true trains with the run's own code."
        ) from error
    except (OmegaConfBaseException, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"config.yaml of run {run.info.run_id} cannot be read ({str(error).splitlines()[0]})."
        ) from error
    settings.overrides = list(OmegaConf.create(artifact(client, run, "overrides.yaml") or "[]"))
    return settings


def option_of(section: dict[str, Any], group: str, run_id: str) -> str:
    """The option of conf/ that a section of the run's configuration stems from.

    A configuration says which function to call with what, and whoever may write to the store has written it. So only
    functions are called that conf/ names, and only with plain values.

    Raises:
        UserError: there is no such option.
    """
    options = {file.stem: example_of(group, file.stem) for file in sorted((CONF / group).glob("*.yaml"))}
    targets = {name: option["_target_"] for name, option in options.items()}
    values = [part for value in section.values() for part in (value if isinstance(value, list) else [value])]
    if section.get("_target_") not in targets.values() or any(isinstance(value, dict | list) for value in values):
        raise UserError(
            f"run {run_id} names code in {group}._target_ that conf/{group} does not: {section.get('_target_')!r} is "
            "not called; checkout=true trains with the run's own code, if you trust it."
        )
    if section.get("name") in targets:
        return str(section["name"])
    return next(name for name, target in targets.items() if target == section["_target_"])


def differences(client: "MlflowClient", run: "Run", settings: Config, card: Card) -> list[Difference]:
    """What the run was made of, beside what is here."""
    there, here = run.data.tags, lineage.tags(settings, card)
    names = {
        "git_commit": "commit",
        "code_digest": "code that trains",
        "config_digest": "configuration",
        "dataset_digest": "data",
        "lock_digest": "packages (uv.lock)",
        "python": "Python",
        "tensorflow": "TensorFlow",
        "keras": "Keras",
        "device": "machine",
    }
    rows = [Difference(name, shown(there, key), shown(here, key)) for key, name in names.items()]
    kept = artifact(client, run, lineage.PATCH) if there.get("git_dirty") == "true" else ""
    changes = [changes_of(kept), changes_of(lineage.uncommitted().decode(errors="surrogateescape"))]
    return [rows[0], Difference("uncommitted changes", *changes), *rows[1:]]


def shown(tags: dict[str, str], key: str) -> str:
    """A tag's value as people write it."""
    value = tags.get(key, "unknown")
    return value[:12] if key == "git_commit" else value


def changes_of(patch: str | None) -> str:
    """A patch in a few words."""
    if patch is None:
        return "some, not kept"
    return hashlib.sha256(patch.encode(errors="surrogateescape")).hexdigest()[:16] if patch else "none"


def train_with_this_code(run: "Run", settings: Config) -> str:
    """Trains the same, evaluates it if the run was evaluated, and returns the id of the new run."""
    from fashion_mnist.evaluate import evaluate
    from fashion_mnist.train import train

    evaluated = "test_accuracy" in run.data.metrics
    return train(settings, then=(lambda outbox: evaluate(settings, outbox)) if evaluated else None)


def train_with_own_code(client: "MlflowClient", run: "Run", settings: Config) -> str:
    """Trains with the run's commit and uncommitted changes, in a folder of git's that is removed afterwards.

    Raises:
        UserError: the commit is not here, or its training fails.
    """
    commit, patch = run.data.tags.get("git_commit", "unknown"), artifact(client, run, lineage.PATCH)
    if run.data.tags.get("git_dirty") == "true" and patch is None:
        raise UserError(f"run {run.info.run_id} had uncommitted changes, and has not kept them.")
    typed = OmegaConf.create(artifact(client, run, "overrides.yaml") or "[]")
    overrides = [override for override in typed if not str(override).lstrip("+~").startswith(ELSEWHERE)]
    module = "fashion_mnist" if "test_accuracy" in run.data.metrics else "fashion_mnist.train"
    again = client.create_run(run.info.experiment_id, run_name=f"{run.info.run_name} (again)").info.run_id
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        try:
            git("worktree", "add", "--detach", str(tree), commit)
            if patch:
                git("-C", str(tree), "apply", "--whitespace=nowarn", "-", given=patch.encode(errors="surrogateescape"))
            environment = {
                **os.environ,
                "PYTHONPATH": str(tree / "src"),
                "MLFLOW_TRACKING_URI": settings.tracking.uri,
                "MLFLOW_RUN_ID": again,
                "MLFLOW_EXPERIMENT_ID": run.info.experiment_id,
                "MLFLOW_EXPERIMENT_NAME": settings.tracking.experiment,
            }
            if settings.data.dir:
                environment["FASHION_MNIST_DIR"] = str(Path(settings.data.dir).absolute())
            places = [f"data_root={settings.data_root}", f"output_dir={settings.output_dir}"]
            command = [sys.executable, "-m", module, *map(str, overrides), *places]
            if subprocess.run(command, env=environment).returncode:
                raise UserError(f"the training at commit {commit[:12]} has failed; its own message stands above.")
        except BaseException:
            client.set_terminated(again, "FAILED")
            raise
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], capture_output=True)
    return again


def git(*arguments: str, given: bytes | None = None) -> None:
    """Lets git do something in the project's folder.

    Raises:
        UserError: it refuses.
    """
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], input=given, capture_output=True)
    if done.returncode:
        raise UserError(f"git cannot {arguments[0]} the run's code: {done.stderr.decode().strip().splitlines()[-1]}")
