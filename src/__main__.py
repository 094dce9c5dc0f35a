"""Runs a step, or the whole job, with the code that lies here, in any shell: `python src train model=cnn`."""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent)  # where Python has put the folder as it was typed
named = len(sys.argv) > 1 and Path(sys.path[0], "fashion_mnist", f"{sys.argv[1]}.py").is_file()
runpy.run_module(f"fashion_mnist.{sys.argv.pop(1) if named else '__main__'}", run_name="__main__", alter_sys=True)
