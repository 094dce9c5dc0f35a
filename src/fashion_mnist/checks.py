"""Turns what Hydra composed into a `Config`, or refuses it in one sentence, with the way out."""

import ast
import dataclasses
import difflib
import functools
import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from fashion_mnist.config import ARGUMENTS, CONF, GROUPS, SCHEMAS, STEP, ClusterConfig, Config, Rule
from fashion_mnist.errors import UserError
from fashion_mnist.passwords import refuse, refuse_in_command_line

RAY_LAUNCHER = "hydra_plugins.fashion_mnist.RayLauncher"
UNTYPED = ("defaults", "hydra", "_target_")  # what stands in conf/ and is no key to be set
OLDER = {"augment": "none", "trainer": "default"}  # the options that have the values of keys that a run is older than
OF_DATASET = ("image_shape", "classes")  # arguments of models that no key sets
TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}


def checked(composed: DictConfig, choices: dict[str, str], primary: str = "config") -> Any:
    """Turns what Hydra composed from `primary`, a file of conf/, into the dataclass that `config.SCHEMAS` has for it.

    `choices` are the options chosen in each config group, such as `{"model": "mlp"}`.
    """
    content: Any = OmegaConf.to_container(composed)
    content.pop("hydra", None)  # which `compose` leaves in
    check_keys(SCHEMAS[primary], content, "", primary)
    if preset := choices.get("experiment"):
        if "experiment" in content:
            raise UserError(f"conf/experiment/{preset}.yaml must begin with the line `# @package _global_`.")
        check_keys(SCHEMAS[primary], content, "experiment", preset)
    for item in dataclasses.fields(SCHEMAS[primary]):
        key, value = item.name, content.get(item.name)
        if key in GROUPS and key not in choices:  # Hydra would merge a list of options
            raise UserError(f"{key} takes one option; to try several one after another, use -m.")
        if key in GROUPS:
            check_keys(item.type, value, key, choices[key])
        elif isinstance(value, dict) and key == "steps":
            for variant, step in value.items():
                STEP.check(f"steps.{variant}", step)
        elif isinstance(value, dict):  # OmegaConf does not say where, for a list
            raise UserError(f"{key} has no keys of its own, got {value}.")
    config = built(SCHEMAS[primary], content)
    for name in ("data_root", "output_dir"):
        if folder := getattr(config, name, None):
            setattr(config, name, str(Path(folder).expanduser()))
    if isinstance(config, Config):
        check_training(config, choices)
    return config


def check_keys(schema: Any, section: Any, group: str, option: str) -> None:
    """Refuses keys of a file of conf/ that nothing reads, and the lack of those that have no default."""
    file, written = Path("conf", group, f"{option}.yaml").as_posix(), example_of(group, option)
    if not isinstance(section, dict):
        raise UserError(f"{group} must have keys of its own, got {section}.")
    if dataclasses.is_dataclass(schema):
        known = {item.name: item.default is item.default_factory for item in dataclasses.fields(schema)}  # both MISSING
    else:
        target = str(section.get("_target_"))
        known = arguments_of(target, file, written) | {"_target_": True, "name": group == "model"}
    for key in (key for key in section if key in written and key not in known):
        raise UserError(f"{file} has a key that nothing reads, {key}; there are {', '.join(known)}.")
    for key in (key for key, needed in known.items() if needed and key not in section):
        name = f"{group}.{key}" if group else key
        raise UserError(f"{name} is missing: {file} must have it, and ~{name} cannot take it away.")


def arguments_of(target: str, file: str, written: dict[str, Any]) -> dict[str, bool]:
    """The arguments of a function, and whether it needs them, from the source of models.py: importing takes seconds."""
    module, _, name = target.rpartition(".")
    source = (Path(__file__).parent / "models.py").read_text("utf-8") if module == "fashion_mnist.models" else ""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name and not node.args.kwarg:
            needed, arguments = len(node.args.args) - len(node.args.defaults), node.args.args + node.args.kwonlyargs
            named = {argument.arg: index < needed for index, argument in enumerate(arguments)}
            return {name: is_needed for name, is_needed in named.items() if name not in OF_DATASET}
    if source and name not in source:
        raise UserError(f"{file}: there is no function {name} in src/fashion_mnist/models.py.")
    return dict.fromkeys(written, False)


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
    for group in ("model", "optimizer"):
        example = example_of(group, choices.get(group))
        for key, value in getattr(config, group).items():
            if example and key not in example:
                of_preset = example_of("experiment", choices.get("experiment")).get(group)
                file = f"conf/experiment/{choices['experiment']}.yaml: " if key in (of_preset or ()) else ""
                said = unknown_key(f"{group}.{key}").removesuffix(".")
                raise UserError(f"{file}{said}" + (f"; '~{group}.{key}' takes it away." if file else "."))
            if key == "_target_" and value != example.get(key, value):
                raise UserError(f"{group}._target_ cannot be set; a file in conf/{group} makes it an option.")
            expected = group if key in ("name", "_target_") else example.get(key, value)
            check_argument(f"{group}.{key}", value, expected, ARGUMENTS.get(key))
            if isinstance(expected, float):  # so that dropout=0 is the same as 0.0
                getattr(config, group)[key] = float(value)


