"""Runs notebooks/walkthrough.ipynb on the real images, and keeps its outputs in it.

    uv run python docs/notebook.py

The same kind of machine writes the same file, byte for byte. Data and runs go to a temporary folder.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from fashion_mnist.cli import compose
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import UserError

NOTEBOOK = Path(__file__).parents[1] / "notebooks/walkthrough.ipynb"


def main() -> None:
    """Runs the notebook; its file stays as it is if the images cannot be had, or a cell fails."""
    for setting in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[setting]  # the runs of others have no place in the notebook's table
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        try:
            prepare(compose(["data=fashion_mnist"]).data, Path(folder) / "data")  # data=auto would also draw garments
        except UserError as error:
            sys.exit(f"error: {error}")
        # Neither times nor the portions in which a cell's text arrives.
        NotebookClient(
            notebook, timeout=600, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": folder}}
        ).execute()
    notebook.metadata["language_info"] = {"name": "python"}  # without the version
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
