"""docs/transfer.py fine-tunes in two parts, and its network becomes a variant as its page says."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT, assert_one_sentence

SCRIPT, PAGE = ROOT / "docs/transfer.py", ROOT / "docs/transfer.md"
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command, variables = [sys.executable, *arguments], {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=240)


def test_the_last_layer_learns_first_and_later_all_but_batch_normalisation() -> None:
    script = runpy.run_path(str(SCRIPT))
    model = script["transfer"]("transfer", "random", side=32, dropout=0.2)
    assert [tuple(variable.shape)[-1:] for variable in model.trainable_variables] == [(10,), (10,)]
    script["thaw"](model)
    layers = [layer for layer in model._flatten_layers() if layer.weights and not isinstance(layer, keras.Model)]
    frozen = [layer for layer in layers if not layer.trainable_weights]
    assert len(frozen) > 10
    assert frozen == [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.mark.slow
def test_it_learns_and_tells_the_validation_accuracy_alone(tmp_path: Path) -> None:
    process = run(tmp_path, str(SCRIPT), "--data=synthetic", "--weights=random", "--images=64", "--epochs=4")
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("val_accuracy") == 4
    last = process.stdout.splitlines()[-1]
    assert re.fullmatch(r"synthetic garments \(not Fashion-MNIST\): validation accuracy [01]\.\d{4} on 64 images", last)
    assert "test" not in process.stdout


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    pretrained = runpy.run_path(str(SCRIPT))["pretrained"]
    source = pretrained("random").get_layer("MobileNetV3Small")
    source.save_weights(tmp_path / "own.weights.h5")
    weights = pretrained(f"{tmp_path}/own.weights.h5").get_layer("MobileNetV3Small").get_weights()
    assert all(np.array_equal(*pair) for pair in zip(weights, source.get_weights(), strict=True))


@pytest.mark.slow
def test_weights_that_cannot_be_downloaded_are_asked_for(tmp_path: Path) -> None:
    process = run(tmp_path, str(SCRIPT), KERAS_HOME=f"{tmp_path}/keras", **NO_NETWORK)
    assert_one_sentence(process, "the weights cannot be had", "--weights FILE", "--weights random")


@pytest.mark.slow
def test_its_network_becomes_a_variant_as_the_page_says(empty_folder: Path) -> None:
    shutil.copytree(ROOT / "src", empty_folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", empty_folder / "conf")
    source = SCRIPT.read_text()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    (function,) = (node for node in functions if node.name == "transfer")
    with (empty_folder / "src/fashion_mnist/models.py").open("a") as models:
        models.write(f"\n\n{ast.get_source_segment(source, function)}\n")
    (variant,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    (empty_folder / "conf/model/transfer.yaml").write_text(variant)

    few = ["data=synthetic", "data.train_images=164", "data.test_images=50", "data.validation=100", "trainer.epochs=1"]
    process = run(empty_folder, "src/step.py", "model=transfer", "model.weights=random", "model.side=32", *few)
    assert process.returncode == 0, process.stderr
    assert (empty_folder / "outputs/metrics/transfer/test.json").is_file()
