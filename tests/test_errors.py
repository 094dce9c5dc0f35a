"""What people are told, whatever reads it: a pipe that closes, a terminal with few letters, names with brackets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY, all_runs, run_here

from fashion_mnist.errors import terminal


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_pipe_ends_nothing(stream: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = (
        "import sys; from fashion_mnist.errors import make_streams_last; make_streams_last()",
        f"for number in range(10_000): print(number, file=sys.{stream})",
        "print('still here', file=sys.stderr if sys.argv[1] == 'stdout' else sys.stdout)",
    )
    stdout, stderr = (writer if name == stream else subprocess.PIPE for name in ("stdout", "stderr"))
    process = subprocess.Popen([sys.executable, "-c", "\n".join(lines), stream], stdout=stdout, stderr=stderr)
    os.close(writer)
    told = b"".join(each or b"" for each in process.communicate(timeout=60))
    assert (process.returncode, told.strip()) == (0, b"still here")


@pytest.mark.slow
def test_a_training_goes_on_when_its_reader_has_gone(empty_folder: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m fashion_mnist {' '.join(TINY)} 2>&1 | head -1"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert process.returncode == 0
    assert len(process.stdout.splitlines()) == 1
    (run,) = all_runs()
    assert run.info.status == "FINISHED"
    assert "test_accuracy" in run.data.metrics


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_letters_that_a_terminal_does_not_know_are_written_in_others(encoding: str) -> None:
    lines = "from fashion_mnist.errors import make_streams_last as last, say\nlast()\nprint('━ ±'); say('≤')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.run([sys.executable, "-c", lines], capture_output=True, timeout=60, env=environment)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(b"\\u2501 ")
    assert process.stderr.startswith(b"\\u2264")


def test_other_peoples_texts_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    terminal().print("sale[red]new[/red] :smile: [/]")
    assert capsys.readouterr().out.strip() == "sale[red]new[/red] :smile: [/]"


def test_a_training_says_its_names_as_they_are(empty_folder: Path, tiny_data: Path) -> None:
    names = ["output_dir='o[bold]ut'", "tracking.run_name='a[/x] b'"]
    done = run_here(*TINY, f"data_root={tiny_data}", "trainer.epochs=1", *names, step="main")
    assert done.returncode == 0, done.stderr
    assert "o[bold]ut/models/mlp/model.keras" in done.stdout
    assert Path("o[bold]ut/models/mlp/model.keras").is_file()
    (run,) = all_runs()
    assert run.info.run_name == "a[/x] b"
