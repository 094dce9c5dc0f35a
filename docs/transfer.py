"""Transfer learning: a network that knows photographs learns garments (https://keras.io/guides/transfer_learning).

    uv run python docs/transfer.py                                             # ImageNet's weights, downloaded once
    uv run python docs/transfer.py --weights random --images 1000 --epochs 4   # a quick look, without a download

A new last layer learns alone for three epochs, then the whole network in small steps. The test set is not touched.
"""

import argparse
import socket
import sys
import warnings

from fashion_mnist.cli import compose
from fashion_mnist.data.dataset import Split
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import UserError, reason_of
from fashion_mnist.startup import import_tensorflow

import_tensorflow()  # quietly
import keras  # noqa: E402
from keras import layers  # noqa: E402

from fashion_mnist.models import IMAGE_SHAPE, probabilities  # noqa: E402

FROZEN_EPOCHS, LEARNING_RATE, FINE_TUNING = 3, 0.001, 0.01  # the last: factor of the learning rate after those epochs


def main() -> None:
    """Trains in two parts, and prints the accuracy on the validation images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="imagenet", help="imagenet, random, or a copy of Keras's file")
    parser.add_argument("--epochs", type=int, default=6, help=f"in all, with the first {FROZEN_EPOCHS}")
    parser.add_argument("--images", type=int, default=60_000, help="to learn from, and to validate on, at most")
    parser.add_argument("--data", default="fashion_mnist", choices=["fashion_mnist", "auto", "synthetic", "tfds"])
    arguments = parser.parse_args()
    if min(arguments.epochs, arguments.images) < 1:
        parser.error("--epochs and --images must be at least 1.")
    socket.setdefaulttimeout(10)  # seconds; Keras would wait for ever
    config = compose([f"data={arguments.data}"])
    keras.utils.set_random_seed(config.seed)
    try:
        model = pretrained(arguments.weights)
        dataset = prepare(config.data, config.data_root)
        training, validation = (Split(*(array[: arguments.images] for array in part)) for part in dataset.parts)
    except UserError as error:
        sys.exit(f"error: {error}")

    def fit(learning_rate: float, start: int, stop: int) -> float:
        model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        settings = {"validation_data": validation, "initial_epoch": start, "epochs": stop, "verbose": 2}
        return model.fit(*training, **settings).history["val_accuracy"][-1]

    accuracy = fit(LEARNING_RATE, 0, min(FROZEN_EPOCHS, arguments.epochs))
    if arguments.epochs > FROZEN_EPOCHS:
        thaw(model)
        accuracy = fit(LEARNING_RATE * FINE_TUNING, FROZEN_EPOCHS, arguments.epochs)
    print(f"{dataset.card.title}: validation accuracy {accuracy:.4f} on {len(validation.labels):,} images")


def pretrained(weights: str) -> keras.Model:
    """The network with these weights; a UserError where they cannot be had."""
    try:
        with warnings.catch_warnings(action="ignore"):  # that the weights were learned at another size
            return transfer("transfer", weights, side=96, dropout=0.2)
    except Exception as error:  # a failed download and a damaged file come up as anything
        ways = "give a copy of Keras's file with --weights FILE, or start anew with --weights random"
        raise UserError(f"the weights cannot be had ({reason_of(error)}); {ways}.") from error


def transfer(name: str, weights: str, side: int, dropout: float) -> keras.Model:
    """MobileNetV3-Small, frozen, with a last layer of our own; as all models here, from raw pixels to probabilities."""
    inputs = keras.Input(IMAGE_SHAPE, dtype="uint8")
    grey = layers.Resizing(side, side)(layers.Reshape((*IMAGE_SHAPE, 1))(inputs))
    source: str | None = None if weights == "random" else weights
    backbone = keras.applications.MobileNetV3Small((side, side, 3), include_top=False, weights=source, pooling="avg")  # pyright: ignore
    backbone.trainable = False
    features = backbone(layers.Concatenate()([grey, grey, grey]))  # it scales pixels by itself
    return keras.Model(inputs, probabilities()(layers.Dropout(dropout)(features)), name=name)


def thaw(model: keras.Model) -> None:
    """Lets the frozen backbone learn, but for batch normalisation, whose averages would forget what they know.

    Keras's guide calls the backbone with `training=False` instead, which `fit` overrides since Keras 3.
    """
    (backbone,) = (layer for layer in model.layers if not layer.trainable)
    backbone.trainable = True
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


if __name__ == "__main__":
    main()
