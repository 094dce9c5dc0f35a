"""The training of a run, done again: with the code that is here, or with the run's own."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_mnist.config import ROOT, Config
from fashion_mnist.errors import UserError
from fashion_mnist.original import artifact, typed
from fashion_mnist.tracking import lineage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def with_own_code(client: "MlflowClient", run: "Run", settings: Config) -> str:
    """Trains with the run's commit and uncommitted changes, in a folder of git's that is removed afterwards.

    Raises:
        UserError: the commit is not here, or its training fails.
    """
    commit, patch = run.data.tags.get("git_commit", "unknown"), artifact(client, run, lineage.PATCH)
    if run.data.tags.get("git_dirty") == "true" and patch is None:
        raise UserError(f"run {run.info.run_id} had uncommitted changes, and has not kept them.")
    module = "fashion_mnist" if "test_accuracy" in run.data.metrics else "fashion_mnist.train"
    again = client.create_run(run.info.experiment_id, run_name=settings.tracking.run_name).info.run_id
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        try:
            git("worktree", "add", "--detach", "--", str(tree), commit)  # which could look like an option
            if patch:
                git("-C", str(tree), "apply", "--whitespace=nowarn", "-", given=patch)
            environment = {
                **os.environ,
                "PYTHONPATH": str(tree / "src"),
                "MLFLOW_TRACKING_URI": settings.tracking.uri,
                "MLFLOW_RUN_ID": again,
                "MLFLOW_EXPERIMENT_ID": run.info.experiment_id,
                "MLFLOW_EXPERIMENT_NAME": settings.tracking.experiment,
            }
            if settings.data.dir:
                environment["FASHION_MNIST_DIR"] = str(Path(settings.data.dir).absolute())
            command = [sys.executable, "-m", module, *typed(client, run), *places(settings, tree)]
            if wait_for(subprocess.Popen(command, env=environment)):
                raise UserError(f"the training at commit {commit[:12]} has failed; its own message stands above.")
        except BaseException:
            client.set_terminated(again, "FAILED")
            raise
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], capture_output=True)
    return again


def places(settings: Config, tree: Path) -> list[str]:
    """Overrides that say where the data lies and results go, for the code in a folder."""
    overrides = [f"data_root='{settings.data_root}'", f"output_dir='{settings.output_dir}'", "hydra.mode=RUN"]
    if "resume:" in (tree / "conf/trainer/default.yaml").read_text():
        overrides.append("trainer.resume=never")  # the run is a new one, and an interrupted one is not it
    return overrides


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """Waits for a process to end, and asks it to when this one is asked to; returns its exit code."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def git(*arguments: str, given: bytes | None = None) -> None:
    """Lets git do something in the project's folder.

    Raises:
        UserError: it refuses.
    """
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], input=given, capture_output=True)
    if done.returncode:
        raise UserError(f"git cannot {arguments[0]} the run's code: {done.stderr.decode().strip().splitlines()[-1]}")
