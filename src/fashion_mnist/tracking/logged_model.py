"""Models in MLflow: how they are logged, and loaded again."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fashion_mnist.data.dataset import CARD, Card, card_of
from fashion_mnist.errors import UserError

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

NAME = "model"  # in a run: runs:/<id>/model
SOURCE = ("mlflow.source.", "mlflow.user")  # the tags that say who logged it, and from where


def save_model(model: "keras.Model", folder: Path, digest: str, examples: np.ndarray, card: Card) -> None:
    """Writes a model as MLflow keeps it into a new folder, to be loaded with `mlflow.pyfunc` or `mlflow.tensorflow`.

    The model takes images, uint8, such as the examples, and gives float32 (n, classes); the digest is its own file's.
    """
    import keras
    from mlflow import tensorflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    keras.config.disable_interactive_logging()  # MLflow tries the model out, and would show a progress bar for it
    try:
        tensorflow.save_model(
            model,
            folder,
            mlflow_model=Model(metadata=metadata_of(digest, card)),
            signature=ModelSignature(
                Schema([TensorSpec(np.dtype(np.uint8), (-1, *card.image_shape))]),
                Schema([TensorSpec(np.dtype(np.float32), (-1, len(card.class_names)))]),
            ),
            input_example=examples,
            pip_requirements=requirements(),
        )
    finally:
        keras.config.enable_interactive_logging()


def metadata_of(digest: str, card: Card | None) -> dict[str, str]:
    """What MLflow keeps of a model beside its file: the digest, and the dataset's card where that file has it."""
    return {"model_digest": digest} | ({CARD: card.text} if card and not card.of_garments else {})


def card_with(file: Path) -> Card | None:
    """The card that MLflow has kept with a model whose Keras file was downloaded; None if it is of garments.

    Raises:
        UserError: what is kept there is no card.
    """
    from mlflow.models import Model

    for folder in file.parents:
        if (folder / "MLmodel").is_file():
            try:
                text = (Model.load(folder).metadata or {}).get(CARD)
                return card_of(text) if text else None
            except Exception as error:  # the file may come from anywhere, and damage comes up as anything
                raise UserError(f"MLmodel of {file.name} cannot be read ({type(error).__name__}).") from error
    return None


def log_model(client: "MlflowClient", run_id: str, folder: Path) -> None:
    """Logs what `save_model` wrote, piece by piece: a second attempt goes on where the first was interrupted.

    `mlflow.tensorflow.log_model` would leave half a model behind, and log another one beside it.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    run = client.get_run(run_id)
    model = logged_model(client, run_id)
    if model is None:
        source = {key: value for key, value in run.data.tags.items() if key.startswith(SOURCE)}
        model = client.create_logged_model(run.info.experiment_id, NAME, run_id, tags=source, params=run.data.params)
    if model.model_id not in [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    if model.status == LoggedModelStatus.READY:
        return
    about = Model.load(folder)
    about.run_id, about.model_id, about.model_uuid = run_id, model.model_id, model.model_id
    about.artifact_path = model.artifact_location
    about.save(folder / "MLmodel")
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def logged_model(client: "MlflowClient", run_id: str) -> "LoggedModel | None":
    """The model that a training has logged in its run; perhaps only in part."""
    place = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([place], f"source_run_id = '{run_id}' AND name = '{NAME}'")
    return found[0] if found else None


def keras_file(client: "MlflowClient", address: str, folder: Path) -> Path:
    """Downloads the Keras file of a model, or says that there is none; reads nothing else of it, and runs no code."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        copy = download_artifacts(artifact_uri=address, dst_path=str(folder), tracking_uri=client.tracking_uri)
        (file,) = Path(copy).rglob("*.keras")
    except (MlflowException, OSError, ValueError) as error:
        raise UserError(f"MLflow has no model {address}: {str(error).splitlines()[0]}") from error
    return file


def requirements(*more: str) -> list[str]:
    """What a model needs, in exact versions; MLflow would import TensorFlow once more to find out the same."""
    return [f"{package}=={version(package)}" for package in ("keras", "tensorflow", "numpy", *more)]
