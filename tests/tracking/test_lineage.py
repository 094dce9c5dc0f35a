"""What decides a result stands in one place, and everything else goes by it."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from fashion_mnist.tracking import lineage

VARIANTS = yaml.safe_load((ROOT / "conf/pipeline.yaml").read_text())["variants"]
ON_THE_WAY = ("data/synthetic.py", "training/saving.py", "training/compiled.py", "evaluation/metrics.py", "train.py")


@pytest.mark.parametrize("module", ON_THE_WAY)
def test_an_edit_of_what_a_result_passes_through_is_other_code(module: str, tmp_path: Path) -> None:
    package = shutil.copytree(lineage.PACKAGE, tmp_path / "package")
    assert lineage.code_digest(package) == lineage.code_digest()
    with (package / module).open("a") as opened:
        opened.write("# another\n")
    assert lineage.code_digest(package) != lineage.code_digest()


def test_a_process_that_goes_on_after_an_edit_tells_the_code_that_it_began_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    began_with = lineage.code_here()
    lineage.checkout_here()
    monkeypatch.setattr(lineage, "uncommitted", lambda: b"edited conf/, which a sweep composes anew for each job")
    checkout = lineage.checkout_here()
    assert checkout[1] == lineage.uncommitted()
    package = shutil.copytree(lineage.PACKAGE, tmp_path / "package")
    monkeypatch.setattr(lineage.code_digest, "__defaults__", (package,))
    (package / "train.py").write_text("# edited while a sweep is at work\n")
    monkeypatch.setattr(lineage, "uncommitted", lambda: b"edited while a sweep is at work")
    assert (lineage.code_here(), lineage.checkout_here()) == (began_with, checkout)
    monkeypatch.setitem(sys.modules, "IPython.extensions.autoreload", sys)  # by which a notebook takes the edit over
    assert lineage.code_here() == lineage.code_digest() != began_with
    assert lineage.checkout_here() != checkout
    lineage.last_checkout.cache_clear()


def test_code_that_was_edited_before_the_first_run_has_no_known_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    lineage.last_checkout.cache_clear()
    monkeypatch.setattr(lineage, "BEGAN_WITH", "before the edit")
    assert lineage.checkout_here() == ("unknown", None)
    lineage.last_checkout.cache_clear()


def test_compiled_code_and_the_rooms_above_are_not_part_of_it(tmp_path: Path) -> None:
    package = shutil.copytree(lineage.PACKAGE, tmp_path / "package")
    (package / "comparison/report.py").write_text("")
    (package / "training/__pycache__").mkdir(exist_ok=True)
    (package / "training/__pycache__/fit.pyc").write_bytes(b"")
    assert lineage.code_digest(package) == lineage.code_digest()


def test_the_stages_that_train_and_evaluate_depend_on_the_same_code() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    deps = {path for name in ("train", "evaluate") for path in (stages[name].get("do") or stages[name])["deps"]}
    assert {found[1] for path in deps if (found := re.fullmatch(r"src/fashion_mnist/(.*)", path))} == set(lineage.CODE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_stage_that_trains_depends_on_every_file_that_its_configuration_comes_from(variant: str) -> None:
    locked = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert f"train@{variant}" in locked, f"uv run dvc repro evaluate@{variant}"
    params = locked[f"train@{variant}"]["params"]
    for file in set(params) - {"conf/config.yaml"}:
        for entry in yaml.safe_load((ROOT / file).read_text()).get("defaults", ()):
            if isinstance(entry, dict):
                ((group, option),) = entry.items()
                needed = f"conf/{re.sub('^override /|@.*', '', group)}/{option}.yaml"
            else:
                needed = file if entry == "_self_" else str(Path(file).with_name(f"{entry}.yaml"))
            assert needed in params


def test_every_tag_that_decides_is_shown_when_two_runs_are_set_beside_one_another() -> None:
    assert set(lineage.DECISIVE) <= set(lineage.ORIGIN)


def test_what_orders_the_arithmetic_is_recorded_and_what_we_set_ourselves_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = lineage.environment()
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    assert lineage.environment() == before
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert "TF_ENABLE_ONEDNN_OPTS=0" in lineage.environment()


def test_processors_of_one_name_are_told_apart_by_their_instructions(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    for flags, told in (("avx2 avx512f avx512_bf16", "avx512_bf16"), ("avx avx2", "avx2")):
        file.write_text(f"model name\t: AMD EPYC\nflags\t\t: fpu {flags}\n")
        assert lineage.processor(file) == f"AMD EPYC ({told})"
    file.write_text("model name\t: Neoverse\n")
    assert lineage.processor(file) == "Neoverse"
