"""What a team shares: DVC's results in S3, and servers that go on with what they held."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, needs_real_data
from teams import NEEDS_POSTGRESQL, NEEDS_S3, Team, a_team

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), NEEDS_POSTGRESQL, NEEDS_S3]


@pytest.fixture
def team() -> Iterator[Team]:
    with a_team() as running:
        yield running


def typed(command: str, folder: Path, **variables: str) -> str:
    """What a command says that is typed in a folder."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}
    process = subprocess.run(command.split(), cwd=folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout + process.stderr


@needs_real_data
def test_what_one_has_built_another_pulls_and_nothing_is_left_to_do(team: Team, tmp_path: Path) -> None:
    team.start_s3()
    mine, yours = tmp_path / "mine", tmp_path / "yours"
    typed(f"git clone --quiet {ROOT} {mine}", tmp_path)
    paths = {"PYTHONPATH": str(mine / "src")}
    typed("dvc repro evaluate@linear", mine, **paths)
    typed("dvc remote add --local --default team s3://dvc", mine)
    pushed = typed("dvc push --with-deps evaluate@linear", mine, **team.variables)
    assert re.search(r"[1-9]\d* files? pushed", pushed)
    typed("git add --all", mine)
    typed("git -c user.name=me -c user.email=me@here commit --quiet --allow-empty --message built", mine)
    typed(f"git clone --quiet {mine} {yours}", tmp_path)
    typed("dvc remote add --local --default team s3://dvc", yours)
    typed("dvc pull --with-deps evaluate@linear", yours, **team.variables)
    said = typed("dvc repro evaluate@linear", yours, PYTHONPATH=str(yours / "src"))
    assert "up to date" in said
    assert "Running" not in said
    assert typed("git status --porcelain", yours) == ""


def test_servers_that_were_killed_go_on_with_what_they_held(team: Team) -> None:
    team.start()
    for name in list(team.running):
        team.kill(name)
    again = Team(team.folder, team.port)
    try:
        again.start()
        assert again.variables == team.variables
        written = (team.folder / "environment").read_text()
        assert written == "".join(f"export {key}={value}\n" for key, value in team.variables.items())
        assert (team.folder / "environment").stat().st_mode & 0o077 == 0
    finally:
        again.stop()
