"""A step of the accuracy ladder: our own training and evaluation, with a clock around the training."""

import json
import sys
import time
from typing import Any
from unittest import mock


def main(overrides: list[str]) -> None:
    """Trains and evaluates what the overrides compose; prints what came of it as JSON."""
    from fashion_mnist.startup import import_tensorflow

    import_tensorflow()
    from fashion_mnist.cli import compose
    from fashion_mnist.evaluate import evaluate
    from fashion_mnist.train import train
    from fashion_mnist.training import fit as module

    config, fit, seconds = compose(overrides), module.fit, 0.0

    def timed(*arguments: Any) -> Any:
        nonlocal seconds
        progress = arguments[-1].progress  # of the checkpoint, if an earlier process was killed
        start = time.perf_counter()
        history = fit(*arguments)
        seconds = time.perf_counter() - start + (progress.seconds if progress else 0)
        return history

    with mock.patch.object(module, "fit", timed):
        train(config)
    accuracy = evaluate(config)["test_accuracy"]
    told = json.loads((config.folder("metrics") / "train.json").read_text())
    print(json.dumps({"seconds": seconds, "test_accuracy": accuracy, "parameters": told["parameters"]}))


if __name__ == "__main__":
    main(sys.argv[1:])
