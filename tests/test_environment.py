"""The environments that people can choose agree with one another."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import hydra
import pytest
import yaml
from conftest import ROOT, assert_one_sentence

from fashion_mnist.comparison.reading import of_pipeline

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# A package may be locked in several versions, for different versions of Python.
LOCKED = {
    f"{package['name']}=={package['version']}" for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
}


def test_conda_pins_what_uv_locks() -> None:
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    direct = [name.split(">")[0] for name in PROJECT["project"]["dependencies"]]
    assert [pin.split("==")[0] for pin in pip] == direct
    assert set(pip) <= LOCKED


def test_the_lock_can_be_installed_where_the_sources_are_not() -> None:
    # `mlflow run --env-manager=uv` copies pyproject.toml and uv.lock alone.
    assert not {"readme", "license-files"} & set(PROJECT["project"])
    assert PROJECT["build-system"]["build-backend"] == "hatchling.build"


def test_every_entry_point_is_a_module_with_help() -> None:
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    steps = {"main", "fetch", "train", "evaluate", "search", "compare", "reproduce", "sync", "predict"}
    assert set(entry_points) == steps
    for name, entry_point in entry_points.items():
        assert f"{entry_point['command']} ".startswith(f"python src/step.py {'' if name == 'main' else name}")
        module = "__main__" if name == "main" else name
        assert (ROOT / f"src/fashion_mnist/{module}.py").read_text().startswith('"""')


def test_what_is_started_for_people_is_started_alike_in_every_shell() -> None:
    commands = re.findall(
        r"(?m)^ *(?:cmd|command): (.*)$", (ROOT / "dvc.yaml").read_text() + (ROOT / "MLproject").read_text()
    )
    assert len(commands) == 13
    assert not [command for command in commands if not re.fullmatch(r"python src/step\.py[\w ./={}$]*", command)]


def test_a_step_takes_the_code_beside_it(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    page = tmp_path / "src/fashion_mnist/fetch.py"
    page.write_text(page.read_text().replace('"""Gets', '"""Another one gets'))
    done = subprocess.run(
        [sys.executable, "src/step.py", "fetch", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("Another one gets")


def test_what_is_no_step_is_told() -> None:
    command = [sys.executable, str(ROOT / "src/step.py"), "errors"]  # a module, but nothing that one types
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert_one_sentence(done, "'errors'", "--help")


PIPELINE = yaml.safe_load((ROOT / "conf/pipeline.yaml").read_text())["variants"]


@pytest.mark.parametrize("variant", PIPELINE)
def test_a_line_of_the_pipeline_says_what_the_files_choose(variant: str) -> None:
    line = PIPELINE[variant]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        composed = hydra.compose("config", [f"{line['group']}={variant}"], return_hydra_config=True)
    choices = composed.hydra.runtime.choices
    defaults = yaml.safe_load((ROOT / f"conf/model/{choices['model']}.yaml").read_text()).get("defaults", [])
    bases = [entry for entry in defaults if isinstance(entry, str) and entry != "_self_"] or [choices["model"]]
    assert composed.model.name == variant
    assert line == {
        "group": line["group"],
        "base": bases[0],
        **{group: choices[group] for group in ("augment", "optimizer", "trainer")},
    }


def test_the_pipeline_compares_every_variant_that_it_builds() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert "variants=all" in stages["compare"]["cmd"]
    assert {"metrics", "plots", "predictions"} <= set(stages["compare"]["deps"])
    assert list(PIPELINE) == of_pipeline()
    # A folder that a variant has left behind would be a dependency of the comparison, too.
    assert {file.name for file in (ROOT / "metrics").iterdir()} == set(PIPELINE)


def test_the_pipeline_is_short_and_names_no_variant() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) <= 115
    assert not set(re.findall(r"\w+", text)) & set(PIPELINE)
