"""Tells what is on pictures, with a trained model.

usage: python -m fashion_mnist.predict PICTURE... [model=VARIANT | run=ID | model=models:/NAME@ALIAS] [--json]
       [--picture FILE.png] [key=value ...]

A PICTURE is a file, or a folder with all pictures in it and below. It may have any size, be coloured or grey, and the
garment may be lighter or darker than what lies behind it, or cut out. What stands out from nothing is skipped. A model
of one's own images (data=images) sees pictures as it saw those.

  model=cnn           the variant (default: mlp) as it was tried last, in outputs/, or else as `dvc repro` built it; or
                      a model of MLflow's registry: model=models:/name@alias
  run=ID              the model of an MLflow run instead
  --json              one line of JSON for each picture, with the probabilities of all classes, for machines
  --picture FILE.png  draws the pictures as the model sees them, with what it takes them for
  key=value           any other key, such as tracking.uri=http://localhost:5000 or output_dir=/tmp/try

The exit code is 1 when a picture could not be read; the others are told all the same.
"""

import argparse
import dataclasses
import functools
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.cells import chop_cells
from rich.table import Column, Table

from fashion_mnist import pictures
from fashion_mnist.checks import as_one_run
from fashion_mnist.cli import as_overrides, compose, explained
from fashion_mnist.config import BUILT, TRIED, Config, TrackingConfig
from fashion_mnist.data.dataset import CLASS_NAMES, Card, card_in, images_at_once
from fashion_mnist.data.decode import no_bombs, read
from fashion_mnist.errors import UserError, progress, say, terminal
from fashion_mnist.files import shorter, write_figure
from fashion_mnist.help import docstring_of
from fashion_mnist.startup import import_tensorflow
from fashion_mnist.tracking import store
from fashion_mnist.tracking.logged_model import card_with, keras_file

WIDTH = 17  # letters above a picture
Model = Callable[[np.ndarray], np.ndarray]  # images, uint8 -> probabilities, float32 (n, classes)


@dataclass
class Request:
    places: list[Path]
    overrides: list[str]
    model: str | None  # an address that MLflow knows
    as_json: bool
    picture: Path | None


def parse(arguments: Sequence[str]) -> Request:
    """Reads the command line; refuses one without a picture, and options that are unknown or lack their value."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    try:
        options, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; --help lists the options.") from error
    places, overrides, model = [], [], None
    for word in as_overrides(rest):
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            raise UserError(f"there is no option {word}; --help lists them.")
        if not equals or Path(word).exists() or not re.fullmatch(r"\+*[\w./@]+", key):
            places.append(Path(word))
        elif key == "run":
            model = f"runs:/{value}/model"
        elif key == "model" and ":/" in value:
            model = value
        else:
            overrides.append(word)
    if options.picture and options.picture.suffix.lower() != ".png":
        raise UserError(f"--picture {options.picture}: a picture is drawn as a .png file, such as --picture seen.png")
    if not places:
        beside = f" beside {' '.join(overrides)}" if overrides else ""
        raise UserError(f"name at least one picture{beside}: python -m fashion_mnist.predict shoe.png")
    return Request(places, overrides, model, options.json, options.picture)


def answer(request: Request) -> bool:
    """Reads, predicts and prints; says whether every picture could be read."""
    config = compose(request.overrides)
    files = list(pictures.files_of(request.places))
    if not files:
        raise UserError(f"there is no picture in {', '.join(str(place) for place in request.places)}.")
    model_name = request.model or str(trained(config))
    with tempfile.TemporaryDirectory() as folder:
        file, card = found(model_name, config.tracking, Path(folder))
        readable, images = read_all(files, card)
        if not readable:
            return False
        model = load(file)
    class_names: Sequence[str] = card.class_names if card else CLASS_NAMES
    at_once = images_at_once(images.shape[1:])
    batches = np.split(images, range(at_once, len(images), at_once))
    probabilities = np.concatenate([model(batch) for batch in progress(batches, "predicting")])
    if probabilities.shape[1] != len(class_names):
        raise UserError(f"{model_name} does not say what its {probabilities.shape[1]} classes are; train it again.")
    show(readable, probabilities, class_names, request.as_json, model_name)
    if "MLFLOW_RUN_ID" in os.environ:  # set by `mlflow run`
        store.label_step(config.tracking, "predict", f"Told by {model_name}; pictures: {len(readable)}.")
    if request.picture:
        from fashion_mnist.evaluation import plots

        best = [f"{shorter(class_names[row.argmax()])} {row.max():.0%}" for row in probabilities]
        titles = ["\n".join([*chop_cells(file.name, WIDTH), told]) for file, told in zip(readable, best, strict=True)]
        write_figure(plots.sheet(images, titles), request.picture)
    return len(readable) == len(files)


def trained(config: Config) -> Path:
    """The variant's model: what people tried last, or else what `dvc repro` built; a UserError if there is neither."""
    folders = [config.output_dir] if config.output_dir else [TRIED, BUILT]
    models = [dataclasses.replace(config, output_dir=folder).model_file for folder in folders]
    if found := next((file for file in models if file.is_file()), None):
        return found
    places = " or ".join(str(file) for file in models)
    command = shlex.join(["python", "-m", "fashion_mnist", *as_one_run(config.overrides)])
    raise UserError(f"there is no model in {places}; train it first: {command}")


def found(address: str, tracking: TrackingConfig, folder: Path) -> tuple[Path, Card | None]:
    """The Keras file of a model, and the card of its dataset; no card means garments.

    The address is a file, or what MLflow knows as `runs:/<id>/model` or `models:/<name>@<alias>`, which is downloaded.
    """
    if ":/" in address:
        file = keras_file(store.connect(tracking), address, folder)
        card = card_with(file)
    else:
        file, card = Path(address), card_in(Path(address))
    return file, card


def read_all(files: Sequence[Path], card: Card | None) -> tuple[list[Path], np.ndarray]:
    """The readable files and their images, uint8, made as those of the dataset were; names the others on stderr."""
    readable, images = [], []
    for file in progress(files, "reading"):
        try:
            with no_bombs():
                images.append(read(file, card.image_shape) if card else pictures.read(file))
            readable.append(file)
        except UserError as error:
            say(f"skipped: {error}")
    return readable, np.array(images)


def load(file: Path) -> Model:
    import_tensorflow()
    from fashion_mnist.training import saving

    return functools.partial(saving.load(file), training=False)


def show(
    files: Sequence[Path], probabilities: np.ndarray, class_names: Sequence[str], as_json: bool, model_name: str
) -> None:
    """Prints each picture's class and the three classes that are most probable, and whose word that is."""
    table = Table(Column("picture", overflow="fold"), "class", "most probable", caption=f"model: {model_name}")
    for file, row in zip(files, probabilities, strict=True):
        best = [(str(class_names[label]), float(row[label])) for label in np.argsort(-row)[:3]]
        if as_json:
            top = [{"class": name, "probability": round(share, 6)} for name, share in best]
            every = {name: round(float(share), 7) for name, share in zip(class_names, row, strict=True)}
            print(json.dumps({"picture": str(file), "class": best[0][0], "top": top, "probabilities": every}))
        else:
            table.add_row(str(file), best[0][0], ", ".join(f"{name} {share:.1%}" for name, share in best))
    if not as_json:
        terminal().print(table)


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]) or len(sys.argv) == 1:
        print(docstring_of(__file__))
        return
    with explained():
        sys.exit(0 if answer(parse(sys.argv[1:])) else 1)


if __name__ == "__main__":
    main()
