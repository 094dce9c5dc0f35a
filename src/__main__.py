"""Runs a step with the code that lies here, whatever is installed, in any shell: `python src train model=cnn`.

Without the name of a step it is the whole job: `python src model=cnn`.
"""

import runpy
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path[0] = str(here)  # Python has put it there as it was typed
named = len(sys.argv) > 1 and (here / "fashion_mnist" / f"{sys.argv[1]}.py").is_file()
runpy.run_module(f"fashion_mnist.{sys.argv.pop(1) if named else '__main__'}", run_name="__main__", alter_sys=True)
