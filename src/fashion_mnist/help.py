"""What `--help` says, which is read from the steps and from conf/ themselves."""

import ast
import re
import textwrap
from pathlib import Path

from fashion_mnist.checks import groups_of, read
from fashion_mnist.config import CONF


def help_text(step: str, source: str, primary: str) -> str:
    """What a step does, as its `source` says, the options of every group, and every key with its comment."""
    module = f"fashion_mnist.{step}".removesuffix(".__main__")
    description = docstring_of(source)
    usage = [description, "", f"usage: python -m {module} [key=value | --key value ...]", ""]
    main_file = CONF / f"{primary}.yaml"
    groups, keys = ["Groups, each with its options:"], ["", "Keys, with their defaults:"]
    keys += commented_keys(main_file, "")
    comments = dict(re.findall(r"(?m)^ *- (\w+):.*?# (.*)$", main_file.read_text(encoding="utf-8")))
    for group, default in groups_of(primary).items():
        files = sorted((CONF / group).glob("*.yaml"), key=lambda file: (file.stem != default, file.stem))
        options = [f"{file.stem} (default)" if file.stem == default else file.stem for file in files]
        groups.append(f"  {group:<11} {' '.join(comments.get(group, '').split())}")
        groups.append(textwrap.indent(textwrap.fill(" | ".join(options), 86), " " * 14))
        shown: set[str] = set()
        for file in files if group != "experiment" else []:
            new = [line for line in commented_keys(file, f"{group}.") if line.split()[0] not in shown]
            shown |= {line.split()[0] for line in new}
            keys += ["", *new] if file.stem == default else [f"{line} ({group}={file.stem})" for line in new]
    if step == "search":
        keys += ["", "Keys of the search:", *commented_keys(CONF / "hydra/sweeper/optuna.yaml", "hydra.sweeper.")]
        keys += ["", "With hydra/launcher=ray:", *commented_keys(CONF / "hydra/launcher/ray.yaml", "hydra.launcher.")]
    sweep = "A sweep: -m seed=0,1,2   " if primary == "config" else ""
    flags = ["", f"{sweep}The composed configuration: --cfg job   Hydra's own flags: --hydra-help"]
    return "\n".join(usage + groups + keys + flags)


def docstring_of(module: str) -> str:
    """What a module's file says at its top, which `python -OO` leaves out of the module."""
    return str(ast.get_docstring(ast.parse(Path(module).read_text(encoding="utf-8"))))


def commented_keys(file: Path, prefix: str) -> list[str]:
    """The top-level keys of a YAML file that carry a comment, as aligned lines."""
    values, lines = read(file), []
    for key, comment in re.findall(r"(?m)^(\w+):.*?# (.*)$", file.read_text(encoding="utf-8")):
        value = "null" if values[key] is None else str(values[key])
        value = re.sub(r"\$\{oc\.env:(\w+),(.*)\}", r"$\1 or \2", value).replace(" or null", "")
        lines.append(f"  {prefix + key:<24} {value if len(value) < 53 else value[:20] + '...':<24} {comment}")
    return lines
