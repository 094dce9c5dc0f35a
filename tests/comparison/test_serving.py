"""What the registered model answers, as MLflow's own scoring server asks it."""

import json
from pathlib import Path

import numpy as np
import pytest
from mlflow import pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc.scoring_server import invocations
from mlflow.types.schema import Schema, TensorSpec

from fashion_mnist.cli import compose
from fashion_mnist.comparison import champion
from fashion_mnist.data.dataset import CLASS_NAMES
from fashion_mnist.training.build import build

PICTURE = np.arange(28 * 28).reshape(1, 28, 28) % 256


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> PyFuncModel:
    folder = tmp_path_factory.mktemp("service")
    build(compose(["data=synthetic", "model=linear"])).save(folder / "model.keras")
    (folder / "class_names.json").write_text(json.dumps(CLASS_NAMES))
    pyfunc.save_model(
        folder / "served",
        python_model=str(Path(champion.__file__).with_name("serving.py")),
        artifacts={"model": str(folder / "model.keras"), "class_names": str(folder / "class_names.json")},
        signature=ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, 28, 28))])),
        pip_requirements=[],
    )
    return pyfunc.load_model(str(folder / "served"))


def ask(service: PyFuncModel, images: np.ndarray) -> list[dict]:
    asked = json.dumps({"inputs": images.tolist()})
    answer = invocations(asked, "application/json", service, service.metadata.get_input_schema())
    assert answer.status == 200
    return json.loads(answer.response)["predictions"]


def test_raw_pixels_are_answered_with_names(service: PyFuncModel) -> None:
    (answer,) = ask(service, PICTURE)
    assert set(answer["probabilities"]) == set(CLASS_NAMES)


@pytest.mark.parametrize("divisor", [255, 256])
def test_pixels_that_were_divided_are_refused(divisor: int, service: PyFuncModel) -> None:
    with pytest.raises(MlflowException, match="send raw pixels, from 0 to 255") as refused:
        ask(service, PICTURE / divisor)
    assert refused.value.get_http_status_code() == 400
