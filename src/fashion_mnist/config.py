"""The schema of conf/: which keys there are, of which type, in which range.

Models and optimizers are open: their keys are the arguments of the function that `_target_` names, so the YAML file
itself is the schema of the types, and `ARGUMENTS` holds the ranges of the names that recur.
"""

import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field
from pathlib import Path
from typing import Any

from fashion_mnist.errors import UserError

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
TRIED, BUILT = "outputs", "."  # folders of results: of what people try, and of what `dvc repro` builds
GROUPS = ("data", "augment", "model", "optimizer", "trainer", "tracking")


@dataclass(frozen=True)
class Rule:
    """What a value must fulfil beyond its type, and how to say so: «must be {text}»."""

    text: str
    holds: Callable[[Any], object]

    def check(self, key: str, value: Any) -> None:
        with suppress(TypeError):  # a text, or nothing, where a file of conf/ should have a number
            if self.holds(value):
                return
        raise UserError(f"{key} must be {self.text}, got {value!r}.")


def at_least(low: float) -> Rule:
    return Rule(f"at least {low}", lambda value: value >= low)


def between(low: float, high: float) -> Rule:  # `high` itself is too much
    return Rule(f"at least {low} and below {high}", lambda value: low <= value < high)


def one_of(*choices: str) -> Rule:
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


def is_share(value: float) -> bool:
    """Whether Ray can give so many cores or GPUs to a job."""
    return 0.01 <= value <= 1 or (value > 1 and value == int(value))


POSITIVE = Rule("above 0", lambda value: 0 < value < float("inf"))
A_SHARE = Rule("at least 0 and at most 1", lambda value: 0 <= value <= 1)
SECONDS = Rule("above 0 and at most 3600", lambda value: 0 < value <= 3600)
SHARES = Rule("a whole number above 0, or a share from 0.01 to 1", is_share)
SHARES_OR_ZERO = Rule("a whole number, or a share from 0.01 to 1", lambda value: value == 0 or is_share(value))
NOT_EMPTY = Rule("a text that is not empty", str.strip)
A_NAME = Rule(
    "a name of at most 100 letters, digits, '_', '-' and '.', since files are named after it",
    lambda value: re.fullmatch(r"[A-Za-z0-9_][\w.\-]{,99}", value),
)
COUNT_OR_SHARE = Rule(
    "a whole number of images, or a share of them below 1",
    lambda value: 0 <= value < 1 or (isinstance(value, int) and 0 < value < 1_000_000),
)
VARIANTS = Rule(
    "all, or a list of variants such as [mlp,cnn]",
    lambda value: value == "all" or (isinstance(value, list) and value and all(isinstance(one, str) for one in value)),
)
STEP = Rule(
    "of the form {parent: VARIANT, technique: WORDS}",
    lambda step: {**step}.keys() == {"parent", "technique"} and all(map(str.strip, step.values())),
)

ARGUMENTS: dict[str, Rule] = {
    "_target_": NOT_EMPTY,
    "name": A_NAME,
    "activation": one_of("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus"),
    "kernel_size": between(1, 29),
    "convolutions": between(1, 9),
    "blocks": between(0, 33),
    **dict.fromkeys(("hidden", "filters"), at_least(1)),
    **dict.fromkeys(("dropout", "block_dropout", "l2", "momentum", "weight_decay", "beta_1", "beta_2"), between(0, 1)),
    **dict.fromkeys(("learning_rate", "epsilon"), POSITIVE),
}


def ruled(rule: Rule, default: Any = MISSING) -> Any:
    """A dataclass field whose value must obey `rule`, unless it is null as by default."""
    told = Rule(f"{rule.text}, or null", rule.holds) if default is None else rule
    return field(default=default, metadata={"rule": told})


@dataclass
class DataConfig:
    """conf/data/*.yaml: which dataset, and how much of it validates."""

    source: str = ruled(one_of("fashion_mnist", "synthetic", "auto", "tfds", "images", "npz"))
    validation: int | float = ruled(COUNT_OR_SHARE)
    mirrorable: bool = True
    name: str | None = ruled(A_NAME, None)
    dir: str | None = None
    file: str | None = None
    dataset: str = ruled(NOT_EMPTY, "fashion_mnist")
    test: int | float = ruled(COUNT_OR_SHARE, 0.2)
    class_names: list[str] | None = None
    side: int | None = ruled(between(4, 513), None)
    channels: int | None = ruled(Rule("1 or 3", lambda value: value in (1, 3)), None)
    skip_damaged: bool = False
    mirrors: list[str] = field(default_factory=list)
    timeout: float = ruled(SECONDS, 5.0)
    train_images: int = ruled(between(10, 1_000_001), 12_000)
    test_images: int = ruled(between(10, 1_000_001), 2_000)
    drawing_seed: int = ruled(between(0, 2**32), 0)


@dataclass
class AugmentConfig:
    """conf/augment/*.yaml: random changes to the training images, and the mirror image in prediction."""

    flip: bool
    shift: int = ruled(at_least(0))
    erasing: float = ruled(A_SHARE)
    cutout: int = ruled(at_least(0))
    test_time_flip: bool = False


