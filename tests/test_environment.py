"""The environments that people can choose agree with one another."""

import tomllib

import yaml
from conftest import ROOT

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
    steps = {"main", "fetch", "train", "evaluate", "compare", "reproduce", "sync", "predict"}
    assert set(entry_points) == steps
    for name, entry_point in entry_points.items():
        assert entry_point["command"].startswith("PYTHONPATH=src python -m fashion_mnist")
        module = "__main__" if name == "main" else name
        assert (ROOT / f"src/fashion_mnist/{module}.py").read_text().startswith('"""')


ON_DEMAND = {"transfer"}  # `dvc repro` does not build it: its weights must be downloaded


def test_every_variant_is_in_the_pipeline_or_named_as_left_out() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    variants = {file.stem for file in (ROOT / "conf/model").glob("*.yaml")}
    built = [model for name in ("train", "train_augmented") for model in stages[name]["matrix"]["model"]]
    assert built == stages["evaluate"]["matrix"]["model"]
    assert sorted([*built, *ON_DEMAND]) == sorted(variants)


def test_the_pipeline_compares_every_variant_that_it_builds() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    built = stages["evaluate"]["matrix"]["model"]
    assert f"'variants=[{','.join(built)}]'" in stages["compare"]["cmd"]
    for variant in built:
        assert {f"metrics/{variant}", f"plots/{variant}/history.csv", f"predictions/{variant}/test.npz"} <= set(
            stages["compare"]["deps"]
        )
