"""Whether a training came out the same as another: model, weights, every metric of every epoch."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fashion_mnist.errors import UserError
from fashion_mnist.tracking.logged_model import keras_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

COUNTS = ("stopped_epoch", "restored_epoch")  # metrics of a training that tell of epochs, and are of none
REPRODUCES, REPRODUCTION = "reproduces", "reproduction"  # tags of a run: the original, and the outcome


class Outcome(NamedTuple):
    word: str  # `identical`, `equal within tolerance` or `different`
    sentence: str


def outcome_of(client: "MlflowClient", original: "Run", again: "Run", tolerance: float) -> Outcome:
    """Compares two finished runs, whose metrics may differ by `tolerance` and still count as equal."""
    names = sorted(name for name in original.data.metrics if not name.startswith("system/"))  # not what it cost
    theirs, ours = (values_of(client, run, names) for run in (original, again))
    epochs = float(original.data.params.get("trainer.epochs", "inf"))
    same_model = original.data.tags.get("model_digest") == again.data.tags.get("model_digest")
    if ours.keys() != theirs.keys():
        step, name = min(ours.keys() ^ theirs.keys())
        whose = "the run" if (step, name) in theirs else "the new run"
        return Outcome("different", f"only {whose} has {called(step, name, epochs)}.")
    deviations = {key: abs(ours[key] - theirs[key]) for key in sorted(ours) if ours[key] != theirs[key]}
    if same_model and not deviations:
        count = f"all {len(ours)} values of its metrics"
        return Outcome("identical", f"the model is the same byte for byte, and so are {count}.")
    model = "the model is the same byte for byte" if same_model else distance_of_weights(client, original, again)
    metrics = "all metrics are the same"
    if deviations:
        first, furthest = next(iter(deviations)), max(deviations, key=lambda key: deviations[key])
        metrics = (
            f"metrics differ first in {called(*first, epochs)}, and most in {called(*furthest, epochs)}, "
            f"by {deviations[furthest]:.2g} (tolerance {tolerance:g})"
        )
    equal = max(deviations.values(), default=0.0) <= tolerance
    return Outcome("equal within tolerance" if equal else "different", f"{model}; {metrics}.")


def values_of(client: "MlflowClient", run: "Run", names: list[str]) -> dict[tuple[int, str], float]:
    """Every value of these metrics, by step and name."""
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in names}
    return {(point.step, name): point.value for name, history in histories.items() for point in history}


def called(step: int, name: str, epochs: float) -> str:
    """A metric's value in words; those of the test are of no epoch, and early stopping repeats those of one."""
    if name.startswith("test_") or name in COUNTS:
        return name
    kept = step > epochs  # with a gap after the last
    return f"{name} of the epoch that was kept" if kept else f"{name} of epoch {step + 1}"


def distance_of_weights(client: "MlflowClient", original: "Run", again: "Run") -> str:
    """How far the weights of the models that two runs logged are apart, in words."""
    from fashion_mnist.training import saving

    with tempfile.TemporaryDirectory() as temporary:
        try:
            models = [
                saving.load(keras_file(client, f"runs:/{run.info.run_id}/model", Path(temporary, run.info.run_id)))
                for run in (original, again)
            ]
        except UserError as error:
            return f"the weights cannot be compared ({error})"
        one, other = ([(weight.path, np.asarray(weight)) for weight in model.weights] for model in models)
    if [array.shape for _, array in one] != [array.shape for _, array in other]:
        return "the weights have other shapes"
    apart = [(name, float(np.abs(a - b).max())) for (name, a), (_, b) in zip(one, other, strict=True) if (a != b).any()]
    if not apart:
        return "all weights are the same, but the files of the models are not"
    furthest = max(apart, key=lambda pair: pair[1])
    return f"weights differ first in {apart[0][0]}, and most in {furthest[0]}, by {furthest[1]:.2g}"


def record(client: "MlflowClient", original: "Run", again: str, outcome: Outcome) -> None:
    """Links the new run with the original, and puts the outcome into it."""
    link = f"#/experiments/{original.info.experiment_id}/runs/{original.info.run_id}"
    note = client.get_run(again).data.tags.get("mlflow.note.content", "")
    words = f"Reproduces [{original.info.run_name}]({link}): **{outcome.word}**, {outcome.sentence}"
    client.set_tag(again, REPRODUCES, original.info.run_id)
    client.set_tag(again, REPRODUCTION, outcome.word)
    client.set_tag(again, "mlflow.note.content", f"{words}\n\n{note}")
