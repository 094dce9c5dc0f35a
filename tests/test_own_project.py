"""docs/own-project.md: a clone without this project's results, with a pipeline of its own, is a project that holds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HOLD = ("test_docs.py", "test_environment.py", "tracking/test_lineage.py", "comparison/test_compare.py")
OF_THEM = "not test_compare or pipeline or cannot_be_answered"  # the others take nothing of the pipeline's own
PIPELINE = """data: synthetic
source: src/fashion_mnist/data/synthetic.py
variants:
  linear: {group: model, base: linear, augment: none, optimizer: adam, trainer: default}
"""


def test_what_is_about_this_projects_results_can_go(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = str(clone / "src")

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]

    first, *_ = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs/own-project.md").read_text(), re.DOTALL | re.MULTILINE)
    run("bash", "-euc", first)
    (clone / "conf/pipeline.yaml").write_text(PIPELINE)
    run("dvc", "repro")
    run("git", "add", "--all")
    files = [f"tests/{file}" for file in HOLD]
    run(sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", OF_THEM, *files)
