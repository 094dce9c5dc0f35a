"""Configurations that cannot be meant: made from the schema, so that a new key is tried out by itself."""

import dataclasses
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fashion_mnist import checks, cli, help
from fashion_mnist.checks import example_of
from fashion_mnist.cli import SWITCHES, as_overrides, check_all, explain
from fashion_mnist.config import ARGUMENTS, CONF, GROUPS, SCHEMAS, Rule

Survived = Callable[[str, int, int], None]

NUMBERS: dict[type, list[Any]] = {
    int: [-1, 0, 10**30],
    float: [-1.0, 0.0, 2.0, 1e30, math.nan, math.inf],
    str: ["nonsense", "../up"],
    bool: [],
}


REQUIRED = {"reproduce": ["run=" + "0" * 32]}  # keys without which no configuration is complete
TAKE_ANYTHING = (
    "overrides",
    "runs",
    *GROUPS,
)  # what was typed; a search, which is quoted as it is; not keys but groups


class Case(NamedTuple):
    """Something that nobody can mean."""

    primary: str
    typed: list[str]
    key: str

    @property
    def title(self) -> str:
        return f"{self.primary}: {' '.join(self.typed)}"


def of_wrong_type(kinds: tuple[Any, ...]) -> Iterator[str]:
    """Values that no key with one of these types can have."""
    yield "{a: 1}"
    if type(None) not in kinds:
        yield "null"
    if list in kinds or list[str] in kinds:
        yield from ("sometimes", "7")
        return
    yield "[1,2]"
    if str not in kinds:
        yield from ("sometimes", "''", "[]")
    if int in kinds or bool in kinds:
        yield "2.5"
    if int in kinds or float in kinds:
        yield "true"
    if bool in kinds:
        yield "7"


def out_of_range(kinds: tuple[Any, ...], rule: Rule | None) -> Iterator[str]:
    """Values of the right type that the key's rule forbids."""
    for kind in kinds if rule else ():
        for value in NUMBERS.get(kind, []):
            if rule and not rule.holds(value):
                yield str(value)


def of_schema(primary: str) -> Iterator[Case]:
    """Every key of a dataclass of `SCHEMAS`, and of the sections in it, with every value that it must refuse."""

    def of_section(section: type, prefix: str) -> Iterator[Case]:
        hints = typing.get_type_hints(section)
        for item in dataclasses.fields(section):
            key, hint = f"{prefix}{item.name}", hints[item.name]
            kinds = (hint, *typing.get_args(hint))
            if dataclasses.is_dataclass(hint):
                yield from of_section(typing.cast(type, hint), f"{item.name}.")
            elif item.name not in TAKE_ANYTHING:
                rule = item.metadata.get("rule")
                values = [*of_wrong_type(kinds), *out_of_range(kinds, rule)]
                yield from (Case(primary, [f"{key}={value}"], key) for value in values)
                yield Case(primary, [key], key)
                if f"--{key}" not in SWITCHES:
                    yield Case(primary, [f"--{key}"], key)
                yield Case(primary, [f"{key}y=1"], key)

    return of_section(SCHEMAS[primary], "")


def of_options() -> Iterator[Case]:
    """Every argument of models and optimizers with values that it must refuse; once for options that share all."""
    seen = set()
    for file in sorted([*CONF.glob("model/*.yaml"), *CONF.glob("optimizer/*.yaml")]):
        group, arguments = file.parent.name, example_of(file.parent.name, file.stem)
        signature = (arguments["_target_"], *arguments)
        if signature in seen:
            continue
        seen.add(signature)
        for name, example in arguments.items():
            key, kinds = f"{group}.{name}", (type(example),)
            values = list(of_wrong_type(kinds))
            if isinstance(example, list):
                values += [
                    "[wide]",
                    "[null]",
                    "[[1]]",
                    *(f"[{value}]" for value in out_of_range((int,), ARGUMENTS[name])),
                ]
            elif name != "_target_":
                values += out_of_range(kinds, ARGUMENTS.get(name))
            else:
                values.append("os.getcwd")
            yield from (Case("config", [f"{group}={file.stem}", f"{key}={value}"], key) for value in values)
            yield Case("config", [f"{group}={file.stem}", f"{key}y=1"], key)


def of_groups() -> Iterator[Case]:
    """Every group with an option that it does not have."""
    for group in (*GROUPS, "experiment"):
        for value in ("nonsense", "null", "7", "{a: 1}", "../up", "[nonsense]"):
            yield Case("config", [f"{group}={value}"], group)


CASES = {
    case.title: case
    for case in itertools.chain(*(of_schema(primary) for primary in SCHEMAS), of_options(), of_groups())
}


