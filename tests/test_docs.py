"""README.md and docs/: short enough, every link works, and every command of the README does what it says."""

import hashlib
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, needs_real_data

from fashion_mnist.cli import compose
from fashion_mnist.config import TRIED

README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("*/README.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path) -> list[str]:
    """The shell commands of a page, a text for each block."""
    return re.findall(r"^```bash\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`: the headings, as web pages of repositories write them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_for_a_person_in_a_hurry() -> None:
    assert len(README.read_bytes()) <= 8192


def test_the_first_block_of_the_readme_holds_exactly_the_two_commands() -> None:
    first, second = blocks(README)[0].splitlines()
    assert first.endswith("uv run mlflow run . --env-manager=local -P data=auto")
    assert second == "uv run pytest"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "README.md" or f"({page.name})" in index


def test_the_map_names_every_folder_and_file_that_a_newcomer_sees() -> None:
    content = README.read_text()
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout
    for folder in {name.partition("/")[0] + "/" for name in listed.splitlines() if "/" in name and name[0] != "."}:
        assert f"`{folder}" in content, folder
    for room in {
        name.split("/")[2] + "/" for name in listed.splitlines() if name.startswith("src/") and name.count("/") > 2
    }:
        assert f"`{room}`" in content, room


@pytest.mark.parametrize("experiment", [None, *sorted(file.stem for file in ROOT.glob("conf/experiment/*.yaml"))])
def test_what_one_tries_does_not_touch_what_the_pipeline_built(experiment: str | None) -> None:
    config = compose([f"experiment={experiment}"] if experiment else [])
    for kind in ("models", "metrics", "plots", "predictions"):
        assert config.folder(kind).is_relative_to(TRIED)


def test_no_command_of_the_docs_writes_where_the_pipeline_builds() -> None:
    """All of them write where the configurations above say, since none names another folder."""
    lines = [line for page in PAGES for block in blocks(page) for line in block.splitlines()]
    steps = [line for line in lines if "fashion_mnist" in line or "mlflow run" in line]
    assert len(steps) > 20
    assert not [line for line in steps if "output_dir" in line]


@needs_real_data
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_readme_works_in_a_fresh_clone_and_leaves_it_clean(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = str(clone / "src")
    long = [*clone.glob("conf/trainer/one_cycle*.yaml"), clone / "conf/experiment/ladder_92.yaml"]
    for file in long:  # what is said here, and where it goes, does not depend on how long it learns
        file.write_text(re.sub(r"(?m)^( *epochs:) \d+", r"\1 1", file.read_text()))
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run([*git, "commit", "--quiet", "--all", "-m", "shorter"], cwd=clone, check=True)
    (_, *others) = blocks(README)  # .ci/run types the first block, on a bare machine
    commands = ["uv run mlflow run . --env-manager=local -P data=auto"]
    commands += [line.partition("   #")[0] for block in others for line in block.splitlines()]
    for command in commands:
        if "mlflow ui" in command:  # does not end by itself, and has tests of its own
            continue
        words = shlex.split(command)
        assert words[:2] == ["uv", "run"]  # the environment is this one already
        done = subprocess.run(words[2:], cwd=clone, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if "dvc repro" in command and made_elsewhere(clone):
            subprocess.run(["git", "checkout", "--quiet", "dvc.lock", "metrics"], cwd=clone, check=True)
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
        )
        assert not changed.stdout, command


def made_elsewhere(clone: Path) -> bool:
    """Whether this kind of machine gives other bytes than the one on which the pipeline was built."""
    lock = subprocess.run(
        ["git", "show", "HEAD:dvc.lock"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout
    model = (clone / "models/mlp/model.keras").read_bytes()
    return hashlib.md5(model, usedforsecurity=False).hexdigest() not in lock
