"""Takes the README's pictures in a real browser: MLflow's pages, and the study's; and copies the grid of predictions.

    cd ../study; export MLFLOW_TRACKING_URI=sqlite:///$PWD/mlflow.db  # the folder of docs/study.py
    uv run --project ../main python -m fashion_mnist.compare promote=true
    export MLFLOW_EXPERIMENT_NAME=learning-rate
    uv run --project ../main python -m fashion_mnist -m trainer.epochs=2,5,10 optimizer.learning_rate=0.0003,0.001,0.003
    cd ../main
    uv run python docs/screenshots.py --store $MLFLOW_TRACKING_URI --compared learning-rate

Needs `plots/<variant>/test/predictions.png` (`dvc repro` makes it), docs/study/comparison.html and a Chromium on the
machine. Written for the pages of MLflow 3.17.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from mlflow import MlflowClient
from playwright.sync_api import FloatRect, Page, ViewportSize, expect, sync_playwright

DOCS = Path(__file__).parent
SIZE = ViewportSize(width=1650, height=860)  # a sweep with fifteen children, and its long name, just fit
PATIENCE = 120.0  # seconds that the server, or an element of its pages, may take to appear

TRAINING = "workflowType=machine_learning"  # what the switch "Model training" in the upper left adds to addresses
HIDDEN = ["Dataset", "Source", "Models"]  # columns that MLflow shows unless told otherwise
SHOWN = ["test_accuracy", "test_loss", "val_accuracy"]  # metrics to show in their place


def main() -> None:
    """Starts MLflow's UI over a store, takes the pictures, and stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="sqlite:///mlflow.db", help="tracking database with finished runs")
    parser.add_argument("--experiment", default="0", help="id of the experiment to show")
    parser.add_argument("--compared", default="Default", help="name of the experiment whose last sweep is compared")
    parser.add_argument("--predictions", default="plots/cnn/test/predictions.png", help="grid of predictions to copy")
    arguments = parser.parse_args()
    browser_program = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_program is None:
        sys.exit("error: there is no chromium on this machine; install it first.")
    shutil.copy(arguments.predictions, DOCS / "predictions.png")
    with mlflow_ui(arguments.store) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_program, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        take_runs(page, url, arguments.experiment)
        take_run(page, url, arguments.experiment)
        take_compared(page, url, arguments.compared)
        take_model(page, url)
        take_report(page)
        browser.close()


def take_runs(page: Page, url: str, experiment: str) -> None:
    """The table of runs, newest first, with the children of sweeps and the metrics that people compare."""
    page.goto(f"{url}/#/experiments/{experiment}/runs?{TRAINING}&orderByKey=attributes.start_time&orderByAsc=false")
    page.get_by_role("button", name="Close", exact=True).click()  # the assistant, open on the first visit
    rows = page.locator(".ag-pinned-left-cols-container .ag-row")
    rows.first.wait_for()  # before its rows are there, the table offers no metrics as columns

    unfold = rows.locator("[col-id*='Run Name'] button")  # only parents have one
    table = page.locator("[aria-rowcount]")
    for parent in reversed(range(unfold.count())):
        folded = table.get_attribute("aria-rowcount") or ""
        unfold.nth(parent).click()
        expect(table).not_to_have_attribute("aria-rowcount", folded)

    page.get_by_role("button", name="Columns", exact=True).click()
    for column in HIDDEN + SHOWN:
        page.get_by_test_id("column-selector-tree").get_by_title(column, exact=True).click()
    page.keyboard.press("Escape")
    for column in ["Run Name", *SHOWN]:  # a double click on its right edge makes a column as wide as its content
        page.locator(f".ag-header-cell[col-id*='{column}'] .ag-header-cell-resize").dblclick()
    take(page, "mlflow_runs.png")


def take_run(page: Page, url: str, experiment: str) -> None:
    """What the best run carries: description, metrics, parameters, dataset and tags."""
    best = MlflowClient(url).search_runs(
        [experiment], "attributes.status = 'FINISHED'", order_by=["metrics.test_accuracy DESC"], max_results=1
    )
    if not best:
        sys.exit(f"error: experiment {experiment} has no finished run to show.")
    page.goto(f"{url}/#/experiments/{experiment}/runs/{best[0].info.run_id}?{TRAINING}")
    for part in ("Description", "Metrics (", "Parameters (", "Tags"):
        page.get_by_text(part).first.wait_for()
    take(page, "mlflow_run.png")


def take_compared(page: Page, url: str, name: str) -> None:
    """MLflow's comparison of a sweep's runs: what differs between them, as parallel coordinates."""
    client = MlflowClient(url)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        sys.exit(f"error: there is no experiment {name}.")
    place = experiment.experiment_id
    (sweep,) = client.search_runs([place], "tags.sweep = 'true'", max_results=1)
    jobs = client.search_runs([place], f"tags.`mlflow.parentRunId` = '{sweep.info.run_id}'")
    runs = ",".join(f'"{job.info.run_id}"' for job in jobs)
    page.goto(f'{url}/#/compare-runs?runs=[{runs}]&experiments=["{place}"]&{TRAINING}')
    page.get_by_text("Parallel Coordinates Plot").wait_for()
    take(page, "mlflow_compare.png")


def take_model(page: Page, url: str) -> None:
    """The champion in the registry, with its tags."""
    version = MlflowClient(url).get_model_version_by_alias("fashion-mnist", "champion").version
    page.goto(f"{url}/#/models/fashion-mnist/versions/{version}?{TRAINING}")
    page.get_by_text("champion").first.wait_for()
    take(page, "mlflow_model.png")


def take_report(page: Page) -> None:
    """The top of the study's page: its verdicts, its charts, and what each technique bought."""
    page.goto((DOCS / "study/comparison.html").as_uri())
    page.set_viewport_size({"width": 1150, "height": 1000})
    bottom = page.get_by_role("heading", name="In numbers").bounding_box()
    assert bottom is not None
    top = FloatRect(x=0, y=0, width=1150, height=bottom["y"] - 10)
    page.screenshot(path=DOCS / "comparison.png", full_page=True, clip=top)
    print(DOCS / "comparison.png")


def take(page: Page, name: str) -> None:
    """Photographs the page with nothing focused or pointed at, a moment later, when nothing moves any more."""
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(2_000)
    page.screenshot(path=DOCS / name)
    print(DOCS / name)


@contextmanager
def mlflow_ui(store: str) -> Iterator[str]:
    """MLflow's UI over `store` for as long as the context lasts; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["mlflow", "ui", "--backend-store-uri", store, "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                requests.get(f"{url}/health", timeout=2).raise_for_status()
                break
            except requests.RequestException:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"error: mlflow ui over {store} does not start.")
                time.sleep(0.4)
        yield url
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