def refusal(case: Case) -> str:
    """What is said to a configuration; fails if it is accepted, or answered with anything but one sentence."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        check_all([*REQUIRED.get(case.primary, []), *as_overrides(case.typed)], case.primary)
    sentence = explain(caught.value, case.primary)
    assert sentence is not None, f"{case.title}: {caught.value!r}"
    assert sentence.strip(), case.title
    assert "\n" not in sentence, sentence
    return sentence


def test_every_key_of_the_schema_is_among_the_cases() -> None:
    keys = {case.key for case in CASES.values()}
    for name in (
        "trainer.epochs",
        "data.mirrors",
        "model.hidden",
        "optimizer.momentum",
        "seed",
        "promote",
        "experiment",
    ):
        assert name in keys
    assert len(CASES) > 400


def test_invalid_configurations_are_refused_in_one_sentence(full: bool, survived: Survived) -> None:
    chosen = list(CASES.values()) if full else list(CASES.values())[:: len(CASES) // 60]
    assert len(chosen) >= 60
    for case in chosen:
        sentence = refusal(case)
        assert case.key.rpartition(".")[2] in sentence or "a group such as" in sentence, f"{case.title}: {sentence}"
    survived("an invalid configuration, made from every key of the schema", len(chosen), len(chosen))


class Broken(NamedTuple):
    """A file of conf/ as nobody can mean it, and what was done to it."""

    file: str
    fault: str
    content: bytes


def blocks(text: str) -> dict[str, str]:
    """The top-level keys of a YAML file, each with its lines."""
    return {part.partition(":")[0]: part for part in re.split(r"(?m)^(?=\w+:)", text)[1:]}


def of_files() -> Iterator[Broken]:
    """Every file that Hydra reads: cut, emptied, no mapping, wrongly encoded, and each key left out or spoiled."""
    for path in sorted(CONF.rglob("*.yaml")):
        file, text = path.relative_to(CONF).as_posix(), path.read_text()
        if file == "pipeline.yaml":
            continue
        content = text.encode()
        yield Broken(file, "cut in the middle", content[: len(content) // 2])
        yield Broken(file, "emptied", b"")
        yield Broken(file, "a list", b"- 1\n- 2\n")
        yield Broken(file, "a text", b"epochs\n")
        yield Broken(file, "Latin-1", content + "# caf\xe9\n".encode("latin-1"))
        yield Broken(file, "UTF-16", text.encode("utf-16"))
        yield Broken(file, "a tab", content + b"more:\n\tepochs: 1\n")
        yield Broken(file, "a null byte", content + b"\0")
        for number, (key, block) in enumerate(blocks(text).items()):
            yield Broken(file, f"{key} left out", text.replace(block, "").encode())
            changed = {
                "without value": f"{key}:\n",
                "twice": block + block,
                "indented": f"  {block}",
                "misspelt": f"{key}_{block.removeprefix(key)}",
                "dedented below": re.sub(r"(?m)^ +", "", block),
            }
            fault, lines = list(changed.items())[(number + len(text)) % len(changed)]  # another for each key
            if lines != block:
                yield Broken(file, f"{key} {fault}", text.replace(block, lines).encode())


BROKEN = list(of_files())


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/, which is read in its place."""
    shutil.copytree(CONF, tmp_path / "conf")
    for module in (cli, checks, help):
        monkeypatch.setattr(module, "CONF", tmp_path / "conf")
    return tmp_path / "conf"


def answer(primary: str, typed: list[str]) -> str | None:
    """What is said to a configuration: nothing where it is valid."""
    try:
        check_all([*REQUIRED.get(primary, []), *typed], primary)
    except Exception as error:
        return explain(error, primary) or f"a traceback\n{error!r}"
    return None


def test_broken_files_are_refused_in_one_sentence_that_names_them(conf: Path, full: bool, survived: Survived) -> None:
    chosen, refused = BROKEN if full else BROKEN[:: len(BROKEN) // 60], 0
    for file, fault, content in chosen:
        whole, (group, _, name) = (conf / file).read_bytes(), file.removesuffix(".yaml").rpartition("/")
        (conf / file).write_bytes(content)
        varied = ["seed=1,2", "hydra.mode=MULTIRUN"] if group.startswith("hydra/") else []  # such as a search wants
        sentence = answer("config", [f"{group}={name}", *varied]) if group else answer(name, [])
        (conf / file).write_bytes(whole)
        if sentence is not None:
            refused += 1
            assert "\n" not in sentence, f"{file}, {fault}: {sentence}"
            named = [f"conf/{file}", *(["'run'"] if name == "reproduce" else [])]
            named += ["uv sync --inexact --extra search"]  # where Optuna is not installed, the rest is not looked at
            named += {fault.partition(" ")[0]} & blocks(whole.decode()).keys()
            assert any(re.search(rf"\b{re.escape(word)}", sentence) for word in named), f"{file}, {fault}: {sentence}"
    assert refused > len(chosen) / 2
    survived("a broken file of conf/: refused in one sentence, or a valid configuration", len(chosen), len(chosen))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("name: mine\nhidden: [128\nl2: 0\n", "line 3"),
        ("name: mine\nhidden:\n\t- 128\n", "line 3"),
        ("name: mine\nl2: 0\nl2: 1\n", "line 3"),
        ("name: mine\n# caf\xe9\n", "line 2"),
    ],
    ids=["an open bracket", "a tab", "a key twice", "Latin-1"],
)
def test_the_line_is_named_and_no_key_is_needed_for_it(content: str, line: str, conf: Path) -> None:
    (conf / "model/mine.yaml").write_text(content, encoding="latin-1")
    assert f"conf/model/mine.yaml, {line}:" in f"{answer('config', ['model=mine'])}"
    with pytest.raises(SystemExit), cli.explained():
        help.help_text("__main__", str(cli.__file__), "config")
    assert "did you mean trainer.epochs?" in f"{answer('config', ['trainer.epoch=3'])}"  # which needs no broken file


