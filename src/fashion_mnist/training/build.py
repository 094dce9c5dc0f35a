"""What a configuration says of a training, built: the model with its seed, the optimizer, the loss."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

from fashion_mnist.config import Config
from fashion_mnist.errors import UserError
from fashion_mnist.models import CLASSES, IMAGE_SHAPE, Shape, mean_of
from fashion_mnist.training.augment import check_reach
from fashion_mnist.training.precision import faster_precision


def build(config: Config, image_shape: Shape = IMAGE_SHAPE, classes: int = CLASSES) -> keras.Model:
    """Builds the model for such images and classes with weights that depend on the seed alone.

    The one place that sets seeds.
    """
    check_reach(config.augment, image_shape)
    keras.utils.clear_session()  # layer names count up through a process, and would differ between jobs of a sweep
    keras.utils.set_random_seed(config.seed)
    wanted = config.trainer.precision
    precision = faster_precision() if wanted == "auto" else wanted  # of a run, this is decided and recorded before
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    with strategy(config).scope():
        members, asked_twice = config.trainer.members, config.augment.test_time_flip
        if members == 1 and not asked_twice:
            return create_model(config.model, image_shape, classes)
        names = [f"{config.variant}_member_{number}" for number in range(1, members + 1)]
        models = [create_model({**config.model, "name": name}, image_shape, classes) for name in names]
        return mean_of(models, config.variant, asked_twice)


def create_model(section: dict[str, Any], image_shape: Shape, classes: int) -> keras.Model:
    """A variant for such images and classes, of whose function the one for Fashion-MNIST need know nothing."""
    if (image_shape, classes) == (IMAGE_SHAPE, CLASSES):
        return create(section, "model")
    takes = inspect.signature(get_method(section["_target_"])).parameters
    if not {"image_shape", "classes"} <= takes.keys():
        raise UserError(f"{section['_target_']} takes no image_shape and classes, so it is for Fashion-MNIST alone.")
    return create(section, "model", image_shape=image_shape, classes=classes)


def strategy(config: Config) -> tf.distribute.Strategy:
    """One device, or a copy of the model on each with MirroredStrategy."""
    if not config.trainer.mirrored:
        return tf.distribute.get_strategy()
    if config.trainer.jit_compile:
        raise UserError("trainer.jit_compile=true and trainer.mirrored=true exclude each other; leave one out.")
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        raise UserError("trainer.mirrored=true needs several devices, and there is one; leave it out.")
    if (size := config.trainer.batch_size) % len(devices):
        raise UserError(f"trainer.batch_size={size} cannot be divided among {len(devices)} devices; choose a multiple.")
    return one_strategy(tuple(device.name for device in devices))


@functools.cache
def one_strategy(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """The same for all jobs of a process: two would use the same keys for their exchanges, and mix them up."""
    return tf.distribute.MirroredStrategy(devices)


def create(section: dict[str, Any], group: str, **more: Any) -> Any:
    """Calls the function that a config section names in `_target_` with the section's other keys, and some more."""
    try:
        return instantiate(OmegaConf.create(section), _convert_="all", **more)
    except Exception as error:
        reason = " ".join(re.sub(r"\x1b\[\d+m", "", str(error.__cause__ or error)).split())
        reason = reason.partition("Arguments received")[0].strip()  # Keras goes on with a dump of the call
        raise UserError(f"{group}: {section.get('_target_')} refuses its arguments: {reason}") from error


def optimizer_of(config: Config, steps: int) -> keras.Optimizer:
    """The configured learning rate is the largest that the schedule reaches; `steps` are those of one epoch."""
    optimizer = create(config.optimizer, "optimizer")
    highest = config.optimizer["learning_rate"]
    schedules = keras.optimizers.schedules
    steps *= config.trainer.epochs
    if config.trainer.schedule == "cosine":  # Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983
        optimizer.learning_rate = schedules.CosineDecay(highest, steps)
    elif config.trainer.schedule == "one_cycle":  # Smith and Topin, 2018, https://arxiv.org/abs/1708.07120
        rise = max(1, round(0.3 * steps))
        optimizer.learning_rate = schedules.CosineDecay(
            highest / 25, max(1, steps - rise), warmup_target=highest, warmup_steps=rise
        )
    return optimizer


def loss_of(config: Config) -> str | Callable[..., Any]:
    """Cross-entropy, with smoothed labels if asked for (Szegedy et al., 2016, https://arxiv.org/abs/1512.00567)."""
    smoothing = config.trainer.label_smoothing

    def cross_entropy(labels: tf.Tensor, probabilities: tf.Tensor) -> Any:
        one_hot = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), tf.shape(probabilities)[-1])
        return keras.losses.categorical_crossentropy(one_hot, probabilities, label_smoothing=smoothing)

    return cross_entropy if smoothing else "sparse_categorical_crossentropy"


def balanced(labels: np.ndarray) -> np.ndarray:
    """What an image of each class weighs, float32 (classes,), for all classes to weigh the same (King and Zeng, 2001).

    The mean over the images is 1, as with scikit-learn's `class_weight="balanced"`.
    """
    counts = np.bincount(labels)
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)


def faster_with_xla(model: keras.Model, config: Config) -> bool:
    """Whether XLA beats TensorFlow's own kernels: yes, except for convolutions on a CPU, which oneDNN does faster.

    On two cores an epoch of the cnn took twenty times as long with XLA. XLA cannot span several devices.
    """
    convolutions = any(isinstance(layer, keras.layers.Conv2D) for layer in model._flatten_layers())
    on_cpu = not tf.config.list_logical_devices("GPU")
    return not config.trainer.mirrored and not (convolutions and on_cpu)
