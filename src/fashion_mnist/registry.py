"""Models in MLflow: how they are logged, and loaded again."""

import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fashion_mnist import lineage
from fashion_mnist.config import Config, TrackingConfig
from fashion_mnist.errors import UserError
from fashion_mnist.tracking import connect

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient

REQUIREMENTS = ("keras", "tensorflow", "numpy")


def log_training(run_id: str, config: Config, model: "keras.Model", examples: np.ndarray, samples: Path) -> None:
    """Logs what a training made: the model, to be loaded with `mlflow.pyfunc` or `mlflow.tensorflow`, and pictures.

    Args:
        run_id: the active run.
        config: says where the model and the pictures were saved.
        model: takes uint8 (n, 28, 28), gives float32 (n, 10).
        examples: a few images, uint8 (n, 28, 28).
        samples: the picture of the dataset.
    """
    import keras
    from mlflow import MlflowClient, tensorflow
    from mlflow.entities import Metric
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    digest = lineage.file_digest(config.model_file)
    keras.config.disable_interactive_logging()  # MLflow tries the model out, and would show a progress bar for it
    try:
        tensorflow.log_model(
            model,
            name="model",
            signature=ModelSignature(
                Schema([TensorSpec(np.dtype(np.uint8), (-1, 28, 28))]),
                Schema([TensorSpec(np.dtype(np.float32), (-1, 10))]),
            ),
            input_example=examples,
            pip_requirements=requirements(),
            metadata={"model_digest": digest},
        )
    finally:
        keras.config.enable_interactive_logging()
    client = MlflowClient()
    client.set_tag(run_id, "model_digest", digest)
    if config.trainer.patience is not None:
        # Early stopping has restored an earlier epoch: its metrics are the run's, as with MLflow's autologging.
        # There is a gap between the last epoch and this step.
        kept = json.loads((config.folder("metrics") / "train.json").read_text())
        del kept["parameters"]
        now, step = int(time.time() * 1000), config.trainer.epochs + 1
        client.log_batch(run_id, [Metric(name, value, now, step) for name, value in kept.items()])
    client.log_artifact(run_id, str(samples), "plots")
    client.log_artifact(run_id, str(config.folder("plots") / "learning_curves.png"), "plots")


def load_model(address: str, uri: str) -> "keras.Model":
    """Loads a Keras model from MLflow.

    Args:
        address: such as `runs:/<id>/model` or `models:/<name>@<alias>`.
        uri: of the tracking store.

    Raises:
        UserError: there is no such model.
    """
    client = connect(TrackingConfig(uri=uri, experiment="", run_name=None, timeout=1.0))
    from fashion_mnist import saving

    with tempfile.TemporaryDirectory() as folder:
        return saving.load(keras_file(client, address, Path(folder)))


def keras_file(client: "MlflowClient", address: str, folder: Path) -> Path:
    """Downloads the Keras file of a logged or registered model; nothing else of it is read, and no code of it run.

    Raises:
        UserError: there is no such model.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        uri = client.tracking_uri
        (file,) = Path(download_artifacts(artifact_uri=address, dst_path=str(folder), tracking_uri=uri)).rglob(
            "*.keras"
        )
    except (MlflowException, OSError, ValueError) as error:
        raise UserError(f"MLflow has no model {address}: {str(error).splitlines()[0]}") from error
    return file


def requirements(*more: str) -> list[str]:
    """What a model needs, in exact versions; MLflow would import TensorFlow once more to find out the same."""
    return [f"{package}=={version(package)}" for package in (*REQUIREMENTS, *more)]
