"""The model as a file: the same weights always give the same bytes, and a file is either complete or not there."""

import contextlib
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from fashion_mnist.data.dataset import CARD, Card
from fashion_mnist.errors import UserError
from fashion_mnist.files import complete

NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can hold
MEMBERS = {"metadata.json", "config.json", "model.weights.h5", CARD}
MODULES = {  # where Keras finds what models consist of
    "keras",
    "keras.layers",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.src.models.functional",
    "keras.src.ops.numpy",
    "keras.src.ops.nn",
}
UNSAFE = {  # layers that run functions or files of any kind, or read files
    "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer",
    "TextVectorization", "StringLookup", "IntegerLookup", "function", "__lambda__",
}  # fmt: skip


def save(model: keras.Model, file: Path, card: Card | None = None) -> keras.Model:
    """Saves a model in Keras's own format, for prediction: without the optimizer and its state.

    The card of its dataset goes into the archive, which Keras does not mind, unless that is of garments.

    A `.keras` archive carries the time in its zip entries and in metadata.json, and addresses in memory in config.json;
    all are set to constants, so that the file's digest stands for the model.

    Returns:
        The model as it was saved.
    """
    with precision(model.dtype_policy.name):
        plain = type(model).from_config(model.get_config())  # `clone_model` would take the optimizer along
    for new, trained in zip(plain.variables, model.variables, strict=True):  # with the seeds of dropout
        new.assign(trained)
    with complete(file) as undated, tempfile.TemporaryDirectory(prefix="fashion-mnist-") as temporary:
        dated = Path(temporary) / file.name
        plain.save(dated)
        with zipfile.ZipFile(dated) as source, zipfile.ZipFile(undated, "w") as target:
            for entry in source.infolist():
                content = source.read(entry)
                if entry.filename == "metadata.json":
                    content = json.dumps({**json.loads(content), "date_saved": "1980-01-01@00:00:00"}).encode()
                if entry.filename == "config.json":
                    content = with_small_numbers(content)
                target.writestr(zipfile.ZipInfo(entry.filename, NO_DATE), content)
            if card and not card.of_garments:
                target.writestr(zipfile.ZipInfo(CARD, NO_DATE), card.text)
    return plain


def precision_in(config: Any) -> str:
    """The precision of the first sequential model that a description tells of; others do not note theirs."""
    if isinstance(config, dict) and config.get("class_name") == "Sequential":
        return config["config"].get("dtype", {}).get("config", {}).get("name", "float32")
    parts = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    return next((found for part in parts if (found := precision_in(part)) != "float32"), "float32")


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Lets a model be built in a precision, which Keras asks nobody but its global setting for a sequential model."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def with_small_numbers(config: bytes) -> bytes:
    """Numbers the objects that layers share from 0 on, such as the precision of several members; Keras takes `id()`."""
    numbers: dict[bytes, int] = {}

    def small(found: re.Match[bytes]) -> bytes:
        return b'"shared_object_id": %d' % numbers.setdefault(found[1], len(numbers))

    return re.sub(rb'"shared_object_id": (\d+)', small, config)


def load(file: Path) -> keras.Model:
    """Loads a model that `save` wrote. The file may come from anywhere: no code in it is run.

    Raises:
        UserError: it is not a Keras model, or holds more than a model.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if more := set(archive.namelist()) - MEMBERS:
                raise ValueError(f"it holds {min(more)!r} besides a model")
            if sum(entry.file_size for entry in archive.infolist()) > 20 * file.stat().st_size:
                raise ValueError("it unpacks to far more than any model")
            about = json.loads(archive.read("config.json"))
            refuse_code(about)
        with precision(precision_in(about)):
            model = keras.saving.load_model(file, compile=False, safe_mode=True)
        if not isinstance(model, keras.Model):
            raise ValueError(f"it holds a {type(model).__name__}")
    except Exception as error:  # damage comes up as anything, from struct.error to TensorFlow's own errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} is not a Keras model ({reason[:200].rstrip('.')}); train it again.") from error
    return model


def refuse_code(config: Any) -> None:
    """Looks through the description of a model before Keras builds what it describes.

    Keras's safe mode refuses lambdas; this refuses every function, and whatever is no part of an ordinary model.
    """
    if isinstance(config, dict):
        if "class_name" in config:
            module, name = config.get("module"), config["class_name"]
            if (module, name) != (None, "__keras_tensor__") and (
                module not in MODULES or name in UNSAFE or config.get("registered_name") not in (None, name)
            ):
                raise ValueError(f"it contains {module}.{name}, which no model of this project consists of")
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            refuse_code(part)
