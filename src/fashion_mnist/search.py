"""Searches for the best values of some keys: each trial is a training, and those without promise end early.

What is searched is typed as for a sweep, as several values or as an interval:

    'optimizer.learning_rate=tag(log,interval(1e-4,1e-1))' 'model.hidden=[64],[128]' 'trainer.epochs=int(interval(5,9))'

Optuna proposes values, and learns from what came of those before. The winner, chosen by the validation images, is the
only one that is shown the test images. hydra.sweeper.trials=50 says how many trials there are,
hydra.sweeper.confirm=5 adds five trainings of the winner with other seeds; conf/hydra/sweeper/optuna.yaml has all
settings. The same command goes on where it was interrupted. `python -m fashion_mnist -m hydra/sweeper=optuna` is the
same.
"""

import itertools
import re
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from fashion_mnist.__main__ import main_job
from fashion_mnist.checks import as_one_run, checked
from fashion_mnist.cli import Task, main
from fashion_mnist.cluster.jobs import Batches, Cluster, workers_of
from fashion_mnist.config import TRIED, Config
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import Pruned, UserError, reason_of, say, terminal
from fashion_mnist.evaluate import add_evaluation, evaluate_model
from fashion_mnist.startup import import_tensorflow
from fashion_mnist.tracking import lineage, store
from fashion_mnist.tracking.logged_model import keras_file
from fashion_mnist.tracking.outbox import Outbox, Parcel, deliver
from fashion_mnist.tracking.run import ready
from fashion_mnist.tracking.sweep import Sweep, close_abandoned, link, markdown, note, show, sweep_digest
from fashion_mnist.train import train
from fashion_mnist.trials.report import best_of, summary_of, write_pictures, write_trials
from fashion_mnist.trials.space import distribution_of, search_of, with_params, written
from fashion_mnist.trials.study import PARENT, REASON, RUN, Study
from fashion_mnist.trials.trial import Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from optuna.trial import FrozenTrial

WHAT = "what"  # the search that a study is for: code, images, values and keys, and what proposes and prunes


def job(config: Config) -> str:
    """One training of a search: a trial is never tested, what confirms the winner is. Returns the run's id."""
    if config.search is None:
        return main_job(config)
    run_id = train(config)
    trial = Trial(config.search, config.trainer)
    if not trial.is_told:  # a run has finished the same before
        client = store.connect(config.tracking)
        epochs = {point.step: point.value for point in client.get_metric_history(run_id, "val_accuracy")}
        trial.note({RUN: run_id})
        try:
            trial.report({epoch: accuracy for epoch, accuracy in epochs.items() if epoch < config.trainer.epochs})
        except Pruned:
            trial.prune()
            raise
        trial.complete(client.get_run(run_id).data.metrics["val_accuracy"])
    return run_id


