"""The schema of conf/: which keys there are, of which type, in which range.

Hydra composes the YAML files; `checked` turns the result into the dataclasses below or refuses it in one sentence.
Models and optimizers are open: their keys are the arguments of the function that `_target_` names, so the YAML file
itself is the schema of the types, and `ARGUMENTS` holds the ranges of the names that recur.
"""

import dataclasses
import difflib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from fashion_mnist.errors import UserError

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
GROUPS = ("data", "model", "optimizer", "trainer", "tracking")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus")


@dataclass(frozen=True)
class Rule:
    """What a value must fulfil beyond its type, and how to say so: «must be {text}»."""

    text: str
    holds: Callable[[Any], bool]


def at_least(low: int) -> Rule:
    """A number of at least `low`."""
    return Rule(f"at least {low}", lambda value: value >= low)


def between(low: float, high: float) -> Rule:
    """A number from `low` (included) to `high` (excluded)."""
    return Rule(f"at least {low} and below {high}", lambda value: low <= value < high)


def one_of(choices: tuple[str, ...]) -> Rule:
    """One of a few names."""
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


POSITIVE = Rule("above 0", lambda value: 0 < value < float("inf"))
SECONDS = Rule("above 0 and at most 3600", lambda value: 0 < value <= 3600)
A_NAME = Rule(
    "a name of at most 100 letters, digits, '_', '-' and '.', since files are named after it",
    lambda value: re.fullmatch(r"[A-Za-z0-9_][\w.\-]{,99}", value) is not None,
)

ARGUMENTS: dict[str, Rule] = {
    "name": A_NAME,
    "hidden": at_least(1),
    "filters": at_least(1),
    "kernel_size": between(1, 29),
    "dropout": between(0, 1),
    "activation": one_of(ACTIVATIONS),
    "learning_rate": POSITIVE,
    "beta_1": between(0, 1),
    "beta_2": between(0, 1),
    "epsilon": POSITIVE,
}


def ruled(rule: Rule) -> Any:
    """A required dataclass field whose value must obey `rule`."""
    return field(metadata={"rule": rule})


@dataclass
class DataConfig:
    """conf/data/*.yaml: which dataset, and how much of it validates."""

    name: str = ruled(one_of(("fashion_mnist", "synthetic", "auto")))
    validation: int = ruled(between(0, 60_000))
    dir: str | None = None
    mirrors: list[str] = field(default_factory=list)
    timeout: float = field(default=5.0, metadata={"rule": SECONDS})
    train_images: int = field(default=12_000, metadata={"rule": between(10, 1_000_001)})
    test_images: int = field(default=2_000, metadata={"rule": between(10, 1_000_001)})
    drawing_seed: int = field(default=0, metadata={"rule": between(0, 2**32)})


@dataclass
class TrainerConfig:
    """conf/trainer/*.yaml: how long, and in which batches."""

    epochs: int = ruled(between(1, 1_000_001))
    batch_size: int = ruled(between(1, 60_001))


@dataclass
class TrackingConfig:
    """conf/tracking/*.yaml: where MLflow keeps the runs."""

    uri: str
    experiment: str
    run_name: str | None
    timeout: float = ruled(SECONDS)


@dataclass
class Config:
    """Everything that a job is told."""

    data: DataConfig
    model: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: TrainerConfig
    tracking: TrackingConfig
    seed: int = ruled(between(0, 2**32))
    data_root: str = "data"
    output_dir: str | None = None
    overrides: list[str] = field(default_factory=list)  # what was typed; no key of conf/

    def composed(self) -> dict[str, Any]:
        """The configuration as nested dictionaries, without what was typed to get it."""
        content = dataclasses.asdict(self)
        del content["overrides"]
        return content

    @property
    def variant(self) -> str:
        """The name under which the model's files and runs are found."""
        return self.model["name"]

    def folder(self, kind: str) -> Path:
        """Where results of a kind (`models`, `metrics` or `plots`) of this variant lie."""
        return Path(self.output_dir or ".") / kind / self.variant

    def make_folders(self) -> None:
        """Makes the folders of all results, so that what cannot be written is known before training.

        Raises:
            UserError: a folder cannot be written.
        """
        for kind in ("models", "metrics", "plots"):
            folder = self.folder(kind)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
            except OSError as error:
                raise UserError(
                    f"cannot write to {folder} ({error.strerror}); choose another: output_dir=..."
                ) from error

    @property
    def model_file(self) -> Path:
        """The trained model, in Keras's own format."""
        return self.folder("models") / "model.keras"


