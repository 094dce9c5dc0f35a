"""What conf/trainer and conf/experiment promise, on a few hundred drawn garments."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from conftest import ROOT, assert_one_sentence, run_step

from fashion_mnist.cli import compose
from fashion_mnist.comparison.reading import curves_of
from fashion_mnist.config import Config
from fashion_mnist.data.dataset import read_dataset
from fashion_mnist.models import members_of
from fashion_mnist.train import train
from fashion_mnist.training import saving
from fashion_mnist.training.build import build, loss_of, optimizer_of
from fashion_mnist.training.fit import History, fit
from fashion_mnist.training.history import epoch_kept
from fashion_mnist.training.precision import faster_precision

Compose = Callable[..., Config]
EXPERIMENTS = sorted(file.stem for file in (ROOT / "conf/experiment").glob("*.yaml"))


def trained(config: Config) -> tuple[keras.Model, History]:
    folder = Path(config.data_root) / config.data.source
    training, validation = read_dataset(folder, config.data.validation).parts
    model = build(config)
    return model, fit(model, training, validation, config)


@pytest.mark.parametrize(
    "experiment", [name if name == "quick" else pytest.param(name, marks=pytest.mark.slow) for name in EXPERIMENTS]
)
def test_every_preset_trains(experiment: str, tiny: Compose) -> None:
    config = tiny(f"experiment={experiment}", "trainer.epochs=1")
    run = mlflow.get_run(train(config))
    assert run.info.status == "FINISHED"
    assert 0 < run.data.metrics["accuracy"] <= 1
    assert config.model_file.is_file()


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ("adam", "constant"),
        ("adamw", "cosine"),
        ("sgd", "one_cycle"),
        pytest.param("adam", "cosine", marks=pytest.mark.slow),
        pytest.param("adam", "one_cycle", marks=pytest.mark.slow),
        pytest.param("adamw", "constant", marks=pytest.mark.slow),
        pytest.param("adamw", "one_cycle", marks=pytest.mark.slow),
        pytest.param("sgd", "constant", marks=pytest.mark.slow),
        pytest.param("sgd", "cosine", marks=pytest.mark.slow),
    ],
)
def test_every_optimizer_learns_with_every_schedule(optimizer: str, schedule: str, tiny: Compose) -> None:
    _, history = trained(tiny(f"optimizer={optimizer}", f"trainer.schedule={schedule}", "trainer.epochs=3"))
    assert history["loss"][-1] < history["loss"][0]


def test_schedules_go_where_their_names_say() -> None:
    def rate(schedule: str, step: int) -> float:
        config = compose([f"trainer.schedule={schedule}", "trainer.epochs=2", "optimizer.learning_rate=0.1"])
        optimizer = optimizer_of(config, 500)
        optimizer.build([keras.Variable(0.0)])
        optimizer._iterations.assign(step)
        return float(np.asarray(optimizer.learning_rate))

    assert [rate("constant", step) for step in (0, 999)] == pytest.approx([0.1, 0.1])
    assert [rate("cosine", step) for step in (0, 500, 1000)] == pytest.approx([0.1, 0.05, 0.0])
    assert [rate("one_cycle", step) for step in (0, 300, 650, 1000)] == pytest.approx([0.004, 0.1, 0.05, 0.0], abs=1e-6)


def test_smoothed_labels_are_those_that_keras_smooths() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(10), 50).astype(np.float32)
    labels = random.integers(0, 10, 50).astype(np.uint8)
    ours = loss_of(compose(["trainer.label_smoothing=0.1"]))
    assert callable(ours)
    smoothed = np.full((50, 10), 0.01) + 0.9 * np.eye(10)[labels]
    expected = -(smoothed * np.log(probabilities / probabilities.sum(1, keepdims=True))).sum(1)
    assert np.asarray(ours(labels, probabilities)) == pytest.approx(expected, rel=1e-4)  # pyright: ignore[reportArgumentType]


def test_patience_keeps_the_best_epoch(tiny: Compose) -> None:
    config = tiny("trainer.patience=2", "trainer.epochs=30", "optimizer=sgd", "optimizer.learning_rate=0.5")
    model, history = trained(config)
    assert len(history["loss"]) < 30
    best = epoch_kept(history, config)
    assert best == len(history["loss"]) - 3
    _, validation = read_dataset(Path(config.data_root) / config.data.source, config.data.validation).parts
    right = np.asarray(model(validation.images)).argmax(1) == validation.labels
    assert right.mean() == pytest.approx(history["val_accuracy"][best], abs=1e-6)


def test_the_runs_metrics_are_those_of_the_epoch_that_was_kept(tiny: Compose, empty_folder: Path) -> None:
    run_id = train(tiny("trainer.patience=1", "trainer.epochs=20", "optimizer=sgd", "optimizer.learning_rate=0.5"))
    kept = json.loads(Path("outputs/metrics/mlp/train.json").read_text())
    metrics = mlflow.get_run(run_id).data.metrics
    assert {key: metrics[key] for key in ("loss", "val_loss", "val_accuracy")} == pytest.approx(
        {key: kept[key] for key in ("loss", "val_loss", "val_accuracy")}
    )
    client = mlflow.MlflowClient()
    epochs = curves_of(client, run_id, list(metrics))["val_loss"]
    assert min(epochs) == pytest.approx(kept["val_loss"])
    assert len(epochs) == len(client.get_metric_history(run_id, "val_loss")) - 1


def test_patience_without_validation_images_is_refused(empty_folder: Path) -> None:
    process = run_step("data=synthetic", "data.validation=0", "trainer.patience=3")
    assert_one_sentence(process, "trainer.patience", "data.validation=0")


def test_training_stops_at_a_target(tiny: Compose) -> None:
    _, history = trained(tiny("trainer.target_accuracy=0.5", "trainer.epochs=30"))
    assert history["accuracy"][-1] >= 0.5
    assert all(accuracy < 0.5 for accuracy in history["accuracy"][:-1])


def test_mlflows_own_autologging_works_as_it_does_with_any_keras_model(tiny: Compose) -> None:
    from mlflow.tensorflow import autolog

    autolog(log_models=False, log_datasets=False)
    try:
        with mlflow.start_run() as run:
            _, history = trained(tiny("trainer.epochs=3"))
    finally:
        autolog(disable=True)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        logged = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
        assert [metric.value for metric in logged] == pytest.approx(history[name])
    assert mlflow.get_run(run.info.run_id).data.params["epochs"] == "3"


@pytest.mark.slow
def test_tensorboard_gets_curves_and_histograms_of_the_last_training_alone(tiny: Compose, empty_folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny("trainer.tensorboard=true", "trainer.epochs=2")
    for _ in range(2):
        trained(config)
    for part in ("train", "validation"):
        events = EventAccumulator(str(empty_folder / "outputs/logs/mlp" / part), size_guidance={"tensors": 0}).Reload()
        tags = events.Tags()["tensors"]
        assert {"epoch_loss", "epoch_accuracy"} <= set(tags)
        assert len(events.Tensors("epoch_loss")) == 2
    events = EventAccumulator(str(empty_folder / "outputs/logs/mlp/train")).Reload()
    assert any("kernel" in tag for tag in events.Tags()["tensors"])


@pytest.mark.parametrize("variant", ["mlp", pytest.param("resnet", marks=pytest.mark.slow)])
def test_a_model_that_looks_twice_learns_as_one_that_looks_once(variant: str, tiny: Compose) -> None:
    options = [f"model={variant}", "augment.flip=true", "trainer.epochs=2"]
    (once, history), (twice, other_history) = (
        trained(tiny(*options, f"augment.test_time_flip={flip}")) for flip in ("false", "true")
    )
    assert [weights.tobytes() for weights in once.get_weights()] == [
        weights.tobytes() for weights in twice.get_weights()
    ]
    assert history["loss"] == other_history["loss"]
    assert history["val_loss"] != other_history["val_loss"]  # what it is validated with is what is saved


def test_a_model_may_be_called_as_one_of_its_layers(tiny: Compose) -> None:
    model, _ = trained(tiny("model.name=dense"))
    assert model.name == "dense"


def test_a_network_inside_another_does_not_learn_alone() -> None:
    inside = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    whole = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(4), inside])
    assert members_of(whole) == [whole]


@pytest.mark.parametrize("name", ["mean", "mean_member_1"])
def test_a_model_that_looks_twice_may_be_called_as_one_of_its_layers(name: str, tiny: Compose) -> None:
    assert build(tiny(f"model.name={name}", "augment.test_time_flip=true", "trainer.members=2")).name == name


@pytest.mark.parametrize("variant", ["mlp", "mlp_l2", pytest.param("resnet", marks=pytest.mark.slow)])
def test_members_learn_each_by_itself_and_answer_together(variant: str, tiny: Compose) -> None:
    options = [f"model={variant}", "optimizer=sgd", "trainer.epochs=1", "trainer.precision=float32"]
    alone, _ = trained(tiny(*options, "optimizer.learning_rate=0.0001"))
    together, _ = trained(tiny(*options, "optimizer.learning_rate=0.0001", "trainer.members=2"))
    first, second = members_of(together)
    untrained = build(tiny(*options)).get_weights()
    assert max(np.abs(new - old).max() for new, old in zip(alone.get_weights(), untrained, strict=True)) > 5e-5
    for ours, theirs in zip(first.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28), np.uint8)
    answers = [np.asarray(model(images)) for model in (first, second, together)]
    assert np.abs(answers[0] - answers[1]).max() > 0.01
    np.testing.assert_allclose((answers[0] + answers[1]) / 2, answers[2], atol=1e-6)


def test_a_member_learns_from_an_image_that_it_is_sure_of_and_gets_wrong(tiny: Compose) -> None:
    config = tiny("model=linear", "optimizer=sgd", "trainer.members=2", "trainer.epochs=1")
    training, validation = read_dataset(Path(config.data_root) / config.data.source, config.data.validation).parts
    model = build(config)
    sure = [1e6 * weight for weight in model.get_weights()]  # every probability is 0 or 1
    model.set_weights(sure)
    fit(model, training, validation, config)
    moved = [np.abs(new - old).max() for new, old in zip(model.get_weights(), sure, strict=True)]
    assert min(moved) > 0


def test_a_model_that_looks_twice_does_not_care_which_way_things_point(tiny: Compose, tmp_path: Path) -> None:
    config = tiny("augment.test_time_flip=true")
    images = read_dataset(Path(config.data_root) / config.data.source, config.data.validation).test.images[:50]
    saving.save(build(config), tmp_path / "model.keras")
    loaded = saving.load(tmp_path / "model.keras")
    answers, of_mirrored = (np.asarray(loaded(each)) for each in (images, images[:, :, ::-1]))
    np.testing.assert_allclose(answers, of_mirrored, atol=1e-6)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)


def test_the_faster_precision_is_the_processors(tmp_path: Path) -> None:
    flags = tmp_path / "cpuinfo"
    flags.write_text("flags : fpu avx2 avx512f avx512_bf16 amx_tile\n")
    assert faster_precision(flags) == "bfloat16"
    flags.write_text("flags : fpu avx2 avx512f\n")
    assert faster_precision(flags) == "float32"
    assert faster_precision(tmp_path / "not on this system") == "float32"


@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_a_model_is_built_in_the_precision_that_auto_comes_to(
    faster: str, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_mnist.training.build.faster_precision", lambda: faster)
    assert build(tiny("trainer.precision=auto")).layers[-2].compute_dtype == faster


def test_a_run_records_the_precision_that_auto_came_to(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fashion_mnist.tracking.run.faster_precision", lambda: "bfloat16")
    run = mlflow.get_run(train(tiny("trainer.precision=auto")))
    assert run.data.params["trainer.precision"] == "bfloat16"
