"""Searches: trials below one parent, of which the winner alone is tested; they go on after anything."""

import csv
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pytest
from conftest import TINY, all_runs, assert_one_sentence, run_here, run_step

from fashion_mnist.checks import as_one_run
from fashion_mnist.config import Config
from fashion_mnist.train import train

if TYPE_CHECKING:
    from mlflow.entities import Run
    from optuna.trial import FrozenTrial

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: uv sync --extra search")

Compose = Callable[..., Config]
SPACE = ["optimizer.learning_rate=tag(log,interval(1e-4,1e-1))", "model.hidden=[8],[32]"]
EPOCHS, TRIALS = 4, 6
pytestmark = pytest.mark.timeout(600)


def arguments(data: Path, *more: str) -> list[str]:
    """What one types for a small search that prunes early."""
    return [
        *TINY, f"data_root={data}", f"trainer.epochs={EPOCHS}", *SPACE,
        f"hydra.sweeper.trials={TRIALS}", "+hydra.sweeper.pruner.n_startup_trials=2", *more,
    ]  # fmt: skip


def trials_of(folder: Path) -> "list[FrozenTrial]":
    """The trials of the one study that there is in a folder."""
    storage = f"sqlite:///{folder}/checkpoints/search.db"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials


def outcomes(folder: Path) -> list[tuple]:
    """What a search was made of and came to: state, values and every epoch of each trial."""
    return [(each.state.name, each.params, each.intermediate_values) for each in trials_of(folder)]


