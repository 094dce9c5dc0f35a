"""The run that is to be made again: what it was made of, as the tracking store keeps it; and its own code at work."""

import contextlib
import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from fashion_mnist.checks import OLDER, built, check_training, example_of
from fashion_mnist.config import CONF, Config, DataConfig, ReproduceConfig, TrackingConfig
from fashion_mnist.data.dataset import Card
from fashion_mnist.data.prepare import TAKEN
from fashion_mnist.errors import UserError, reason_of
from fashion_mnist.tracking import lineage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class Origin(NamedTuple):
    """One thing that a run was made of, and what is here in its place, the same or not."""

    what: str
    there: str
    here: str

    @property
    def differs(self) -> bool:
        return self.there != self.here


def find(client: "MlflowClient", run_id: str) -> "Run":
    """The run of a finished training."""
    from mlflow.exceptions import MlflowException

    if not re.fullmatch(r"[0-9a-f]{32}", run_id):
        raise UserError(f"run={run_id} is no id of a run: copy its 32 digits and letters from MLflow's page.")
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UserError(f"there is no run {run_id} in {client.tracking_uri}: {str(error).splitlines()[0]}") from error
    if "config_digest" not in run.data.tags:
        raise UserError(f"run {run_id} ({run.info.run_name}) is no training; choose one with the tag config_digest.")
    if run.info.status != "FINISHED":
        raise UserError(f"run {run_id} is {run.info.status}: there is no result to be reproduced.")
    return run


def artifact(client: "MlflowClient", run: "Run", name: str) -> bytes | None:
    """None if the run has no artifact of this name."""
    if name not in [file.path for file in client.list_artifacts(run.info.run_id)]:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run.info.run_id, name, folder)).read_bytes()
    except OSError as error:
        raise UserError(f"{name} of run {run.info.run_id} cannot be had ({error}).") from error


def read_yaml(client: "MlflowClient", run: "Run", name: str) -> Any:
    """One of the run's YAML files as it is written: what would be looked up here, such as `${oc.env:KEY}`, is not."""
    content = artifact(client, run, name)
    if content is None:
        raise UserError(f"run {run.info.run_id} keeps no {name}; it cannot be made again.")
    try:
        return OmegaConf.to_container(OmegaConf.create(content.decode()))
    except Exception as error:  # of YAML and OmegaConf there are many
        raise UserError(f"{name} of run {run.info.run_id} cannot be read ({reason_of(error)}).") from error


def configuration(client: "MlflowClient", run: "Run", config: ReproduceConfig) -> Config:
    """The composed configuration that the run keeps; places and addresses are those of here."""
    content = read_yaml(client, run, "config.yaml")
    dataset = run.data.tags.get("dataset", "")
    if "${" in str(content):  # nothing of the kind is left in what this project writes
        raise UserError(f"config.yaml of run {run.info.run_id} asks for values of this machine, which it does not get.")
    try:
        for group, option in OLDER.items():
            content[group] = {**example_of(group, option), **content.get(group, {})}
        content["trainer"]["resume"] = "auto"
        content["data"] |= places_of_data(content["data"], config.data, dataset)
        content["data_root"] = config.data_root
        content["output_dir"] = config.output_dir or f"outputs/reproduced/{run.info.run_id}"
        options = {group: option_of(content[group], group, run.info.run_id) for group in ("model", "optimizer")}
        place = client.get_experiment(run.info.experiment_id).name
        name = config.tracking.run_name or f"{run.info.run_name} (again)"
        content["tracking"] = vars(TrackingConfig(config.tracking.uri, place, name, config.tracking.timeout))
        settings: Config = built(Config, content)
        check_training(settings, options)
    except ConfigKeyError as error:
        raise UserError(
            f"the code here does not know {error.full_key} of run {run.info.run_id}; its own code does: checkout=true"
        ) from error
    except (OmegaConfBaseException, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"config.yaml of run {run.info.run_id} cannot be read ({reason_of(error)}).") from error
    settings.overrides = typed(client, run)
    return settings


def places_of_data(there: dict[str, Any], here: DataConfig, dataset: str) -> dict[str, Any]:
    """Where the images of a run lie here; one's own and those of a catalogue where they did, unless that is said."""
    source = there.get("source") or dataset.removesuffix("_unofficial")  # older runs have the dataset's name alone
    if source in ("images", "npz", "tfds") and here.source != source:
        here = DataConfig(source, 0, dir=there.get("dir"), file=there.get("file"))
    places = {"dir": here.dir, "file": here.file, "mirrors": here.mirrors, "timeout": here.timeout}
    return {"source": source, "name": None if dataset in TAKEN else dataset, **places}


