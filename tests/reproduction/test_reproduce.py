"""Any run is made again from nothing but the tracking store, and what differs is said plainly."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import mlflow
import pytest
import yaml
from conftest import ROOT, TINY, all_runs, assert_one_sentence, run_here, run_step
from hydra.core.override_parser.overrides_parser import OverridesParser
from mlflow.entities import Metric, Run

from fashion_mnist import reproduce
from fashion_mnist.cli import compose
from fashion_mnist.config import Config
from fashion_mnist.errors import UserError
from fashion_mnist.reproduction import original
from fashion_mnist.reproduction.outcome import called, outcome_of
from fashion_mnist.tracking import lineage
from fashion_mnist.train import train

Compose = Callable[..., Config]


def client() -> mlflow.MlflowClient:
    return mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path, tiny_data: Path) -> Path:
    """The folder of a store in which there is one run, trained and evaluated."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(migrated_store, folder / "mlflow.db")
    job = [*TINY, f"data_root={tiny_data}", "model.hidden=[8]", "seed=3"]
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "MLFLOW_EXPERIMENT_NAME": "test"}
    with chdir(folder):
        process = run_here(*job, step="main", **tracking)
    assert process.returncode == 0, process.stderr
    shutil.copytree(folder / "mlruns", folder / "untouched")
    return folder


@pytest.fixture
def trained(store: Path, empty_folder: Path) -> Run:
    """The run that was trained and evaluated, in a copy of the store, and nothing left of it but what the store has."""
    shutil.copy(store / "mlflow.db", empty_folder)
    shutil.rmtree(store / "mlruns")  # where the copy looks for artifacts, too; the last test may have changed them
    shutil.copytree(store / "untouched", store / "mlruns")
    (run,) = all_runs()
    return run


def outcome(tiny_data: Path, *overrides: str) -> int | str | None:
    """The exit code of a reproduction."""
    with pytest.raises(SystemExit) as ended:
        reproduce.reproduce(compose([f"data_root={tiny_data}", *overrides], "reproduce"))
    return ended.value.code


def again(original: Run) -> Run:
    """The run that reproduces another."""
    (found,) = client().search_runs([original.info.experiment_id], f"tags.reproduces = '{original.info.run_id}'")
    return found


def test_a_run_is_reproduced_byte_for_byte(trained: Run, tiny_data: Path, capsys: pytest.CaptureFixture) -> None:
    assert outcome(tiny_data, f"run={trained.info.run_id}") == 0
    assert "identical: the model is the same byte for byte" in capsys.readouterr().out
    run = again(trained)
    assert run.data.tags["reproduction"] == "identical"
    assert run.data.tags["model_digest"] == trained.data.tags["model_digest"]
    assert run.data.metrics["test_accuracy"] == trained.data.metrics["test_accuracy"]
    assert f"/runs/{trained.info.run_id}" in run.data.tags["mlflow.note.content"]
    assert not Path("outputs/models").exists()


def test_check_only_trains_nothing(
    trained: Run, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fashion_mnist.reproduce.train_model", lambda *_: pytest.fail("it trains"))
    assert outcome(tiny_data, f"run={trained.info.run_id}", "check_only=true") == 0
    assert "differs" not in capsys.readouterr().out


def test_what_differs_is_said(trained: Run, tiny_data: Path, capsys: pytest.CaptureFixture) -> None:
    for tag, name in lineage.ORIGIN.items():
        client().set_tag(trained.info.run_id, tag, "other")
        assert outcome(tiny_data, f"run={trained.info.run_id}", "check_only=true") == 4
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "differs" in line]
        assert name in line
        assert "other" in line
        client().set_tag(trained.info.run_id, tag, trained.data.tags[tag])


def test_changes_that_are_not_kept_count_as_a_difference(
    trained: Run, tiny_data: Path, capsys: pytest.CaptureFixture
) -> None:
    client().set_tag(trained.info.run_id, "git_dirty", "true")
    Path(f"{trained.info.artifact_uri}".removeprefix("file://"), lineage.PATCH).unlink(missing_ok=True)
    assert outcome(tiny_data, f"run={trained.info.run_id}", "check_only=true") == 4
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "differs" in line]
    assert "uncommitted changes" in line
    assert "unknown" in line


def test_a_run_from_before_the_environment_was_recorded_counts_as_made_with_nothing_set(
    trained: Run, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    client().delete_tag(trained.info.run_id, "environment")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)  # as where TensorFlow turns oneDNN on by itself
    monkeypatch.setattr("fashion_mnist.startup.told", {})
    assert outcome(tiny_data, f"run={trained.info.run_id}", "check_only=true") == 0
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert outcome(tiny_data, f"run={trained.info.run_id}", "check_only=true") == 4
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "differs" in line]
    assert "environment" in line


def test_a_place_in_somebodys_home_is_found_by_the_runs_own_code(tiny: Compose) -> None:
    settings = tiny()
    settings.data.source, settings.data.file = "npz", "~/mnist.npz"
    assert f"data.file='{Path.home()}/mnist.npz'" in original.places(settings, ROOT)


