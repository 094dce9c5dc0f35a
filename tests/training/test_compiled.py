"""The compiled trainer: plain Keras's mathematics and callbacks, and the same bytes however its steps are grouped."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY
from keras import layers

from fashion_mnist.cli import compose
from fashion_mnist.config import AugmentConfig, Config
from fashion_mnist.data.dataset import Split
from fashion_mnist.data.synthetic import generate
from fashion_mnist.errors import UserError
from fashion_mnist.models import cnn, mlp, raw_pixels
from fashion_mnist.train import train
from fashion_mnist.training import saving
from fashion_mnist.training.augment import layers_of
from fashion_mnist.training.build import build, faster_with_xla
from fashion_mnist.training.compiled import CompiledModel, quick_random_numbers
from fashion_mnist.training.fit import History, fit

Compose = Callable[..., Config]
LOSS = "sparse_categorical_crossentropy"
NONE = AugmentConfig(flip=False, shift=0, erasing=0, cutout=0)
FLIP_AND_CUT = AugmentConfig(flip=True, shift=0, erasing=0, cutout=8)
SHIFT = AugmentConfig(flip=False, shift=3, erasing=0, cutout=0)
with_and_without_xla = pytest.mark.parametrize("xla", [True, False], ids=["xla", "no_xla"])
on_one_cpu = pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="about machines without GPU")


def dense() -> keras.Model:
    return mlp("mlp", [16], "relu")


def convolutional() -> keras.Model:
    return cnn("cnn", [4, 4], 3, 0.0, [], "relu")


def normalized() -> keras.Model:
    hidden = [layers.Flatten(), layers.Dense(16), layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    return keras.Sequential([*raw_pixels(), *hidden, layers.Dense(10, "softmax")])


def regularized() -> keras.Model:
    hidden = [layers.Flatten(), layers.Dense(16, "relu", kernel_regularizer=keras.regularizers.L2(0.01))]
    return keras.Sequential([*raw_pixels(), *hidden, layers.Dense(10, "softmax")])


def with_dropout() -> keras.Model:
    """Dense, with every kind of state that a step could leave behind."""
    hidden = [layers.Dropout(0.1), layers.Flatten(), layers.Dense(16), layers.BatchNormalization(), layers.Dropout(0.5)]
    return keras.Sequential([*raw_pixels(), *hidden, layers.Dense(10, "softmax")])


def convolutional_with_dropout() -> keras.Model:
    return cnn("cnn", [4, 4], 3, 0.5, [], "relu")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights depend on the test alone."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def garments() -> Split:
    """Of a number that no batch size divides."""
    return Split(*generate(1007, seed=0, split="train"))


@pytest.fixture(scope="module")
def few(garments: Split) -> Split:
    """Six batches of 32, and a seventh of 15."""
    return Split(garments.images[:207], garments.labels[:207])


@pytest.fixture(scope="module")
def held_out() -> Split:
    return Split(*generate(101, seed=0, split="test"))


def compiled(
    model: keras.Model,
    training: Split,
    validation: Split | None = None,
    batch_size: int = 32,
    seed: int = 0,
    augment: AugmentConfig = NONE,
    optimizer: keras.Optimizer | None = None,
    xla: bool = False,
) -> CompiledModel:
    """A trainer that is ready for `learn`; by default with the optimizer in which float errors grow least."""
    nothing = Split(training.images[:0], training.labels[:0])
    trainer = CompiledModel(model, training, validation or nothing, batch_size, seed, layers_of(augment))
    trainer.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.5),
        loss=LOSS,
        metrics=["accuracy"],
        jit_compile=xla,  # pyright: ignore[reportArgumentType]
    )
    trainer.steps_per_execution = 5
    return trainer


def learn(trainer: CompiledModel, epochs: int = 2, **options: Any) -> History:
    validation = trainer.validation_batches()
    return trainer.fit(
        trainer.batches(),
        epochs=epochs,
        validation_data=validation,
        shuffle=False,
        verbose=0,  # pyright: ignore[reportArgumentType]
        **options,
    ).history


def learn_plainly(
    model: keras.Model, training: Split, orders: list[np.ndarray], batch_size: int, optimizer: keras.Optimizer
) -> History:
    """Keras's own loop over the images in given orders, one for each epoch."""
    model.compile(optimizer, loss=LOSS, metrics=["accuracy"], jit_compile=False)  # pyright: ignore[reportArgumentType]
    history: History = {"loss": [], "accuracy": []}
    for order in orders:
        images, labels = training.images[order], training.labels[order]
        epoch = model.fit(images, labels, batch_size, verbose=0, shuffle=False).history  # pyright: ignore[reportArgumentType]
        for name, values in history.items():
            values += epoch[name]
    return history


