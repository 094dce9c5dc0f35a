"""Configurations that cannot be meant: made from the schema, so that a new key is tried out by itself."""

import dataclasses
import itertools
import math
import os
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

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
