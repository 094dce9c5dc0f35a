"""What MLflow's autologging records of plain Keras, and where docs/tracking.md says that it is in a main job's run."""

import json
import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import mlflow
import numpy as np
import pytest
import yaml
from conftest import ROOT, TINY, all_runs
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.tensorflow import autolog, load_model

from fashion_mnist.__main__ import main_job
from fashion_mnist.cli import compose
from fashion_mnist.config import Config
from fashion_mnist.data.dataset import Split
from fashion_mnist.data.prepare import prepare
from fashion_mnist.tracking.description import flat
from fashion_mnist.training.build import build, optimizer_of
from fashion_mnist.training.fit import fit

# Such a step moves no weight. So the order of the images makes no difference, all epochs and all ways of training have
# the same metrics, and early stopping ends every training after the second epoch.
STANDSTILL = ["optimizer.learning_rate=1e-30", "trainer.epochs=3", "trainer.patience=1", "trainer.tensorboard=true"]
CURVES = ("loss", "accuracy", "val_loss", "val_accuracy")

Item = tuple[str, str]  # a kind of docs/tracking.md's table, and a name


class Row(NamedTuple):
    """A row of the table: what autologging records, where each of it is here, and how that differs."""

    items: list[Item]
    here: list[Item]
    note: str


class Recorded(NamedTuple):
    """Everything that a run holds."""

    run: Run
    items: dict[Item, Any]
    warnings: set[str]


class Trainings(NamedTuple):
    """The same network, trained on the same images in three ways."""

    config: Config
    validation: Split
    plain: Recorded
    notebook: Recorded
    main: Recorded
    model: keras.Model  # of the notebook


def rows() -> list[Row]:
    """The table in docs/tracking.md."""
    found = []
    section = (ROOT / "docs/tracking.md").read_text().partition("## What MLflow's autologging records")[2]
    for line in re.findall(r"^\| (.+) \|$", section.partition("\n## ")[0], re.MULTILINE)[1:]:
        kind, theirs, ours, note = (cell.strip() for cell in f"{line} ".split(" |"))
        items = [(kind, name) for name in re.findall(r"`(.+?)`", theirs)]
        here = [(ours.partition(" `")[0], name) for name in re.findall(r"`(.+?)`", ours)]
        if ours == "the same":
            here = items
        elif len(here) == 1:
            here *= len(items)
        assert len(here) == len(items) > 0, line
        found.append(Row(items, here, note))
    return found


def recorded(run_id: str, complaints: set[str]) -> Recorded:
    """Reads a run back from the store."""
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    assert run.inputs is not None
    assert run.outputs is not None
    items: dict[Item, Any] = {("parameter", key): value for key, value in run.data.params.items()}
    items |= {("metric", key): value for key, value in run.data.metrics.items()}
    items |= {("tag", key): value for key, value in run.data.tags.items()}
    items |= {("artifact", re.sub(r"tfevents\..*", "tfevents.*", path)): "" for path in artifacts(run_id)}
    for entry in run.inputs.dataset_inputs:
        context = {tag.key: tag.value for tag in entry.tags}
        kind = "validation dataset" if context["mlflow.data.context"] == "eval" else "dataset"
        profile = {f"profile.{key}": value for key, value in json.loads(entry.dataset.profile or "{}").items()}
        items |= {(kind, key): value for key, value in (dict(entry.dataset) | profile | context).items() if value}
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    folder = Path(download_artifacts(f"models:/{model.model_id}"))
    about = flat(yaml.safe_load((folder / "MLmodel").read_text()) | model.to_dictionary() | {"params": "", "tags": ""})
    items |= {("model", key): value for key, value in about.items() if value not in ("", "None") and key != "metrics"}
    items |= {("model tag", key): value for key, value in model.tags.items()}
    items |= {("model metric", metric.key): metric.value for metric in model.metrics or ()}
    items |= {("model file", f"{file.relative_to(folder)}"): "" for file in folder.rglob("*") if file.is_file()}
    for line in (folder / "requirements.txt").read_text().splitlines():
        package, _, version = line.partition("==")
        items["model requirement", package] = version
    return Recorded(run, items, complaints)


def artifacts(run_id: str, folder: str | None = None) -> Iterator[str]:
    """The paths of all files."""
    for entry in mlflow.MlflowClient().list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from artifacts(run_id, entry.path)
        else:
            yield entry.path


def curve(run: Run, metric: str) -> dict[int, float]:
    """A metric's value at each step."""
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, metric)
    return {point.step: point.value for point in history}


@contextmanager
def autologging() -> Iterator[set[str]]:
    """Autologging as people switch it on, and off again; gives what MLflow and Python warn of meanwhile."""
    complaints: set[str] = set()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: complaints.add(record.getMessage())
    logging.getLogger("mlflow").addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        autolog()
        try:
            yield complaints
        finally:
            autolog(disable=True)
            logging.getLogger("mlflow").removeHandler(handler)
    complaints |= {str(warning.message) for warning in caught}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path, tiny_data: Path) -> Iterator[Trainings]:
    folder = tmp_path_factory.mktemp("autologging")
    shutil.copy(migrated_store, folder / "mlflow.db")
    store = f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "autologging")
        mlflow.set_tracking_uri(store)
        config = compose([*TINY, *STANDSTILL, f"data_root={tiny_data}", f"tracking.uri={store}"])
        prepared = prepare(config.data, config.data_root)
        training, validation = prepared.parts

        model = build(config)
        model.compile(keras.optimizers.Adam(1e-30), "sparse_categorical_crossentropy", metrics=["accuracy"])
        stopping = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
        options: dict[str, Any] = {"batch_size": 32, "epochs": 3, "validation_data": validation, "verbose": 0}
        with autologging() as complaints:
            model.fit(training.images, training.labels, callbacks=[stopping], **options)
        last = mlflow.last_active_run()
        assert last is not None
        plain = recorded(last.info.run_id, complaints)

        patch.setenv("MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT", "1")  # it takes seconds, and one training shows it
        model = build(config)
        with autologging() as complaints, mlflow.start_run() as run:
            fit(model, training, validation, config)
        notebook = recorded(run.info.run_id, complaints)

        main_job(config)
        (run,) = mlflow.search_runs(filter_string="tags.variant = 'mlp'", output_format="list")
        main = recorded(run.info.run_id, set())
        yield Trainings(config, validation, plain, notebook, main, model)


