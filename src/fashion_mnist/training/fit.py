"""Training: Keras's `fit` around the compiled loop, from a checkpoint on where there is one."""

import math
import sys
from collections.abc import Sequence

import keras
import numpy as np

from fashion_mnist.config import Config
from fashion_mnist.data.dataset import Split
from fashion_mnist.errors import UserError
from fashion_mnist.training.augment import layers_of
from fashion_mnist.training.build import balanced, faster_with_xla, loss_of, optimizer_of
from fashion_mnist.training.callbacks import Interruptible, callbacks_of
from fashion_mnist.training.checkpoint import Checkpoint
from fashion_mnist.training.compiled import CompiledModel, Numbered

History = dict[str, list[float]]


def fit(
    model: keras.Model,
    training: Split,
    validation: Split,
    config: Config,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint: Checkpoint | None = None,
) -> History:
    """Trains the model, whose weights are changed, and returns every metric of every epoch.

    The model is as `build` returns it; `validation` may be empty. The checkpoint is written after each epoch, and
    training goes on where one that was read ends.

    Raises:
        UserError: the optimizer refuses its arguments, devices cannot divide the last batch, or training diverged.
    """
    trainer = config.trainer
    with model.distribute_strategy.scope():
        compiled = CompiledModel(
            model,
            training,
            validation,
            trainer.batch_size,
            config.seed,
            layers_of(config.augment),
            balanced(training.labels) if trainer.class_weight == "balanced" else None,
        )
        compiled.compile(
            optimizer_of(config, compiled.steps),
            loss=loss_of(config),
            metrics=["accuracy"],
            jit_compile=faster_with_xla(model, config) if trainer.jit_compile is None else trainer.jit_compile,  # pyright: ignore[reportArgumentType]
        )
    devices = model.distribute_strategy.num_replicas_in_sync
    if compiled.rest % devices:
        raise UserError(
            f"the last batch of an epoch has {compiled.rest} images, which {devices} devices cannot divide evenly; "
            "choose another trainer.batch_size or data.validation."
        )
    progress = checkpoint.progress if checkpoint else None
    ended = progress is not None and progress.ended
    if not ended:
        compiled.choose_block()
    record = keras.callbacks.History()
    if progress:
        record.history = progress.history
    numbers = compiled.validation_batches()
    validation_data = None if numbers is None else (Numbered.of(validation.images, numbers), validation.labels)
    with Interruptible() as interruptible:
        compiled.fit(
            Numbered.of(training.images, compiled.batches()),
            training.labels,  # for the record, as is the size: the batches are made already
            batch_size=trainer.batch_size,
            epochs=trainer.epochs,
            initial_epoch=trainer.epochs if ended else progress.epoch if progress else 0,
            validation_data=validation_data,
            callbacks=[interruptible, record, *callbacks_of(config, record, checkpoint), *callbacks],
            # The bar that moves is for people; a log file gets one line an epoch.
            verbose=1 if sys.stdout.isatty() else 2,  # pyright: ignore[reportArgumentType]
        )
    refuse_divergence(record.history, model)
    return record.history


def refuse_divergence(history: History, model: keras.Model) -> None:
    """Raises UserError where losses or weights have ended as no numbers; the last update is in no training loss."""
    losses = [history[key] for key in ("loss", "val_loss") if key in history]
    numbers = [all(map(math.isfinite, of_epoch)) for of_epoch in zip(*losses, strict=True)]
    if not numbers[-1] or not all(np.isfinite(weight).all() for weight in model.get_weights()):
        first = 1 + next((epoch for epoch, finite in enumerate(numbers) if not finite), len(numbers) - 1)
        raise UserError(f"training diverged in epoch {first}, into what is no number; lower optimizer.learning_rate.")
