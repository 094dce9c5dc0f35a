"""One trial of a search, in the process that trains it: tells the study every epoch, and ends early without promise."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from fashion_mnist.config import SearchConfig, TrainerConfig
from fashion_mnist.errors import Pruned
from fashion_mnist.trials.study import REASON, Study, imported

MEDIAN = "optuna.pruners.MedianPruner"


class Trial:
    """Number `search.trial` of the study `search.study`."""

    def __init__(self, search: SearchConfig, trainer: TrainerConfig) -> None:
        assert search.study is not None and search.trial is not None  # noqa: PT018
        self.study = Study(replace(search, pruner=pruner_of(search, trainer)), search.study).begun()
        self.number, self.epochs = search.trial, trainer.epochs
        frozen = self.study.trials[self.number]
        self.is_told = frozen.state.is_finished()  # the study knows how it ended
        self.told = set(frozen.intermediate_values)  # the epochs that the study knows of
        self.optuna = imported().trial.Trial(self.study.optuna, frozen._trial_id)

    def note(self, facts: Mapping[str, str]) -> None:
        """Writes something beside the trial, for whoever leads the search."""
        for key, value in facts.items():
            self.optuna.set_user_attr(key, value)

    def report(self, accuracies: Mapping[int, float]) -> None:
        """Tells the validation accuracies of epochs, counted from 0.

        Raises:
            Pruned: the last of them is not the training's last, and the study sees no promise in it. Whoever has closed
                the run tells the study, by `prune`; if a process dies before that, the trial is made again.
        """
        for epoch, accuracy in accuracies.items():
            if epoch not in self.told:
                self.optuna.report(accuracy, epoch)
                self.told.add(epoch)
        last = max(accuracies, default=-1)
        if 0 <= last < self.epochs - 1 and self.optuna.should_prune():
            raise Pruned(
                f"trial {self.number} ended after {last + 1} of {self.epochs} epochs: others were better by then."
            )

    def prune(self) -> None:
        """Tells that the trial ended early."""
        self.end(imported().trial.TrialState.PRUNED)

    def complete(self, accuracy: float) -> None:
        """Tells the validation accuracy of the model that was kept."""
        self.end(imported().trial.TrialState.COMPLETE, accuracy)

    def fail(self, reason: str) -> None:
        """Tells that there is nothing to be had with these values, and why."""
        with suppress(imported().exceptions.UpdateFinishedTrialError):  # it has ended well, and what failed came later
            self.note({REASON: reason})
            self.end(imported().trial.TrialState.FAIL)

    def end(self, state: Any, value: float | None = None) -> None:
        with suppress(imported().exceptions.UpdateFinishedTrialError):  # the answer to the first attempt was lost
            self.study.optuna.tell(self.number, value, state, skip_if_finished=True)


def pruner_of(search: SearchConfig, trainer: TrainerConfig) -> dict[str, Any]:
    """The pruner's settings; where nothing else was said, the median rule begins when a schedule's large steps end.

    While they last, a network is far from where it will end, and networks with smaller steps seem better.
    """
    has_large_steps = trainer.schedule != "constant" and search.pruner["_target_"] == MEDIAN
    return {**({"n_warmup_steps": trainer.epochs // 2} if has_large_steps else {}), **search.pruner}