def copies_of_one(split: Split) -> Split:
    return Split(np.repeat(split.images[:1], 200, axis=0), np.repeat(split.labels[:1], 200))


def content(model: keras.Model) -> list[bytes]:
    return [weights.tobytes() for weights in model.get_weights()]


def assert_close(one: keras.Model, other: keras.Model) -> None:
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "batch_size", "xla"),
    [
        (dense, 32, True),
        pytest.param(dense, 10, False, marks=pytest.mark.slow),
        pytest.param(convolutional, 32, True, marks=pytest.mark.slow),
        (convolutional, 10, False),
        pytest.param(normalized, 50, True, marks=pytest.mark.slow),
        (normalized, 32, False),
        (regularized, 50, True),
    ],
)
def test_the_mathematics_is_that_of_plain_keras(
    make: Callable[[], keras.Model], batch_size: int, xla: bool, garments: Split
) -> None:
    model, plain = make(), make()
    plain.set_weights(model.get_weights())
    trainer = compiled(model, garments, batch_size=batch_size, seed=3, xla=xla)
    history = learn(trainer)
    orders = [trainer.shuffled(epoch) for epoch in range(2)]
    optimizer = keras.optimizers.SGD(0.05, momentum=0.5)
    expected = learn_plainly(plain, garments, orders, batch_size, optimizer)
    assert history["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert history["accuracy"] == pytest.approx(expected["accuracy"], abs=1.5 / len(garments.labels))
    assert_close(model, plain)


def test_adam_is_that_of_plain_keras(garments: Split) -> None:
    model, plain = dense(), dense()
    plain.set_weights(model.get_weights())
    trainer = compiled(model, garments, optimizer=keras.optimizers.Adam(), xla=True)
    history = learn(trainer)
    orders = [trainer.shuffled(epoch) for epoch in range(2)]
    expected = learn_plainly(plain, garments, orders, 32, keras.optimizers.Adam())
    assert history["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert_close(model, plain)


def test_validation_counts_every_image_once(few: Split, garments: Split) -> None:
    model = dense()
    history = learn(compiled(model, few, garments), epochs=1)
    model.compile(loss=LOSS, metrics=["accuracy"])
    expected = model.evaluate(*garments, verbose=0, return_dict=True)  # pyright: ignore[reportArgumentType]
    assert {name: history[f"val_{name}"] for name in expected} == {
        name: [pytest.approx(value, abs=1e-5)] for name, value in expected.items()
    }


@pytest.mark.parametrize("batch_size", [1, 23, 32, 206, 300], ids=lambda size: f"batch_{size}")
def test_an_epoch_has_a_step_for_each_batch_and_one_for_the_rest(batch_size: int, few: Split) -> None:
    trainer = compiled(dense(), few, batch_size=batch_size)
    history = learn(trainer)
    assert int(trainer.optimizer.iterations) == 2 * math.ceil(207 / batch_size)
    assert len(history["loss"]) == 2


def test_an_epoch_takes_every_image_once(few: Split) -> None:
    trainer = compiled(dense(), few)
    for epoch in range(3):
        assert sorted(trainer.shuffled(epoch)) == list(range(207))


def test_every_epoch_and_every_seed_has_an_order_of_its_own(few: Split) -> None:
    one, other = compiled(dense(), few, seed=1), compiled(dense(), few, seed=2)
    orders = {trainer.shuffled(epoch).tobytes() for trainer in (one, other) for epoch in range(3)}
    assert len(orders) == 6
    assert np.array_equal(one.shuffled(2), compiled(dense(), few, seed=1).shuffled(2))


@pytest.mark.parametrize(("make", "xla"), [(convolutional_with_dropout, False), (with_dropout, True)])
def test_the_size_of_a_block_changes_nothing(make: Callable[[], keras.Model], xla: bool, few: Split) -> None:
    model = make()
    trainer = compiled(model, few, augment=FLIP_AND_CUT, xla=xla)
    trainer.optimizer.build(trainer.trainable_variables)
    variables = [*model.variables, *trainer.optimizer.variables]
    start = [np.asarray(variable) for variable in variables]

    def outcome(choose: Callable[[], Any]) -> tuple[History, list[bytes]]:
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        choose()
        return learn(trainer), content(model)

    expected = outcome(lambda: setattr(trainer, "steps_per_execution", 1))
    for steps in (3, 7, 1000):
        assert outcome(lambda steps=steps: setattr(trainer, "steps_per_execution", steps)) == expected
    assert outcome(trainer.choose_block) == expected


def test_choosing_a_block_leaves_no_trace(few: Split) -> None:
    model = with_dropout()
    trainer = compiled(model, few, augment=FLIP_AND_CUT, optimizer=keras.optimizers.Adam())
    before = content(model)
    trainer.choose_block()
    assert 1 <= trainer.steps_per_execution <= trainer.steps
    assert content(model) == before
    assert int(trainer.optimizer.iterations) == 0
    averages = [variable for variable in trainer.optimizer.variables if "momentum" in variable.path]
    assert averages
    assert not any(np.asarray(variable).any() for variable in averages)


def test_going_on_after_a_stop_gives_the_bytes_of_an_undisturbed_training(few: Split) -> None:
    start = convolutional_with_dropout().get_weights()

    def trainer_of(weights: list[np.ndarray]) -> tuple[keras.Model, CompiledModel]:
        model = convolutional_with_dropout()
        model.set_weights(weights)
        trainer = compiled(model, few, augment=FLIP_AND_CUT, optimizer=keras.optimizers.Adam())
        trainer.optimizer.build(trainer.trainable_variables)
        return model, trainer

    undisturbed, trainer = trainer_of(start)
    expected = learn(trainer, epochs=3)

    stopped, trainer = trainer_of(start)
    learn(trainer, epochs=1)
    state = [np.asarray(variable) for variable in trainer.optimizer.variables]
    keras.utils.set_random_seed(9)  # as another process would have it
    resumed, trainer = trainer_of(stopped.get_weights())
    for variable, value in zip(trainer.optimizer.variables, state, strict=True):
        variable.assign(value)
    assert learn(trainer, epochs=3, initial_epoch=1)["loss"] == expected["loss"][1:]
    assert content(resumed) == content(undisturbed)


@pytest.mark.parametrize(("make", "augment"), [(with_dropout, NONE), (dense, SHIFT)], ids=["dropout", "augment"])
def test_the_seed_decides_every_random_draw(
    make: Callable[[], keras.Model], augment: AugmentConfig, few: Split
) -> None:
    start = make().get_weights()
    same = copies_of_one(few)  # their order, which the seed decides too, makes no difference

    def after_two_steps(seed: int) -> np.ndarray:
        model = make()
        model.set_weights(start)
        learn(compiled(model, same, batch_size=150, seed=seed, augment=augment), epochs=1)
        return np.concatenate([weights.ravel() for weights in model.get_weights()])

    once, again, otherwise = (after_two_steps(seed) for seed in (1, 1, 2))
    assert once.tobytes() == again.tobytes()
    assert np.abs(once - otherwise).max() > 1e-4


def test_every_step_draws_another_dropout(few: Split) -> None:
    # Losses of one image under weights that never change differ by dropout alone.
    unchanging = keras.optimizers.SGD(0.0)
    trainer = compiled(convolutional_with_dropout(), copies_of_one(few), batch_size=1, optimizer=unchanging)
    trainer.steps_per_execution = 1
    means: list[float] = []
    learn(trainer, epochs=1, callbacks=[batch_ends(lambda batch, logs: means.append(logs["loss"]))])
    losses = np.diff(np.arange(1, 201) * means, prepend=0.0)
    assert len(set(losses.round(3))) > 100


def test_the_trainer_has_the_weights_and_layers_of_the_model_and_no_others(few: Split) -> None:
    model = with_dropout()
    trainer = compiled(model, few, few, augment=FLIP_AND_CUT)
    assert [id(weights) for weights in trainer.weights] == [id(weights) for weights in model.weights]
    assert [layer.name for layer in trainer.layers[1:]] == [layer.name for layer in model.layers]


def batch_ends(action: Callable[..., None]) -> keras.callbacks.Callback:
    return keras.callbacks.LambdaCallback(on_train_batch_end=action)


def test_callbacks_see_the_number_of_the_last_step_of_each_block(few: Split) -> None:
    trainer = compiled(dense(), few)
    trainer.steps_per_execution = 3
    numbers: list[int] = []
    learn(trainer, epochs=1, callbacks=[batch_ends(lambda batch, logs: numbers.append(batch))])
    assert numbers == sorted(set(numbers))
    assert len(numbers) == math.ceil(trainer.steps / 3)
    assert numbers[-1] >= trainer.steps - 1


def test_early_stopping_puts_the_best_weights_back(few: Split, held_out: Split) -> None:
    model = dense()
    trainer = compiled(model, few, held_out, xla=True)
    spoil = keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 if epoch < 2 else 5.0)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    history = learn(trainer, epochs=10, callbacks=[spoil, stop])
    assert len(history["val_loss"]) == 3
    model.compile(loss=LOSS)
    restored = model.evaluate(*held_out, verbose=0)  # pyright: ignore[reportArgumentType]
    assert restored == pytest.approx(history["val_loss"][1], abs=1e-5)


@with_and_without_xla
def test_a_scheduled_learning_rate_is_followed(xla: bool, few: Split) -> None:
    model = dense()
    weights = []
    trainer = compiled(model, few, optimizer=keras.optimizers.SGD(), xla=xla)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: [0.1, 0.0, 0.1][epoch])
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(content(model)))
    learn(trainer, epochs=3, callbacks=[schedule, keep])
    assert weights[0] == weights[1] != weights[2]