def test_the_runs_own_code_calculates_as_precisely_as_it_did(tiny: Compose) -> None:
    settings = tiny("trainer.precision=bfloat16")  # which auto came to, on another machine
    assert "trainer.precision=bfloat16" in original.places(settings, ROOT)


def test_changes_of_an_earlier_attempt_are_no_part_of_a_run(trained: Run) -> None:
    client().log_text(trained.info.run_id, "of the attempt that was interrupted", lineage.PATCH)
    for dirty, patch in (("false", b""), ("true", b"of the attempt that was interrupted")):
        client().set_tag(trained.info.run_id, "git_dirty", dirty)
        assert original.patch_of(client(), client().get_run(trained.info.run_id)) == patch


def test_what_data_auto_came_to_is_taken_again(trained: Run) -> None:
    typed = ["data=auto", "tracking.run_name=${model.name}-a", "seed=3"]
    client().log_text(trained.info.run_id, yaml.safe_dump(typed), "overrides.yaml")
    kept = yaml.safe_load(original.artifact(client(), trained, "config.yaml") or b"")["data"]["validation"]
    assert original.typed(client(), trained) == ["data=synthetic", f"data.validation={kept}", "seed=3"]


@pytest.mark.slow
def test_other_results_are_told_from_equal_ones(trained: Run, tiny: Compose) -> None:
    other = client().get_run(train(tiny("model.hidden=[8]", "seed=4")))
    near = outcome_of(client(), other, trained, tolerance=0.99)
    far = outcome_of(client(), other, trained, tolerance=0.0001)
    assert (near.word, far.word) == ("equal within tolerance", "different")
    assert far.sentence == near.sentence.replace("0.99", "0.0001")
    assert "weights differ first in " in far.sentence
    assert "metrics differ first in accuracy of epoch 1, and most in " in far.sentence


def test_one_metric_of_one_epoch_is_enough_to_differ(trained: Run, tiny_data: Path) -> None:
    last = client().get_metric_history(trained.info.run_id, "val_loss")[-1]
    changed = Metric("val_loss", last.value + 1, last.timestamp + 1, last.step)
    client().log_batch(trained.info.run_id, [changed])
    assert outcome(tiny_data, f"run={trained.info.run_id}") == 4
    note = again(trained).data.tags["mlflow.note.content"]
    assert "metrics differ first in val_loss of epoch 2, and most in val_loss of epoch 2, by 1 (tolerance 0.01)" in note


def test_what_is_of_no_epoch_is_not_called_after_one() -> None:
    assert called(1, "val_loss", epochs=10) == "val_loss of epoch 2"
    assert called(11, "val_loss", epochs=10) == "val_loss of the epoch that was kept"  # early stopping repeats it
    assert called(0, "stopped_epoch", epochs=10) == "stopped_epoch"
    assert called(0, "test_loss", epochs=10) == "test_loss"


def test_a_folder_of_any_name_is_handed_over_to_the_runs_own_code(tiny: Compose) -> None:
    settings = tiny("output_dir=there")
    settings.data_root = "/home/o'brien/pictures\\"
    (data_root, *_) = original.places(settings, ROOT)
    assert OverridesParser.create().parse_override(data_root).value() == settings.data_root


@pytest.mark.slow
def test_an_epoch_more_is_different(trained: Run, tiny_data: Path) -> None:
    client().log_metric(trained.info.run_id, "loss", 0.5, step=2)
    assert outcome(tiny_data, f"run={trained.info.run_id}") == 4
    assert "only the run has loss of epoch 3." in again(trained).data.tags["mlflow.note.content"]


