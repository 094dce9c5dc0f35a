"""How long `data=images` takes to prepare folders of pictures, for the first time and again, and in how much memory.

Fashion-MNIST's 70,000 images as PNG files, and photographs of 2 megapixels as JPEG files: medians over three runs of
`fetch`, each a program of its own, with the range in brackets.
"""

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import environment, official_folder, peak_bytes
from PIL import Image
from rich.console import Console
from rich.table import Table

from fashion_mnist.config import DataConfig
from fashion_mnist.data.official import official_arrays

RUNS = 3
PHOTOGRAPHS = 2_000
SIZE = 1600, 1200  # pixels


def write_garments(folder: Path) -> int:
    arrays = official_arrays(DataConfig("fashion_mnist", 0, dir=str(official_folder())))
    for part in ("train", "test"):
        for index, image in enumerate(arrays[f"{part}_images"]):
            write(Image.fromarray(image), folder / part / str(arrays[f"{part}_labels"][index]) / f"{index}.png")
    return 70_000


def write_photographs(folder: Path) -> int:
    """Smooth shapes with noise, about as hard to decode as photographs; ten files, each under many names."""
    rng = np.random.default_rng(0)
    for index in range(PHOTOGRAPHS):
        file = folder / str(index % 10) / f"{index}.jpg"
        if index < 10:
            shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(SIZE)
            noise = rng.normal(0, 8, (SIZE[1], SIZE[0], 3))
            write(Image.fromarray((np.asarray(shapes) + noise).clip(0, 255).astype(np.uint8)), file)
        else:
            os.link(folder / str(index % 10) / f"{index % 10}.jpg", file)
    return PHOTOGRAPHS


def write(picture: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


def fetch(folder: Path) -> tuple[float, float]:
    """Seconds, and the largest memory in megabytes, of one program."""
    command = ["python", "-m", "fashion_mnist.fetch", "data=images", f"data.dir={folder.name}"]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder.parent, env=environment(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} has failed")
    return time.perf_counter() - start, peak_bytes(usage) / 1e6


def told(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f} - {max(seconds):.1f})"


def main() -> None:
    table = Table("", "files", "seconds", "files a second", "MB at most", "seconds, again")
    for name, write_all in (("garments", write_garments), ("photographs", write_photographs)):
        with tempfile.TemporaryDirectory() as temporary:
            count = write_all(Path(temporary) / name)
            first, again = [], []
            for _ in range(RUNS):
                shutil.rmtree(Path(temporary) / "data", ignore_errors=True)
                first.append(fetch(Path(temporary) / name))
                again.append(fetch(Path(temporary) / name))
        (seconds, memory), (once_more, _) = (list(zip(*each, strict=True)) for each in (first, again))
        rate = count / statistics.median(seconds)
        table.add_row(name, f"{count:,}", told(seconds), f"{rate:,.0f}", f"{max(memory):,.0f}", told(once_more))
    Console().print(table)


if __name__ == "__main__":
    main()
