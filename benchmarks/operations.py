"""Where the time of a training step goes, by what is calculated: convolutions, normalisation, augmentation, input.

    uv run python benchmarks/operations.py experiment=ladder_94

TensorFlow's profiler times every operation of the compiled loop, on random pixels. Operations run at the same time on
several cores, so that the table divides their sum, and the wall time of a step stands below it. What TensorFlow joins
into one operation, such as a normalisation and the activation after it, is one here too.
"""

import argparse
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common import machine, positive, wide_console
from rich import box
from rich.table import Table

from fashion_mnist.cli import compose, explained
from fashion_mnist.errors import UserError

if TYPE_CHECKING:
    from fashion_mnist.config import Config
    from fashion_mnist.training.compiled import CompiledModel

STEPS = 20  # of a measurement
# The first of these that is found in an operation's place and type says what it is part of.
PARTS = (
    ("augmentation", r"/(flip|shift|random_erasing|cutout)_"),
    ("optimizer", r"/(adam|adam_w|sgd)/"),
    ("convolutions, gradients of the filters", "Conv2DBackpropFilter"),
    ("convolutions, gradients of the images", "Conv2DBackpropInput"),
    ("convolutions, forwards", r"/convolution:|Conv2D$"),
    ("batch normalisation, activations, biases", r"BatchNorm|/batch_normalization|/activation_|Relu|BiasAddGrad"),
    ("pooling", "MaxPool|AvgPool"),
    ("input: look up images, scale", r"/while/GatherV2|/rescaling"),
    ("dense layers, loss, and the rest", ":"),
)


def main() -> None:
    """Profiles, and shows the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=positive, default=5, help=f"of {STEPS} steps each (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", help="keys of the job, such as model=cnn_dropout")
    arguments = parser.parse_args()
    with explained():
        config = compose(arguments.overrides)
        facts = machine()
        model = compiled(config)
    runs, walls = zip(*(profile(model) for _ in range(arguments.runs + 1)), strict=True)
    show(runs[1:], walls[1:], arguments.overrides)  # the first one compiles
    console = wide_console()
    console.print(f"Medians of {arguments.runs} runs; batches of {model.batch_size}, {model.compute_dtype}.")
    console.print(f"{facts['processor']}, {facts['cores']} cores; TensorFlow {facts['tensorflow']}", highlight=False)


def compiled(config: "Config") -> "CompiledModel":
    """What the job would train, on random images; raises UserError where XLA compiles it."""
    import numpy as np

    from fashion_mnist.data.dataset import Split
    from fashion_mnist.training.augment import layers_of
    from fashion_mnist.training.build import build, faster_with_xla, loss_of, optimizer_of
    from fashion_mnist.training.compiled import CompiledModel

    model = build(config)
    if faster_with_xla(model, config) if config.trainer.jit_compile is None else config.trainer.jit_compile:
        raise UserError("XLA makes one operation of this training step; choose one with convolutions: model=cnn.")
    draw = np.random.default_rng(0).integers
    count = 2 * STEPS * config.trainer.batch_size
    images = draw(256, size=(count, *model.input_shape[1:]), dtype=np.uint8)
    labels = draw(model.output_shape[-1], size=count, dtype=np.uint8)
    none = Split(images[:0], labels[:0])
    size = config.trainer.batch_size
    trained = CompiledModel(model, Split(images, labels), none, size, config.seed, layers_of(config.augment))
    trained.compile(optimizer_of(config, trained.steps), loss=loss_of(config), metrics=["accuracy"], jit_compile=False)  # pyright: ignore[reportArgumentType]
    trained.optimizer.build(trained.trainable_variables)
    trained.make_train_function()
    trained.steps_per_execution = STEPS
    return trained


def profile(model: "CompiledModel") -> tuple[Counter[str], float]:
    """Milliseconds of a step by part, and of the wall clock."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory(prefix="fashion-mnist-operations-") as folder:
        with tf.profiler.experimental.Profile(folder):
            started = time.perf_counter()
            float(model.train_function(None)["loss"])
            wall = time.perf_counter() - started
        (file,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())  # pyright: ignore[reportAttributeAccessIssue]
    parts: Counter[str] = Counter()
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            place = plane.event_metadata[event.metadata_id].name
            if place.startswith("while/body"):
                parts[part_of(place)] += event.duration_ps / 1e9 / STEPS
    return parts, 1000 * wall / STEPS


def part_of(place: str) -> str:
    """What an operation is part of, such as `while/body/_1/while/shift_1/GatherV2:GatherV2`."""
    return next(part for part, pattern in PARTS if re.search(pattern, place))


def show(runs: Sequence[Counter[str]], walls: Sequence[float], overrides: list[str]) -> None:
    """Prints the median of each part."""
    table = Table(title=f"python -m fashion_mnist {' '.join(overrides)}".strip(), box=box.SIMPLE)
    for heading in ("part of a training step", "ms", "min - max", "share"):
        table.add_column(heading, justify="right" if table.columns else "left")
    total = statistics.median(run.total() for run in runs)
    rows = {part: [run[part] for run in runs] for part, _ in PARTS}
    for part, values in sorted(rows.items(), key=lambda row: -statistics.median(row[1])):
        middle = statistics.median(values)
        table.add_row(part, f"{middle:.1f}", f"{min(values):.1f} - {max(values):.1f}", f"{middle / total:.0%}")
    table.add_row("sum", f"{total:.1f}", "", "100%")
    table.add_row("wall clock", f"{statistics.median(walls):.1f}", f"{min(walls):.1f} - {max(walls):.1f}", "")
    wide_console().print(table)


if __name__ == "__main__":
    main()
