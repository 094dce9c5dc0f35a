"""The disk is full while something is written: one clear error, and what was there before is as it was."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import RESULTS, TINY, run_here

EPOCHS = ["trainer.epochs=4"]
Disk = Callable[[str, str], Path]


@pytest.fixture
def small_disk(empty_folder: Path) -> Iterator[Disk]:
    """Puts a disk of a certain size, which lies in memory, in the place of a folder; again, it gets another size."""
    mounted: list[Path] = []

    def mount(name: str, size: str) -> Path:
        folder = empty_folder / name
        folder.mkdir(parents=True, exist_ok=True)
        again = ["-o", f"remount,size={size}"] if folder in mounted else ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
        if subprocess.run(["mount", *again, str(folder)], capture_output=True).returncode:
            pytest.skip("only a superuser may mount a disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", str(folder)], check=True)


def sentence(process: subprocess.CompletedProcess[str]) -> str:
    """The one error of a process that must have failed."""
    assert process.returncode == 1, process.stdout + process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1, process.stderr
    assert lines[0].startswith("error: ")
    assert "No space left on device" in lines[0] or "disk is full" in lines[0]
    return lines[0]


def job(tiny_data: Path, *overrides: str) -> list[str]:
    return [*TINY, *EPOCHS, f"data_root={tiny_data}", *overrides]


def runs() -> list[str]:
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    places = [place.experiment_id for place in client.search_experiments()]
    return [run.info.status for run in client.search_runs(places)]


def files(*folders: str) -> dict[str, bytes]:
    found = [file for folder in folders for file in Path(folder).rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in found}


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as opened:
        while True:
            opened.write(bytes(4096))


@pytest.mark.slow
def test_full_while_a_checkpoint_is_written(small_disk: Disk, tiny_data: Path, survived: Callable) -> None:
    small_disk("checkpoints", "2m")  # one checkpoint fits, and must make room for no second one
    assert "cannot write checkpoints/mlp-seed0" in sentence(run_here(*job(tiny_data), step="main"))
    (kept,) = [file for file in files("checkpoints") if file != "checkpoints/id"]
    assert not Path(kept).name.startswith(".")
    small_disk("checkpoints", "20m")
    done = run_here(*job(tiny_data, "trainer.resume=required"), step="main")
    assert done.returncode == 0
    assert "goes on after epoch 1." in done.stderr
    assert runs() == ["FINISHED"]
    resumed = files(*RESULTS)
    assert run_here(*job(tiny_data), step="main").returncode == 0
    assert files(*RESULTS) == resumed
    survived("disk full while a checkpoint is written", 1, 1)


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("folder", RESULTS)
def test_full_while_results_are_written(folder: str, small_disk: Disk, tiny_data: Path, survived: Callable) -> None:
    small_disk(folder, "20m")
    assert run_here(*job(tiny_data), step="main").returncode == 0
    before = files(folder)
    filler = Path(folder) / "filler"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    assert f"cannot write {folder}/mlp" in sentence(run_here(*job(tiny_data), step="main"))
    filler.unlink()
    assert files(folder) == before
    assert run_here(*job(tiny_data), step="main").returncode == 0
    assert runs() == ["FINISHED", "FINISHED"]
    survived(f"disk full while {Path(folder).name}/ is written", 1, 1)


@pytest.mark.slow
def test_full_while_the_model_is_logged(small_disk: Disk, tiny_data: Path, survived: Callable) -> None:
    small_disk("mlruns", "300k")  # where MLflow keeps artifacts
    done = run_here(*job(tiny_data), step="main")
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    small_disk("mlruns", "20m")
    assert run_here(step="sync").returncode == 0
    assert runs() == ["FINISHED"]
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    (model,) = client.search_logged_models([place.experiment_id for place in client.search_experiments()])
    assert str(model.status) == "READY"
    survived("disk full while the model is logged", 1, 1)


@pytest.mark.slow
@pytest.mark.full
def test_full_while_a_report_is_written(small_disk: Disk, tiny_data: Path, survived: Callable) -> None:
    assert run_here(*job(tiny_data, "-m", "seed=0,1"), step="main").returncode == 0
    small_disk("reports", "20m")
    assert run_here(step="compare").returncode == 0
    before = files("reports")
    small_disk("reports", f"{sum(len(content) for content in before.values()) // 1024 + 16}k")
    assert "cannot write reports/comparison" in sentence(run_here(step="compare"))
    assert files("reports") == before
    survived("disk full while a report is written", 1, 1)
