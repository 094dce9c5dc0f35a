"""Trainings, read back for a comparison: from the tracking store, or from what `dvc repro` has built.

Which of them can be compared, and why not the others.
"""

import ast
import csv
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from fashion_mnist.checks import OLDER, example_of
from fashion_mnist.comparison.trainings import Curve, LeftOut, Tested, Training, with_predictions
from fashion_mnist.config import BUILT, CONF, TRIED, CompareConfig
from fashion_mnist.data.dataset import CLASS_NAMES
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import UserError, say
from fashion_mnist.evaluation.predictions import Predictions, read_predictions
from fashion_mnist.tracking import lineage, store
from fashion_mnist.tracking.sweep import jobs_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SILENT = ("model.name", "trainer.tensorboard", "trainer.resume")  # parameters that make no group of their own


def read(config: CompareConfig) -> tuple[list[Training], list[LeftOut], Tested]:
    """Reads the trainings that can be compared, newest first, and names the others; a UserError if there is none."""
    if config.variants:
        named = of_pipeline() if config.variants == "all" else config.variants
        trainings = of_folders(named)
        card = prepare(config.data, config.data_root).card  # nothing in the folders tells what they are about
        for training in trainings:
            training.tags, training.class_names = {"dataset": card.name}, card.class_names
        return with_predictions(trainings, [])
    client = store.connect(config.tracking)
    return with_predictions(*comparable(client, search(client, config)))


def search(client: "MlflowClient", config: CompareConfig) -> list["Run"]:
    """The runs of the experiment that are asked for, newest first."""
    from mlflow.exceptions import MlflowException

    name, given = config.tracking.experiment, store.given_experiment(config.tracking)
    place = client.get_experiment(given) if given else client.get_experiment_by_name(name)
    if place is None:
        known = ", ".join(sorted(each.name for each in client.search_experiments()))
        raise UserError(f"there is no experiment '{name}'; choose one: tracking.experiment=... ({known})")
    try:
        found = store.search(client, place.experiment_id, config.runs or "")
    except MlflowException as error:
        raise UserError(f"MLflow cannot search for runs={config.runs!r}: {str(error).splitlines()[0]}") from error
    if config.parent is None:
        return found
    try:
        jobs = {job.info.run_id for job in jobs_of(client, client.get_run(config.parent))}
    except MlflowException as error:
        raise UserError(f"there is no sweep parent={config.parent}: {str(error).splitlines()[0]}") from error
    return [run for run in found if run.info.run_id in jobs]


def comparable(client: "MlflowClient", runs: Sequence["Run"]) -> tuple[list[Training], list[LeftOut]]:
    """The finished and evaluated trainings among a store's runs, on one dataset; and the others, with the reason."""
    found: list[Training] = []
    left_out: list[LeftOut] = []
    # Sweeps and comparisons have no variant, and of a search's trials only the winner is ever tested.
    trained = [run for run in runs if "variant" in run.data.tags and not ("trial" in run.data.tags and unfit(run))]
    trainings = [(run, unfit(run) or flattered(run)) for run in trained]
    datasets = Counter(run.data.tags["dataset_digest"] for run, reason in trainings if not reason)
    for run, reason in trainings:
        info, tags = run.info, run.data.tags
        if not reason and tags["dataset_digest"] != datasets.most_common(1)[0][0]:
            reason = f"it is about other data: {tags['dataset']} ({tags['dataset_digest']})"
        if reason:
            left_out.append(LeftOut(info.run_id, str(info.run_name), reason))
            continue
        found.append(
            Training(
                name=f"{info.run_name}",
                variant=tags["variant"],
                tags=tags,
                metrics=dict(run.data.metrics),
                predictions=partial(predictions_of, f"{info.artifact_uri}"),
                curves=partial(curves_of, client, info.run_id, tuple(run.data.metrics)),
                class_names=class_names_of(run),
                seed=tags.get("seed", ""),
                params=decisive(run.data.params | decided(run)),
                run_id=info.run_id,
                experiment=f"{info.experiment_id}",
            )
        )
    return found, left_out


def class_names_of(run: "Run") -> Sequence[str]:
    """The names of the classes, as the dataset that the run has recorded says."""
    for data in run.inputs.dataset_inputs if run.inputs else ():
        with suppress(ValueError, TypeError):
            if names := json.loads(data.dataset.profile or "{}").get("class_names"):
                return names
    return CLASS_NAMES


def unfit(run: "Run") -> str:
    """Why a run cannot be compared, whatever the others are; nothing if it can."""
    if run.info.status != "FINISHED":
        return f"it is not finished, but {run.info.status}"
    if not decisive(run.data.params):
        return "its training is not recorded in it"
    if "test_accuracy" not in run.data.metrics:
        return "it was not evaluated: python -m fashion_mnist.evaluate, with its settings"
    return ""


def flattered(run: "Run") -> str:
    """Why a run that could be compared would have an advantage; nothing if it has none."""
    if "trial" in run.data.tags:
        return "it won a search, so its seed was a lucky one: hydra.sweeper.confirm=5 trains it with others"
    return ""


