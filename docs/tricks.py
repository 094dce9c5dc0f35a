"""What each trick is worth: one change at a time to the ladder's first step, over the same seeds, then compared.

    uv run python docs/tricks.py --folder ../tricks

An interrupted call goes on where it was. The runs lie in the experiment `tricks` of the folder's MLflow store, and what
came out in `docs/tricks/`, from which `docs/results.py` makes the table of docs/tricks.md.
"""

import argparse
import shlex
from pathlib import Path
from typing import NamedTuple

from study import ROOT, enter, step

SEEDS = "0,1,2"
LONGER = "trainer.epochs=6"
HEADINGS = ("trick", "change", "points", "95 %", "seconds", "times as long")


class Trick(NamedTuple):
    """A change, and what it is set beside."""

    title: str
    change: str  # to the command that trains the other
    why: str  # in a few words


SHORT = {  # by the name of the variant; beside ladder_91, which trains for three epochs
    "constant": Trick(
        "no schedule", "trainer.schedule=constant optimizer.learning_rate=0.002", "a constant learning rate"
    ),
    "cosine": Trick("cosine schedule", "trainer.schedule=cosine", "no rise at the beginning"),
    "low_peak": Trick("a quarter of the learning rate", "optimizer.learning_rate=0.005", "a lower peak"),
    "adam": Trick(
        "Adam",
        "optimizer=adam ~optimizer.weight_decay optimizer.learning_rate=0.02",
        "no weight decay, Keras's other defaults",
    ),
    "sgd": Trick(
        "SGD", "optimizer=sgd ~optimizer.weight_decay optimizer.learning_rate=0.2", "one learning rate for all weights"
    ),
    "more_decay": Trick("five times the weight decay", "optimizer.weight_decay=0.05", "smaller weights"),
    "small_batches": Trick("batches of 128", "trainer.batch_size=128", "twice as many steps"),
    "large_batches": Trick("batches of 512", "trainer.batch_size=512", "half as many steps"),
    "smoothed": Trick("label smoothing", "trainer.label_smoothing=0.1", "less certain answers"),
    "unnormalized": Trick(
        "no batch normalisation",
        "model=cnn ~model.blocks model.filters=[16,32,64] model.hidden=[] model.dropout=0",
        "the same convolutions, with biases in its place",
    ),
    "all_images": Trick("all images", "data.validation=0", "none is kept for validation"),
    "wide": Trick("twice the filters", "model.filters=[32,64,128]", "more to learn with"),
    "deep": Trick("a residual block", "model.blocks=[0,0,1]", "two more convolutions at the end"),
    "gelu": Trick("GELU", "model.activation=gelu", "a smooth activation"),
    "pair": Trick("two networks", "trainer.members=2", "the mean of their answers"),
    "dropout": Trick("dropout", "model.dropout=0.2", "a fifth of the last features"),
    "flipped": Trick("mirrored images", "augment.flip=true", "each with probability 1/2, in training"),
    "twice_asked": Trick(
        "mirrored images, asked twice", "augment.flip=true augment.test_time_flip=true", "the mean of both answers"
    ),
    "moved": Trick("moved images", "augment.shift=1", "by up to a pixel"),
    "erased": Trick("erased parts", "augment.erasing=0.25", "of a quarter of the images"),
}
LONG = {  # beside `longer`, which trains for six epochs
    "longer_dropout": SHORT["dropout"],
    "longer_twice_asked": SHORT["twice_asked"],
    "longer_moved": SHORT["moved"],
    "longer_erased": SHORT["erased"],
}
TRICKS = {"longer": Trick("six epochs", LONGER, "in place of three"), **SHORT, **LONG}


def main() -> None:
    """Trains what is missing; sets each beside what it changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="keeps models, runs and the prepared images")
    enter(parser.parse_args().folder, experiment="tricks")
    for name in ("ladder_91", *TRICKS):
        step("fashion_mnist", "-m", *overrides(name), f"seed={SEEDS}")  # what is finished is skipped
    steps = [
        f"+steps.{name}={{parent: {parent_of(name)}, technique: '{trick.title}'}}" for name, trick in TRICKS.items()
    ]
    options = ["tracking.experiment=tricks", "baseline=ladder_91", f"reports={ROOT}/docs/tricks"]
    step("fashion_mnist.compare", *options, *steps)


def overrides(name: str) -> list[str]:
    """The command that trains the ladder's first step, changed."""
    change = TRICKS[name].change.split() if name in TRICKS else []
    return ["experiment=ladder_91", *([LONGER] if name in LONG else []), *change, f"model.name={name}"]


def parent_of(name: str) -> str:
    return "longer" if name in LONG else "ladder_91"


def rows(comparison: dict, beside: str) -> list[list[str]]:
    """What every trick beside `ladder_91`, or `longer`, gained or lost, under `HEADINGS`; the largest gain first."""
    groups = {group["name"]: group for group in comparison["groups"]}
    base = groups[beside]["costs"]["training_seconds"]
    told = []
    for found in sorted(comparison["steps"], key=lambda found: -found["difference"]):
        if found["parent"] == beside:
            trick, seconds = TRICKS[found["name"]], groups[found["name"]]["costs"]["training_seconds"]
            value, low, high = (f"{100 * each:+z.2f}" for each in (found["difference"], *found["interval"]))
            gain = f"**{value}**" if found["shown"] else value
            cells = [f"{trick.title}: {trick.why}", f"`{shlex.join(trick.change.split())}`", gain, f"{low} to {high}"]
            told.append([*cells, f"{seconds - base:+z.0f}", f"{seconds / base:.2f}"])
    return told


if __name__ == "__main__":
    main()