def parent_and_children() -> "tuple[Run, list[Run]]":
    runs = [run for run in all_runs() if "report" not in run.data.tags]
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in runs if run is not parent)
    return parent, [run for run in runs if run is not parent]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path, tiny_data: Path) -> Path:
    """The folder of a search whose winner was confirmed, with what was printed in output.txt."""
    folder = tmp_path_factory.mktemp("search")
    shutil.copy(migrated_store, folder / "mlflow.db")
    with chdir(folder):
        typed = arguments(tiny_data, "hydra.sweeper.confirm=2")
        process = run_here(*typed, step="search", MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")
    assert process.returncode == 0, process.stderr
    (folder / "output.txt").write_text(process.stdout + process.stderr)
    return folder


@pytest.fixture(autouse=True)
def _store_of(request: pytest.FixtureRequest) -> None:
    if "searched" in request.fixturenames:
        mlflow.set_tracking_uri(f"sqlite:///{request.getfixturevalue('searched')}/mlflow.db")


def test_trials_are_children_of_one_parent_and_none_but_the_winner_is_tested(searched: Path) -> None:
    parent, children = parent_and_children()
    trials = [run for run in children if "trial" in run.data.tags]
    assert sorted(int(run.data.tags["trial"]) for run in trials) == list(range(TRIALS))
    tested = [run for run in trials if any(key.startswith("test_") for key in run.data.metrics)]
    assert [run.info.run_id for run in tested] == [parent.data.tags["best_child"]]
    best = max(trials_of(searched), key=lambda trial: (trial.state.name == "COMPLETE", trial.value))
    assert tested[0].data.tags["trial"] == str(best.number)


def test_what_has_no_promise_ends_early_and_is_no_finished_run(searched: Path) -> None:
    pruned = [trial for trial in trials_of(searched) if trial.state.name == "PRUNED"]
    assert pruned
    assert all(len(trial.intermediate_values) < EPOCHS for trial in pruned)
    _, children = parent_and_children()
    killed = {run.data.tags["trial"]: run for run in children if run.info.status != "FINISHED"}
    assert sorted(killed) == sorted(str(trial.number) for trial in pruned)
    assert all(
        "ended after" in run.data.tags["pruned"] and "unfinished" not in run.data.tags for run in killed.values()
    )
    assert not list(searched.glob("checkpoints/*.npz"))


def test_the_parent_says_how_to_get_the_winner_and_what_it_is_worth(searched: Path) -> None:
    parent, children = parent_and_children()
    confirmed = [run for run in children if "trial" not in run.data.tags]
    assert {run.data.tags["seed"] for run in confirmed} == {"1", "2"}
    mean = sum(run.data.metrics["test_accuracy"] for run in confirmed) / 2
    said = parent.data.tags["mlflow.note.content"]
    assert f"Confirmed: test accuracy {mean:.4f} ±" in said
    assert f"`{parent.data.tags['best_command']}`" in said
    winner = mlflow.get_run(parent.data.tags["best_child"])
    assert winner.data.params["optimizer.learning_rate"] in parent.data.tags["best_command"]
    assert parent.info.status == "FINISHED"


def test_tables_and_pictures_lie_in_outputs_and_in_the_parent(searched: Path) -> None:
    parent, _ = parent_and_children()
    names = {"trials.csv", "history.png", "learning_curves.png", "importances.png", "slices.png"}
    names.add("parallel_coordinates.png")
    (folder,) = searched.glob("outputs/searches/*")
    assert names <= {file.name for file in folder.iterdir()}
    assert names <= {file.path for file in mlflow.MlflowClient().list_artifacts(parent.info.run_id)}
    with (folder / "trials.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["state"] for row in rows] == [trial.state.name.lower() for trial in trials_of(searched)]


def test_the_winners_model_is_the_one_that_is_trained_alone_with_its_values(searched: Path, tiny: Compose) -> None:
    (file,) = searched.glob("outputs/searches/*/models/mlp/model.keras")
    store = mlflow.MlflowClient(f"sqlite:///{searched}/mlflow.db")
    (parent,) = store.search_runs(["0"], "tags.sweep = 'true'")
    winner = store.get_run(parent.data.tags["best_child"])
    keys = [f"{key}={winner.data.params[key]}" for key in ("optimizer.learning_rate", "model.hidden")]
    alone = tiny(*keys, f"trainer.epochs={EPOCHS}")
    train(alone)
    assert file.read_bytes() == alone.model_file.read_bytes()


def test_a_comparison_takes_no_trial_but_what_confirms_the_winner(searched: Path, tiny_data: Path) -> None:
    with chdir(searched):
        uri = f"sqlite:///{searched}/mlflow.db"
        process = run_here(*TINY[:1], f"data_root={tiny_data}", step="compare", MLFLOW_TRACKING_URI=uri)
    assert process.returncode == 0, process.stderr
    assert "it won a search, so its seed was a lucky one" in " ".join(process.stdout.split())
    assert "not finished" not in process.stdout


def test_the_same_command_trains_nothing_again(searched: Path, tiny_data: Path) -> None:
    before = parent_and_children()[1]
    with chdir(searched):
        typed = arguments(tiny_data, "hydra.sweeper.confirm=2")
        process = run_here(*typed, step="search", MLFLOW_TRACKING_URI=f"sqlite:///{searched}/mlflow.db")
    assert process.returncode == 0, process.stderr
    assert f"{TRIALS} of {TRIALS} trials are there" in process.stderr
    parent, children = parent_and_children()
    assert [run.info.run_id for run in children] == [run.info.run_id for run in before]
    assert parent.info.status == "FINISHED"


@pytest.mark.slow
def test_another_pruner_makes_another_search(searched: Path, empty_folder: Path, tiny_data: Path) -> None:
    for file in ("mlflow.db", "checkpoints/search.db"):
        (empty_folder / file).parent.mkdir(exist_ok=True)
        shutil.copy(searched / file, empty_folder / file)
    process = run_here(
        *arguments(tiny_data)[:-1], "hydra.sweeper.pruner._target_=optuna.pruners.NopPruner", step="search"
    )
    assert process.returncode == 0, process.stderr
    storage = f"sqlite:///{empty_folder}/checkpoints/search.db"
    studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
    pruned = [[trial.number for trial in study.trials if trial.state.name == "PRUNED"] for study in studies]
    assert sorted(pruned, key=bool)[0] == []
    assert len(pruned) == 2
    notes = [run.data.tags["mlflow.note.content"] for run in all_runs() if "sweep" in run.data.tags]
    assert ["NopPruner" in note for note in notes].count(True) == 1


def test_a_search_that_was_killed_before_it_knew_its_run_finds_it(searched: Path, tiny_data: Path) -> None:
    storage = f"sqlite:///{searched}/checkpoints/search.db"
    (name,) = optuna.get_all_study_names(storage)
    optuna.load_study(study_name=name, storage=storage).set_user_attr("parent", "")
    with chdir(searched):
        typed = arguments(tiny_data, "hydra.sweeper.confirm=2")
        process = run_here(*typed, step="search", MLFLOW_TRACKING_URI=f"sqlite:///{searched}/mlflow.db")
    assert process.returncode == 0, process.stderr
    parent, _ = parent_and_children()
    assert parent.info.status == "FINISHED"


def test_a_winner_whose_run_was_deleted_can_be_restored(searched: Path, tiny_data: Path) -> None:
    client = mlflow.MlflowClient()
    typed, environment = arguments(tiny_data, "hydra.sweeper.confirm=2"), {"MLFLOW_TRACKING_URI": client.tracking_uri}
    parent, _ = parent_and_children()
    winner = parent.data.tags["best_child"]
    client.delete_run(winner)
    with chdir(searched):
        refused = run_here(*typed, step="search", **environment)
        client.restore_run(winner)
        again = run_here(*typed, step="search", **environment)
    assert refused.returncode == 1
    assert re.search(rf"was deleted: MLFLOW_TRACKING_URI=\S+ mlflow runs restore --run-id {winner}, or", refused.stderr)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_the_same_search_is_made_of_the_same_trials(searched: Path, empty_folder: Path, tiny_data: Path) -> None:
    process = run_here("-m", "hydra/sweeper=optuna", *arguments(tiny_data), step="main")
    assert process.returncode == 0, process.stderr
    assert outcomes(empty_folder) == outcomes(searched)


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_as_if_nothing_had_been(
    searched: Path, empty_folder: Path, tiny_data: Path, full: bool, survived: Callable[[str, int, int], None]
) -> None:
    moments, count = random.Random(7), 0
    kills = 20 if full else 1
    for _ in range(kills):
        for file in [*empty_folder.glob("checkpoints/*"), *empty_folder.glob("outputs")]:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        for _ in range(2):
            process = start(arguments(tiny_data))
            wait_for_trial(empty_folder, moments.randrange(TRIALS - 1), process)
            time.sleep(moments.uniform(0, 2))
            process.kill()
            process.wait()
        done = run_step(*arguments(tiny_data), step="search")
        assert done.returncode == 0, done.stderr
        statuses = {run.info.status for run in all_runs()}
        count += outcomes(empty_folder) == outcomes(searched) and "RUNNING" not in statuses
    survived("a search killed twice at random moments: the same study in the end, no run left open", count, kills)


@pytest.mark.slow
def test_ctrl_c_ends_a_search_which_the_same_command_goes_on_with(empty_folder: Path, tiny_data: Path) -> None:
    long = arguments(tiny_data, "trainer.epochs=2000")
    process = start(long)
    while not list(empty_folder.glob("checkpoints/*.npz")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert f"0 of {TRIALS} trials are done; the same command goes on" in said
    assert {run.info.status for run in all_runs()} == {"KILLED"}
    assert list(empty_folder.glob("checkpoints/*.npz"))


@pytest.mark.slow
def test_several_processes_make_one_search_together(empty_folder: Path, tiny_data: Path) -> None:
    together = arguments(tiny_data, "hydra.sweeper.study=together")
    processes = [start(together) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    parent, children = parent_and_children()
    assert sorted(int(run.data.tags["trial"]) for run in children) == list(range(TRIALS))
    assert {trial.state.is_finished() for trial in trials_of(empty_folder)} == {True}
    assert parent.info.status == "FINISHED"


@pytest.mark.slow
def test_trials_may_be_trained_in_other_processes(empty_folder: Path, tiny_data: Path, tiny: Compose) -> None:
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.jobs=2"]
    process = run_step(*arguments(tiny_data, *launcher), step="search")
    assert process.returncode == 0, process.stderr
    assert "Error" not in process.stdout + process.stderr
    parent, children = parent_and_children()
    assert sorted(int(run.data.tags["trial"]) for run in children) == list(range(TRIALS))
    assert "PRUNED" in {trial.state.name for trial in trials_of(empty_folder)}
    winner = mlflow.get_run(parent.data.tags["best_child"])
    keys = [f"{key}={winner.data.params[key]}" for key in ("optimizer.learning_rate", "model.hidden")]
    alone = tiny(*keys, f"trainer.epochs={EPOCHS}", "output_dir=alone")
    train(alone)
    (file,) = empty_folder.glob("outputs/searches/*/models/mlp/model.keras")
    assert file.read_bytes() == alone.model_file.read_bytes()


@pytest.mark.slow
def test_values_that_cannot_be_trained_with_fail_alone(empty_folder: Path, tiny_data: Path) -> None:
    keys = [*TINY, f"data_root={tiny_data}", "optimizer.learning_rate=0.001,1e30", "hydra.sweeper.trials=4"]
    process = run_step(*keys, step="search")
    assert process.returncode == 0, process.stderr
    states = {trial.params["optimizer.learning_rate"]: trial.state.name for trial in trials_of(empty_folder)}
    assert states == {"0.001": "COMPLETE", "1e+30": "FAIL"}
    assert "diverged" in process.stderr


@pytest.mark.slow
def test_where_nothing_can_be_trained_the_reason_is_said(empty_folder: Path, tiny_data: Path) -> None:
    keys = [*TINY, f"data_root={tiny_data}", "optimizer.learning_rate=1e29,1e30", "hydra.sweeper.trials=2"]
    process = run_step(*keys, step="search")
    assert process.returncode == 1
    assert "no trial has come to an end; the first says: " in process.stderr
    assert "Traceback" not in process.stderr


def test_a_study_is_of_one_search(empty_folder: Path, tiny_data: Path, searched: Path) -> None:
    named = ["hydra.sweeper.study=mine", f"hydra.sweeper.storage=sqlite:///{empty_folder}/mine.db"]
    optuna.create_study(study_name="mine", storage=named[1].partition("=")[2]).set_user_attr("what", "other code")
    assert_one_sentence(run_here(*arguments(tiny_data, *named), step="search"), "the study mine is of another search")


def test_a_search_does_not_go_on_with_other_images(empty_folder: Path) -> None:
    images, labels = np.zeros((60, 28, 28), np.uint8), np.arange(60) % 3
    file = ["data=npz", "data.file=mine.npz", "data.validation=10", "model.hidden=[8]", "trainer.jit_compile=false"]
    typed = [*file, "trainer.epochs=1", "optimizer.learning_rate=0.001,0.01", "hydra.sweeper.trials=1"]
    for shade in (100, 200):
        images[:, 0] = shade
        np.savez("mine.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
        process = run_here(*typed, step="search")
        assert process.returncode == (0 if shade == 100 else 1), process.stderr
    assert "of another search, or of other images; choose another name" in process.stderr
    assert len(trials_of(empty_folder)) == 1


def test_a_trial_can_be_trained_alone_even_where_the_preset_is_a_search(empty_folder: Path, tiny_data: Path) -> None:
    typed = as_one_run([*TINY, f"data_root={tiny_data}", "experiment=search_mlp", "model.hidden=[8]"])
    process = run_here(*typed, step="main")
    assert process.returncode == 0, process.stderr
    (run,) = all_runs()
    assert run.data.params["model.hidden"] == "[8]"
    assert "trial" not in run.data.tags
    assert f"`python -m fashion_mnist {' '.join(typed[:2])}" in run.data.tags["mlflow.note.content"]
    assert as_one_run(["experiment=quick"]) == ["experiment=quick"]


def start(typed: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "fashion_mnist.search", *typed]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ})


def wait_for_trial(folder: Path, number: int, process: "subprocess.Popen[str]") -> None:
    """Waits until a trial of a search has begun, or until the search has ended."""
    for _ in range(1200):
        with suppress(Exception):  # of a database that is just being made
            if trials_of(folder)[number].state.name != "WAITING":
                return
        if process.poll() is not None:
            return
        time.sleep(0.1)
    raise AssertionError("the trial has not begun")
