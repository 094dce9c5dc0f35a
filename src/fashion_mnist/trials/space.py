"""What a search varies: read from Hydra's overrides, and checked before anything is written."""

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, ValueType

from fashion_mnist.checks import of_plugin
from fashion_mnist.config import Config, SearchConfig
from fashion_mnist.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SWEEPER = "hydra_plugins.fashion_mnist.OptunaSweeper"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
EXAMPLE = "-m 'optimizer.learning_rate=tag(log,interval(1e-4,1e-1))' 'model.hidden=[64],[128]'"


def search_of(hydra: HydraConf, of_trial: bool = False) -> SearchConfig | None:
    """The settings of the search that Hydra is at, or whose trial a job is; nothing if it is none."""
    search = of_plugin(hydra, "sweeper", SWEEPER, SearchConfig)
    return search if search and (search.trial is not None or not of_trial) else None


def check_search(search: SearchConfig, hydra: HydraConf, overrides: Sequence[Override], config: Config) -> None:
    """Refuses a search that cannot be made.

    Args:
        search: the settings.
        hydra: all that Hydra was told.
        overrides: what the search is told to vary and to keep, as `with_params` returns it.
        config: a configuration without what is varied.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("hydra/sweeper=optuna needs Optuna: uv sync --inexact --extra search")
    if config.data.validation == 0:
        raise UserError("a search chooses by the validation images, and data.validation=0 leaves none.")
    if (search.jobs or 1) > 1 and hydra.launcher["_target_"] == BASIC_LAUNCHER:
        raise UserError(
            f"hydra.sweeper.jobs={search.jobs} needs a launcher that works at several trainings: "
            "uv sync --inexact --extra cluster, then hydra/launcher=ray"
        )
    varied = [override for override in overrides if override.is_sweep_override()]
    if not varied:
        raise UserError(f"a search needs keys with several values, typed or in hydra.sweeper.params: {EXAMPLE}")
    for override in varied:
        check_values(override)


def check_values(override: Override) -> None:
    """Refuses what cannot be proposed from."""
    key, sweep = override.get_key_element(), override.value()
    tags = getattr(sweep, "tags", set()) - {"log"}
    if tags:
        raise UserError(f"{key}: there is no tag {min(tags)} here, only log.")
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        if low is None or high is None or not low < high:
            raise UserError(f"{key}: an interval begins below its end, as in interval(0.1,0.5).")
        if "log" in sweep.tags and low <= 0:
            raise UserError(f"{key}: with tag(log,...), an interval begins above 0, got {low}.")
    check_range(override)


def check_range(override: Override) -> None:
    """Refuses a range that no number lies in; other overrides pass."""
    key, sweep = override.get_key_element(), override.value()
    if isinstance(sweep, RangeSweep) and not sweep.step:
        raise UserError(f"{key}: the step of a range is not 0.")
    if isinstance(sweep, RangeSweep) and not values_of(override):
        raise UserError(f"{key}: this range is empty.")


def with_params(
    search: SearchConfig, overrides: Sequence[Override], parser: OverridesParser | None = None
) -> list[Override]:
    """The overrides, and those of a preset's `hydra.sweeper.params` before them; what was typed has the last word."""
    typed = {override.get_key_element().lstrip("+~") for override in overrides}
    params = {key: value for key, value in (search.params or {}).items() if key.lstrip("+") not in typed}
    parser = parser or OverridesParser.create()
    return [*parser.parse_overrides([f"{key}={value}" for key, value in params.items()]), *overrides]


def values_of(override: Override) -> list[str]:
    """The single values of a sweep, as Hydra writes them."""
    return list(override.sweep_string_iterator())


def ends_of(override: Override) -> list[str]:
    """The least and the greatest value of an interval or a range."""
    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        return [str(sweep.start), str(sweep.end)]
    numbers: list[Any] = list(override.sweep_iterator())
    return [str(min(numbers)), str(max(numbers))]


def distribution_of(override: Override) -> "BaseDistribution":
    """What Optuna proposes from. Of choices it knows no more than their names."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep: Any = override.value()
    if isinstance(sweep, IntervalSweep):
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        kind = IntDistribution if whole else FloatDistribution
        return kind(sweep.start, sweep.end, log="log" in sweep.tags)  # pyright: ignore[reportArgumentType]
    if override.value_type == ValueType.RANGE_SWEEP:
        numbers: list[Any] = sorted(override.sweep_iterator())
        kind = IntDistribution if all(isinstance(number, int) for number in numbers) else FloatDistribution
        return kind(numbers[0], numbers[-1], step=abs(sweep.step))  # pyright: ignore[reportArgumentType]
    return CategoricalDistribution(values_of(override))


def written(value: Any, distribution: "BaseDistribution") -> str:
    """A proposed value as one types it; four digits are enough, unless they leave the interval."""
    if not isinstance(value, float):
        return str(value)
    short = float(f"{value:.4g}")
    low, high = getattr(distribution, "low", value), getattr(distribution, "high", value)
    return str(short if low <= short <= high else value)
