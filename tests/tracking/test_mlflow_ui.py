"""MLflow's own pages over a finished sweep, in a real browser: can people read and compare what we record?"""

import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import mlflow
import pytest
from conftest import TINY, run_here
from tracking_server import serve

pytest.importorskip("playwright", reason="uv sync --group docs")
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path, tiny_data: Path) -> Path:
    """The folder of a finished sweep over two variants and two lengths of training."""
    folder = tmp_path_factory.mktemp("ui")
    shutil.copy(migrated_store, folder / "mlflow.db")
    jobs = ["model=linear,mlp", "trainer.epochs=2,3", "seed=0"]
    store = f"sqlite:///{folder}/mlflow.db"
    with chdir(folder):
        process = run_here("-m", *TINY, f"data_root={tiny_data}", *jobs, step="main", MLFLOW_TRACKING_URI=store)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture(scope="module")
def page(sweep: Path) -> Iterator[Page]:
    """A browser window; MLflow's server runs behind it."""
    with serve(sweep) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 900}, base_url=server.url)
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield page
        browser.close()


def test_the_runs_of_a_sweep_can_be_selected_and_compared(page: Page, sweep: Path) -> None:
    page.goto("/#/experiments/0/runs?workflowType=machine_learning")
    page.get_by_role("button", name="Close", exact=True).click()  # the assistant, open on the first visit
    rows = page.locator(".ag-pinned-left-cols-container .ag-row")
    expect(rows).to_have_count(1)  # the sweep, folded
    expect(rows.first).to_contain_text("sweep data=synthetic")
    rows.first.locator("[col-id*='Run Name'] button").click()
    expect(rows).to_have_count(5)
    for row in range(1, 5):
        page.locator(f".ag-row[row-index='{row}'] input[type=checkbox]").first.click()
    page.get_by_role("button", name="Compare").click()

    expect(page.get_by_text("Comparing 4 Runs from 1 Experiment")).to_be_visible()
    expect(page.get_by_text("Parallel Coordinates Plot")).to_be_visible()
    text = page.locator("body")
    for name in ("linear", "mlp"):
        for epochs in (2, 3):
            expect(text).to_contain_text(
                f"{name} synthetic train_images=600 test_images=100 validation=100 epochs={epochs}"
            )
    # Chosen by MLflow for the plot: the parameters that differ, and no others.
    chosen = page.get_by_text("Parameters:").locator("xpath=..")
    expect(chosen).to_contain_text("model.hidden")
    expect(chosen).to_contain_text("trainer.epochs")
    for noise in ("opt_", "tracking.", "data.mirrors", "_target_"):
        expect(text).not_to_contain_text(noise)
    mlflow.set_tracking_uri(f"sqlite:///{sweep}/mlflow.db")
    for run in mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.variant != ''", output_format="list"
    ):
        expect(text).to_contain_text(f"{round(run.data.metrics['test_accuracy'], 3):g}")
    for metric in ("test_accuracy", "test_calibration_error", "val_loss", "system/training_seconds"):
        expect(text).to_contain_text(metric)


def test_a_run_has_a_curve_of_every_epoch(page: Page, sweep: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{sweep}/mlflow.db")
    (run, *_) = mlflow.search_runs(
        search_all_experiments=True, filter_string="params.trainer.epochs = '3'", output_format="list"
    )
    page.goto(f"/#/experiments/0/runs/{run.info.run_id}/model-metrics?workflowType=machine_learning")
    charts = page.get_by_role("heading", level=4)
    expect(charts.get_by_text("accuracy", exact=True)).to_be_visible()
    page.get_by_placeholder("Search metric charts").fill("val_")  # charts further down are drawn when they are reached
    expect(charts.get_by_text("val_loss", exact=True)).to_be_visible()
    page.get_by_placeholder("Search metric charts").fill("")
    assert not charts.get_by_text("flops_per_image").count()  # numbers of another kind are on a page of their own
    assert [step.step for step in mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_loss")] == [0, 1, 2]


def test_a_run_shows_what_its_dataset_consists_of(page: Page, sweep: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{sweep}/mlflow.db")
    (run, *_) = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.variant = 'mlp'", output_format="list"
    )
    page.goto(f"/#/experiments/0/runs/{run.info.run_id}?workflowType=machine_learning")
    page.get_by_role("button", name="synthetic (").first.click()
    drawer = page.get_by_role("dialog")
    expect(drawer).to_contain_text("features shape: [600,28,28]")
    expect(drawer).to_contain_text("Array Datasource")
