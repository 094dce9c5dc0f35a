"""From verdict to registry: the alias `champion` moves to a winner that is shown to be better than the present one."""

import contextlib
import json
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fashion_mnist.comparison.groups import Comparison, Group, judge
from fashion_mnist.comparison.reading import comparable
from fashion_mnist.comparison.trainings import with_predictions
from fashion_mnist.config import CompareConfig
from fashion_mnist.data.dataset import title_of
from fashion_mnist.errors import UserError
from fashion_mnist.files import lock_of
from fashion_mnist.startup import import_tensorflow
from fashion_mnist.tracking import lineage
from fashion_mnist.tracking.logged_model import card_with, keras_file, metadata_of, requirements
from fashion_mnist.tracking.store import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
DRAWN = ("synthetic", "tfds_unofficial")  # datasets that get no champion
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # of a model, and of an alias


def promote(config: CompareConfig, compared: Comparison, images: np.ndarray | None, report_run: str) -> str:
    """Makes the winner `models:/<dataset>@champion`, if it is shown to be better than the present champion.

    The winner is the group with the best mean accuracy on the validation images: the test images are there to judge it,
    not to choose it. Returns what was done, or why nothing was.
    """
    client = connect(config.tracking)
    eligible = [group for group in compared.groups if len(group.values("val_accuracy")) == group.n > 1]
    if compared.tested.dataset in DRAWN:
        return f"Nothing was promoted: these are models of {compared.tested.title}, which is there to try things with."
    if not eligible:
        return "Nothing was promoted: that takes two seeds or more, and validation images to choose a winner by."
    validated = Counter(group.trainings[0].params.get("data.validation", "unset") for group in eligible)
    if len(validated) > 1:
        most = max(validated, key=lambda each: validated[each])
        return (
            f"Nothing was promoted: data.validation differs ({', '.join(validated)}), and accuracies on other images "
            f"choose no winner; compare what has the same, say: runs=\"params.data.validation = '{most}'\""
        )
    name = compared.tested.dataset.replace("_", "-")
    winner = max(eligible, key=lambda group: group.mean("val_accuracy") or 0)
    with lock_of("champion", config.tracking.uri, name):
        champion = present_champion(client, name)
        beaten, verdict = challenge(client, champion, winner, compared.tested.digest)
        if not beaten:
            return f"Nothing was promoted: {verdict}"
        number = register(client, name, winner, images, report_run, verdict)
        now = present_champion(client, name)
        if (now and now.version) != (champion and champion.version):  # the lock holds on this machine alone
            return (
                f"Nothing was promoted: meanwhile the alias {CHAMPION} was moved from elsewhere; version {number} of "
                f"models:/{name} stays without it. Compare again, with the new champion."
            )
        client.set_registered_model_alias(name, CHAMPION, number)
    return f"Promoted: {verdict}; it is version {number} of models:/{name}@{CHAMPION}."


def present_champion(client: "MlflowClient", name: str) -> "ModelVersion | None":
    """The version of the model that has the alias; None where none has."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:  # a server in trouble, say: that is no reason to depose anybody
            raise
        return None


def challenge(
    client: "MlflowClient", champion: "ModelVersion | None", winner: Group, dataset_digest: str
) -> tuple[bool, str]:
    """Whether the winner takes the champion's place, and the verdict, or the reason why not."""
    if champion is None:
        return True, f"`{winner.name}` is the first champion"
    present = f"version {champion.version} ({champion.tags.get('variant', 'of other origin')})"
    if set(champion.tags.get("runs", "").split()) & {training.run_id for training in winner.trainings}:
        return False, f"the champion, {present}, is of `{winner.name}`, which wins again."
    if champion.tags.get("dataset_digest") != dataset_digest:
        return False, f"the champion, {present}, was tested on other data, or does not say on which."
    runs = [client.get_run(run_id) for run_id in champion.tags["runs"].split()]
    trainings, _, _ = with_predictions(*comparable(client, runs))
    defender = Group(f"{trainings[0].variant} (champion)", {}, [], trainings)
    (judged,) = judge([(winner, defender)]).values()
    if not (judged.difference.interval and judged.shown and judged.difference.value > 0):
        return False, f"the champion is {present}. {judged.sentence}"
    return True, judged.sentence.rstrip(".")


def register(
    client: "MlflowClient", name: str, winner: Group, images: np.ndarray | None, report_run: str, verdict: str
) -> str:
    """Registers the group's best run by validation accuracy, and returns the number of the version."""
    from mlflow import pyfunc
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, DataType, Map, Schema, TensorSpec

    import_tensorflow()
    from fashion_mnist.training import saving

    best = max(winner.trainings, key=lambda training: training.metrics["val_accuracy"])
    answer = ColSpec(DataType.string, "class")
    shares = ColSpec(Map(DataType.double), "probabilities")
    if best.tags["keras"] != version("keras"):  # whose version is in the file that the digest is of
        raise UserError(f"promote with Keras {best.tags['keras']}, with which run {best.run_id} was trained.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = keras_file(client, f"runs:/{best.run_id}/model", folder / "logged")
        model, card = saving.load(file), card_with(file)
        question = TensorSpec(np.dtype(np.uint8), (-1, *model.input_shape[1:]))
        saving.save(model, folder / "model.keras", card)  # without the date that MLflow's copy carries
        if lineage.file_digest(folder / "model.keras") != best.tags["model_digest"]:
            raise UserError(f"run {best.run_id} logged another model than it trained; nothing is promoted.")
        (folder / "class_names.json").write_text(json.dumps(best.class_names), encoding="utf-8")
        logged = Model.log(
            artifact_path=None,
            flavor=pyfunc,
            name="classifier",
            run_id=best.run_id,
            python_model=str(Path(__file__).with_name("serving.py")),  # not imported here, since it imports Keras
            artifacts={"model": str(folder / "model.keras"), "class_names": str(folder / "class_names.json")},
            signature=ModelSignature(Schema([question]), Schema([answer, shares])),
            input_example=None if images is None else images[:1],
            pip_requirements=requirements("mlflow"),
            metadata=metadata_of(best.tags["model_digest"], card),
        )
    with contextlib.suppress(MlflowException):  # it is there already
        size = " x ".join(str(length) for length in model.input_shape[1:3])
        about = f"{title_of(best.tags['dataset'])}: raw {size} images in, class names out."
        client.create_registered_model(name, description=about)
    accuracy = f"{winner.accuracy_in_words} (n = {winner.n})"
    description = f"{verdict}. Test accuracy {accuracy}; this is the seed with the best validation accuracy."
    tags = {
        "run": best.run_id,
        "runs": " ".join(training.run_id for training in winner.trainings),
        "variant": best.variant,
        "model_digest": best.tags["model_digest"],
        "dataset_digest": best.tags["dataset_digest"],
        "test_accuracy": accuracy,
        "report": report_run,
    }
    made = client.create_model_version(
        name, logged.model_uri, best.run_id, tags, description=description, model_id=logged.model_id
    )
    return str(made.version)