def checked(composed: DictConfig, choices: dict[str, str]) -> Config:
    """Turns what Hydra composed into a `Config`.

    Args:
        composed: the composed configuration.
        choices: the option chosen in each config group, such as `{"model": "mlp"}`.

    Raises:
        UserError: a value has the wrong type or is out of range.
    """
    for group in GROUPS:
        if group not in choices:  # Hydra would merge a list of options
            raise UserError(f"{group} takes one option; to try several one after another, use -m.")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), composed))
    except ConfigKeyError as error:
        raise unknown_key(str(error.full_key)) from error
    except OmegaConfBaseException as error:
        reason = (error.msg or str(error)).split("\n")[0].rstrip(".")
        raise UserError(f"{error.full_key or 'the configuration'}: {reason}.") from error
    assert isinstance(config, Config)
    check_ranges(config)
    config.data_root = str(Path(config.data_root).expanduser())
    for group in ("model", "optimizer"):
        example_file = CONF / group / f"{choices.get(group)}.yaml"
        example = OmegaConf.to_container(OmegaConf.load(example_file)) if example_file.is_file() else {}
        assert isinstance(example, dict)
        for key, value in getattr(config, group).items():
            if example and key not in example:
                raise unknown_key(f"{group}.{key}")
            check_argument(f"{group}.{key}", value, example.get(key, value), ARGUMENTS.get(key))
    return config


def check_ranges(section: Any, prefix: str = "") -> None:
    """Checks every ruled field of a dataclass and of the dataclasses inside it.

    Raises:
        UserError: the first value that is out of range, named with its full key.
    """
    for item in dataclasses.fields(section):
        value, rule = getattr(section, item.name), item.metadata.get("rule")
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{prefix}{item.name}.")
        elif rule and not rule.holds(value):
            raise UserError(f"{prefix}{item.name} must be {rule.text}, got {value!r}.")


def check_argument(key: str, value: Any, example: Any, rule: Rule | None) -> None:
    """Checks one argument of a model or optimizer against the value in its YAML file and its rule.

    Raises:
        UserError: it is of another type than `example`, or breaks `rule`.
    """
    if isinstance(example, list):
        if not isinstance(value, list):
            raise UserError(f"{key} must be a list such as {example}, got {value!r}.")
        for index, element in enumerate(value):
            check_argument(f"{key}[{index}]", element, example[0] if example else element, rule)
        return
    types = (int, float) if isinstance(example, float) else type(example)
    if not isinstance(value, types) or isinstance(value, bool) != isinstance(example, bool):
        raise UserError(f"{key} must be {type_name(example)} such as {example!r}, got {value!r}.")
    if rule and not rule.holds(value):
        raise UserError(f"{key} must be {rule.text}, got {value!r}.")


def type_name(example: Any) -> str:
    """The type of a value in words."""
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(type(example), f"a {type(example).__name__}")


def unknown_key(key: str) -> UserError:
    """The error for a key that does not exist: names the near one that does, or the option that has it."""
    known = known_keys()
    if key in known:
        group, _, name = key.partition(".")
        having = [file.stem for file in sorted((CONF / group).glob("*.yaml")) if name in OmegaConf.load(file)]
        return UserError(
            f"the chosen option of {group} has no key '{name}'; it belongs to {group}={' | '.join(having)}."
        )
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]}?" if near else ""
    return UserError(f"there is no key '{key}';{hint} --help lists all keys.")


def known_keys() -> list[str]:
    """Every key that can be set: groups, their keys, and the top level, such as `trainer` and `trainer.epochs`."""
    keys = {"experiment"}
    for file in CONF.rglob("*.yaml"):
        group = file.parent.relative_to(CONF).as_posix()
        names = [str(name) for name in OmegaConf.load(file) if name not in ("defaults", "_target_", "hydra")]
        if group == ".":
            keys |= set(names)
        elif group in GROUPS:
            keys |= {group, *(f"{group}.{name}" for name in names)}
    return sorted(keys)
