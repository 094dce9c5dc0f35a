"""What a run was made of, and what of it decides the result. Digests are sixteen hexadecimal digits.

The names below are the one place that says what decides a result: sweeps that skip what is finished, checkpoints,
comparisons, reproductions and, held to it by a test, the stages of dvc.yaml go by them.
"""

import functools
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from fashion_mnist.config import ROOT, Config
from fashion_mnist.data.dataset import Card
from fashion_mnist.errors import UserError, say
from fashion_mnist.files import FOLDER
from fashion_mnist.startup import CPUINFO, cpuinfo, orders
from fashion_mnist.tracking.store import PARENT

PACKAGE = Path(__file__).parents[1]
# Of the package: whatever an image passes through on its way to weights, the model's file and its test metrics.
CODE = ("data", "evaluate.py", "evaluation", "files.py", "models.py", "startup.py", "train.py", "training")
FILES = ("src", "conf", "uv.lock")  # of the checkout; kept as a patch where they are not committed
SECTIONS = ("augment", "model", "optimizer", "trainer")  # of the configuration; with them the seed and data.validation
ELSEWHERE = (  # overrides that say where and how something lies, not what it is
    "tracking.", "output_dir=", "data_root=", "data.dir=", "data.file=", "data.mirrors=", "data.timeout=",
    "trainer.resume=",
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
    "environment": "environment",
    "device": "machine",
}
# Of them, what is the same wherever two trainings must give the same weights on one machine.
DECISIVE = ("code_digest", "config_digest", "dataset_digest", "tensorflow", "keras", "environment")
PATCH = "uncommitted.patch"
# Of the environment: what tells TensorFlow and what lies below it how to calculate.
ORDERS = re.compile(
    "TF_(ENABLE|DISABLE|USE(?!_LEGACY)|DETERMINISTIC|CUDNN|CUBLAS|XLA|NUM_INTRAOP|OVERRIDE)|XLA_FLAGS|ONEDNN_|DNNL_|"
    "CUDNN_|CUBLAS_|NVIDIA_TF32|KERAS_MAX"
)
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "avx2")  # of x86, best first
# For git: what keeps a person's own settings out of a patch and a worktree.
NEUTRAL = f"-c core.hooksPath={os.devnull} -c core.attributesFile={os.devnull} -c core.safecrlf=false"
say_once = functools.cache(say)


def tags(config: Config, card: Card) -> dict[str, str]:
    """The tags by which a run is found again, and made again. Imports TensorFlow."""
    head, patch = checkout_here()
    return {
        "variant": config.variant,
        "seed": str(config.seed),
        "dataset": card.name,
        **decisive_tags(config, card),
        "lock_digest": file_digest(ROOT / "uv.lock", as_text=True),
        "git_commit": head,
        # Only what determines the result: results themselves, such as metrics/, change while a pipeline runs.
        "git_dirty": "unknown" if patch is None else str(bool(patch)).lower(),
        "python": platform.python_version(),
        "device": device(),
    }


def decisive_tags(config: Config, card: Card) -> dict[str, str]:
    """The tags of `DECISIVE`, for what is configured here."""
    return {
        "code_digest": code_here(),
        "config_digest": config_digest(config),
        "dataset_digest": card.digest,
        "tensorflow": version("tensorflow"),
        "keras": version("keras"),
        "environment": environment(),
    }


def environment() -> str:
    """What the environment, or else startup.py, says of how to calculate; «none» where it is left to TensorFlow."""
    said = sorted((orders() | os.environ).items())
    return " ".join(f"{key}={value}" for key, value in said if ORDERS.match(key)) or "none"


def config_digest(config: Config) -> str:
    """Stands for everything in the configuration that determines the result: not where it is stored or recorded."""
    content = config.composed()
    relevant = {key: content[key] for key in (*SECTIONS, "seed")}
    relevant["validation"] = config.data.validation
    del relevant["trainer"]["resume"]
    if relevant["trainer"]["class_weight"] is None:
        del relevant["trainer"]["class_weight"]  # so that its default is as if the key were not there
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(file: Path, as_text: bool = False) -> str:
    """«none» where there is no such file. As text it is the same however lines end, which checkouts may change."""
    if not file.is_file():
        return "none"
    content = file.read_bytes()
    return hashlib.sha256(content.replace(b"\r\n", b"\n") if as_text else content).hexdigest()[:16]


