"""The model as a file: the same weights always give the same bytes, and a file is either complete or not there."""

import json
import os
import zipfile
from pathlib import Path

import keras

from fashion_mnist.errors import UserError

NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can hold


def save(model: keras.Model, file: Path) -> keras.Model:
    """Saves a model in Keras's own format, for prediction: without the optimizer and its state.

    A `.keras` archive carries the time in its zip entries and in metadata.json; both are set to a constant, so that
    the file's digest stands for the model.

    Returns:
        The model as it was saved.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    dated = file.with_name(f".{os.getpid()}.dated.keras")
    undated = file.with_name(f".{os.getpid()}.keras")
    try:
        plain = type(model).from_config(model.get_config())  # `clone_model` would take the optimizer along
        for new, trained in zip(plain.variables, model.variables, strict=True):  # with the seeds of dropout
            new.assign(trained)
        plain.save(dated)
        with zipfile.ZipFile(dated) as source, zipfile.ZipFile(undated, "w") as target:
            for entry in source.infolist():
                content = source.read(entry)
                if entry.filename == "metadata.json":
                    content = json.dumps({**json.loads(content), "date_saved": "1980-01-01@00:00:00"}).encode()
                target.writestr(zipfile.ZipInfo(entry.filename, NO_DATE), content)
        undated.replace(file)
        return plain
    finally:
        dated.unlink(missing_ok=True)
        undated.unlink(missing_ok=True)


def load(file: Path) -> keras.Model:
    """Loads a model that `save` wrote.

    Raises:
        UserError: it is not a Keras model.
    """
    try:
        model = keras.saving.load_model(file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{file} is not a Keras model ({reason}); train it again.") from error
    assert isinstance(model, keras.Model)
    return model
