"""What DVC rebuilds and what it leaves alone, on the real images with a single short epoch."""

import json
import os
import re
import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

import mlflow
import pytest
import yaml
from conftest import ROOT, TINY, needs_real_data, run_here

pytestmark = [needs_real_data, pytest.mark.slow]
PIPELINE = """
data: fashion_mnist
source: src/fashion_mnist/data/official.py
variants:
  mlp: {group: model, base: mlp, augment: none, optimizer: adam, trainer: default}
  mlp_wide: {group: model, base: mlp_wide, augment: none, optimizer: adamw, trainer: one_cycle_long}
"""


class Project:
    """A copy of the project in a folder of its own, with git, DVC and a tracking store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        self.environment["PYTHONPATH"] = str(folder / "src")

    def run(self, *command: str) -> str:
        process = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    def edit(self, file: str, **values: object) -> None:
        content = yaml.safe_load((self.folder / file).read_text())
        (self.folder / file).write_text(yaml.safe_dump({**content, **values}))

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "state")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> Project:
    """After `dvc repro` of a pipeline of two variants, all committed."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("src", "conf", ".dvc/config", ".dvc/plots", ".dvcignore", "dvc.yaml", ".gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    shutil.copy(migrated_store, folder / "mlflow.db")
    project = Project(folder)
    for trainer in ("default", "one_cycle_long"):
        project.edit(f"conf/trainer/{trainer}.yaml", epochs=1, batch_size=1000)
    (folder / "conf/pipeline.yaml").write_text(PIPELINE)
    project.run("git", "init", "--quiet")
    project.commit()
    project.run("dvc", "repro")
    project.commit()
    return project


def test_a_second_repro_does_nothing(project: Project) -> None:
    output = project.run("dvc", "repro")
    assert "Running" not in output
    assert output.count("didn't change, skipping") == 6


def test_forced_repro_gives_the_same_bytes(project: Project) -> None:
    before = (project.folder / "dvc.lock").read_text()
    assert project.run("dvc", "repro", "--force", "evaluate@mlp").count("Running stage") == 3
    assert (project.folder / "dvc.lock").read_text() == before


@pytest.mark.parametrize(
    ("name", "key", "value", "stage"),
    [
        ("model/mlp_wide", "hidden", [300], "train@mlp_wide"),
        ("trainer/one_cycle_long", "label_smoothing", 0.125, "train@mlp_wide"),
        ("trainer/default", "members", 2, "train@mlp"),
        ("data/fashion_mnist", "timeout", 9.0, "fetch"),
    ],
)
def test_a_change_rebuilds_what_it_touches_alone(
    project: Project, name: str, key: str, value: object, stage: str
) -> None:
    file = project.folder / f"conf/{name}.yaml"
    before = file.read_text()
    project.edit(f"conf/{name}.yaml", **{key: value})
    try:
        changed = json.loads(project.run("dvc", "status", "--json"))
        difference = project.run("dvc", "params", "diff")
    finally:
        file.write_text(before)
    assert list(changed) == [stage]
    assert key in difference
    assert str(value) in difference


def test_a_variant_is_one_file_and_one_line(project: Project, tmp_path: Path) -> None:
    copy = Project(shutil.copytree(project.folder, tmp_path / "copy"))
    file, pipeline = copy.folder / "conf/model/narrow.yaml", copy.folder / "conf/pipeline.yaml"
    file.write_text((copy.folder / "conf/model/mlp.yaml").read_text().replace("name: mlp ", "name: narrow "))
    with pipeline.open("a") as opened:
        opened.write("  narrow: {group: model, base: narrow, augment: none, optimizer: adam, trainer: default}\n")
    output = copy.run("dvc", "repro")
    assert re.findall(r"Running stage '(.*)'", output) == ["train@narrow", "evaluate@narrow", "compare"]
    report = json.loads((copy.folder / "reports/pipeline/comparison.json").read_text())
    assert {group["name"] for group in report["groups"]} == {"mlp", "mlp_wide", "narrow"}