def change_configuration(run: Run, change: Callable[[dict], object]) -> None:
    """Writes another configuration into a run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(client().download_artifacts(run.info.run_id, "config.yaml", folder))
        content = yaml.safe_load(file.read_text())
        change(content)
        client().log_text(run.info.run_id, yaml.safe_dump(content), "config.yaml")


@pytest.mark.slow
def test_the_configuration_is_that_of_the_run_and_not_of_conf(trained: Run, tiny_data: Path) -> None:
    change_configuration(trained, lambda content: content["trainer"].update(epochs=1))
    assert outcome(tiny_data, f"run={trained.info.run_id}") == 4
    assert [point.step for point in client().get_metric_history(again(trained).info.run_id, "loss")] == [0]


REFUSED: dict[str, Callable[[dict], object]] = {
    "does not know .*moon_phase.*checkout=true": lambda content: content["trainer"].update(moon_phase=1),
    "cannot be read": lambda content: content["trainer"].update(epochs="many"),
    "config.yaml of run .* cannot be read": lambda content: content.pop("model"),
    "trainer.epochs must be at least 1": lambda content: content["trainer"].update(epochs=-1),
    "code in model._target_.*not called": lambda content: content["model"].update(_target_="os.system"),
    "code in optimizer._target_.*not called": lambda content: content["optimizer"].update(_target_="os.abort"),
    "asks for values of this machine": lambda content: content["model"].update(name="${oc.env:HOME}"),
    "names code in model": lambda content: content["model"].update(name="x", hidden=[{"_target_": "os.abort"}]),
}


def test_a_configuration_that_cannot_be_followed_is_refused(trained: Run, tiny_data: Path) -> None:
    config = compose([f"data_root={tiny_data}", f"run={trained.info.run_id}"], "reproduce")
    kept = client().download_artifacts(trained.info.run_id, "config.yaml")
    untouched = Path(kept).read_text()
    for sentence, change in REFUSED.items():
        change_configuration(trained, change)
        with pytest.raises(UserError, match=sentence):
            reproduce.reproduce(config)
        client().log_text(trained.info.run_id, untouched, "config.yaml")


def test_what_is_no_finished_training_is_refused(trained: Run, tiny_data: Path) -> None:
    def sentence(run_id: str) -> str:
        with pytest.raises(UserError) as refused:
            reproduce.reproduce(compose([f"data_root={tiny_data}", f"run={run_id}"], "reproduce"))
        return str(refused.value)

    other = client().create_run(trained.info.experiment_id).info.run_id
    assert "is no training" in sentence(other)
    assert "there is no run" in sentence("0" * 32)
    assert "is no id of a run" in sentence("latest")
    client().set_terminated(trained.info.run_id, "KILLED")
    assert "is KILLED: there is no result" in sentence(trained.info.run_id)


def test_a_patch_holds_changed_deleted_and_new_files(tmp_path: Path) -> None:
    def git(*arguments: str, given: bytes | None = None) -> bytes:
        settings = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *settings, *arguments]
        return subprocess.run(command, check=True, capture_output=True, input=given).stdout

    def content() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in sorted(tmp_path.rglob("src/*"))}

    git("init")
    (tmp_path / "src").mkdir()
    (tmp_path / "conf").mkdir()
    for name, text in {"src/changed": "a\n", "src/deleted": "b\n", "conf/same": "c\n", "uv.lock": "d\n"}.items():
        (tmp_path / name).write_text(text)
    git("add", "--all")
    git("commit", "-m", "first")
    assert lineage.uncommitted(tmp_path / ".git") is None
    assert lineage.uncommitted(tmp_path) == b""
    (tmp_path / "src/changed").write_text("A\n")
    (tmp_path / "src/deleted").unlink()
    (tmp_path / "src/new").write_bytes(bytes(range(256)))
    (tmp_path / "src/latin").write_bytes("Größe\n".encode("latin-1"))
    changed, status = content(), git("status", "--porcelain")
    patch = lineage.uncommitted(tmp_path)
    assert patch is not None
    assert git("status", "--porcelain") == status
    git("stash", "--include-untracked")
    git("apply", "-", given=patch)
    assert content() == changed


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the project, with changes of its own."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    if patch := lineage.uncommitted():
        subprocess.run(["git", "-C", str(folder), "apply", "-"], input=patch, check=True)
    return folder


@pytest.mark.slow
def test_a_run_with_uncommitted_changes_is_made_again_with_its_own_code(
    clone: Path, empty_folder: Path, tiny_data: Path
) -> None:
    module = clone / "src/fashion_mnist/models.py"
    text = module.read_text()
    module.write_text(text.replace("Rescaling(1 / 255)", "Rescaling(1 / 256)"))
    assert module.read_text() != text
    places = [f"data_root={tiny_data}"]
    assert run_step(*TINY, *places, PYTHONPATH=str(clone / "src")).returncode == 0
    module.write_text(text)
    (run,) = client().search_runs(["1"])
    assert run.data.tags["git_dirty"] == "true"
    wanted = [f"run={run.info.run_id}", *places]
    here = run_step(*wanted, step="reproduce", PYTHONPATH=str(clone / "src"))
    assert here.returncode in (3, 4), here.stderr
    assert "weights differ first in" in here.stdout
    hook = clone / ".git/hooks/post-checkout"  # such as `dvc install` makes
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with_its_own = run_step(*wanted, "--checkout", step="reproduce", PYTHONPATH=str(clone / "src"))
    assert with_its_own.returncode == 0, with_its_own.stderr
    assert "identical" in with_its_own.stdout
    trees = subprocess.run(["git", "-C", str(clone), "worktree", "list"], capture_output=True, text=True).stdout
    assert len(trees.splitlines()) == 1


def test_a_commit_that_is_not_here_is_named(trained: Run, tiny_data: Path) -> None:
    client().set_tag(trained.info.run_id, "git_commit", "1" * 40)
    client().set_tag(trained.info.run_id, "git_dirty", "false")
    with pytest.raises(UserError, match=rf"git cannot worktree: .*{'1' * 40}"):
        reproduce.reproduce(
            compose([f"data_root={tiny_data}", f"run={trained.info.run_id}", "checkout=true"], "reproduce")
        )
    statuses = [run.info.status for run in client().search_runs([trained.info.experiment_id])]
    assert sorted(statuses) == ["FAILED", "FINISHED"]


def test_a_run_must_be_named(empty_folder: Path) -> None:
    assert_one_sentence(run_step(step="reproduce"), "run has no value: write run=VALUE")