def test_checkpoints_hold_the_weights_of_each_epoch(few: Split, tmp_path: Path) -> None:
    model = convolutional_with_dropout()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    learn(compiled(model, few), callbacks=[checkpoint])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.weights.h5", "2.weights.h5"]
    plain = convolutional_with_dropout()
    plain.load_weights(tmp_path / "2.weights.h5")
    assert content(plain) == content(model)


def test_tensorboard_gets_curves_and_histograms(few: Split, held_out: Split, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = keras.callbacks.TensorBoard(str(tmp_path), histogram_freq=1)
    learn(compiled(dense(), few, held_out, xla=True), callbacks=[board])
    train_events, validation_events = (EventAccumulator(str(tmp_path / part)) for part in ("train", "validation"))
    for events in (train_events.Reload(), validation_events.Reload()):
        assert len(events.Tensors("epoch_loss")) == 2
    assert sum(tag.endswith("kernel/histogram") for tag in train_events.Tags()["tensors"]) == 2


@pytest.mark.parametrize("model", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_bfloat16_trains_and_ends_with_the_build(model: str, few: Split, held_out: Split) -> None:
    small = "model.hidden=[16]" if model == "mlp" else "model.filters=[4]"
    config = compose([f"model={model}", small, "trainer.precision=bfloat16", "trainer.epochs=4"])
    trained = build(config)
    assert {variable.dtype for variable in trained.trainable_variables} == {"float32"}
    assert "bfloat16" in {layer.compute_dtype for layer in trained.layers}
    history = fit(trained, few, held_out, config)
    assert history["loss"][-1] < history["loss"][0]
    assert np.asarray(trained(few.images[:2])).dtype == np.float32
    exact = build(compose([f"model={model}", small, "trainer.precision=float32"]))
    assert {layer.compute_dtype for layer in exact.layers} == {"float32"}


@pytest.mark.parametrize(("make", "expected"), [(dense, True), (with_dropout, True), (convolutional, False)])
@on_one_cpu
def test_xla_is_chosen_for_dense_models_on_a_cpu(make: Callable[[], keras.Model], expected: bool) -> None:
    assert faster_with_xla(make(), compose(TINY)) is expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=mlp"], True),
        (["model=mlp", "trainer.jit_compile=false"], False),
        (["model=cnn", "model.filters=[2]"], False),
        (["model=cnn", "model.filters=[2]", "trainer.jit_compile=true"], True),
    ],
    ids=["dense", "dense_without", "convolutional", "convolutional_with"],
)
@on_one_cpu
def test_the_configuration_overrides_the_choice_of_xla(
    overrides: list[str], expected: bool, few: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Chosen(Exception):  # noqa: N818
        pass

    def choose_block(trainer: CompiledModel) -> None:
        raise Chosen(trainer.jit_compile)

    monkeypatch.setattr(CompiledModel, "choose_block", choose_block)
    config = compose(overrides)
    with pytest.raises(Chosen) as chosen:
        fit(build(config), few, few, config)
    assert chosen.value.args == (expected,)


MIRRORED = f"""
import json
import sys

import numpy as np

from fashion_mnist.startup import import_tensorflow
import_tensorflow()
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.config.set_visible_devices([], "GPU")

from fashion_mnist.cli import compose
from fashion_mnist.data.dataset import Split
from fashion_mnist.errors import UserError
from fashion_mnist.training.build import build
from fashion_mnist.training.fit import fit
from fashion_mnist.data.synthetic import generate

images, labels = generate(224, 0, "train")
validation = Split(images[-101:], labels[-101:])
results = {{}}


def outcome(count, *overrides):
    config = compose([*{TINY!r}, "model.hidden=[16]", "optimizer.epsilon=0.001", *overrides])
    model = build(config)
    try:
        history = fit(model, Split(images[:count], labels[:count]), validation, config)
    except Exception as error:
        return {{"error": f"{{type(error).__name__}}: {{error}}"}}
    return {{"history": history, "weights": [weights.ravel().tolist() for weights in model.get_weights()]}}


for rest in (6, 7, 1):
    one = outcome(96 + rest, "trainer.jit_compile=false")
    results[rest] = {{"one": one, "two": outcome(96 + rest, "trainer.mirrored=true")}}
results["dropout"] = outcome(102, "model=cnn", "model.filters=[2]", "augment.shift=2", "trainer.mirrored=true")
try:
    build(compose(["trainer.mirrored=true", "trainer.batch_size=33"]))
except UserError as error:
    results["refusal"] = str(error)
json.dump(results, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trainings on one device and on two, in a process of its own: devices cannot be divided later."""
    file = tmp_path_factory.mktemp("mirrored") / "results.json"
    process = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.returncode == 0, process.stderr
    return json.loads(file.read_text())


@pytest.mark.slow
def test_two_devices_learn_what_one_learns(mirrored: dict[str, Any]) -> None:
    one, two = mirrored["6"]["one"], mirrored["6"]["two"]
    assert "error" not in two, two["error"]
    assert two["history"].keys() == one["history"].keys()
    for name, values in one["history"].items():
        assert two["history"][name] == pytest.approx(values, abs=1e-5), name
    for weights, expected in zip(two["weights"], one["weights"], strict=True):
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rest", ["7", "1"])
def test_a_rest_that_cannot_be_divided_is_refused(rest: str, mirrored: dict[str, Any]) -> None:
    # The mean of the devices' means would not be the mean over the images.
    assert f"has {rest} images, which 2 devices cannot divide evenly" in mirrored[rest]["two"]["error"]


@pytest.mark.slow
def test_two_devices_train_another_model_with_dropout_and_augmentation(mirrored: dict[str, Any]) -> None:
    assert "error" not in mirrored["dropout"], mirrored["dropout"]["error"]
    assert np.isfinite([*mirrored["dropout"]["history"].values()]).all()


@pytest.mark.slow
def test_a_batch_that_cannot_be_divided_among_the_devices_is_refused(mirrored: dict[str, Any]) -> None:
    assert mirrored["refusal"].startswith("trainer.batch_size=33 cannot be divided among 2 devices; choose a multiple")


@on_one_cpu
def test_mirroring_on_one_device_is_refused_with_the_way_out() -> None:
    with pytest.raises(UserError, match=r"trainer\.mirrored=true needs several devices.*leave it out"):
        build(compose(["trainer.mirrored=true"]))


def test_mirroring_and_xla_exclude_each_other() -> None:
    assert not faster_with_xla(dense(), compose(["trainer.mirrored=true"]))
    with pytest.raises(UserError, match=r"trainer\.jit_compile=true and trainer\.mirrored=true exclude each other"):
        build(compose(["trainer.mirrored=true", "trainer.jit_compile=true"]))


PLAIN = """
import sys
sys.modules["fashion_mnist"] = None  # as where it is not installed
import keras, mlflow, numpy
try:
    import fashion_mnist
except ImportError:
    pass
else:
    raise SystemExit("the package can be imported")
images = numpy.load("images.npy")
numpy.save("saved.npy", keras.saving.load_model(sys.argv[1]).predict(images, verbose=0))
numpy.save("logged.npy", mlflow.pyfunc.load_model(sys.argv[2]).predict(images))
"""


@pytest.mark.slow
def test_the_saved_and_the_logged_model_need_nothing_of_this_package(tiny: Compose, empty_folder: Path) -> None:
    exact = "trainer.precision=float32"  # bfloat16 is rounded otherwise in a compiled graph than outside
    config = tiny("model=cnn", "model.filters=[4]", "augment=standard", "trainer.epochs=1", exact)
    run_id = train(config)
    images, _ = generate(20, seed=1, split="test")
    np.save("images.npy", images)
    process = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, str(config.model_file), f"runs:/{run_id}/model"],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert process.returncode == 0, process.stderr
    expected = np.asarray(saving.load(config.model_file)(images))
    assert expected.std() > 0.001
    for file in ("saved.npy", "logged.npy"):
        np.testing.assert_allclose(np.load(file), expected, atol=1e-6)


