"""What the benchmarks share: the environment of the programs they start, and the dataset, prepared beforehand."""

import argparse
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).parents[1]
# Settings of the caller's shell that would change what the programs do, or where they record it.
FOREIGN = ("MLFLOW_", "KERAS_", "HYDRA_", "FASHION_MNIST_PARENT")


def official_folder() -> Path:
    """The folder with the four official files, `$FASHION_MNIST_DIR` or Keras's cache; without, ends the program."""
    cache = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras", "datasets/fashion-mnist")
    folder = Path(os.environ.get("FASHION_MNIST_DIR") or cache).expanduser().resolve()
    if len(list(folder.glob("*-ubyte.gz"))) < 4:
        way = "`python -m fashion_mnist.fetch` downloads them, or let FASHION_MNIST_DIR name their folder"
        sys.exit(f"error: {folder} does not hold the four official .gz files; {way}.")
    return folder


def environment(**settings: str) -> dict[str, str]:
    """The environment of a program: `python` and `mlflow` are those of this interpreter, and no window opens."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    return {
        **inherited,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT / "src"),
        "MPLBACKEND": "Agg",
        "FASHION_MNIST_DIR": str(official_folder()),
        **settings,
    }


def prepare(data_root: Path) -> None:
    """Checks and prepares Fashion-MNIST in `data_root`; ends the program where the official files are not all there."""
    data_root.parent.mkdir(parents=True, exist_ok=True)
    command = ["python", "-m", "fashion_mnist.fetch", f"data_root={data_root.name}"]
    done = subprocess.run(command, cwd=data_root.parent, env=environment(), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip())


def machine() -> dict[str, Any]:
    """What the measurements were made on and with. Imports TensorFlow."""
    from fashion_mnist.startup import import_tensorflow
    from fashion_mnist.tracking import lineage

    import_tensorflow()
    packages = ("tensorflow", "keras", "mlflow", "hydra-core")
    return {
        "processor": lineage.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "training_device": lineage.device(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "git_commit": lineage.commit(),
        "git_dirty": bool(lineage.uncommitted()),
    }


def peak_bytes(usage: resource.struct_rusage) -> int:
    """The largest resident memory of a process that has ended, as `os.wait4` tells it: macOS in bytes, Linux in KiB."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def wide_console() -> Console:
    """A console that does not squeeze tables into 80 columns when the output goes to a file."""
    return Console(width=None if sys.stdout.isatty() else 120)


def positive(text: str) -> int:
    """An argument that must be a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)
