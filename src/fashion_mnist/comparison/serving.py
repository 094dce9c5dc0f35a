"""The registered model, as MLflow serves it: raw images in, class names and probabilities out.

MLflow keeps this file with the model ("models from code"), so nothing is unpickled, and serving needs no other file of
this project.
"""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class Classifier(PythonModel):
    """Answers with words where the Keras model itself gives bare numbers."""

    _skip_type_hint_validation = True  # the signature says what goes in, and MLflow need not ask for type hints

    def load_context(self, context: Any) -> None:
        """Loads the Keras model, in safe mode, and the names of the classes."""
        self.model: Any = keras.saving.load_model(context.artifacts["model"])
        self.class_names = json.loads(Path(context.artifacts["class_names"]).read_text(encoding="utf-8"))

    def predict(self, context, model_input, params=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """The class of each image, uint8 (n, height, width[, 3]), and the probability of every class."""
        images = np.asarray(model_input)
        if np.max(images, initial=0) <= 1:  # divided by 255, and made whole numbers by MLflow
            raise MlflowException.invalid_parameter_value("No pixel is above 1: send raw pixels, from 0 to 255.")
        probabilities = np.asarray(self.model(images, training=False))
        return [
            {
                "class": self.class_names[int(row.argmax())],
                "probabilities": {name: float(share) for name, share in zip(self.class_names, row, strict=True)},
            }
            for row in probabilities
        ]


set_model(Classifier())
