"""Files from people whom nobody knows: models, predictions, datasets and artifacts that would do more than they say."""

import hashlib
import io
import json
import os
import pickle
import tempfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_one_sentence, run_step
from PIL import Image

from fashion_mnist.cli import compose
from fashion_mnist.config import TrackingConfig
from fashion_mnist.data.dataset import Card, load_part
from fashion_mnist.errors import UserError
from fashion_mnist.evaluation.predictions import read_predictions
from fashion_mnist.predict import Model, found, load

Survived = Callable[[str, int, int], None]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return os.mkdir, (str(self.file),)


@pytest.fixture
def evil(empty_folder: Path) -> Path:
    """What no file may bring into being."""
    return empty_folder / "evil"


@pytest.fixture
def logged(empty_folder: Path) -> Callable[[Path], str]:
    """Logs a file to a real store, as the model of a run; gives the run's id."""
    from mlflow import MlflowClient

    def log(file: Path) -> str:
        client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
        run = client.create_run("0")
        client.log_artifact(run.info.run_id, str(file), "model/data")
        client.set_terminated(run.info.run_id)
        return run.info.run_id

    return log


def saved(folder: Path, first: Any = None) -> Path:
    """A model in Keras's own format, with a layer of one's choice in it."""
    import keras

    layers = [keras.Input((28, 28)), *([first] if first else []), keras.layers.Flatten(), keras.layers.Dense(10)]
    file = folder / "model.keras"
    keras.Sequential(layers).save(file)
    return file


