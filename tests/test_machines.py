"""What a machine is set up like, its terminal, its home, its Keras, changes no result and stops nobody."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT, TINY, assert_one_sentence, run_step

from fashion_mnist import startup, train
from fashion_mnist.cli import explained
from fashion_mnist.startup import ONEDNN

A_CODE_PAGE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252", "PYTHONWARNDEFAULTENCODING": "1"}
OLD, NEW = "flags\t: fpu sse4_2 avx2 fma", "flags\t: fpu sse4_2 avx2 fma avx512_vnni"
ON_LINUX = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="elsewhere TensorFlow decides alone"
)


@pytest.mark.slow
def test_a_whole_training_runs_whatever_the_encoding_is(empty_folder: Path, tiny_data: Path) -> None:
    process = run_step(*TINY, f"data_root={tiny_data}", "output_dir='gr\N{GREEK SMALL LETTER PI}'", **A_CODE_PAGE)
    assert process.returncode == 0, process.stderr
    ours = [line for line in process.stderr.splitlines() if "EncodingWarning" in line and "src/fashion_mnist" in line]
    assert not ours


def test_what_a_terminal_cannot_show_is_shown_by_its_number() -> None:
    code = "from fashion_mnist.cli import explained\nwith explained():\n    print(chr(0x3c0))"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert process.stdout.strip() == b"\\u03c0"


@pytest.mark.slow
def test_keras_calculates_as_we_say_and_not_as_the_machine_does(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text('{"floatx": "float64", "epsilon": 0.1, "image_data_format": "channels_first"}')
    code = (
        "from fashion_mnist.startup import import_tensorflow\nimport_tensorflow()\nimport keras, tensorflow as tf\n"
        "c = keras.config\nprint(c.backend(), c.floatx(), c.epsilon(), c.image_data_format(), tf.keras.__name__)"
    )
    others = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1"}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **others})
    assert process.stdout.split()[:4] == ["tensorflow", "float32", "1e-07", "channels_last"], process.stderr


@ON_LINUX
@pytest.mark.parametrize(
    ("flags", "typed", "told"), [(OLD, {}, {ONEDNN: "1"}), (OLD, {ONEDNN: "0"}, {}), (NEW, {}, {})]
)
def test_onednn_is_turned_on_where_tensorflow_leaves_it_off_and_nobody_says_otherwise(
    flags: str, typed: dict[str, str], told: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.delenv(ONEDNN, raising=False)
    for key, value in typed.items():
        monkeypatch.setenv(key, value)
    assert startup.orders(tmp_path / "cpuinfo") == told


@ON_LINUX
@pytest.mark.slow
def test_tensorflow_does_what_it_is_told_a_run_says_so_and_a_child_decides_for_itself() -> None:
    code = (
        "import os\nfrom fashion_mnist import startup\nfrom fashion_mnist.tracking import lineage\n"
        "before = lineage.environment()\nstartup.import_tensorflow()\n"
        "from tensorflow.python.util import _pywrap_util_port as port\n"
        f"print(port.IsMklEnabled(), before, lineage.environment(), os.environ.get('{ONEDNN}'))"
    )
    settings = {key: value for key, value in os.environ.items() if key != ONEDNN}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings)
    on, before, after, left = process.stdout.split()
    assert (on, before, left) == ("True", after, "None"), process.stderr


def test_a_user_without_a_home_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(Path, "home", nobody)
    terminate = signal.getsignal(signal.SIGTERM)
    with explained():
        assert os.environ["HOME"] == tempfile.gettempdir()
    signal.signal(signal.SIGTERM, terminate)


def test_help_needs_no_docstrings() -> None:
    process = subprocess.run(
        [sys.executable, "-OO", "-m", "fashion_mnist.train", "--help"], capture_output=True, text=True
    )
    assert process.stdout.startswith(str(train.__doc__).strip())


def test_a_package_that_is_installed_without_conf_says_what_to_type(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src/fashion_mnist", tmp_path / "site-packages/fashion_mnist")
    assert_one_sentence(run_step(PYTHONPATH=str(tmp_path / "site-packages")), "pip install -e .")
