"""Runs a step with the code beside this file: `python src/step.py train model=cnn`; without a step, the main job.

`python -m fashion_mnist.train` takes the code that is installed: another one in a copy of the project, as DVC makes for
experiments, or none in an environment that holds only what the project needs, as MLflow makes.
"""

import runpy
import sys

step = sys.argv.pop(1) if sys.argv[1:] and sys.argv[1].isidentifier() else "__main__"
runpy.run_module(f"fashion_mnist.{step}", run_name="__main__", alter_sys=True)
