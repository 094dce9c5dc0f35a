"""Every variant trains, gives the same bytes again, and is what its file promises."""

from collections.abc import Callable
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from conftest import ROOT, all_runs

from fashion_mnist.config import Config
from fashion_mnist.evaluate import evaluate
from fashion_mnist.train import train
from fashion_mnist.training.build import build

Compose = Callable[..., Config]
VARIANTS = sorted(file.stem for file in (ROOT / "conf/model").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_and_gives_the_same_bytes_again(variant: str, tiny: Compose) -> None:
    def outcome(folder: str) -> list[bytes]:
        config = tiny(f"model={variant}", f"output_dir={folder}", "trainer.jit_compile=null")
        run_id = train(config)
        assert 0 < evaluate(config)["test_accuracy"] <= 1
        run = mlflow.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert "test_accuracy" in run.data.metrics
        return [file.read_bytes() for file in sorted(Path(folder).rglob("*")) if file.is_file()]

    assert outcome("first") == outcome("again")
    assert len(all_runs()) == 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_another_seed_gives_other_weights(variant: str, tiny: Compose) -> None:
    weights = [build(tiny(f"model={variant}", f"seed={seed}")).get_weights() for seed in (1, 2)]
    assert not all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_models_have_the_parameters_their_files_promise(variant: str, tiny: Compose) -> None:
    parameters = build(tiny(f"model={variant}")).count_params()
    assert f": {parameters:,} parameters" in (ROOT / f"conf/model/{variant}.yaml").read_text().splitlines()[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_models_take_raw_pixels_and_give_probabilities(variant: str, tiny: Compose) -> None:
    model = build(tiny(f"model={variant}"))
    images = np.full((3, 28, 28), 255, dtype=np.uint8)
    probabilities = np.asarray(model(images))
    assert probabilities.shape == (3, 10)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    rescaling = next(layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Rescaling))
    assert np.max(rescaling(images)) == pytest.approx(1.0)