class Search:
    """A search from its first trial to the test of its winner, as `hydra/sweeper=optuna` makes it."""

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        settings = search_of(config.hydra)
        assert settings is not None
        self.settings, self.context, self.config = settings, context, config
        self.tags: dict[str, str] = {}
        self.files: list[Path] = []
        self.told: list[str] = []  # of the winner, for the run's description
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=Task(job), config=config
        )

    def run(self, arguments: Sequence[str]) -> None:
        """Makes all trials that are missing, tests the winner, and records what came out; `arguments` are as typed."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        overrides = with_params(self.settings, parser.parse_overrides(list(arguments)), parser)
        varied = [override for override in overrides if override.is_sweep_override()]
        self.space = {override.get_key_element(): distribution_of(override) for override in varied}
        self.fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
        self.sweep = Sweep(self.config, self.conclude)
        self.study = self.open_study()
        try:
            self.make_trials()
            if self.study.finished < self.settings.trials:
                say("Other processes are at the last trials; whoever finishes the last one ends the search.")
                self.sweep.leave()
                return
            self.test_winner()
        except BaseException as error:
            with suppress(Exception):  # what went wrong first is what should be heard
                self.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            if isinstance(error, KeyboardInterrupt):
                done = f"{self.study.finished} of {self.settings.trials} trials are done"
                raise KeyboardInterrupt(f"{done}; the same command goes on from there.") from None
            raise
        self.end("FINISHED")

    def open_study(self) -> Study:
        """Makes or finds the study, and the run that the trials are nested below."""
        study = Study(self.settings)  # which refuses what it cannot use
        proposed = f"{self.space} {self.settings.seed} {self.settings.sampler} {self.settings.pruner}"
        digest = sweep_digest(f"search {self.settings.study or ''} {proposed}", self.sweep.overrides)
        study.name = self.settings.study or f"search-{digest}"
        if not self.config.skip_finished:
            study.name += f"-{time.time_ns()}"
        what = f"{lineage.code_here()} {self.images()} {self.fixed} {proposed}"
        with study.alone():
            if study.begun().recall(WHAT, what) != what:
                raise UserError(
                    f"the study {study.name} is of another search, or of other images; "
                    "choose another name: hydra.sweeper.study=..."
                )
            if not self.sweep.resume(study.recall(PARENT)):
                self.sweep.open(digest, self.config.skip_finished)  # if only its id was lost, the run is there
                study.remember(PARENT, self.sweep.run_id)
            study.fill()
        if finished := study.finished:
            there = f"{finished} of {self.settings.trials} trials are there"
            say(f"The search goes on: {there}; skip_finished=false begins it anew.")
        return study

    def images(self) -> list[str]:
        """The digests of the datasets that are chosen among, of a range's its least: they may be others another day."""
        choices = []
        for key, distribution in self.space.items():
            values = [f"{key}={value}" for value in getattr(distribution, "choices", ())]
            values = values or [f"{key}={written(getattr(distribution, 'low', None), distribution)}"]
            choices.append(values if key.lstrip("+").startswith(("data", "experiment")) else values[:1])
        configs = [self.config_of([*self.fixed, *chosen]) for chosen in itertools.product(*choices)]
        return [prepare(config.data, config.data_root).card.digest for config in configs]

    def make_trials(self) -> None:
        """Trains until no trial waits any more; whoever is free takes the next one."""
        start, before = time.monotonic(), self.study.finished
        workers = workers_of(self.launcher)
        running: dict[int, FrozenTrial] = {}
        try:
            with self.study.alive_at(running):
                while self.give(workers, running):
                    for number, outcome in workers.ended():
                        self.settle(running.pop(number), outcome)
                    finished = self.study.finished
                    left = (time.monotonic() - start) / max(finished - before, 1) * (self.settings.trials - finished)
                    done = f"{finished} of {self.settings.trials} trials"
                    say(f"{done}, {self.best_so_far()}; about {left / 60:.1f} min left.")
            workers.collect()
        except BaseException:
            workers.cancel()
            raise

    def give(self, workers: Cluster | Batches, running: "dict[int, FrozenTrial]") -> bool:
        """Gives trials that wait to workers that are free, adds them to those running, and says if there are any."""
        while len(running) < workers.room(self.settings.jobs) and (trial := self.study.claim(running)):
            running[trial.number] = trial
            workers.start(self.job_of(trial), trial.number)
        return bool(running)

    def values_of(self, trial: "FrozenTrial") -> dict[str, str]:
        """What is tried, as one types it."""
        return {key: written(value, self.space[key]) for key, value in trial.params.items()}

    def trials_and_values(self) -> "tuple[list[FrozenTrial], list[dict[str, str]]]":
        trials = self.study.trials
        return trials, [self.values_of(trial) for trial in trials]

    def job_of(self, trial: "FrozenTrial") -> list[str]:
        """The overrides of a trial, whose values are proposed here."""
        self.study.propose(trial, self.space)
        own = [f"hydra.sweeper.study={self.study.name}", f"hydra.sweeper.trial={trial.number}"]
        return [*self.overrides_of(self.study.trials[trial.number]), *own, f"hydra.sweep.subdir={trial.number}"]

    @property
    def folder(self) -> Path:
        """Where what the search has found is for people to see."""
        return Path(TRIED) / "searches" / self.study.name

    def settle(self, trial: "FrozenTrial", outcome: JobReturn) -> None:
        """Says which values failed. A trial that ended for another reason waits again, and the search ends."""
        ended = self.study.trials[trial.number]
        if outcome.status == JobStatus.COMPLETED or ended.state.name == "PRUNED":
            return
        if reason := ended.user_attrs.get(REASON):
            say(f"Trial {trial.number} has failed: {reason}")
            return
        if not ended.state.is_finished():
            self.study.release(ended)
        _ = outcome.return_value  # which raises what went wrong

    def best_so_far(self) -> str:
        best = self.study.best
        return f"best validation accuracy {best.value:.4f} (trial {best.number})" if best else "none finished yet"

    def test_winner(self) -> None:
        """Tests the best trial's model, and trains it with other seeds where that is wanted."""
        if (best := self.study.best) is None:
            reasons = [trial.user_attrs[REASON] for trial in self.study.trials if REASON in trial.user_attrs]
            why = f"the first says: {reasons[0]}" if reasons else "the pruner ended all of them: hydra.sweeper.pruner"
            raise UserError(f"no trial has come to an end; {why}")
        client = store.connect(self.sweep.config)
        winner = self.tested(client, best)
        command = shlex.join(["python", "-m", "fashion_mnist", *as_one_run(self.overrides_of(best))])
        self.tags |= {"best_child": winner.info.run_id, "best_command": command}
        result = f"validation accuracy {best.value:.4f}, test accuracy {test_accuracy(winner):.4f}"
        self.told.append(f"Best by validation accuracy: trial {best.number}, {link(winner)}: {result}.")
        self.told.append(f"Again: `{command}`")
        if self.settings.confirm:
            self.told.append(self.confirmed(client, best))

    def end(self, status: str) -> None:
        """Writes what came out so far, and ends the search's run with it."""
        write_trials(*self.trials_and_values(), list(self.space), self.folder / "trials.csv")
        self.files = [self.folder / "trials.csv", *write_pictures(self.study.optuna, self.folder)]
        self.sweep.close(status)

    def conclude(self, client: "MlflowClient", run_id: str, status: str) -> None:
        """Shows and records what came out so far."""
        if status == "FINISHED":
            close_abandoned(client, run_id)
        trials, values = self.trials_and_values()
        rows, told = best_of(trials, values, list(self.space)), [summary_of(trials), *self.told]
        if len(rows) > 1:
            show(rows, None, f"The best of {len(trials)} trials")
        for sentence in told:
            terminal().print(re.sub(r", \[.*\]\(#.*?\)", "", sentence), soft_wrap=True)  # without links
        print(f"all trials, pictures and the winner: {self.folder}")
        self.tags["mlflow.note.content"] = "\n\n".join([note(self.sweep.typed), *told, markdown(rows)])
        sent = [(str(file), "") for file in self.files]
        parcel = Parcel(self.sweep.config.uri, run_id, tags=self.tags, files=sent, status=status)
        try:
            deliver(client, parcel)
        except Exception as error:
            say(f"{parcel.uri} cannot be told the search's end ({reason_of(error)}). It is {parcel.keep()}")

    def overrides_of(self, trial: "FrozenTrial") -> list[str]:
        return [*self.fixed, *(f"{key}={value}" for key, value in self.values_of(trial).items())]

    def config_of(self, overrides: list[str]) -> Config:
        composed = self.context.config_loader.load_sweep_config(self.config, overrides)
        return checked(composed, dict(composed.hydra.runtime.choices))

    def tested(self, client: "MlflowClient", best: "FrozenTrial") -> "Run":
        """The winner's run, with what its model makes of the test images."""
        run = client.get_run(best.user_attrs[RUN])
        if run.info.lifecycle_stage == "deleted":
            restore = f"MLFLOW_TRACKING_URI={client.tracking_uri} mlflow runs restore --run-id {run.info.run_id}"
            raise UserError(
                f"the run of the best trial, {best.number}, was deleted: {restore}, or skip_finished=false begins the "
                "search anew."
            )
        import_tensorflow()  # which nothing has yet, where workers train
        from fashion_mnist.training import saving

        if "test_accuracy" not in run.data.metrics:
            config = self.config_of([*self.overrides_of(best), f"output_dir={self.folder}"])
            dataset = ready(config)
            with tempfile.TemporaryDirectory() as temporary:
                file = keras_file(client, f"runs:/{run.info.run_id}/model", Path(temporary))
                saving.save(saving.load(file), config.model_file, dataset.card)  # whose bytes MLflow's copy has not
            outbox = Outbox(client, config.tracking.uri, run)
            add_evaluation(config, dataset.card, evaluate_model(config, dataset), outbox)
            outbox.close()
            run = client.get_run(run.info.run_id)
        return run

    def confirmed(self, client: "MlflowClient", best: "FrozenTrial") -> str:
        """Trains the winner with other seeds: the best of many trials was lucky with its own."""
        first = self.config_of(self.overrides_of(best)).seed + 1
        seeds = range(first, first + self.settings.confirm)
        others = [word for word in self.overrides_of(best) if not word.startswith("seed=")]
        jobs = [[*others, f"seed={seed}", f"hydra.sweep.subdir=confirm-{seed}"] for seed in seeds]
        outcomes = self.launcher.launch(jobs, self.settings.trials)
        accuracies = [test_accuracy(client.get_run(outcome.return_value)) for outcome in outcomes]
        which = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
        spread = f" ± {statistics.stdev(accuracies):.4f}" if len(accuracies) > 1 else ""
        told = f"{statistics.mean(accuracies):.4f}{spread} (n = {len(seeds)}, {which})"
        return f"Confirmed: test accuracy {told}."


def test_accuracy(run: "Run") -> float:
    return run.data.metrics["test_accuracy"]


if __name__ == "__main__":
    sys.argv[1:1] = ["-m", "hydra/sweeper=optuna"]
    main(job)
