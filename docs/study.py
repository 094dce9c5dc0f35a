"""The study behind the README's table: every variant over seeds, then compared. About 100 minutes on two cores.

    uv run python docs/study.py --folder ../study

Trained are eight variants with seeds 0 to 4, and the three that take 7 to 9 minutes each with seeds 0 to 2. An
interrupted study goes on where it was: what the folder holds already, made with the same code, is not trained again.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICK = ("linear", "mlp", "mlp_wide", "mlp_deep", "mlp_dropout", "mlp_l2", "lenet", "cnn")
SLOW = ("cnn_dropout", "resnet", "cnn_augmented")
# Seed by seed, so that an interrupted study has about as many runs of each variant.
SWEEPS = [(seed, QUICK) for seed in range(5)] + [(seed, SLOW) for seed in range(3)]


def main() -> None:
    """Trains what is missing, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="keeps models, runs and the prepared images")
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # a new database keeps artifacts below the folder that it is made in
    for foreign in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "FASHION_MNIST_PARENT_RUN_ID"):
        os.environ.pop(foreign, None)
    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "MLFLOW_EXPERIMENT_NAME": "Default"}
    for seed, variants in SWEEPS:
        step("fashion_mnist", "-m", f"model={','.join(variants)}", f"seed={seed}")  # what is finished is skipped
    step("fashion_mnist.compare", f"reports={ROOT}/docs/study")


def step(module: str, *arguments: str) -> None:
    """Runs a step of the project; ends everything if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    code = subprocess.run([sys.executable, "-m", module, *arguments], env=environment).returncode
    if code:
        sys.exit(f"error: {module} {' '.join(arguments)} ended with exit code {code}; what it said stands above.")


if __name__ == "__main__":
    main()
