"""The command line of every step: what people type becomes a checked `Config`, and a mistake one sentence."""

import contextlib
import errno
import importlib
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, ValueType
from hydra.core.utils import env_override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException, ValidationError

from fashion_mnist.checks import checked, cluster_of, unknown_key
from fashion_mnist.config import CONF
from fashion_mnist.errors import UserError, make_streams_last, reason_of
from fashion_mnist.files import home
from fashion_mnist.help import help_text
from fashion_mnist.passwords import refuse_variables, tidy_environment, without_password
from fashion_mnist.trials.space import check_range, check_search, ends_of, search_of, with_params

FLAGS = get_args_parser()._option_string_actions  # Hydra's own, such as "--cfg" and "-c"
OmegaConf.register_new_resolver("equal", lambda one, other: one == other, replace=True)  # for conf/
UNTRAINED = ("fetch", "evaluate")  # the steps with the keys of a training that make none
SWITCHES = {"--check-only": "check_only", "--checkout": "checkout"}  # which need no value


def main(job: Callable[[Any], Any], primary: str = "config") -> None:
    """Runs a step from the command line: calls `job` with the configuration whose keys stand in conf/`primary`.yaml."""
    with explained(primary):
        sys.argv[1:] = arguments = as_overrides(sys.argv[1:])
        flags = {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}
        if flags & {"--help", "-h"}:
            print(help_text(step_of(job), str(sys.modules[job.__module__].__file__), primary))
            return
        if primary != "config" and flags & {"-m", "--multirun"}:
            raise UserError("-m is for trainings; this step takes one value for each key.")
        has_preset = any(argument.lstrip("+").startswith("experiment=") for argument in arguments)
        if step_of(job) in UNTRAINED and has_preset and not flags & {"-m", "--multirun"}:
            sys.argv[1:] = arguments = [*arguments, "hydra.mode=RUN"]  # a preset may be a sweep, but of trainings
        if flags <= {"-m", "--multirun", "-r", "--run"}:  # others only print, or bring configurations of their own
            typed = [argument for argument in arguments if not argument.startswith("-")]
            check_all(typed, primary, multirun=bool(flags & {"-m", "--multirun"}), step=step_of(job))
        run_with_hydra(job, primary)


def run_with_hydra(job: Callable[[Any], Any], primary: str) -> None:
    """Lets Hydra compose the configuration, once or for each job of a sweep."""
    task = Task(job, primary)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)  # else it tells of its first look for fonts
    with env_override({"HYDRA_FULL_ERROR": "1"}):  # else Hydra would print an error in its own way, and end the process
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=primary)(task)()
    if task.failure:
        raise task.failure


class Task:
    """A step as Hydra calls it, once or for each job of a sweep; to other processes it travels by its name."""

    def __init__(self, job: Callable[[Any], Any], primary: str = "config") -> None:
        self.job, self.name, self.primary = job, job.__name__, primary
        self.__module__ = f"fashion_mnist.{step_of(job)}"  # Hydra names the job and its log file after it
        self.full_error = wants_full_error()
        self.failure: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "job": None}

    def __call__(self, composed: DictConfig) -> Any:
        job = self.job or getattr(importlib.import_module(self.__module__), self.name)
        hydra_config = HydraConfig.get()
        in_sweep = hydra_config.mode == RunMode.MULTIRUN
        try:
            config = checked(composed, dict(hydra_config.runtime.choices), self.primary)
            config.overrides = list(hydra_config.overrides.task)
            if in_sweep and self.primary == "config":
                config.search = search_of(hydra_config, of_trial=True)
                if self.__module__.rpartition(".")[2] not in UNTRAINED and not config.output_dir:
                    # The jobs of a sweep often share a variant, and must not overwrite each other's model.
                    config.output_dir = str(Path(hydra_config.runtime.output_dir))
            if not self.full_error:
                os.environ.pop("HYDRA_FULL_ERROR", None)  # the programs that the job starts are not to inherit it
            return job(config)
        except Exception as error:
            if in_sweep:  # Hydra goes on with the other jobs, and reports the first failure at the end
                raise
            self.failure = error  # raised later: Hydra would precede the sentence with a line of its own
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"


def wants_full_error() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


def step_of(job: Callable[..., Any]) -> str:
    """The name of the module that a step lives in; run with `python -m`, it only says `__main__` of itself."""
    return Path(str(sys.modules[job.__module__].__file__)).stem


