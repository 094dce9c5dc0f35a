"""What a run says of itself before training starts: its name and description, parameters, files, the dataset."""

import json
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from fashion_mnist.checks import as_one_run
from fashion_mnist.config import CONF, Config
from fashion_mnist.data.dataset import PARTS, Card
from fashion_mnist.tracking import lineage
from fashion_mnist.tracking.store import even_if_raced

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Run

MADE_OF = {  # keys that decide what images a source gives
    "synthetic": ("train_images", "test_images", "drawing_seed"),
    "images": ("side", "channels", "test", "drawing_seed", "skip_damaged"),
}
MOST_CHARACTERS = 8_000  # of a description; MLflow cuts off the rest
UNSAID = ("model", "data", "name", "data_root", "output_dir", "resume", "skip_finished")  # in the names of runs


def describe(client: "MlflowClient", run: "Run", config: Config, card: Card, tags: dict[str, str]) -> None:
    from mlflow.entities import DatasetInput, InputTag, Param, RunTag

    identifier = run.info.run_id
    tags = {**tags, "mlflow.note.content": note(config, card, tags)}
    if config.tracking.run_name or is_made_up(run.info.run_name):
        tags["mlflow.runName"] = config.tracking.run_name or run_name(config, card)
    # `mlflow run -P` has recorded its own parameters, and a parameter never changes.
    new = [Param(key, value[:6000]) for key, value in params(config).items() if key not in run.data.params]
    client.log_batch(identifier, params=new, tags=[RunTag(key, value) for key, value in tags.items()])
    client.log_text(identifier, OmegaConf.to_yaml(config.composed()), "config.yaml")
    client.log_text(identifier, OmegaConf.to_yaml(config.overrides), "overrides.yaml")
    if tags["git_dirty"] == "true" and (patch := lineage.checkout_here()[1]) is not None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / lineage.PATCH
            file.write_bytes(patch)
            client.log_artifact(identifier, str(file))
    data = DatasetInput(dataset_of(card), [InputTag("mlflow.data.context", "training")])
    even_if_raced(client.log_inputs, identifier, [data])


def dataset_of(card: Card) -> "Dataset":
    """The dataset as MLflow shows it: where it is from, the types and shapes of its arrays, its classes.

    The same for every run, whatever part of the training images validates: an experiment keeps one description of what
    has one name and one digest.
    """
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.data.numpy_dataset import NumpyDataset
    from mlflow.entities import Dataset

    official = card.source.startswith("http")
    source = HTTPDatasetSource(card.source) if official else CodeDatasetSource({"mlflow.source.name": card.source})
    shapes = [card.files[f"{part}.npy"]["shape"] for part in PARTS]
    # Arrays of these shapes that hold a single byte: MLflow asks for no more, since the digest is known.
    images, labels, test_images, _ = (np.broadcast_to(np.uint8(0), shape) for shape in shapes)
    described = NumpyDataset(images, source, labels, card.name, card.digest)
    profile = dict(described.profile or {}, test_images=len(test_images), class_names=card.class_names)
    return Dataset(**described.to_dict() | {"profile": json.dumps(profile)})


def params(config: Config) -> dict[str, str]:
    """The flattened configuration, without what cannot matter to the result: places, addresses, names of runs."""
    content = config.composed()
    kept = ("name", "validation", *MADE_OF.get(config.data.source, ()))
    content["data"] = {key: content["data"][key] for key in kept}
    found = flat({key: content[key] for key in ("data", "augment", "model", "optimizer", "trainer", "seed")})
    del found["model._target_"], found["trainer.resume"]  # which the model's name tells, and which changes nothing
    return found | {"optimizer": found.pop("optimizer._target_").rpartition(".")[2].lower()}


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested keys joined with dots, values as text: `{"trainer": {"epochs": 3}}` becomes `{"trainer.epochs": "3"}`."""
    pairs: dict[str, str] = {}
    for key, value in section.items():
        name = f"{prefix}{key}"
        pairs |= flat(value, f"{name}.") if isinstance(value, dict) else {name: str(value)}
    return pairs


def run_name(config: Config, card: Card) -> str:
    """A name that says what was run, such as `cnn epochs=3 seed=7`; what is so by default goes without saying."""
    words = [config.variant] if card.name == "fashion_mnist" else [config.variant, card.name]
    chosen = chosen_by_files(config.overrides)
    for key, equals, value in (override.partition("=") for override in config.overrides):
        group, _, leaf = key.lstrip("+~").rpartition(".")
        if group != "tracking" and leaf not in UNSAID and chosen.get(key) != value:
            words.append(f"{'~' * key.startswith('~')}{leaf}{equals}{value}")
    return " ".join(words)


def chosen_by_files(overrides: Sequence[str]) -> dict[str, str]:
    """The option of each group that conf/ itself would choose: its defaults, the variant and the preset, in turn."""
    typed = dict(override.split("=", 1) for override in overrides if "=" in override)
    defaults, preset = options_in(CONF / "config.yaml"), options_in(CONF / f"experiment/{typed.get('experiment')}.yaml")
    model = typed.get("model", preset.get("model", defaults["model"]))
    return defaults | options_in(CONF / f"model/{model}.yaml") | preset


def options_in(file: Path) -> dict[str, str]:
    """The options that a file of conf/ chooses, with those of the files that it builds on; none without a file."""
    chosen: dict[str, str] = {}
    content: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    for entry in content.get("defaults", ()):
        if isinstance(entry, dict):
            chosen |= {re.sub("^override /|@.*", "", group): str(option) for group, option in entry.items()}
        elif entry != "_self_":
            chosen |= options_in(file.with_name(f"{entry}.yaml"))
    return chosen


def note(config: Config, card: Card, tags: dict[str, str]) -> str:
    """The description that the UI shows at the top of the run, in Markdown."""
    dirty = " with uncommitted changes" if tags["git_dirty"] == "true" else ""
    epochs = f"{config.trainer.epochs} epoch{'s' if config.trainer.epochs > 1 else ''}"
    # Not where to: what the pipeline built is not to be replaced by whoever tries the same again.
    what = as_one_run([override for override in config.overrides if not override.startswith("output_dir=")])
    command = shlex.join(["python", "-m", "fashion_mnist", *what])
    return (
        f"**{config.variant}** on {card.title}: {epochs}, batch {config.trainer.batch_size}, "
        f"seed {config.seed}, {tags['device']}.\n\n"
        f"Again: `{command}` at commit `{tags['git_commit'][:12]}`{dirty}."
    )


def is_made_up(name: str | None) -> bool:
    """Whether MLflow made a run's name up, such as `brave-shrew-412`, since nobody gave it one."""
    from mlflow.utils import name_utils

    words = re.fullmatch(r"([a-z]+)-[a-z]+-\d*", name or "")
    return bool(words and words[1] in {word.lower() for word in name_utils._GENERATOR_PREDICATES})
