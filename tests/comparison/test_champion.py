"""From verdict to registry, on the real images: who becomes champion, who does not, and what the champion answers."""

import shutil
from contextlib import chdir
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import needs_real_data, run_here

from fashion_mnist.data.dataset import CLASS_NAMES

pytestmark = [needs_real_data, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> Path:
    """Where two variants were trained over three seeds, for two epochs, on the real images."""
    folder = tmp_path_factory.mktemp("promotion")
    shutil.copy(migrated_store, folder / "mlflow.db")
    few = ["trainer.epochs=2", "trainer.batch_size=128"]
    step("-m", "model=linear,mlp", "seed=0,1,2", *few, name="main", folder=folder)
    return folder


def step(*arguments: str, name: str, folder: Path) -> str:
    with chdir(folder):
        process = run_here(*arguments, step=name, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")
    assert process.returncode == 0, process.stderr
    return " ".join(process.stdout.split())


def test_the_champion_is_who_was_shown_to_be_better(folder: Path) -> None:
    first = step("promote=true", "runs=tags.variant = 'linear'", name="compare", folder=folder)
    assert "Promoted: `linear` is the first champion; it is version 1 of models:/fashion-mnist@champion." in first
    again = step("promote=true", "runs=tags.variant = 'linear'", name="compare", folder=folder)
    assert "Nothing was promoted: the champion, version 1 (linear), is of `linear`, which wins again." in again
    better = step("promote=true", "runs=tags.variant = 'mlp'", name="compare", folder=folder)
    assert "Promoted: `mlp` beats `linear (champion)` by" in better
    worse = step("promote=true", "runs=tags.variant = 'linear'", name="compare", folder=folder)
    assert "Nothing was promoted: the champion is version 2 (mlp). `mlp (champion)` beats `linear`" in worse
    single = step("promote=true", "runs=params.seed = '0'", name="compare", folder=folder)
    assert "Nothing was promoted: that takes two seeds or more" in single

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias("fashion-mnist", "champion")
    trained = [client.get_run(run_id) for run_id in version.tags["runs"].split()]
    best = max(trained, key=lambda run: run.data.metrics["val_accuracy"])
    assert version.run_id == version.tags["run"] == best.info.run_id
    assert version.tags["model_digest"] == best.data.tags["model_digest"]
    assert version.tags["test_accuracy"].endswith("(n = 3)")
    assert client.get_run(version.tags["report"]).data.tags["report"] == "comparison"


def test_the_champion_answers_raw_images_with_names(folder: Path, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    champion = mlflow.pyfunc.load_model("models:/fashion-mnist@champion")
    images = np.load(folder / "data/fashion_mnist/test_images.npy")[:3]
    answers = champion.predict(images)
    assert [set(answer["probabilities"]) for answer in answers] == [set(CLASS_NAMES)] * 3
    for answer in answers:
        assert answer["class"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    picture = folder / "plots.png"
    shutil.copy(next(folder.rglob("learning_curves.png")), picture)
    told = step(str(picture), "model=models:/fashion-mnist@champion", "--json", name="predict", folder=folder)
    assert '"class"' in told
