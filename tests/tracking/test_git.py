"""Whatever a person has set up for git, a run says which code it was made of, or that this is unknown."""

import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from fashion_mnist.tracking import lineage

IGNORED = "*.yaml\nnew.py\n"
SETTINGS = {
    "diff.noprefix": "true", "diff.mnemonicPrefix": "true", "diff.external": "/bin/true", "diff.context": "0",
    "color.ui": "always", "core.safecrlf": "true", "status.showUntrackedFiles": "no", "core.excludesFile": "ignored",
    "core.attributesFile": "attributes",
}  # fmt: skip
VARIABLES = {
    "GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/nowhere", "GIT_INDEX_FILE": "/nowhere/index", "GIT_DIFF_OPTS": "-u0",
    "GIT_EXTERNAL_DIFF": "/bin/true",
}  # fmt: skip


def git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *settings, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a changed and a new file, and what settings may name."""
    folder = tmp_path / "checkout"
    for name in ("src", "conf"):
        (folder / name).mkdir(parents=True)
    for name in ("src/changed.py", "conf/same.yaml", "uv.lock"):
        (folder / name).write_text("def f():\n\n\n\n    a = 1\n\n\n\n    return a\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "first")
    (folder / "src/changed.py").write_bytes(b"def f():\r\n\n\n\n    a = 2\n\n\n\n    return a\n")
    (folder / "src/new.py").write_text("new\n")
    (folder / "attributes").write_text("*.py -diff\n")
    (folder / "ignored").write_text("new.py\n")
    return folder


def test_no_setting_changes_the_patch(checkout: Path) -> None:
    patch = lineage.uncommitted(checkout)
    assert patch is not None
    assert b"new.py" in patch
    for key, value in SETTINGS.items():
        git(checkout, "config", key, str(checkout / value) if key.endswith("sFile") else value)
        assert lineage.uncommitted(checkout) == patch, key
    (checkout / ".git/info/exclude").write_text("new.py\n")
    assert lineage.uncommitted(checkout) == patch


def test_no_variable_of_gits_changes_the_patch_or_the_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, commit = lineage.uncommitted(checkout), lineage.commit(checkout)
    for key, value in VARIABLES.items():
        monkeypatch.setenv(key, value)
    assert lineage.commit(checkout) == commit
    assert lineage.uncommitted(checkout) == patch


def test_a_new_commit_is_known_at_once(checkout: Path) -> None:
    before = lineage.commit(checkout)
    git(checkout, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", "more")
    assert lineage.commit(checkout) not in (before, "unknown")


def test_outside_of_git_the_commit_is_unknown_and_that_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert [lineage.commit(tmp_path), lineage.commit(tmp_path)] == ["unknown", "unknown"]
    assert lineage.uncommitted(tmp_path) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "not a git repository" in line


def test_the_commit_of_a_repository_around_the_project_is_not_its_own(
    checkout: Path, capsys: pytest.CaptureFixture
) -> None:
    assert lineage.commit(checkout / "src") == "unknown"
    assert lineage.uncommitted(checkout / "src") is None
    assert "it is src/ of another repository" in capsys.readouterr().err


def test_a_clone_has_our_line_ends_whatever_git_is_set_to(tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "-c", "core.autocrlf=true", str(ROOT), "clone")
    texts = [file for file in (tmp_path / "clone").rglob("*") if file.suffix in (".py", ".yaml", ".lock", ".md")]
    assert texts
    assert not [file for file in texts if b"\r\n" in file.read_bytes()]


def test_line_ends_are_no_other_code(tmp_path: Path) -> None:
    for file in lineage.PACKAGE.rglob("*.py"):
        copy = tmp_path / file.relative_to(lineage.PACKAGE)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert lineage.code_digest(tmp_path) == lineage.code_digest()
