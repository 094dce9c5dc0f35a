"""The notebook is committed without outputs, and runs from top to bottom."""

import json
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "notebooks/walkthrough.ipynb"


def test_it_is_committed_without_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 10
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def output_of(notebook: nbformat.NotebookNode, source: str) -> str:
    """What the cell that holds `source` printed and returned, as text."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and source in cell.source]
    return "".join(str(output.get("text", "")) + str(output.get("data", "")) for output in cell.outputs)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(empty_folder: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("images = 60_000", "images = 1000").replace("epochs = 10", "epochs = 1")
    assert "images = 1000" in notebook.cells[1].source
    (empty_folder / "notebooks").mkdir()
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(empty_folder / "notebooks")}}).execute()

    assert "(1000, 28, 28) uint8" in output_of(notebook, "load_training")
    assert "100,480" in output_of(notebook, "model.summary")
    assert "1,290" in output_of(notebook, "model.summary")
    assert "after:  0.0 to 1.0" in output_of(notebook, "rescaling")
    assert "predicted:" in output_of(notebook, "probabilities[0]")
    for picture in ("plots.sheet", "plots.learning_curves", "plots.predictions", "plots.confusion_matrix"):
        assert "image/png" in output_of(notebook, picture)
    assert "mlp epochs=1" in output_of(notebook, "mlflow.search_runs")
    assert (empty_folder / "models/mlp/model.keras").is_file()