def test_what_people_try_leaves_alone_what_the_pipeline_built(project: Project) -> None:
    built = [
        file for kind in ("models", "metrics", "plots", "predictions") for file in project.folder.glob(f"{kind}/**/*")
    ]
    before = {file: file.read_bytes() for file in built if file.is_file()}
    picture = ["plots/mlp/learning_curves.png", "--picture", "outputs/seen.png"]
    for step, arguments in (("main", TINY), ("evaluate", TINY), ("predict", picture)):
        with chdir(project.folder):
            done = run_here(*arguments, step=step, MLFLOW_TRACKING_URI=f"sqlite:///{project.folder}/mlflow.db")
        assert done.returncode == 0, done.stderr
    assert before == {file: file.read_bytes() for file in before}
    assert project.run("git", "status", "--porcelain") == ""
    assert project.run("dvc", "diff") == ""


def test_metrics_and_plots_can_be_shown(project: Project) -> None:
    metrics = json.loads(project.run("dvc", "metrics", "show", "--json"))[""]["data"]
    assert 0.5 < metrics["metrics/mlp/test.json"]["data"]["test_accuracy"] < 1
    project.run("dvc", "plots", "show", "--out", "page")
    page = (project.folder / "page/index.html").read_text()
    shown = set(re.findall(r'"title": {"text": "(.*?)"', page))
    assert shown == {"validation accuracy", "validation loss"} | {
        f"{what} of {variant}" for what in ("learning curve", "confusion") for variant in ("mlp", "mlp_wide")
    }
    assert '"variant": "mlp_wide", "epoch": "1", "val_accuracy": "0.' in page
    assert '"actual": "Ankle boot", "predicted": "Sandal"' in page


def test_an_experiment_changes_a_key_of_hydra_and_metrics_diff_shows_it(project: Project) -> None:
    project.run("dvc", "exp", "run", "--name", "narrow", "-S", "conf/model/mlp.yaml:hidden=[32]", "evaluate@mlp")
    difference = json.loads(project.run("dvc", "metrics", "diff", "--json", "HEAD", "narrow"))
    assert difference["metrics/mlp/train.json"]["parameters"] == {"old": 101_770, "new": 25_450, "diff": -76_320}
    assert "test_accuracy" in difference["metrics/mlp/test.json"]
    project.run("git", "checkout", "--quiet", "--force", "HEAD")


def test_experiments_can_be_queued_and_compared(project: Project) -> None:
    for neurons in (16, 256):
        change = f"conf/model/mlp.yaml:hidden=[{neurons}]"
        project.run("dvc", "exp", "run", "--queue", "--name", f"neurons-{neurons}", "-S", change, "train@mlp")
    project.run("dvc", "exp", "run", "--run-all", "--jobs", "1")
    shown = project.run("dvc", "exp", "show", "--csv", "--only-changed")
    for neurons in (16, 256):
        (line,) = [line for line in shown.splitlines() if f"neurons-{neurons}" in line]
        assert f"[{neurons}]" in line
    difference = json.loads(project.run("dvc", "metrics", "diff", "--json", "neurons-16", "neurons-256"))
    assert difference["metrics/mlp/train.json"]["parameters"]["new"] == 203_530
    project.run("dvc", "plots", "diff", "--out", "compared", "neurons-16", "neurons-256")
    assert "neurons-256" in (project.folder / "compared/index.html").read_text()


def test_evaluation_joins_the_run_that_trained_the_model(project: Project) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{project.folder}/mlflow.db")
    runs = [run for run in client.search_runs(["0"]) if "variant" in run.data.tags]  # the others are comparisons
    assert runs
    assert all({"val_accuracy", "test_accuracy"} <= set(run.data.metrics) for run in runs)


def test_outs_hold_nothing_of_the_run_or_the_machine(project: Project) -> None:
    for file in [*(project.folder / "metrics").rglob("*.json"), project.folder / "data/fashion_mnist/dataset.json"]:
        content = file.read_text()
        assert str(project.folder) not in content
        assert os.environ["FASHION_MNIST_DIR"] not in content