def typed(client: "MlflowClient", run: "Run") -> list[str]:
    """What was typed to start the run, without places and addresses, and with the dataset that `data=auto` came to."""
    overrides = read_yaml(client, run, "overrides.yaml")
    if not (isinstance(overrides, list) and all(isinstance(override, str) for override in overrides)):
        raise UserError(f"overrides.yaml of run {run.info.run_id} is no list of texts.")
    kept = [override for override in overrides if not override.lstrip("+~").startswith(lineage.ELSEWHERE)]
    if "data=auto" in kept:
        validation = read_yaml(client, run, "config.yaml")["data"]["validation"]  # of `synthetic`, auto keeps more
        place = kept.index("data=auto")
        kept[place : place + 1] = [f"data={run.data.tags.get('dataset')}", f"data.validation={validation}"]
    return kept


def option_of(section: dict[str, Any], group: str, run_id: str) -> str:
    """The option of conf/ that a section of the run's configuration stems from.

    A configuration says which function to call with what, and whoever may write to the store has written it. So only
    functions are called that conf/ names, and only with plain values.
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


def origins(client: "MlflowClient", run: "Run", settings: Config, card: Card) -> list[Origin]:
    """What the run was made of, beside what is here."""
    there, here = {"environment": "none"} | run.data.tags, lineage.tags(settings, card)  # which older runs lack
    rows = []
    for key, name in lineage.ORIGIN.items():
        shown = 12 if key == "git_commit" else None  # characters
        rows.append(Origin(name, there.get(key, "unknown")[:shown], here[key][:shown]))
    changes = changes_of(patch_of(client, run)), changes_of(lineage.checkout_here()[1])
    rows.insert(1, Origin("uncommitted changes", *changes))
    return rows


def patch_of(client: "MlflowClient", run: "Run") -> bytes | None:
    """The uncommitted changes that a run was made with; one that went on after a commit has kept older ones, too."""
    return b"" if run.data.tags.get("git_dirty") == "false" else artifact(client, run, lineage.PATCH)


def changes_of(patch: bytes | None) -> str:
    """A patch in a few words; None where there are changes, or may be, and no patch tells which."""
    if patch is None:
        return "unknown"
    return hashlib.sha256(patch).hexdigest()[:16] if patch else "none"


def with_own_code(client: "MlflowClient", run: "Run", settings: Config) -> str:
    """Trains with the run's commit and uncommitted changes, in a folder of git's that is removed afterwards."""
    commit, patch = run.data.tags.get("git_commit", "unknown"), patch_of(client, run)
    if commit == "unknown" or (run.data.tags.get("git_dirty") == "true" and patch is None):
        raise UserError(f"run {run.info.run_id} was made of what no commit holds, and has not kept it.")
    module = "fashion_mnist" if "test_accuracy" in run.data.metrics else "fashion_mnist.train"
    again = client.create_run(run.info.experiment_id, run_name=settings.tracking.run_name).info.run_id
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        try:
            lineage.git("worktree", "add", "--detach", "--", str(tree), commit)  # which could look like an option
            if patch:
                lineage.git("apply", "--whitespace=nowarn", "-", folder=tree, given=patch)
            environment = {
                **lineage.without_git_variables(),
                "PYTHONPATH": str(tree / "src"),
                "MLFLOW_TRACKING_URI": settings.tracking.uri,
                "MLFLOW_RUN_ID": again,
                "MLFLOW_EXPERIMENT_ID": run.info.experiment_id,
                "MLFLOW_EXPERIMENT_NAME": settings.tracking.experiment,
            }
            if settings.data.dir and settings.data.source == "fashion_mnist":
                environment["FASHION_MNIST_DIR"] = str(Path(settings.data.dir).expanduser().absolute())
            command = [sys.executable, "-m", module, *typed(client, run), *places(settings, tree)]
            if wait_for(subprocess.Popen(command, env=environment)):
                raise UserError(f"the training at commit {commit[:12]} has failed; its own message stands above.")
        except BaseException:
            client.set_terminated(again, "FAILED")
            raise
        finally:
            with contextlib.suppress(UserError):
                lineage.git("worktree", "remove", "--force", str(tree))
    return again


def places(settings: Config, tree: Path) -> list[str]:
    """Overrides that say where the data lies and results go, for the code in a folder."""
    own = {"images": "dir", "npz": "file"}.get(settings.data.source, "")
    there = {"data_root": settings.data_root, "output_dir": f"{settings.output_dir}"}
    if own and (place := getattr(settings.data, own)):
        there[f"data.{own}"] = str(Path(place).expanduser().absolute())
    overrides = [f"{key}={QuotedString(place, Quote.single).with_quotes()}" for key, place in there.items()]
    overrides.append("hydra.mode=RUN")
    keys = (tree / "conf/trainer/default.yaml").read_text(encoding="utf-8")
    if "precision:" in keys:  # what auto came to, which may be another on this machine
        overrides.append(f"trainer.precision={settings.trainer.precision}")
    if "resume:" in keys:
        overrides.append("trainer.resume=never")  # the run is a new one, and an interrupted one is not it
    return overrides


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """Waits for a process to end, and asks it to when this one is asked to; returns its exit code."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