def decided(run: "Run") -> dict[str, str]:
    """What `trainer.precision=auto` came to: `mlflow run -P` records it as it is typed, and a parameter stays."""
    if run.data.params.get("trainer.precision") != "auto":
        return {}
    from mlflow.artifacts import load_text
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException, OSError):
        config = OmegaConf.create(load_text(f"{run.info.artifact_uri}/config.yaml"))
        return {"trainer.precision": config.trainer.precision}
    return {}


def decisive(params: dict[str, str]) -> dict[str, str]:
    """The parameters that decide the result, each in one way of writing it.

    Options, such as `model=cnn` and `trainer=one_cycle`, are parameters of those runs alone that `mlflow run -P` was
    told them for; their keys are in all. What a run is older than has its default.
    """
    wanted = ("data.validation", "optimizer", *(f"{section}." for section in lineage.SECTIONS))
    recorded = {key: value for key, value in params.items() if key.startswith(wanted)}
    complete = defaults() | recorded if recorded else {}
    return {key: as_python(value) for key, value in sorted(complete.items()) if key not in SILENT}


@cache
def defaults() -> dict[str, str]:
    """The values of keys that older runs may lack, as MLflow records them."""
    sections = {group: example_of(group, option) for group, option in OLDER.items()}
    return {f"{group}.{key}": f"{value}" for group, content in sections.items() for key, value in content.items()}


def as_python(text: str) -> str:
    """A value in one way of writing it; `mlflow run -P` records what was typed: `'[16,8]'`, `1e-3`, `true`."""
    text = text.strip("'")
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "null": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{float(value):.12g}" if is_number else str(value)


def curves_of(client: "MlflowClient", run_id: str, keys: Sequence[str]) -> dict[str, Curve]:
    """The validation's metrics of every epoch, without the value of the epoch kept, which may follow after a gap."""
    curves = {}
    for key in ("val_accuracy", "val_loss"):
        if key in keys:
            history = client.get_metric_history(run_id, key)
            curves[key] = [point.value for epoch, point in enumerate(history) if point.step == epoch]
    return curves


def predictions_of(artifacts: str) -> Predictions:
    """What a run's model says of the test images; a UserError if it is not kept."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.utils.uri import is_local_uri

    try:
        with tempfile.TemporaryDirectory() as folder:
            copy_to = None if is_local_uri(artifacts) else folder
            file = download_artifacts(artifact_uri=f"{artifacts}/predictions/test.npz", dst_path=copy_to)
            return read_predictions(Path(file))
    except (UserError, MlflowException, OSError) as error:
        raise UserError("its predictions are missing or damaged; evaluate its model, or train it, again") from error


def of_pipeline() -> list[str]:
    """The variants that `dvc repro` builds."""
    return list(OmegaConf.load(CONF / "pipeline.yaml").variants)


def of_folders(variants: Sequence[str]) -> list[Training]:
    """What `dvc repro` built of each variant, or else what people tried last, if that is complete."""
    trainings = []
    for variant in variants:
        files, tried = results(Path(BUILT), variant), results(Path(TRIED), variant)
        if not all(file.is_file() for file in files) and all(file.is_file() for file in tried):
            files = tried
            say(f"{variant}: `dvc repro` has not built it; what lies in {TRIED}/ is compared.")
        metrics: dict[str, Any] = {}
        for file in files:
            if not file.is_file():
                raise UserError(f"{file} is missing; {way_to(variant)} makes it.")
            try:
                metrics |= json.loads(file.read_text(encoding="utf-8")) if file.suffix == ".json" else {}
            except ValueError as error:  # a merge's conflict marks, say
                raise UserError(f"{file} is damaged; {way_to(variant)} makes it again.") from error
        *_, curves, predictions = files
        metrics |= {f"system/{key}": metrics.pop(key) for key in ("parameters", "flops_per_image") if key in metrics}
        trainings.append(
            Training(
                name=variant,
                variant=variant,
                tags={},
                metrics=metrics,
                predictions=partial(read_predictions, predictions),
                curves=partial(read_curves, curves),
            )
        )
    return trainings


def way_to(variant: str) -> str:
    """What makes the results of a variant; of a preset, or of `model.name=mine`, nobody but who names it knows how."""
    return f"`dvc repro evaluate@{variant}`" if variant in of_pipeline() else "the main job (python -m fashion_mnist)"


def results(folder: Path, variant: str) -> list[Path]:
    """The files that a comparison reads of a variant: metrics of training and test, curves, predictions."""
    names = ("metrics/{}/train.json", "metrics/{}/test.json", "plots/{}/history.csv", "predictions/{}/test.npz")
    return [folder / name.format(variant) for name in names]


def read_curves(file: Path) -> dict[str, Curve]:
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    return {key: [float(row[key]) for row in rows] for key in rows[0] if key != "epoch"}
