"""Runs a step with the code beside this file: `python src/step.py train model=cnn`; without a step, the main job.

`python -m fashion_mnist.train` takes the code that is installed: another one in a copy of the project, as DVC makes for
experiments, or none in an environment that holds only what the project needs, as MLflow makes.
"""

import runpy
import sys
from pathlib import Path

files = Path(__file__).with_name("fashion_mnist").glob("*.py")
steps = [file.stem for file in files if "\n    main(" in file.read_text(encoding="utf-8")]
step = sys.argv.pop(1) if sys.argv[1:] and sys.argv[1] in steps else "__main__"
runpy.run_module(f"fashion_mnist.{step}", run_name="__main__", alter_sys=True)