def code_digest(package: Path = PACKAGE) -> str:
    files = sorted(file for file in package.rglob("*.py") if file.relative_to(package).parts[0] in CODE)
    lines = [f"{file.relative_to(package).as_posix()} {file_digest(file, as_text=True)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


BEGAN_WITH = code_digest()


def code_here() -> str:
    """The digest of the code at work: of its files when this process began, since they may be edited during a sweep.

    A notebook may reload what is edited; then it is that of the files as they are.
    """
    return code_digest() if "IPython.extensions.autoreload" in sys.modules else BEGAN_WITH


def checkout_here() -> tuple[str, bytes | None]:
    """`commit` and `uncommitted` of the checkout; once code at work is edited in it, as they were for the last run."""
    if code_digest() == code_here():
        last_checkout.cache_clear()
    return last_checkout()


@functools.cache
def last_checkout() -> tuple[str, bytes | None]:
    return (commit(), uncommitted()) if code_digest() == code_here() else ("unknown", None)


def origin() -> dict[str, str]:
    """What must be the same for a training to end in the same bytes after an interruption as without one."""
    here = {
        "code": code_here(),
        "TensorFlow": version("tensorflow"),
        "Keras": version("keras"),
        "device": device(),
    }
    return here | {"environment": environment()}


def checkpoint_file(config: Config, card: Card) -> Path:
    """Where the checkpoint of a training lies, the same for whatever is the same training."""
    # The jobs of a sweep have folders named after the time; to be found again, a checkpoint must not depend on it.
    place = None if PARENT in os.environ else config.output_dir
    digest = hashlib.sha256(json.dumps([config_digest(config), card.digest, place]).encode()).hexdigest()[:8]
    return FOLDER / f"{config.variant}-seed{config.seed}-{digest}.npz"


def commit(folder: Path = ROOT) -> str:
    """The commit of the project's own checkout, not of a repository around it; else `unknown`, which is said once."""
    try:
        around, head = git("rev-parse", "--show-prefix", "HEAD", folder=folder).decode().splitlines()
        if around:
            raise UserError(f"it is {around} of another repository")
        return head
    except UserError as error:
        say_once(f"The commit of {folder} is unknown ({error}); runs are told apart by the digest of their code alone.")
        return "unknown"


def uncommitted(folder: Path = ROOT) -> bytes | None:
    """How the files in `FILES`, new ones included, differ from the last commit: a patch; None if git cannot tell."""
    if commit(folder) == "unknown":
        return None
    with tempfile.TemporaryDirectory() as temporary:  # an index of its own, so that the person's stays as it is
        run = functools.partial(git, folder=folder, GIT_INDEX_FILE=str(Path(temporary) / "index"))
        try:
            run("read-tree", "HEAD")
            run("add", "--update", "--", *FILES)
            new = run("ls-files", "-z", "--others", "--exclude-per-directory=.gitignore", "--", *FILES)
            run("update-index", "-z", "--add", "--stdin", given=new)
            return run("diff-index", "--cached", "-p", "--binary", "--full-index", "--no-ext-diff", "HEAD")
        except UserError:
            return None


def git(*arguments: str, folder: Path = ROOT, given: bytes | None = None, **variables: str) -> bytes:
    """What git answers, whatever the person has set up; a UserError where it refuses, or is not there."""
    command, clean = ["git", "-C", str(folder), *NEUTRAL.split(), *arguments], without_git_variables() | variables
    try:
        return subprocess.run(command, input=given, capture_output=True, timeout=60, check=True, env=clean).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace")
        raise UserError(f"git cannot {arguments[0]}: {' '.join(said.split())}") from error


def without_git_variables() -> dict[str, str]:
    """The environment without what would send git elsewhere, such as `GIT_DIR`; its settings may be needed there."""
    return {key: value for key, value in os.environ.items() if not re.match("GIT_(?!CONFIG|EXEC|SS[HL])", key)}


def device() -> str:
    """The machine that does the arithmetic: `2 x NVIDIA H200`, or `AMD EPYC (avx2), 2 cores`."""
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        return f"{len(gpus)} x {tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'GPU')}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}, {cores} cores"


def processor(file: Path = CPUINFO) -> str:
    """The processor's name, with the instructions by which kernels are chosen: in a cloud, many have one name."""
    known = cpuinfo(file)
    named = re.search(r"^model name\s*:(.*)", known, re.MULTILINE)
    name = named[1].strip() if named else platform.processor() or platform.machine()
    best = next((each for each in INSTRUCTIONS if re.search(rf"\b{each}\b", known)), None)
    return f"{name} ({best})" if best else name