def test_the_model_is_left_as_it_was_but_for_its_weights(few: Split) -> None:
    model = build(compose([*TINY, "model=cnn", "model.filters=[4]"]))
    before = [generator for layer in model._flatten_layers() for generator in layer._seed_generators]
    fit(model, few, Split(few.images[:0], few.labels[:0]), compose([*TINY, "trainer.epochs=1"]))
    assert not [generator for generator in before if "next" in vars(generator)]
    first, second = (np.asarray(model(few.images, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)  # dropout draws anew


def test_a_whole_checkpoint_loads_without_this_package(few: Split, tmp_path: Path) -> None:
    model = build(compose(TINY))
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    fit(model, few, Split(few.images[:0], few.labels[:0]), compose([*TINY, "trainer.epochs=1"]), [checkpoint])
    loaded: Any = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert np.array_equal(np.asarray(loaded(few.images)), np.asarray(model(few.images)))


def test_accumulated_gradients_do_not_move_the_position(few: Split) -> None:
    compiled = CompiledModel(dense(), few, Split(few.images[:0], few.labels[:0]), 32, seed=0)
    compiled.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), loss="sparse_categorical_crossentropy")
    compiled.choose_block()
    assert compiled.position() == (0, 0)
    compiled.fit(compiled.batches(), epochs=2, shuffle=False, verbose=0)  # pyright: ignore[reportArgumentType]
    assert compiled.position() == (2, 0)


def test_quick_random_numbers_end_with_the_step_that_is_traced() -> None:
    def draw(**settings: str) -> np.ndarray:
        return np.asarray(tf.random.stateless_uniform([4], [1, 2], **settings))  # pyright: ignore[reportArgumentType]

    @tf.function(jit_compile=True, autograph=False)
    def drawn(**settings: str) -> tf.Tensor:
        return tf.random.stateless_uniform([4], [1, 2], **settings)  # pyright: ignore[reportArgumentType]

    before = draw()
    with quick_random_numbers():
        quick = np.asarray(drawn())
    assert np.array_equal(quick, np.asarray(drawn(alg="threefry")))
    assert np.array_equal(draw(), before)
    assert not np.array_equal(quick, before)
