"""The study behind the README's tables: every variant and step of the ladder over seeds, then compared.

    uv run python docs/study.py --folder ../study

Each is trained with seeds 0 to 2. An interrupted study goes on where it was: what the folder holds already, made with
the same code, is not trained again.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SEEDS = range(3)


def main() -> None:
    """Trains what is missing, seed by seed, so that an interrupted study has as many runs of each; compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="keeps models, runs and the prepared images")
    enter(parser.parse_args().folder, experiment="Default")
    for seed in SEEDS:
        for group in ("model", "experiment"):
            names = ",".join(of_pipeline(group))
            step("fashion_mnist", "-m", f"{group}={names}", f"seed={seed}")  # what is finished is skipped
    step("fashion_mnist.compare", f"reports={ROOT}/docs/study")


def enter(folder: Path, experiment: str) -> None:
    """Lets every step work in the folder, and record its runs in this experiment of the folder's own store."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # a new database keeps artifacts below the folder that it is made in
    for foreign in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "FASHION_MNIST_PARENT_RUN_ID"):
        os.environ.pop(foreign, None)
    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{Path.cwd()}/mlflow.db", "MLFLOW_EXPERIMENT_NAME": experiment}


def of_pipeline(group: str) -> list[str]:
    """What `dvc repro` builds: variants (`model`), or presets of the ladder (`experiment`)."""
    lines = yaml.safe_load((ROOT / "conf/pipeline.yaml").read_text())["variants"]
    return [name for name, line in lines.items() if line["group"] == group]


def step(module: str, *arguments: str) -> None:
    """Runs a step of the project; ends everything if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    code = subprocess.run([sys.executable, "-m", module, *arguments], env=environment).returncode
    if code:
        sys.exit(f"error: {module} {' '.join(arguments)} ended with exit code {code}; what it said stands above.")


if __name__ == "__main__":
    main()
