"""Writes handwritten digits as PNG files, in a folder for each class: `python docs/digits.py FOLDER`.

The 1,797 images of 8 x 8 pixels are from scikit-learn (https://scikit-learn.org/stable/datasets/toy_dataset.html)
and stand in for pictures of one's own.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main(folder: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    for index, (image, label) in enumerate(zip(images.reshape(-1, 8, 8), labels, strict=True)):
        file = folder / str(label) / f"{index:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image / 16 * 255).astype(np.uint8)).save(file)
    print(f"{len(labels):,} pictures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
