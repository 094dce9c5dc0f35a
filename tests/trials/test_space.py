"""What a search varies: read as Hydra reads it, refused before anything is written, proposed as one types it."""

import sys
from pathlib import Path

import pytest
from conftest import assert_one_sentence, run_here
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from fashion_mnist.config import SearchConfig
from fashion_mnist.trials.space import distribution_of, with_params, written

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: uv sync --extra search")
CategoricalDistribution = optuna.distributions.CategoricalDistribution
FloatDistribution = optuna.distributions.FloatDistribution
IntDistribution = optuna.distributions.IntDistribution
SEARCH = ["-m", "hydra/sweeper=optuna", "data=synthetic"]


def proposed_from(text: str) -> object:
    return distribution_of(OverridesParser.create().parse_override(text))


@pytest.mark.parametrize(
    ("typed", "distribution"),
    [
        ("seed=1,2", CategoricalDistribution(["1", "2"])),
        ("model.hidden=[32],[64,32]", CategoricalDistribution(["[32]", "[64,32]"])),
        ("model.dropout=interval(0,0.5)", FloatDistribution(0.0, 0.5)),
        ("optimizer.learning_rate=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("trainer.epochs=int(interval(2,9))", IntDistribution(2, 9)),
        ("trainer.batch_size=tag(log,int(interval(16,512)))", IntDistribution(16, 512, log=True)),
        ("trainer.epochs=range(2,10,3)", IntDistribution(2, 8, step=3)),
        ("model.dropout=range(0,0.75,0.25)", FloatDistribution(0.0, 0.5, step=0.25)),
    ],
)
def test_what_is_typed_is_what_is_proposed_from(typed: str, distribution: object) -> None:
    assert proposed_from(typed) == distribution


@pytest.mark.parametrize("typed", ["optimizer.learning_rate=0.1", "+optimizer.learning_rate=0.1", "++seed=3,4", ""])
def test_what_is_typed_has_the_last_word_over_what_a_preset_searches(typed: str) -> None:
    params = {"optimizer.learning_rate": "interval(0.01,0.1)", "seed": "1,2"}
    search = SearchConfig(sampler={}, pruner={}, trials=1, confirm=0, seed=0, storage="", params=params)
    overrides = with_params(search, OverridesParser.create().parse_overrides([typed] if typed else []))
    words = [f"{override.input_line}" for override in overrides]
    left = [f"{key}={value}" for key, value in params.items() if key not in typed]
    assert words == [*left, *filter(None, [typed])]


@given(st.floats(1e-9, 1e9), st.floats(1.001, 1e6), st.floats(0, 1))
def test_a_proposed_value_is_written_short_within_its_interval_and_read_again(
    low: float, factor: float, share: float
) -> None:
    distribution = FloatDistribution(low, low * factor)
    value = min(low + share * (low * factor - low), low * factor)
    text = written(value, distribution)
    read = OverridesParser.create().parse_override(f"optimizer.learning_rate={text}").value()
    assert isinstance(read, int | float)
    assert low <= read <= low * factor
    assert read == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["seed=1,2", "hydra.sweeper.trials=0"], ["hydra.sweeper.trials must be at least 1"]),
        (["seed=1,2", "hydra.sweeper.trials=many"], ["hydra.sweeper.trials", "many"]),
        (["seed=1,2", "hydra.sweeper.trails=3"], ["hydra.sweeper.trails"]),
        (["seed=1,2", "hydra.sweeper.jobs=2"], ["hydra.sweeper.jobs=2", "launcher"]),
        (["seed=1,2", "data.validation=0"], ["validation"]),
        (["seed=1"], ["keys with several values", "interval"]),
        (["optimizer.learning_rate=tag(log,interval(0,1))"], ["above 0"]),
        (["optimizer.learning_rate=interval(0.1,0.01)"], ["below its end"]),
        (["trainer.epochs=range(5,1)"], ["trainer.epochs: this range is empty"]),
        (["trainer.epochs=range(1,5,0)"], ["trainer.epochs: the step of a range is not 0"]),
        (["model=mlp_dropout", "model.dropout=interval(0.5,1)"], ["model.dropout must be at least 0 and below 1"]),
        (["trainer.epochs=interval(1,5)"], ["int(interval(FROM,TO))"]),
        (["++trainer.epochs=interval(1,5)"], ["int(interval(FROM,TO))"]),
        (["seed=1,2", "hydra.sweeper.sampler._target_=optuna.samplers.Best"], ["hydra.sweeper.sampler"]),
        (["seed=1,2", "hydra.sweeper.storage=oracle://host/name"], ["hydra.sweeper.storage"]),
        (["seed=1,2", "hydra.sweeper.storage=sqlite:////proc/search.db"], ["hydra.sweeper.storage"]),
    ],
)
def test_a_search_that_cannot_be_made_is_refused_in_one_sentence(
    typed: list[str], words: list[str], empty_folder: Path
) -> None:
    before = set(empty_folder.iterdir())
    assert_one_sentence(run_here(*SEARCH, *typed, step="main"), *words)
    assert set(empty_folder.iterdir()) == before


def test_a_search_without_the_extra_says_how_to_get_it(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert_one_sentence(run_here(*SEARCH, "seed=1,2", step="main"), "needs Optuna: uv sync --inexact --extra search")


def test_a_password_in_the_address_of_a_study_goes_where_postgresql_looks_for_it(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "")
    process = run_here(*SEARCH, "seed=1,2", "hydra.sweeper.storage=postgresql://me:secret@localhost:1/no", step="main")
    assert_one_sentence(process, "hydra.sweeper.storage=postgresql://localhost:1/no")
    assert "secret" not in process.stderr + process.stdout
