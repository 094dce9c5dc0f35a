"""docs/your-own-images.md, typed: other people's pictures from the folder to the champion."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

PAGE = (ROOT / "docs/your-own-images.md").read_text()
COMMANDS = [
    line.partition("   #")[0] for block in re.findall(r"(?ms)^```bash\n(.*?)^```", PAGE) for line in block.splitlines()
]
SETTINGS = [yaml.safe_load(block) for block in re.findall(r"(?ms)^```yaml\n(.*?)^```", PAGE)]
ELSEWHERE = ("mlflow ui", "mlflow models serve", "data=npz", "data=tfds")  # which do not end, or need a download


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def run(clone: Path, command: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "FASHION_"))}
    environment["PYTHONPATH"] = str(clone / "src")
    words = shlex.split(command)
    words = words[2:] if words[:2] == ["uv", "run"] else words  # the environment is this one already
    return subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True, timeout=300)


def edit(file: Path, settings: dict[str, str]) -> None:
    """Sets keys as an editor does, and leaves comments alone."""
    text = file.read_text()
    for key, value in settings.items():
        text, count = re.subn(rf"(?m)^{key}: \S+", f"{key}: {value}", text)
        assert count == 1, key
    file.write_text(text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_page_works(clone: Path) -> None:
    for command in COMMANDS:
        if any(each in command for each in ELSEWHERE):
            continue
        if "dvc repro" in command:  # the page has had its settings made by now
            edit(clone / "conf/data/digits.yaml", SETTINGS[0])
            edit(clone / "conf/pipeline.yaml", SETTINGS[1])
            lines = (clone / "conf/pipeline.yaml").read_text().splitlines(keepends=True)
            (clone / "conf/pipeline.yaml").write_text(
                "".join(line for line in lines if re.match(r"\S|  (linear|cnn):", line))
            )
            for kind in ("metrics", "plots"):  # as the page on a new variant says of those that are taken away
                shutil.rmtree(clone / kind, ignore_errors=True)
        done = run(clone, command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if "promote" in command:
            assert "it is version 1 of models:/digits@champion." in " ".join(done.stdout.split())
        if "predict" in command:
            assert "│ 3 " in done.stdout
    report = json.loads((clone / "reports/pipeline/comparison.json").read_text())
    assert {group["name"] for group in report["groups"]} == {"linear", "cnn"}
    assert report["dataset"] == "digits"
    assert json.loads((clone / "metrics/cnn/test.json").read_text())["test_accuracy"] > 0.9
    assert "Running" not in run(clone, "dvc repro").stdout
    shutil.copy(clone / "pictures/digits/3/0003.png", clone / "pictures/digits/3/9999.png")
    assert "Running stage 'train@cnn'" in run(clone, "dvc repro train@cnn").stdout
