"""Turns what Hydra composed into a `Config`, or refuses it in one sentence, with the way out."""

import dataclasses
import difflib
import functools
import typing
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from fashion_mnist.config import ARGUMENTS, CONF, GROUPS, SCHEMAS, Config, ReproduceConfig, Rule, SyncConfig
from fashion_mnist.errors import UserError


def checked(composed: DictConfig, choices: dict[str, str], primary: str = "config") -> Any:
    """Turns what Hydra composed into a `Config`, or another dataclass of `config.SCHEMAS`.

    Args:
        composed: the composed configuration.
        choices: the option chosen in each config group, such as `{"model": "mlp"}`.
        primary: the file of conf/ that it was composed from.

    Raises:
        UserError: a value has the wrong type or is out of range.
    """
    schema = SCHEMAS[primary]
    for group in {item.name for item in dataclasses.fields(schema)} & set(GROUPS):
        if group not in choices:  # Hydra would merge a list of options
            raise UserError(f"{group} takes one option; to try several one after another, use -m.")
    check_types(OmegaConf.to_container(composed), schema)
    try:
        config: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), composed))
    except ConfigKeyError as error:
        raise unknown_key(str(error.full_key), primary) from error
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise UserError(f"{key} has no value: write {key}=VALUE; --help lists the keys.") from error
    except OmegaConfBaseException as error:
        reason = (error.msg or str(error)).split("\n")[0].rstrip(".")
        raise UserError(f"{error.full_key or 'the configuration'}: {reason}.") from error
    check_ranges(config)
    if not isinstance(config, SyncConfig):  # which reads no dataset
        config.data_root = str(Path(config.data_root).expanduser())
    if isinstance(config, Config | ReproduceConfig) and config.output_dir:
        config.output_dir = str(Path(config.output_dir).expanduser())
    if isinstance(config, Config):
        check_training(config, choices)
    return config


def check_training(config: Config, choices: dict[str, str]) -> None:
    """Checks what no single key shows: what goes together, and the arguments of model and optimizer.

    Raises:
        UserError: a value is refused.
    """
    if config.trainer.patience is not None and config.data.validation == 0:
        raise UserError("trainer.patience watches the validation loss, and data.validation=0 leaves no images for it.")
    if config.trainer.fine_tuning != 1 and config.trainer.schedule != "constant":
        raise UserError("trainer.fine_tuning goes with trainer.schedule=constant; for others, set it to 1.")
    for group in ("model", "optimizer"):
        example = example_of(group, choices.get(group))
        for key, value in getattr(config, group).items():
            if example and key not in example:
                raise unknown_key(f"{group}.{key}")
            if key == "_target_" and value != example.get(key, value):
                raise UserError(
                    f"{group}._target_ cannot be set; a file in conf/{group} makes it an option of {group}."
                )
            check_argument(f"{group}.{key}", value, example.get(key, value), ARGUMENTS.get(key))


def example_of(group: str, option: str | None) -> dict[str, Any]:
    """What an option's YAML file says, and the files of its own group that it builds on; nothing if there is none."""
    file = CONF / group / f"{option}.yaml"
    content: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    below = [base for base in content.pop("defaults", []) if isinstance(base, str) and base != "_self_"]
    return functools.reduce(lambda built, base: built | example_of(group, base), below, {}) | content


def check_types(section: Any, schema: type, prefix: str = "") -> None:
    """Checks what OmegaConf would turn into the type that is asked for: any number into true, lists into texts.

    Raises:
        UserError: the first value of another type, named with its full key.
    """
    for name, kind in typing.get_type_hints(schema).items():
        value, kinds = section.get(name), (kind, *typing.get_args(kind))
        if dataclasses.is_dataclass(kind) and isinstance(value, dict):
            check_types(value, typing.cast(type, kind), f"{prefix}{name}.")
        elif bool in kinds and isinstance(value, int) and value not in (0, 1):
            raise UserError(f"{prefix}{name} must be true or false, got {value}.")
        elif list[str] in kinds and any(isinstance(each, list | dict) for each in nested(value)):
            raise UserError(f"{prefix}{name} must be a list of texts, got {value}.")


def nested(value: Any) -> list[Any]:
    """What a value consists of: the elements of a list, or else itself."""
    return value if isinstance(value, list) else [value]


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
            # Of an empty list nobody can tell what goes into it; what has a rule is a number.
            of_elements = example[0] if example else 1 if rule else element
            check_argument(f"{key}[{index}]", element, of_elements, rule)
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


def unknown_key(key: str, primary: str = "config") -> UserError:
    """The error for a key that does not exist: names the near one that does, or the option that has it."""
    known = known_keys(primary)
    if key in GROUPS and key in known:
        return UserError(f"{key} takes the name of one of its options; --help lists them.")
    if key in known:
        group, _, name = key.partition(".")
        having = [file.stem for file in sorted((CONF / group).glob("*.yaml")) if name in OmegaConf.load(file)]
        return UserError(
            f"the chosen option of {group} has no key '{name}'; it belongs to {group}={' | '.join(having)}."
        )
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]}?" if near else ""
    return UserError(f"there is no key '{key}';{hint} --help lists all keys.")


def known_keys(primary: str = "config") -> list[str]:
    """Every key that can be set: groups, their keys, and the top level, such as `trainer` and `trainer.epochs`."""
    main: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{primary}.yaml"))
    groups = {group for entry in main.pop("defaults") if isinstance(entry, dict) for group in entry}
    keys = groups | set(main) - {"hydra"}
    for file in CONF.glob("*/*.yaml"):
        if file.parent.name in groups & set(GROUPS):
            names = [str(name) for name in OmegaConf.load(file) if name not in ("defaults", "_target_")]
            keys |= {f"{file.parent.name}.{name}" for name in names}
    return sorted(keys)