def of_plugin(hydra: HydraConf, kind: str, target: str, schema: type) -> Any:
    """The settings of one of our own plugins for Hydra as a dataclass of `config`; nothing if another is chosen.

    Args:
        hydra: all that Hydra was told.
        kind: sweeper or launcher.
        target: the plugin's class.
        schema: the dataclass.
    """
    settings: Any = OmegaConf.to_container(getattr(hydra, kind), resolve=True)
    file = f"conf/hydra/{kind}/{hydra.runtime.choices[f'hydra/{kind}']}.yaml"
    if not isinstance(settings, dict) or "_target_" not in settings:
        raise UserError(f"{file} must consist of lines such as `_target_: {target}`.")
    if settings.pop("_target_") != target:
        return None
    settings.pop("_recursive_", None)
    try:
        return built(schema, settings)
    except MissingMandatoryValue as error:
        raise UserError(f"{file}: {str(error).splitlines()[0].rpartition(' has ')[2]}.") from error
    except OmegaConfBaseException as error:
        raise UserError(f"hydra.{kind}.{error.full_key}: {str(error).splitlines()[0].rstrip('.')}.") from error
    except UserError as error:
        raise UserError(f"hydra.{kind}.{error}") from error


def cluster_of(hydra: HydraConf) -> ClusterConfig | None:
    """The settings of Ray, where Hydra is to give jobs to it; refuses what cannot be."""
    cluster = of_plugin(hydra, "launcher", RAY_LAUNCHER, ClusterConfig)
    if cluster and importlib.util.find_spec("ray") is None:
        raise UserError("hydra/launcher=ray needs Ray: uv sync --inexact --extra cluster")
    if cluster:
        refuse_in_command_line()
    return cluster


def read(file: Path) -> dict[str, Any]:
    """The keys and values of a file of conf/."""
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    if not isinstance(content, dict):
        raise UserError(f"conf/{file.relative_to(CONF).as_posix()} must consist of lines such as `key: value`.")
    return content


def example_of(group: str, option: str | None) -> dict[str, Any]:
    """What an option's YAML file says, and the files of its own group that it builds on; nothing if there is none."""
    file = CONF / group / f"{option}.yaml"
    content = read(file) if file.is_file() else {}
    below = [base for base in content.pop("defaults", None) or [] if isinstance(base, str) and base != "_self_"]
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
    if "steps" in known and key.partition(".")[0] == "steps":
        return f"{key}: a further step needs a +, such as '+steps.mine={{parent: cnn, technique: my idea}}'."
    if key in known and "." not in key:
        return f"{key} takes the name of one of its options; --help lists them."
    if key in known:
        group, _, name = key.partition(".")
        return f"the chosen option of {group} has no key '{name}'; it belongs to {group}={' | '.join(known[key])}."
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]}?" if near else ""
    return f"there is no key '{key}';{hint} --help lists all keys."


def known_keys(primary: str = "config") -> dict[str, list[str]]:
    """Every key that can be set, such as `trainer` and `trainer.epochs`, and the options of its group that have it."""
    groups = groups_of(primary)
    known: dict[str, list[str]] = {key: [] for key in [*groups, *read(CONF / f"{primary}.yaml")]}
    for file in sorted(file for group in groups if group in GROUPS for file in (CONF / group).glob("*.yaml")):
        with suppress(Exception):  # a file that nobody has chosen, and nobody can read
            for name in read(file):
                known.setdefault(f"{file.parent.name}.{name}", []).append(file.stem)
    return {key: options for key, options in known.items() if key.rpartition(".")[2] not in UNTYPED}


def as_one_run(overrides: list[str]) -> list[str]:
    """The overrides of a job as one types them to get it alone, even where the preset is a sweep of its own."""
    for name in (word.partition("=")[2] for word in overrides if word.startswith("experiment=")):
        if (example_of("experiment", name).get("hydra") or {}).get("mode") == "MULTIRUN":
            return [*overrides, "hydra.mode=RUN"]
    return overrides


def groups_of(primary: str) -> dict[str, str | None]:
    """The config groups that a file of conf/ composes, each with the option that is chosen there."""
    entries = read(CONF / f"{primary}.yaml").get("defaults") or []
    return {group: option for entry in entries if isinstance(entry, dict) for group, option in entry.items()}