@dataclass
class TrainerConfig:
    """conf/trainer/*.yaml: how long, in which batches, and by what means."""

    epochs: int = ruled(between(1, 1_000_001))
    batch_size: int = ruled(between(1, 60_001))
    precision: str = ruled(one_of("float32", "bfloat16", "auto"))
    schedule: str = ruled(one_of("constant", "cosine", "one_cycle"), "constant")
    label_smoothing: float = ruled(between(0, 1), 0.0)
    class_weight: str | None = ruled(one_of("balanced"), None)
    members: int = ruled(between(1, 101), 1)
    patience: int | None = ruled(at_least(1), None)
    target_accuracy: float | None = ruled(A_SHARE, None)
    tensorboard: bool = False
    jit_compile: bool | None = None
    mirrored: bool = False
    resume: str = ruled(one_of("auto", "never", "required"), "auto")


@dataclass
class TrackingConfig:
    """conf/tracking/*.yaml: where MLflow keeps the runs."""

    uri: str = ruled(NOT_EMPTY)
    experiment: str = ruled(NOT_EMPTY)
    run_name: str | None = None
    timeout: float = ruled(SECONDS, 5.0)


@dataclass
class SearchConfig:
    """conf/hydra/sweeper/optuna.yaml: how many trials a search has, and what proposes, prunes and keeps them."""

    sampler: dict[str, Any]
    pruner: dict[str, Any]
    trials: int = ruled(at_least(1))
    confirm: int = ruled(at_least(0))
    seed: int = ruled(between(0, 2**32))
    storage: str = ruled(NOT_EMPTY)
    jobs: int | None = ruled(at_least(1), None)
    params: dict[str, Any] | None = None
    study: str | None = ruled(A_NAME, None)
    trial: int | None = ruled(at_least(0), None)  # of this job, whose seed and values it decides


@dataclass
class ClusterConfig:
    """conf/hydra/launcher/ray.yaml: which machines a sweep's jobs are given to, and what each of them gets."""

    init: dict[str, Any]
    num_cpus: float = ruled(SHARES)
    max_retries: int = ruled(at_least(0))
    max_calls: int = ruled(at_least(1))
    num_gpus: float | None = ruled(SHARES_OR_ZERO, None)


@dataclass
class Config:
    """Everything that a job is told."""

    data: DataConfig
    augment: AugmentConfig
    model: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: TrainerConfig
    tracking: TrackingConfig
    seed: int = ruled(between(0, 2**32))
    data_root: str = "data"
    output_dir: str | None = None
    skip_finished: bool = True
    overrides: list[str] = field(default_factory=list)  # what was typed; no key of conf/
    search: SearchConfig | None = None  # whose trial this job is, if any; no key of conf/ either

    def composed(self) -> dict[str, Any]:
        """The configuration as nested dictionaries, without what was typed to get it, and on whose behalf."""
        return {key: value for key, value in asdict(self).items() if key not in ("overrides", "search")}

    @property
    def variant(self) -> str:
        """The name under which the model's files and runs are found."""
        return self.model["name"]

    def folder(self, kind: str) -> Path:
        """Where results of a kind (`models`, `metrics`, `plots`, `predictions` or `logs`) of this variant lie.

        By default apart from those that `dvc repro` builds, which stand in the working folder itself.
        """
        return Path(self.output_dir or TRIED) / kind / self.variant

    def make_folders(self) -> None:
        """Makes the folders of all results, so that what cannot be written is known before training."""
        for kind in ("models", "metrics", "plots", "predictions"):
            folder = self.folder(kind)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
            except OSError as error:
                raise UserError(f"cannot write to {folder} ({error.strerror}); set another: output_dir=...") from error

    @property
    def model_file(self) -> Path:
        """The trained model, in Keras's own format."""
        return self.folder("models") / "model.keras"

    @property
    def predictions_file(self) -> Path:
        """The class probabilities of the test images."""
        return self.folder("predictions") / "test.npz"


@dataclass
class CompareConfig:
    """conf/compare.yaml: which runs are compared, and with what."""

    data: DataConfig
    tracking: TrackingConfig
    runs: str | None
    parent: str | None
    variants: Any = field(metadata={"rule": VARIANTS})
    baseline: str | None
    promote: bool
    steps: dict[str, Any] | None  # by variant, each as `STEP` says
    data_root: str = "data"
    reports: str = "reports"
    overrides: list[str] = field(default_factory=list)


@dataclass
class ReproduceConfig:
    """conf/reproduce.yaml: which run is made again, and how."""

    data: DataConfig
    tracking: TrackingConfig
    run: str
    check_only: bool
    checkout: bool
    tolerance: float = ruled(between(0, 1))
    data_root: str = "data"
    output_dir: str | None = None
    overrides: list[str] = field(default_factory=list)


@dataclass
class SyncConfig:
    """conf/sync.yaml: how long a server may take to answer."""

    tracking: TrackingConfig
    overrides: list[str] = field(default_factory=list)


# By the name of the file in conf/.
SCHEMAS = {"config": Config, "compare": CompareConfig, "reproduce": ReproduceConfig, "sync": SyncConfig}
