"""Turns what Hydra composed into a `Config`, or refuses it in one sentence, with the way out."""

import dataclasses
import difflib
import functools
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fashion_mnist.config import ARGUMENTS, CONF, GROUPS, SCHEMAS, Config, Rule
from fashion_mnist.errors import UserError
from fashion_mnist.passwords import refuse

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}


def checked(composed: DictConfig, choices: dict[str, str], primary: str = "config") -> Any:
    """Turns what Hydra composed from `primary`, a file of conf/, into the dataclass that `config.SCHEMAS` has for it.

    `choices` are the options chosen in each config group, such as `{"model": "mlp"}`.
    """
    content: Any = OmegaConf.to_container(composed)
    content.pop("hydra", None)  # which `compose` leaves in
    for key in (item.name for item in dataclasses.fields(SCHEMAS[primary])):
        if key in GROUPS and key not in choices:  # Hydra would merge a list of options
            raise UserError(f"{key} takes one option; to try several one after another, use -m.")
        if key not in GROUPS and isinstance(content.get(key), dict):  # OmegaConf does not say where, for a list
            raise UserError(f"{key} has no keys of its own, got {content[key]}.")
    config = built(SCHEMAS[primary], content)
    for name in ("data_root", "output_dir"):
        if folder := getattr(config, name, None):
            setattr(config, name, str(Path(folder).expanduser()))
    if isinstance(config, Config):
        check_training(config, choices)
    return config


def built(schema: type, content: Any) -> Any:
    """A dataclass of `config` with this content; OmegaConf refuses what is of another type, missing or unknown."""
    config: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), content))
    check_section(config, content)
    return config


def check_section(section: Any, written: Any, prefix: str = "") -> None:
    """Refuses what is out of range, or was `written` in another type and turned into the right one with a loss."""
    for item in dataclasses.fields(section):
        key, value, source = f"{prefix}{item.name}", getattr(section, item.name), written.get(item.name)
        if not dataclasses.is_dataclass(value):
            refuse(key, str(value))  # such as one from a file of conf/
        if dataclasses.is_dataclass(value):
            check_section(value, source, f"{key}.")
        elif isinstance(value, bool) and isinstance(source, int) and source not in (0, 1):
            raise UserError(f"{key} must be true or false, got {source}.")
        elif isinstance(source, list) and any(isinstance(element, list | dict) for element in source):
            raise UserError(f"{key} must be a list of texts, got {source}.")
        elif value is not None and (rule := item.metadata.get("rule")):
            rule.check(key, value)


def check_training(config: Config, choices: dict[str, str]) -> None:
    """Checks what no single key shows: what goes together, and the arguments of model and optimizer."""
    if config.trainer.patience is not None and config.data.validation == 0:
        raise UserError("trainer.patience watches the validation loss, and data.validation=0 leaves no images for it.")
    if config.trainer.fine_tuning != 1 and config.trainer.schedule != "constant":
        raise UserError("trainer.fine_tuning goes with trainer.schedule=constant; for others, set it to 1.")
    for group in ("model", "optimizer"):
        example = example_of(group, choices.get(group))
        for key, value in getattr(config, group).items():
            if example and key not in example:
                raise UserError(unknown_key(f"{group}.{key}"))
            if key == "_target_" and value != example.get(key, value):
                raise UserError(f"{group}._target_ cannot be set; a file in conf/{group} makes it an option.")
            check_argument(f"{group}.{key}", value, example.get(key, value), ARGUMENTS.get(key))


def example_of(group: str, option: str | None) -> dict[str, Any]:
    """What an option's YAML file says, and the files of its own group that it builds on; nothing if there is none."""
    file = CONF / group / f"{option}.yaml"
    content: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    below = [base for base in content.pop("defaults", []) if isinstance(base, str) and base != "_self_"]
    return functools.reduce(lambda built, base: built | example_of(group, base), below, {}) | content


def check_argument(key: str, value: Any, example: Any, rule: Rule | None) -> None:
    """Refuses an argument of a model or optimizer of another type than in its YAML file, or against its rule."""
    if isinstance(example, list) and isinstance(value, list):
        for index, element in enumerate(value):
            # Of an empty list nobody can tell what goes into it; what has a rule is a number.
            of_elements = example[0] if example else 1 if rule else element
            check_argument(f"{key}[{index}]", element, of_elements, rule)
        return
    kinds = (int, float) if isinstance(example, float) else type(example)
    if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(example, bool):
        kind = TYPES.get(type(example), f"a {type(example).__name__}")
        raise UserError(f"{key} must be {kind} such as {example!r}, got {value!r}.")
    if rule:
        rule.check(key, value)


def unknown_key(key: str, primary: str = "config") -> str:
    """What is said to a key that cannot be set: names the near one that can, or the option that has it."""
    known = known_keys(primary)
    if key in GROUPS and key in known:
        return f"{key} takes the name of one of its options; --help lists them."
    if key in known:
        group, _, name = key.partition(".")
        having = [file.stem for file in sorted((CONF / group).glob("*.yaml")) if name in OmegaConf.load(file)]
        return f"the chosen option of {group} has no key '{name}'; it belongs to {group}={' | '.join(having)}."
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]}?" if near else ""
    return f"there is no key '{key}';{hint} --help lists all keys."


def known_keys(primary: str = "config") -> list[str]:
    """Every key that can be set: groups, their keys, and the top level, such as `trainer` and `trainer.epochs`."""
    main: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{primary}.yaml"))
    groups = {group for entry in main.pop("defaults") if isinstance(entry, dict) for group in entry}
    keys = groups | set(main) - {"hydra"}
    for group in groups & set(GROUPS):
        for file in (CONF / group).glob("*.yaml"):
            keys |= {f"{group}.{name}" for name in OmegaConf.load(file) if name not in ("defaults", "_target_")}
    return sorted(keys)