def test_everything_that_autologging_records_is_in_the_main_jobs_run(trainings: Trainings) -> None:
    table = {item: here for row in rows() for item, here in zip(row.items, row.here, strict=True)}
    missing = [item for item in trainings.plain.items if table.get(item, item) not in trainings.main.items]
    assert not missing


def test_every_name_in_the_table_is_needed(trainings: Trainings) -> None:
    items = [item for row in rows() for item in row.items]
    twice = {item for item in items if items.count(item) > 1}
    not_autologged = set(items) - trainings.plain.items.keys()
    renamed = {item for row in rows() for item, here in zip(row.items, row.here, strict=True) if item != here}
    under_its_own_name = renamed & trainings.main.items.keys()
    needless = twice | not_autologged | under_its_own_name
    assert not needless


def test_what_the_table_has_no_remark_on_has_the_same_value(trainings: Trainings) -> None:
    pairs = [pair for row in rows() if not row.note for pair in zip(row.items, row.here, strict=True)]
    assert len(pairs) > 10
    for item, here in pairs:
        theirs, ours = trainings.plain.items[item], trainings.main.items[here]
        assert ours == theirs or float(ours) == pytest.approx(float(theirs), rel=1e-6), item


def test_every_epoch_has_the_same_metrics_and_so_has_the_one_kept(trainings: Trainings) -> None:
    for metric in CURVES:
        theirs, ours = curve(trainings.plain.run, metric), curve(trainings.main.run, metric)
        assert list(theirs) == [0, 1, 2]  # the two epochs, and the first of them again
        assert list(ours) == [0, 1, 4]
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-5)


def test_the_optimizer_differs_in_nothing_that_is_not_recorded(trainings: Trainings) -> None:
    keras.utils.clear_session()  # else Keras would number its name
    ours = optimizer_of(trainings.config, steps=1).get_config()
    theirs = {name: value for (_, name), value in trainings.plain.items.items() if name.startswith("opt_")}
    assert {f"opt_{name}": str(value) for name, value in ours.items()} == theirs


def test_the_dataset_is_described_whole_and_validation_is_a_part_of_it(trainings: Trainings) -> None:
    shape = ("dataset", "profile.features_shape")
    images, *size = trainings.main.items[shape]
    assert (images, size) == (600, [28, 28])
    assert trainings.main.items["dataset", "profile.test_images"] == 100
    assert trainings.main.items["dataset", "profile.class_names"][:2] == ["T-shirt/top", "Trouser"]
    validate = trainings.plain.items["validation dataset", "profile.features_shape"][0]
    assert trainings.main.items["parameter", "data.validation"] == str(validate)
    assert trainings.plain.items[shape][0] == images - validate


def test_around_the_notebooks_fit_it_records_what_it_records_of_plain_keras(trainings: Trainings) -> None:
    kinds = ("parameter", "metric", "artifact", "dataset", "validation dataset", "model metric", "model tag")
    theirs, ours = (
        {item: value for item, value in way.items.items() if item[0] in kinds}
        for way in (trainings.plain, trainings.notebook)
    )
    assert ours.keys() == theirs.keys()
    for item, value in theirs.items():
        assert ours[item] == (value if isinstance(value, str | list) else pytest.approx(value, rel=1e-5)), item
    for metric in CURVES:
        assert curve(trainings.notebook.run, metric) == pytest.approx(curve(trainings.plain.run, metric), rel=1e-5)


def test_around_the_notebooks_fit_it_logs_a_model_that_takes_raw_images(trainings: Trainings) -> None:
    address = f"runs:/{trainings.notebook.run.info.run_id}/model"
    images = trainings.validation.images[:5]
    wanted = np.asarray(trainings.model(images))
    logged = mlflow.pyfunc.load_model(address)
    assert np.array_equal(logged.predict(images), wanted)
    assert np.array_equal(np.asarray(load_model(address)(images)), wanted)
    for side in ("signature.inputs", "signature.outputs"):
        assert trainings.notebook.items["model", side] == trainings.plain.items["model", side]


def test_around_the_notebooks_fit_it_warns_of_nothing_more_than_with_plain_keras(trainings: Trainings) -> None:
    more = trainings.notebook.warnings - trainings.plain.warnings
    assert not {text for text in more if "inferring pip requirements" not in text}


def test_switched_off_it_leaves_nothing_behind(trainings: Trainings) -> None:
    before = keras.Model.fit
    with autologging():
        assert keras.Model.fit is not before
    assert keras.Model.fit is before
    assert mlflow.active_run() is None
    assert len(all_runs()) == 3  # autologging would record the main job once more
    assert not [name for kind, name in trainings.main.items if kind == "parameter" and name.startswith("opt_")]
