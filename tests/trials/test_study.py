"""The study of a search: what is proposed for a trial, and who is at work at it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fashion_mnist.config import SearchConfig

if TYPE_CHECKING:
    from fashion_mnist.trials.study import Study

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: uv sync --extra search")
TRIALS = 3


def study_in(folder: Path, own_seed: int | None = None, seed: int = 0) -> "Study":
    """A study whose trials wait, with a sampler that may have a seed of its own."""
    from fashion_mnist.trials.study import Study

    sampler = {"_target_": "optuna.samplers.RandomSampler"} | ({} if own_seed is None else {"seed": own_seed})
    pruner, storage = {"_target_": "optuna.pruners.NopPruner"}, f"sqlite:///{folder}/search.db"
    config = SearchConfig(sampler=sampler, pruner=pruner, trials=TRIALS, confirm=0, seed=seed, storage=storage)
    study = Study(config)
    study.name = f"study-{own_seed}-{seed}"
    study.begun().fill()
    return study


def proposals(study: "Study") -> list[float]:
    while trial := study.claim():
        study.propose(trial, {"model.dropout": optuna.distributions.FloatDistribution(0, 1)})
    return [trial.params["model.dropout"] for trial in study.trials]


def test_each_trial_gets_values_of_its_own_from_a_sampler_with_a_seed(tmp_path: Path) -> None:
    assert len(set(proposals(study_in(tmp_path, own_seed=7)))) == TRIALS


def test_a_samplers_own_seed_has_the_last_word_over_the_searchs(tmp_path: Path) -> None:
    proposed = proposals(study_in(tmp_path, own_seed=0, seed=7))
    assert proposed == proposals(study_in(tmp_path, seed=0))
    assert proposed != proposals(study_in(tmp_path, seed=7))


def test_a_process_that_was_silent_for_long_keeps_what_it_has_running_itself(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    running = {trial.number: trial for _ in range(TRIALS) if (trial := study.claim())}
    assert len(running) == TRIALS
    with closing(
        sqlite3.connect(tmp_path / "search.db", isolation_level=None)
    ) as database:  # as after a laptop has slept
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
    assert study.claim(running) is None
    assert {trial.state.name for trial in study.trials} == {"RUNNING"}
    taken = study.claim()  # as another process does
    assert taken is not None
    assert taken.number == 0
