"""What a run was made of, and what of it decides the result. Digests are sixteen hexadecimal digits.

The names below are the one place that says what decides a result: sweeps that skip what is finished, checkpoints,
comparisons, reproductions and, held to it by a test, the stages of dvc.yaml go by them.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fashion_mnist.config import ROOT, Config
from fashion_mnist.data.dataset import Card
from fashion_mnist.files import FOLDER
from fashion_mnist.tracking.store import PARENT

PACKAGE = Path(__file__).parents[1]
# Of the package: whatever an image passes through on its way to weights, the model's file and its test metrics.
CODE = ("data", "evaluate.py", "evaluation", "files.py", "models.py", "train.py", "training")
FILES = ("src", "conf", "uv.lock")  # of the checkout; kept as a patch where they are not committed
SECTIONS = ("augment", "model", "optimizer", "trainer")  # of the configuration; with them the seed and data.validation
ELSEWHERE = (  # overrides that say where and how something lies, not what it is
    "tracking.", "output_dir=", "data_root=", "data.dir=", "data.mirrors=", "data.timeout=", "trainer.resume=",
)  # fmt: skip
ORIGIN = {  # tags, and what they are called when two runs are set beside one another
    "git_commit": "commit",
    "code_digest": "code",
    "config_digest": "configuration",
    "dataset_digest": "data",
    "lock_digest": "packages (uv.lock)",
    "python": "Python",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "device": "machine",
}
# Of them, what is the same wherever two trainings must give the same weights on one machine.
DECISIVE = ("code_digest", "config_digest", "dataset_digest", "tensorflow", "keras")
PATCH = "uncommitted.patch"


def tags(config: Config, card: Card) -> dict[str, str]:
    """The tags by which a run is found again, and made again. Imports TensorFlow."""
    return {
        "variant": config.variant,
        "seed": str(config.seed),
        "dataset": card.name,
        **decisive_tags(config, card),
        "lock_digest": file_digest(ROOT / "uv.lock"),
        "git_commit": git("rev-parse", "HEAD") or "unknown",
        # Only what determines the result: results themselves, such as metrics/, change while a pipeline runs.
        "git_dirty": str(bool(git("status", "--porcelain", "--", *FILES))).lower(),
        "python": platform.python_version(),
        "device": device(),
    }


def decisive_tags(config: Config, card: Card) -> dict[str, str]:
    """The tags of `DECISIVE`, for what is configured here."""
    return {
        "code_digest": code_digest(),
        "config_digest": config_digest(config),
        "dataset_digest": card.digest,
        "tensorflow": version("tensorflow"),
        "keras": version("keras"),
    }


def config_digest(config: Config) -> str:
    """Stands for everything in the configuration that determines the result: not where it is stored or recorded."""
    content = config.composed()
    relevant = {key: content[key] for key in (*SECTIONS, "seed")}
    relevant["validation"] = config.data.validation
    del relevant["trainer"]["resume"]
    weights = Path(str(config.model.get("weights"))).expanduser()
    if weights.is_file():
        relevant["weights"] = file_digest(weights)
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]


def code_digest(package: Path = PACKAGE) -> str:
    files = sorted(file for file in package.rglob("*.py") if file.relative_to(package).parts[0] in CODE)
    lines = [f"{file.relative_to(package).as_posix()} {file_digest(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def origin() -> dict[str, str]:
    """What must be the same for a training to end in the same bytes after an interruption as without one."""
    return {"code": code_digest(), "TensorFlow": version("tensorflow"), "Keras": version("keras"), "device": device()}


def checkpoint_file(config: Config, card: Card) -> Path:
    """Where the checkpoint of a training lies, the same for whatever is the same training."""
    # The jobs of a sweep have folders named after the time; to be found again, a checkpoint must not depend on it.
    place = None if PARENT in os.environ else config.output_dir
    same = [config_digest(config), card.digest, place]
    digest = hashlib.sha256(json.dumps(same).encode()).hexdigest()[:8]
    return FOLDER / f"{config.variant}-seed{config.seed}-{digest}.npz"


def uncommitted(folder: Path = ROOT) -> bytes | None:
    """How the files in `FILES`, new ones included, differ from the last commit: a patch; None if git cannot tell."""
    with tempfile.TemporaryDirectory() as temporary:  # an index of its own, so that the person's stays as it is
        environment = {**os.environ, "GIT_INDEX_FILE": str(Path(temporary) / "index")}
        run = partial(subprocess.run, cwd=folder, env=environment, capture_output=True, timeout=60, check=True)
        try:
            run(["git", "read-tree", "HEAD"])
            run(["git", "add", "--all", "--", *FILES])
            return run(["git", "diff", "--cached", "--binary", "HEAD"]).stdout
        except (OSError, subprocess.SubprocessError):
            return None


def file_digest(file: Path) -> str:
    """«none» where there is no such file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else "none"


def git(*arguments: str) -> str:
    """Nothing where the project's folder is no git checkout."""
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def device() -> str:
    """The machine that does the arithmetic: `2 x NVIDIA H200`, or `AMD EPYC, 2 cores`."""
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        return f"{len(gpus)} x {tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'GPU')}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}, {cores} cores"


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:(.*)", cpuinfo.read_text() if cpuinfo.is_file() else "", re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()
