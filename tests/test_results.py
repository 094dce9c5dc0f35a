"""The tables of README.md and docs/ say what metrics/ and docs/accuracy.json say."""

import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import ladder
import pytest
import strengths
import tricks
from conftest import ROOT

from fashion_mnist.cli import compose
from fashion_mnist.tracking.lineage import SECTIONS


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "docs/results.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the tables are made from, and of the pages that hold them."""
    for name in ("conf", "docs", "metrics"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def test_the_tables_are_up_to_date(project: Path) -> None:
    process = check(project)
    assert process.returncode == 0, process.stderr


def comment(file: str) -> str:
    """The second line, after what the file is, or the package that Hydra reads it into."""
    return (ROOT / "conf" / file).read_text().splitlines()[1]


@pytest.mark.parametrize("variant", sorted(file.stem for file in (ROOT / "conf/model").glob("*.yaml")))
def test_each_variants_file_says_what_it_reaches(variant: str) -> None:
    study = json.loads((ROOT / "docs/study/comparison.json").read_text())
    found = [group for group in study["groups"] if group["name"] == variant]
    if not found:
        pytest.skip("the study does not have it")
    said = re.fullmatch(
        r"# Trains in .* on two cores of .*, and reaches a test accuracy of (.*) \(n = \d\)\.",
        comment(f"model/{variant}.yaml"),
    )
    assert said, comment(f"model/{variant}.yaml")
    assert float(said[1]) == pytest.approx(found[0]["metrics"]["test_accuracy"]["mean"], abs=0.0006)


def test_each_step_of_the_ladder_says_what_it_reaches_and_reaches_what_it_is_called_after() -> None:
    turns = json.loads((ROOT / "docs/ladder.json").read_text())["turns"]
    steps = sorted(file.stem for file in (ROOT / "conf/experiment").glob("ladder_*.yaml"))
    assert steps == sorted({turn["step"] for turn in turns})
    for step in steps:
        accuracies = [turn["measured"]["ours"]["test_accuracy"] for turn in turns if turn["step"] == step]
        assert statistics.mean(accuracies) >= int(step.removeprefix("ladder_")) / 100
        assert f"# Test accuracy {statistics.mean(accuracies):.4f} ±" in comment(f"experiment/{step}.yaml")


@pytest.mark.parametrize(
    ("processor", "name"),
    [
        ("Intel(R) Xeon(R) Processor", "Intel Xeon"),
        ("Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz (amx_bf16)", "Intel Xeon Platinum 8488C (amx_bf16)"),
        ("AMD EPYC-Genoa Processor (avx512_bf16)", "AMD EPYC-Genoa (avx512_bf16)"),
    ],
)
def test_processors_are_named_with_their_instructions(processor: str, name: str) -> None:
    assert ladder.named(processor) == name


def test_the_study_is_of_clean_and_complete_runs() -> None:
    study = json.loads((ROOT / "docs/study/comparison.json").read_text())
    assert not study["left_out"]
    assert study["dataset"] == "fashion_mnist"
    assert min(group["n"] for group in study["groups"]) >= 3
    for group in study["groups"]:  # with seed 0, the study's runs and the pipeline's are the same to the last image
        seed_0 = json.loads((ROOT / f"metrics/{group['name']}/test.json").read_text())["test_accuracy"]
        of_study = group["metrics"]["test_accuracy"]["values"][group["seeds"].index("0")]
        assert seed_0 == of_study


def test_the_tricks_are_all_there_over_the_same_seeds_from_one_code() -> None:
    comparison = json.loads((ROOT / "docs/tricks/comparison.json").read_text())
    assert not comparison["left_out"]
    assert {group["name"] for group in comparison["groups"]} == {"ladder_91", *tricks.TRICKS}
    assert {tuple(group["seeds"]) for group in comparison["groups"]} == {("0", "1", "2")}
    assert " / " not in comparison["facts"]  # of machines, versions and commits


@pytest.mark.parametrize("name", tricks.TRICKS)
def test_a_trick_changes_what_it_says_and_nothing_else(name: str) -> None:
    one, other = (settings(tricks.overrides(each)) for each in (name, tricks.parent_of(name)))
    changed = {key for key in one | other if one.get(key) != other.get(key)} - {"model.name"}
    said = {word.lstrip("~").partition("=")[0] for word in tricks.TRICKS[name].change.split()}
    assert changed
    assert all(key in said or key.partition(".")[0] in said for key in changed)


def settings(overrides: list[str]) -> dict[str, object]:
    """What decides a result, by key."""
    content = compose(overrides).composed()
    return {f"{name}.{key}": value for name in (*SECTIONS, "data") for key, value in content[name].items()}


def test_another_result_of_the_pipeline_makes_the_readme_stale(project: Path) -> None:
    file = project / "metrics/mlp/test.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "test_accuracy": 0.5}))
    assert "README.md out of date" in check(project).stderr


def test_a_variant_that_the_study_lacks_is_listed_with_what_is_known(project: Path) -> None:
    shutil.copytree(project / "metrics/mlp", project / "metrics/narrow")
    with (project / "conf/pipeline.yaml").open("a") as opened:
        opened.write("  narrow: {group: model, base: narrow, augment: none, optimizer: adam, trainer: default}\n")
    done = subprocess.run(
        [sys.executable, str(project / "docs/results.py")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in (project / "README.md").read_text().splitlines() if line.startswith("| `narrow`")]
    assert re.fullmatch(r"\| `narrow` \| 101,770 \| 0\.\d{4} \|  \|  \|  \|  \|", line)


def test_results_of_other_images_are_not_put_beside_this_study(project: Path) -> None:
    file = project / "conf/pipeline.yaml"
    file.write_text(file.read_text().replace("data: fashion_mnist", "data: digits"))
    assert "error: the pipeline builds models of digits, and the study is about fashion_mnist." in check(project).stderr


def test_another_accuracy_over_seeds_makes_both_pages_stale(project: Path) -> None:
    file = project / "docs/accuracy.json"
    file.write_text(file.read_text().replace('"test_accuracy": [', '"test_accuracy": [0.1,'))
    assert "results.md, exercises.md out of date" in check(project).stderr


def test_another_accuracy_on_validation_changes_how_much_of_a_technique_is_good(project: Path) -> None:
    file = project / "docs/accuracy.json"
    accuracies = json.loads(file.read_text())
    accuracies[strengths.WIDE.without]["metrics"]["val_accuracy"][0] = 0.95
    file.write_text(json.dumps(accuracies))
    assert "tricks.md out of date" in check(project).stderr


@pytest.mark.parametrize("tried", [strengths.WIDE, strengths.CNN])
def test_the_strengths_are_over_the_same_seeds_from_one_code(tried: strengths.Strengths) -> None:
    accuracies = json.loads((ROOT / "docs/accuracy.json").read_text())
    groups = [accuracies[name] for name in (tried.without, *tried.changed.values())]
    assert len({group["facts"] for group in groups}) == 1  # machine, versions and commit
    assert " / " not in groups[0]["facts"]
    assert {group["command"].rpartition(" ")[2] for group in groups} == {"seed=0,1,2"}


def test_a_gain_is_of_the_same_seeds_with_students_interval() -> None:
    assert strengths.gained([0.91, 0.93, 0.93], [0.90, 0.91, 0.90]) == ["+2.00", "-0.48 to +4.48"]


def test_another_study_makes_the_readme_stale(project: Path) -> None:
    file = project / "docs/study/comparison.json"
    file.write_text(file.read_text().replace('"n": 3', '"n": 6'))
    assert "README.md, " in check(project).stderr


def test_the_tables_can_be_made_anew(project: Path) -> None:
    readme = (project / "README.md").read_text()
    (project / "README.md").write_text(readme.replace("| `mlp` |", "| `mlp`? |"))
    subprocess.run([sys.executable, str(project / "docs/results.py")], check=True, timeout=60)
    assert (project / "README.md").read_text() == readme
    assert (project / "docs/exercises.png").stat().st_size > 10_000