MINE = "name: mine\n_target_: fashion_mnist.models.mlp\nhidden: [8]\nactivation: relu\n"


@pytest.mark.parametrize(
    ("group", "content", "words"),
    [
        ("model", MINE.replace("hidden: [8]\n", ""), ["model.hidden is missing: conf/model/mine.yaml"]),
        ("model", MINE.replace("hidden", "hiden"), ["conf/model/mine.yaml", "hiden; there are name, hidden,"]),
        ("model", MINE.replace("mlp", "mpl"), ["conf/model/mine.yaml", "no function mpl"]),
        ("model", "", ["conf/model/mine.yaml must have it"]),
        ("model", "- 1\n", ["conf/model/mine.yaml must consist of lines"]),
        ("model", "5\n", ["conf/model/mine.yaml must consist of lines"]),
        ("model", MINE.replace("mine", "[mine]"), ["model.name must be a text"]),
        ("model", f"defaults: [augment: standard]\n{MINE}", ["`- override /augment@_global_.augment: standard`"]),
        ("optimizer", "learning_rate: 0.1\n", ["optimizer._target_ is missing: conf/optimizer/mine.yaml"]),
        ("trainer", "epochs: 3\nbatch_size: 32\n", ["trainer.precision is missing: conf/trainer/mine.yaml"]),
        ("experiment", "seed: 3\n", ["conf/experiment/mine.yaml must begin with the line `# @package _global_`"]),
        ("experiment", "# @package _global_\nsead: 3\n", ["conf/experiment/mine.yaml has a key", "sead"]),
        (
            "experiment",
            "# @package _global_\ndefaults: [model: cnn]\n",
            ["conf/experiment/mine.yaml", "`- override /model: cnn`"],
        ),
    ],
)  # fmt: skip
def test_what_an_own_file_lacks_is_named_with_the_way_out(
    group: str, content: str, words: list[str], conf: Path
) -> None:
    (conf / group / "mine.yaml").write_text(content)
    sentence = f"{answer('config', [f'{group}=mine'])}"
    for word in words:
        assert word in sentence


def test_an_own_architecture_needs_no_function_of_the_project(conf: Path) -> None:
    (conf / "model/mine.yaml").write_text("name: mine\n_target_: my_package.network\nanything: 3\n")
    assert answer("config", ["model=mine"]) is None


REAL = {
    "train": ["trainer.epochs=0"],
    "__main__": ["model.hidden=[wide]"],
    "evaluate": ["seed=null"],
    "fetch": ["--data.validation"],
    "compare": ["promote=perhaps"],
    "train ": ["-m", "optimizer=sgd", "optimizer.momentum=0.9,1.5"],
    "__main__ ": ["model._target_=os.getcwd"],
}


@pytest.fixture
def alarmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; whatever imports what training and tracking need leaves a file in it."""
    for package in ("tensorflow", "keras", "mlflow"):
        (tmp_path / "alarm" / package).mkdir(parents=True)
        alarm = f"import pathlib; pathlib.Path('{package}_was_imported').touch(); raise SystemExit(9)"
        (tmp_path / "alarm" / package / "__init__.py").write_text(alarm)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "alarm"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    return tmp_path / "here"


def test_real_processes_refuse_before_anything_is_imported_or_written(alarmed: Path, survived: Survived) -> None:
    count = 0
    for step, arguments in REAL.items():
        command = [sys.executable, "-m", f"fashion_mnist.{step.strip()}", *arguments]
        process = subprocess.run(command, capture_output=True, text=True, timeout=60)
        lines = process.stderr.splitlines()
        assert (process.returncode, len(lines)) == (1, 1), process.stderr
        assert lines[0].startswith("error: ")
        assert list(alarmed.iterdir()) == []
        count += 1
    survived("an invalid configuration given to a real process: nothing imported, nothing written", count, len(REAL))