def rewritten(file: Path, change: Callable[[dict[str, Any]], object], more: dict[str, bytes] | None = None) -> Path:
    """Changes the description of a saved model, and adds members to its archive."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    members["config.json"] = json.dumps(change(config) or config).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {**members, **(more or {})}.items():
            archive.writestr(name, content)
    return file


def load_model(address: str, store: str) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        return load(found(address, TrackingConfig(store, "Default"), Path(folder))[0])


def refused(run_id: str, store: str = "") -> str:
    """What is said to a run's model; fails if it is loaded, or refused in more than one line."""
    with pytest.raises(UserError) as caught:
        load_model(f"runs:/{run_id}/model", store or os.environ["MLFLOW_TRACKING_URI"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def touching(evil: Path) -> Any:
    """A layer of Keras that runs any code; here, it makes a file."""
    import keras

    def touch(images: Any, file: str = str(evil)) -> Any:
        __import__("pathlib").Path(file).touch()
        return images

    touch.__name__ = "<lambda>"  # other functions Keras would only name
    return keras.layers.Lambda(touch)


@pytest.mark.slow
def test_a_lambda_of_another_person_is_not_run(
    empty_folder: Path, evil: Path, logged: Callable[[Path], str], full: bool, survived: Survived
) -> None:
    file = saved(empty_folder, touching(evil))
    evil.unlink()  # which building the model has made
    run_id = logged(file)
    model = compose([]).model_file
    model.parent.mkdir(parents=True)
    file.replace(model)
    Image.new("L", (28, 28)).save("shoe.png")

    ways = [f"run={run_id}", f"model=runs:/{run_id}/model", "model=mlp"] if full else [f"run={run_id}"]
    for way in ways:
        process = run_step("shoe.png", way, step="predict")
        assert_one_sentence(process, "is not a Keras model (it contains keras.layers.Lambda")
        assert not evil.exists()
    assert "Lambda" in refused(run_id)
    assert not evil.exists()
    survived("a model with a Lambda layer from another person's run", len(ways) + 1, len(ways) + 1)


def named(module: str | None, name: str, config: Any, registered: str | None = None) -> dict[str, Any]:
    """How Keras describes an object."""
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


def function(module: str, name: str) -> dict[str, Any]:
    """How Keras describes a function."""
    return named(module, "function", name, name)


def with_layer(layer: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Puts a layer into a description, after the input."""
    return lambda config: config["config"]["layers"].insert(1, layer)


DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "os.system as a Lambda": with_layer(named("keras.layers", "Lambda", {"function": function("os", "system")})),
    "a download as a Lambda": with_layer(
        named("keras.layers", "Lambda", {"function": function("keras.utils", "get_file"), "arguments": {"fname": "x"}})
    ),
    "a function of Keras as a Lambda": with_layer(
        named("keras.layers", "Lambda", {"function": function("keras.utils", "plot_model")})
    ),
    "a Lambda without its module, as before Keras 3": with_layer({"class_name": "Lambda", "config": {"function": "x"}}),
    "a class of another package": with_layer(named("subprocess", "Popen", {"args": "touch evil"})),
    "a module with a harmless beginning": with_layer(named("keras.layers.os", "system", {})),
    "eval as an activation": lambda config: config["config"]["layers"][-1]["config"].update(
        activation=function("builtins", "eval")
    ),
    "a lambda as a loss": lambda config: config.update(
        compile_config={"loss": named("builtins", "__lambda__", {"value": ["", None, None]})}
    ),
    "somebody's own class": with_layer(named("somebody", "Evil", {}, "somebody>Evil")),
    "a registered name in front of a layer of Keras": with_layer(named("keras.layers", "ReLU", {}, "somebody>Evil")),
    "a stored program": with_layer(named("keras.layers", "TFSMLayer", {"filepath": "/tmp/x", "call_endpoint": "f"})),
    "a vocabulary read from a file": with_layer(
        named("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd", "name": "x"})
    ),
    "an initializer from elsewhere": lambda config: config["config"]["layers"][-1]["config"].update(
        kernel_initializer=named("os", "system", {})
    ),
    "something that is no model": lambda config: config["config"]["layers"][1],
    "a list": lambda config: [config],
    "nesting without end": lambda config: config["config"]["layers"].append(nested(900)),
}


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    return [nested(depth - 1)] if depth else []


def test_descriptions_that_name_what_can_run_code_are_refused(
    empty_folder: Path, evil: Path, logged: Callable[[Path], str], survived: Survived
) -> None:
    import keras

    @keras.saving.register_keras_serializable(package="somebody")
    class Evil(keras.layers.Layer):
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> "Evil":
            evil.touch()
            return cls()

    count = 0
    try:
        for title, change in DESCRIPTIONS.items():
            file = rewritten(saved(empty_folder), change)
            assert "is not a Keras model" in refused(logged(file)), title
            count += not evil.exists()
    finally:
        keras.saving.get_custom_objects().pop("somebody>Evil")
    survived("a model whose description names functions, foreign classes or nonsense", count, len(DESCRIPTIONS))


def test_a_model_with_members_that_climb_out_is_refused(
    empty_folder: Path, evil: Path, logged: Callable[[Path], str], survived: Survived
) -> None:
    count = 0
    names = ["../../evil", str(evil), "assets/../../../evil", "..\\evil", "evil", "assets/vocabulary.txt"]
    for name in names:
        file = rewritten(saved(empty_folder), lambda config: None, {name: b"evil"})
        assert "besides a model" in refused(logged(file))
        count += not list(empty_folder.rglob("evil"))
    survived("a model's archive with other members, such as ../../evil", count, len(names))


def test_a_model_that_unpacks_without_end_is_refused(empty_folder: Path, logged: Callable[[Path], str]) -> None:
    file = saved(empty_folder)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, bytes(50_000_000))
    run_id = logged(file)
    tracemalloc.start()
    assert "unpacks to far more" in refused(run_id)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_an_untouched_model_is_still_read(empty_folder: Path, logged: Callable[[Path], str]) -> None:
    run_id = logged(rewritten(saved(empty_folder), lambda config: None))
    model = load_model(f"runs:/{run_id}/model", os.environ["MLFLOW_TRACKING_URI"])
    assert np.asarray(model(np.zeros((1, 28, 28)))).shape == (1, 10)


def npy_of(value: object) -> bytes:
    """An NPY file that NumPy can only read by unpickling."""
    stream = io.BytesIO()
    np.save(stream, np.array([value], dtype=object), allow_pickle=True)
    return stream.getvalue()


def a_pickle_as_model(folder: Path, payload: bytes, log: Callable[[Path], str]) -> None:
    (folder / "model.keras").write_bytes(payload)
    refused(log(folder / "model.keras"))
    raise UserError("refused above")


def a_pickle_as_dataset(folder: Path, payload: bytes, log: Callable[[Path], str]) -> None:
    (folder / "train_labels.npy").write_bytes(payload)
    files = {"train_labels.npy": {"sha256": hashlib.sha256(payload).hexdigest(), "shape": [1]}}
    load_part(folder, Card("fashion_mnist", "", "", (), files), "train_labels")


def a_pickle_as_predictions(folder: Path, payload: bytes, log: Callable[[Path], str]) -> None:
    (folder / "test.npz").write_bytes(payload)
    read_predictions(folder / "test.npz")


def pickles_in_predictions(folder: Path, payload: bytes, log: Callable[[Path], str]) -> None:
    with zipfile.ZipFile(folder / "test.npz", "w") as archive:
        for name in ("labels", "predicted", "probabilities"):
            archive.writestr(f"{name}.npy", payload)
    read_predictions(folder / "test.npz")


def pickles_in_a_model(folder: Path, payload: bytes, log: Callable[[Path], str]) -> None:
    file = saved(folder)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name in members:
            archive.writestr(name, payload)
    refused(log(file))
    raise UserError("refused above")


PICKLES = (
    a_pickle_as_model, a_pickle_as_dataset, a_pickle_as_predictions, pickles_in_predictions, pickles_in_a_model,
)  # fmt: skip


def test_nothing_is_ever_unpickled(
    empty_folder: Path, evil: Path, logged: Callable[[Path], str], survived: Survived
) -> None:
    count, forms = 0, {"a pickle": pickle.dumps(Payload(evil)), "an NPY file": npy_of(Payload(evil))}
    pickle.loads(forms["a pickle"])
    evil.rmdir()  # the payload does what it is meant to
    for place in PICKLES:
        for payload in forms.values():
            with pytest.raises(UserError) as caught:
                place(empty_folder, payload, logged)
            count += not evil.exists() and "\n" not in str(caught.value)
    survived("a pickle in the place of a model, a dataset or predictions", count, 2 * len(PICKLES))


ADDRESSES = (
    "runs:/../../x", "runs:/../model", "runs:/{run}/../../x", "runs:/{run}/model/../../../../x", "runs:/{run}/%2e%2e/x",
    "runs:/{run}//tmp", "models:/../x", "models:/../../x@champion", "models:/m-../../x", "mlflow-artifacts:/../../x",
)  # fmt: skip


def test_addresses_that_climb_out_of_the_artifacts_are_refused(
    empty_folder: Path, logged: Callable[[Path], str], survived: Survived
) -> None:
    count = 0
    (empty_folder / "x").mkdir()
    saved(empty_folder / "x")
    run_id = logged(saved(empty_folder))
    for address in ADDRESSES:
        with pytest.raises(UserError) as caught:
            load_model(address.format(run=run_id), os.environ["MLFLOW_TRACKING_URI"])
        count += "\n" not in str(caught.value)
    survived("an address such as runs:/../../x in the place of a model", count, len(ADDRESSES))


@pytest.mark.slow
def test_a_real_prediction_refuses_an_address_that_climbs_out(empty_folder: Path) -> None:
    Image.new("L", (28, 28)).save("shoe.png")
    assert_one_sentence(
        run_step("shoe.png", "model=runs:/../../x", step="predict"), "MLflow has no model runs:/../../x"
    )


class Liar(BaseHTTPRequestHandler):
    """A tracking server with one run, whose artifacts pretend to lie elsewhere than below it."""

    listing: dict[str, Any]

    def answer(self) -> None:
        """Answers what MLflow asks for on its way to a run's artifacts."""
        place = self.path.partition("?")[0]
        run = {"run_id": "a" * 32, "experiment_id": "0", "status": "FINISHED", "artifact_uri": "mlflow-artifacts:/0/a"}
        content: bytes = b"evil"
        if place.endswith("/runs/get"):
            content = json.dumps({"run": {"info": run, "data": {}, "inputs": {}, "outputs": {}}}).encode()
        elif place.endswith("/mlflow-artifacts/artifacts"):
            content = json.dumps({"files": [self.listing]}).encode()
        elif "/mlflow-artifacts/artifacts/" not in place:
            content = b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def lying(listing: dict[str, Any]) -> Iterator[str]:
    """Runs a tracking server that lists one artifact."""
    handler = type("Liar", (Liar,), {"listing": listing})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_artifacts_that_pretend_to_lie_elsewhere_are_refused(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, survived: Survived
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with lying({"path": "model.keras", "is_dir": False, "file_size": 4}) as url:  # an honest one gets through to Keras
        assert "is not a Keras model" in refused("a" * 32, url)
    (empty_folder / "tmp/deep/down").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(empty_folder / "tmp/deep/down"))
    before, count = sorted(empty_folder.rglob("*")), 0
    up = ["../" * 6 + "evil.keras", "../../evil.keras", "%2e%2e/%2e%2e/evil.keras", "..", "x/../../../evil.keras"]
    paths = [*up, str(empty_folder / "evil.keras"), f"file://{empty_folder}/evil.keras", "..\\..\\evil.keras"]
    for path in paths:
        for is_dir in (False, True):
            with lying({"path": path, "is_dir": is_dir, "file_size": 4}) as url, pytest.raises(UserError) as caught:
                load_model(f"runs:/{'a' * 32}/model", url)
            after = sorted(path for path in empty_folder.rglob("*") if not path.name.endswith(".lock"))
            count += "\n" not in str(caught.value) and after == before
    survived("an artifact of a tracking server that pretends to lie at ../../evil", count, 2 * len(paths))
