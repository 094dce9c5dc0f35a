"""When a trial is judged by its epochs so far, and when it is given up."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from fashion_mnist.config import Config, SearchConfig, TrainerConfig
from fashion_mnist.errors import Pruned, StorageAwayError, UserError
from fashion_mnist.tracking.run import trial_of

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: uv sync --extra search")
EPOCHS = 4
Compose = Callable[..., Config]


@pytest.fixture
def search(tmp_path: Path) -> SearchConfig:
    """A search of which one trial waits, beside good ones that have finished."""
    from fashion_mnist.trials.study import Study

    storage = f"sqlite:///{tmp_path}/search.db"
    sampler, pruner = {"_target_": "optuna.samplers.TPESampler"}, {"_target_": "optuna.pruners.MedianPruner"}
    search = SearchConfig(
        trials=7, storage=storage, study="study", trial=6, confirm=0, seed=0, sampler=sampler, pruner=pruner
    )
    study = Study(search, "study").begun()
    for _ in range(6):
        good = dict.fromkeys(range(EPOCHS), 0.9)
        study.optuna.add_trial(optuna.trial.create_trial(value=0.9, intermediate_values=good))
    study.fill()
    study.claim()
    return search


@pytest.mark.parametrize(
    ("cause", "state"), [(MlflowException("503"), "RUNNING"), (OSError(28, "disk full"), "RUNNING"), (None, "FAIL")]
)
def test_values_are_given_up_only_for_what_is_their_fault(
    cause: Exception | None, state: str, search: SearchConfig, tiny: Compose
) -> None:
    from fashion_mnist.trials.study import Study

    config = replace(tiny(), search=search)
    with pytest.raises(UserError), trial_of(config):
        raise UserError("this cannot be trained") from cause
    assert Study(search, "study").begun().trials[6].state.name == state


def test_what_fails_after_a_trials_end_is_heard_and_undoes_nothing(search: SearchConfig, tiny: Compose) -> None:
    from fashion_mnist.trials.study import Study

    def train() -> None:
        with trial_of(replace(tiny(), search=search)) as trial:
            assert trial
            trial.complete(0.9)
            raise UserError("the store refuses the model")

    with pytest.raises(UserError, match="the store refuses the model"):
        train()
    assert Study(search, "study").begun().trials[6].state.name == "COMPLETE"


def test_values_are_not_given_up_where_the_storage_was_away(
    search: SearchConfig, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fashion_mnist.trials import study

    monkeypatch.setattr(study, "PATIENCE", 0.1)
    config, database = replace(tiny(), search=search), sqlite3.connect(search.storage.removeprefix("sqlite:///"))

    def train() -> None:
        with trial_of(config) as trial, database:  # which is free again by the time that the trial ends
            assert trial
            database.execute("BEGIN EXCLUSIVE")
            trial.note({"fact": "nobody hears it"})

    with pytest.raises(StorageAwayError):
        train()
    database.close()
    assert study.Study(search, "study").begun().trials[6].state.name == "RUNNING"


@pytest.mark.parametrize(
    ("schedule", "pruner", "judged"),
    [
        ("constant", {}, 1),
        ("cosine", {}, 3),
        ("one_cycle", {}, 3),
        ("one_cycle", {"n_warmup_steps": 1}, 2),  # who says when has the last word
        ("one_cycle", {"_target_": "optuna.pruners.ThresholdPruner", "lower": 0.5}, 1),
    ],
)
def test_a_trial_is_judged_once_its_accuracies_mean_something(
    search: SearchConfig, schedule: str, pruner: dict[str, Any], judged: int
) -> None:
    from fashion_mnist.trials.trial import Trial

    trainer = TrainerConfig(epochs=EPOCHS, batch_size=32, precision="float32", schedule=schedule)
    trial = Trial(replace(search, pruner={**search.pruner, **pruner}), trainer)
    for epoch in range(judged - 1):
        trial.report({epoch: 0.1})
    with pytest.raises(Pruned, match=f"after {judged} of {EPOCHS} epochs"):
        trial.report({judged - 1: 0.1})
