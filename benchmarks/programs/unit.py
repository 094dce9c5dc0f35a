"""The unit of cost: one epoch of the CNN that tutorials write, in plain Keras, on all 60,000 training images."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 128
CONVOLUTIONS = 18_289_152  # multiply-adds an image: 9 x 28 x 28 x (1 + 32) x 32 + 9 x 14 x 14 x (32 + 64) x 64


def reference_cnn() -> Any:
    """Two blocks of two convolutions, pooling and dropout, and a hidden layer; batch normalisation after each layer."""
    from tensorflow import keras  # pyright: ignore[reportMissingModuleSource]

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(data: Path) -> None:
    """Prints the epoch's seconds as JSON. Two batches come first, which compile the step, and do not count."""
    images = np.load(data / "train_images.npy")[..., None].astype("float32") / 255
    labels = np.load(data / "train_labels.npy")
    model = reference_cnn()
    convolutions = [layer for layer in model.layers if layer.name.startswith("conv")]
    # A convolution's output, (n, height, width, filters), costs its kernel once for each place.
    counted = sum(
        layer.output.shape[1] * layer.output.shape[2] * layer.kernel.shape.num_elements() for layer in convolutions
    )
    assert counted == CONVOLUTIONS, counted
    model.fit(images[: 2 * BATCH], labels[: 2 * BATCH], batch_size=BATCH, verbose=0)
    start = time.perf_counter()
    model.fit(images, labels, batch_size=BATCH, verbose=0)
    print(json.dumps({"seconds": time.perf_counter() - start, "parameters": model.count_params()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
