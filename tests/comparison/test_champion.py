"""From verdict to registry, on the real images: who becomes champion, who does not, and what the champion answers."""

import contextlib
import shutil
import subprocess
import threading
from contextlib import chdir
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from conftest import needs_real_data, run_here

from fashion_mnist.cli import compose
from fashion_mnist.comparison import champion
from fashion_mnist.comparison.groups import Comparison, Group, compare
from fashion_mnist.comparison.reading import comparable
from fashion_mnist.comparison.trainings import with_predictions
from fashion_mnist.data.dataset import CLASS_NAMES
from fashion_mnist.evaluation.predictions import write_predictions

LABELS = np.arange(500) % 10


@pytest.fixture
def client(empty_folder: Path) -> mlflow.MlflowClient:
    client = mlflow.MlflowClient()
    client.create_experiment("test")
    return client


def registered(client: mlflow.MlflowClient, name: str, winner: Group, *_: object) -> str:
    """Registers a version as ever, but for the model, which would have to be trained."""
    with contextlib.suppress(mlflow.MlflowException):  # it is there already
        client.create_registered_model(name)
    runs = " ".join(training.run_id for training in winner.trainings)
    tags = {"variant": winner.variant, "runs": runs, "dataset_digest": "d"}
    return str(client.create_model_version(name, "nowhere", tags=tags).version)


def trained(client: mlflow.MlflowClient, folder: Path, variant: str, accuracy: float, validation: str = "5000") -> None:
    """Adds a run for each of two seeds, with made-up predictions."""
    for seed in range(2):
        tags = {"variant": variant, "seed": f"{seed}", "dataset": "mine", "dataset_digest": "d"}
        run_id = client.create_run("1", run_name=f"{variant} {seed}", tags=tags).info.run_id
        client.log_param(run_id, "data.validation", validation)
        right = np.random.default_rng(seed).permutation(500) < accuracy * 500
        probabilities = np.eye(10, dtype=np.float32)[np.where(right, LABELS, (LABELS + 1) % 10)]
        write_predictions(folder / "test.npz", LABELS.astype(np.uint8), probabilities)
        client.log_artifact(run_id, str(folder / "test.npz"), "predictions")
        for name in ("test_accuracy", "val_accuracy"):
            client.log_metric(run_id, name, float(right.mean()))
        client.set_terminated(run_id)


def compared(client: mlflow.MlflowClient, runs: str = "") -> Comparison:
    trainings, left_out, tested = with_predictions(*comparable(client, client.search_runs(["1"], runs)))
    return compare(trainings, left_out, tested, None, {})


def promoted(comparison: Comparison) -> str:
    return champion.promote(compose([], "compare"), comparison, None, "")


def test_among_groups_with_other_validation_images_none_is_chosen(
    client: mlflow.MlflowClient, empty_folder: Path
) -> None:
    trained(client, empty_folder, "mlp", 0.9)
    trained(client, empty_folder, "cnn", 0.95, validation="10000")
    said = promoted(compared(client))
    assert said.startswith("Nothing was promoted: data.validation differs (10000, 5000), and ")
    assert not client.search_registered_models()
    _, way_out = said.split("runs=")
    pasted = subprocess.run(["bash", "-c", f"printf %s {way_out}"], capture_output=True, text=True).stdout
    assert [group.name for group in compared(client, pasted).groups] == ["cnn"]


def test_of_two_that_promote_at_the_same_time_the_second_meets_the_first(
    client: mlflow.MlflowClient, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(client, empty_folder, "mlp", 0.95)
    trained(client, empty_folder, "linear", 0.6)
    better, worse = (compared(client, f"tags.variant = '{variant}'") for variant in ("mlp", "linear"))
    said: list[str] = []
    second = threading.Thread(target=lambda: said.append(promoted(worse)))

    def while_another_comes(*arguments: Any) -> str:
        monkeypatch.setattr(champion, "register", registered)
        second.start()
        second.join(timeout=2)  # time enough to overtake
        return registered(*arguments)

    monkeypatch.setattr(champion, "register", while_another_comes)
    assert "Promoted: `mlp` is the first champion; it is version 1 of models:/mine@champion." in promoted(better)
    second.join()
    assert "Nothing was promoted: the champion is version 1 (mlp). `mlp (champion)` beats `linear`" in said[0]
    assert client.get_model_version_by_alias("mine", "champion").tags["variant"] == "mlp"


def test_a_champion_that_another_machine_has_chosen_meanwhile_stays(
    client: mlflow.MlflowClient, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_another(*arguments: Any) -> str:
        client.set_registered_model_alias("mine", "champion", registered(*arguments))
        return registered(*arguments)

    monkeypatch.setattr(champion, "register", after_another)
    trained(client, empty_folder, "mlp", 0.9)
    said = promoted(compared(client))
    assert said.startswith("Nothing was promoted: meanwhile the alias champion was moved from elsewhere; version 2 of ")
    assert client.get_model_version_by_alias("mine", "champion").version == 1


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


@needs_real_data
@pytest.mark.slow
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


@needs_real_data
@pytest.mark.slow
def test_the_champion_answers_raw_images_with_names(folder: Path, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    served = mlflow.pyfunc.load_model("models:/fashion-mnist@champion")
    images = np.load(folder / "data/fashion_mnist/test_images.npy")[:3]
    answers = served.predict(images)
    assert [set(answer["probabilities"]) for answer in answers] == [set(CLASS_NAMES)] * 3
    for answer in answers:
        assert answer["class"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    picture = folder / "plots.png"
    shutil.copy(next(folder.rglob("learning_curves.png")), picture)
    told = step(str(picture), "model=models:/fashion-mnist@champion", "--json", name="predict", folder=folder)
    assert '"class"' in told
