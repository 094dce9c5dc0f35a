"""The main job, all in one process: fetch the dataset if it is missing, train, evaluate on the test set.

Gives one finished MLflow run with metrics, pictures and the model, and a summary that says where everything lies.
"""

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fashion_mnist.cli import main
from fashion_mnist.config import Config
from fashion_mnist.errors import terminal
from fashion_mnist.evaluate import add_evaluation, evaluate_model
from fashion_mnist.tracking.run import finished_run, opened, ready
from fashion_mnist.tracking.store import ui
from fashion_mnist.train import train_model


def main_job(config: Config) -> str:
    """Does it all in a run, and returns the run's id; in a sweep, that of one which has finished the same."""
    dataset = ready(config)
    if finished := finished_run(config, dataset.card, evaluated=True):
        return finished.info.run_id
    _ = dataset.test  # held from now on, whatever another process prepares meanwhile
    with opened(config, dataset) as (model, run, checkpoint):
        train_model(model, config, dataset, run, checkpoint)
        metrics = evaluate_model(config, dataset)
        add_evaluation(config, dataset.card, metrics, run)
    summarize(config, metrics, run.run_id)
    return run.run_id


def summarize(config: Config, metrics: dict[str, float], run_id: str) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("test accuracy", Text(f"{metrics['test_accuracy']:.4f}", "bold"))
    table.add_row("macro F1", f"{metrics['test_macro_f1']:.4f}")
    table.add_row("test loss", f"{metrics['test_loss']:.4f}")
    table.add_row("model", str(config.model_file))
    table.add_row("pictures", str(config.folder("plots")))
    table.add_row("MLflow run", run_id)
    table.add_row("look at it", ui(config.tracking))
    terminal().print(Panel(table, title=Text(config.variant), expand=False))


if __name__ == "__main__":
    main(main_job)
