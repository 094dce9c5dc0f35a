"""Takes the README's pictures: MLflow's table of runs and one run, in a real browser, and the grid of predictions.

    uv run --group docs python docs/screenshots.py --store sqlite:///mlflow.db

Needs runs in the store, `plots/<variant>/test/predictions.png` (`dvc repro` makes it) and a Chromium on the machine.
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
from playwright.sync_api import Page, ViewportSize, sync_playwright

DOCS = Path(__file__).parent
SIZE = ViewportSize(width=1500, height=800)


def main() -> None:
    """Starts MLflow's UI over a store, takes the pictures, and stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="sqlite:///mlflow.db", help="tracking database with finished runs")
    parser.add_argument("--experiment", default="0", help="id of the experiment to show")
    parser.add_argument("--predictions", default="plots/cnn/test/predictions.png", help="grid of predictions to copy")
    arguments = parser.parse_args()
    browser_program = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_program is None:
        sys.exit("error: there is no chromium on this machine; install it first.")
    shutil.copy(arguments.predictions, DOCS / "predictions.png")
    with mlflow_ui(arguments.store) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_program, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, device_scale_factor=1)
        take_runs(page, url, arguments.experiment)
        take_run(page, url, arguments.experiment)
        browser.close()


def take_runs(page: Page, url: str, experiment: str) -> None:
    """The table of runs, with the metrics that people compare as columns."""
    page.goto(f"{url}/#/experiments/{experiment}/runs")
    page.get_by_text("Model training").first.click(timeout=60_000)
    page.get_by_role("button", name="Close", exact=True).click()
    page.get_by_role("button", name="Columns", exact=True).click()
    choices = page.locator("[data-radix-popper-content-wrapper]").last
    for column in ("Dataset", "Source", "Models", "test_accuracy", "test_loss", "val_accuracy"):
        choices.get_by_text(column, exact=True).click()
    page.keyboard.press("Escape")
    settle(page)
    page.screenshot(path=DOCS / "mlflow_runs.png")


def take_run(page: Page, url: str, experiment: str) -> None:
    """The curves of the run that the table lists first."""
    link = page.locator(f"a[href*='/experiments/{experiment}/runs/']").first.get_attribute("href")
    page.goto(f"{url}/{link}")
    settle(page)
    page.screenshot(path=DOCS / "mlflow_run.png")


def settle(page: Page) -> None:
    """Gives charts and columns the time to be drawn; the page never falls silent, since it keeps refreshing itself."""
    page.wait_for_timeout(5_000)


@contextmanager
def mlflow_ui(store: str) -> Iterator[str]:
    """MLflow's UI over `store` for as long as the context lasts; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["mlflow", "ui", "--backend-store-uri", store, "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(150):
            try:
                requests.get(f"{url}/health", timeout=2).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(0.4)
        else:
            sys.exit(f"error: mlflow ui over {store} does not start.")
        yield url
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