def check_all(arguments: list[str], primary: str, multirun: bool = False, step: str = "__main__") -> None:
    """Checks the configuration, and every value of a sweep, before anything starts or is written."""
    overrides = OverridesParser.create().parse_overrides(arguments)
    fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    own_sweeper = any(override.key_or_group == "hydra/sweeper" for override in overrides)  # who knows what it can do
    search, varied = None, {}
    if any(argument.lstrip("+").startswith(("hydra/", "hydra.", "experiment=")) for argument in fixed):
        config = compose(fixed, primary)  # whose preset may say what is searched
        multirun = multirun or HydraConfig.get().mode == RunMode.MULTIRUN
        cluster_of(HydraConfig.get())
        if multirun and (search := search_of(HydraConfig.get())):
            if step in UNTRAINED:
                raise UserError(f"a search is made of trainings, and {step} makes none: leave -m out.")
            overrides = with_params(search, overrides)
            check_search(search, HydraConfig.get(), overrides, config)
            fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    for override in overrides:
        kind, key = override.value_type, override.get_key_element()
        check_range(override)
        if search and kind in (ValueType.INTERVAL_SWEEP, ValueType.RANGE_SWEEP):
            varied[key] = ends_of(override)
        elif kind in (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP, ValueType.RANGE_SWEEP):
            varied[key] = list(override.sweep_string_iterator())
        elif override.is_sweep_override() and not own_sweeper and (kind == ValueType.INTERVAL_SWEEP or "." in key):
            # Hydra's own sweeper resolves globs of options, and nothing else.
            raise UserError(f"a sweep takes single values: -m {key}=VALUE,VALUE,... or -m '{key}=range(FROM,TO)'.")
    first = {key: values[0] for key, values in varied.items()}
    plain = {key.lstrip("+"): value for key, value in first.items()}
    for job in [first, *({**first, key: value} for key, values in varied.items() for value in values[1:])]:
        try:
            compose([*fixed, *(f"{key}={value}" for key, value in job.items())], primary)
        except ValidationError as error:
            if re.fullmatch(r"\d+\.0", plain.get(str(error.full_key), "")):
                raise UserError(f"{error.full_key} takes whole numbers: int(interval(FROM,TO)).") from error
            raise


def compose(overrides: list[str], primary: str = "config") -> Any:
    """Composes and checks a configuration without running anything: for tests, notebooks and sweeps.

    Args:
        overrides: as on the command line, such as `["model=cnn", "trainer.epochs=3"]`.
        primary: the file of conf/ to start from, which becomes a `Config` or another of `config.SCHEMAS`.
    """
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composed = hydra.compose(primary, overrides, return_hydra_config=True)
    refuse_variables([*composed.hydra.job.env_set, *keys_in(OmegaConf.to_container(composed.hydra.launcher))])
    composed.hydra.runtime.output_dir, composed.hydra.job.num, composed.hydra.job.id = "outputs", 0, "0"  # as of a job
    HydraConfig.instance().set_config(composed)  # where `${hydra:...}` is looked up
    config = checked(composed, dict(composed.hydra.runtime.choices), primary)
    config.overrides = overrides
    return config


def keys_in(settings: Any) -> Iterator[str]:
    """All keys of nested settings."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        yield str(key)
        yield from keys_in(value)


def as_overrides(arguments: Iterable[str]) -> list[str]:
    """Rewrites `--key value` and `--key=value` as `key=value`; Hydra's own flags come first, as it takes none between.

    `mlflow run . -P key=value` hands every parameter that MLproject does not declare over as `--key value`
    (https://github.com/mlflow/mlflow/issues/4390).
    """
    flags, overrides, rest = [], [], [argument for argument in arguments if argument != "--"]
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        follows_a_value = bool(rest) and not rest[0].startswith("-") and "=" not in rest[0]
        if name in SWITCHES and not equals and not follows_a_value:
            overrides.append(f"{SWITCHES[name]}=true")
        elif not argument.startswith("--") or (name in FLAGS and not (name == "--run" and (follows_a_value or equals))):
            (flags if argument.startswith("-") else overrides).append(argument)
            if name in FLAGS and FLAGS[name].nargs is None and not equals and rest:  # one that has a value
                flags.append(rest.pop(0))
        elif equals:
            overrides.append(f"{name[2:]}={value}")
        elif rest and not rest[0].startswith("--"):
            overrides.append(f"{name[2:]}={rest.pop(0)}")
        else:
            raise UserError(f"{name} needs a value: {name} VALUE or {name[2:]}=VALUE; --help lists the keys.")
    return flags + [quoted(without_password(override)) for override in overrides]


def quoted(override: str) -> str:
    """Spares people Hydra's quotes around a search for runs, which has quotes and equals signs of its own."""
    key, _, value = override.partition("=")
    if key != "runs" or value[:1] in ("", "'", '"') or value == "null":
        return override
    return f"runs={QuotedString(value, Quote.double).with_quotes()}"


@contextlib.contextmanager
def explained(primary: str = "config") -> Iterator[None]:
    """Ends the process with one sentence where something fails that the user can mend; else the traceback is shown."""
    make_streams_last()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers ask for an end by it, as people by Ctrl-C
    os.environ["HOME"] = os.environ.get("HOME") or str(home())  # MLflow insists on one, in a container too
    try:
        tidy_environment()
        if not CONF.is_dir():
            raise UserError("conf/ does not lie beside the package: type `pip install -e .` in the project's folder.")
        yield
    except KeyboardInterrupt as error:
        print(f"\nInterrupted{': ' if str(error) else '.'}{error}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if wants_full_error() or (message := explain(error, primary)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)


def explain(error: BaseException, primary: str = "config") -> str | None:
    """The sentence for an error that the user can mend; None for a defect of ours, which deserves its traceback."""
    match error:
        case UserError():
            return str(error)
        case MissingConfigException(missing_cfg_file=str() as missing, options=list() as options):
            group, _, choice = missing.rpartition("/") if missing.startswith("hydra/") else missing.partition("/")
            if not options:  # a file of one group chooses among another's
                file, (other, _, option) = str(error).split("'")[1], choice.partition("/")
                at = "" if group == "experiment" else f"@_global_.{other}"
                return f"conf/{file}.yaml: for an option of another group, write `- override /{other}{at}: {option}`."
            folder = f", or name the folder: data.dir={choice}" if group == "data" and "/" in choice else ""
            line = re.compile(rf"(?m)^ *- override /{group}(@.*)?: *{re.escape(choice)} *$")
            chosen = [file for file in CONF.rglob("*.yaml") if line.search(file.read_text("utf-8", "replace"))]
            where = f"{chosen[0]}: ".replace(str(CONF), "conf") if chosen else ""
            return f"{where}{group} has no option '{choice}'; choose one of {', '.join(options)}{folder}."
        case OverrideParseException():
            key, equals, _ = error.override.partition("=")
            if not equals:
                return f"'{key}' has no value: write {key}=VALUE; --help lists the keys."
            return f"cannot read '{error.override}'; values with special characters need quotes: \"{key}='...'\"."
        case HydraException() if found := re.search(r"Could not override '([^']+)'", str(error)):
            return unknown_key(found[1], primary)
        case HydraException() if found := re.search(r"Ambiguous value for argument '([^=]+)=([^']+)'", str(error)):
            key, values = found.groups()
            as_list = f"write {key}=[{values}] for a list, or " if "." in key else ""
            return f"{key} got several values: {as_list}add -m for a sweep over them."
        case HydraException() if found := re.search(r"Multiple values for (\w+)\.", str(error)):
            return f"{found[1]} is chosen already: leave the + out, or write `override` before it in a file's defaults."
        case yaml.MarkedYAMLError(problem_mark=yaml.Mark(name=file, line=line), problem=problem):
            return f"{file.replace(str(CONF), 'conf')}, line {line + 1}: {problem}; mend this line, or one above it."
        case UnicodeDecodeError(object=text) if files := [x for x in CONF.rglob("*.yaml") if text in x.read_bytes()]:
            file, line = str(files[0]).replace(str(CONF), "conf"), text[: error.start].count(b"\n") + 1
            return f"{file}, line {line}: this is not UTF-8; write the line anew, or save the file with that encoding."
        case Exception() if isinstance(error, HydraException | yaml.YAMLError) or "defaults list in" in str(error):
            text = re.sub(r"(?i)(in|primary config) '([\w/]+)'", r"\1 conf/\2.yaml", str(error) or str(error.__cause__))
            return " ".join(re.sub(r"^In (\w+/\w+):", r"In conf/\1.yaml:", text).split())
        case ValueError() if "Unsupported type in defaults" in str(error):  # Hydra does not say where
            found = [
                file for file in CONF.rglob("*.yaml") if re.search(r"(?m)^ *-\s*$|: *$\s*\Z", file.read_text("utf-8"))
            ]
            file = f"{found[0]}".replace(str(CONF), "conf") if found else "conf/"
            return f"{file} has an entry without a name in its defaults; mend it, or leave it out."
        case AttributeError() if "_set_flag" in str(error):  # Hydra's, for its own key without a value
            return "hydra must have keys of its own, or not be there, in conf/config.yaml and in an experiment."
        case ValueError() if "Config group override" in str(error):
            return "a group such as model or data takes the name of one of its options; --help lists them."
        case ConfigKeyError():
            return unknown_key(str(error.full_key), primary)
        case MissingMandatoryValue():
            return f"{error.full_key} has no value: write {error.full_key}=VALUE; --help lists the keys."
        case OmegaConfBaseException():
            return f"{error.full_key or 'the configuration'}: {str(error).splitlines()[0].rstrip('.')}."
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return f"No space left on device, for results or in {tempfile.gettempdir()}; make room, and start again."
        case OSError() if "Invalid loaded object type" in str(error):  # OmegaConf's, for a file that is a number
            file = next(x for x in CONF.rglob("*.yaml") if isinstance(yaml.safe_load(x.read_bytes()), int | float))
            return f"{str(file).replace(str(CONF), 'conf')} must consist of lines such as `key: value`."
        case OSError(filename=str() as filename):
            return f"cannot use {filename}: {error.strerror}."
        case Exception() if {"MlflowException", "RequestException"} & {kind.__name__ for kind in type(error).__mro__}:
            # Known by name: their import takes seconds.
            return f"MLflow refuses: {str(error).splitlines()[0].partition(' (Caused by')[0]}"
        case Exception() if type(error).__name__ in ("OperationalError", "InterfaceError") and hasattr(error, "orig"):
            return f"the database refuses, or does not answer: {reason_of(error)}"
    return None
