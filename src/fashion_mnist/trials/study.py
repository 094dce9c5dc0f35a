"""The study of a search, in Optuna's storage: which trials there are, who is at work at them, and how they ended.

All trials are there from the beginning, waiting. Whoever takes one changes its state in one step of the database, so
that of several processes only one gets it; what a dead process was at waits again, and keeps its values. So a search
that was killed anywhere goes on as if nothing had been.
"""

import logging
import os
import platform
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from filelock import BaseFileLock

from fashion_mnist.config import SearchConfig
from fashion_mnist.errors import StorageAwayError, UserError, reason_of, say
from fashion_mnist.files import is_alive, lock_of

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

HEARTBEAT, GRACE = 10, 60  # seconds: a process on another machine that was silent for so long counts as dead
PATIENCE = 60.0  # seconds for which a storage may be away
MOMENT = 60.0  # seconds that another machine has to write what only one writes
PROCESS, PARENT, RUN, REASON = "process", "parent", "run", "reason"  # what is written beside trials
Result = TypeVar("Result")


class Study:
    """One study of Optuna's, which several processes may be at."""

    def __init__(self, config: SearchConfig, name: str = "") -> None:
        self.config, self.name = config, name
        self.made = {key: made(key, config) for key in ("sampler", "pruner")}
        self.storage = opened(config.storage, patiently=bool(name))  # which is there, where a study is known

    def begun(self) -> Self:
        """The study of this name, which is made where there is none."""
        optuna, arguments = imported(), {"study_name": self.name, "storage": self.storage, **self.made}
        try:
            self.optuna, self.is_new = optuna.create_study(direction="maximize", **arguments), True
        except optuna.exceptions.DuplicatedStudyError:
            self.optuna, self.is_new = optuna.load_study(**arguments), False
        self.id = self.optuna._study_id
        return self

    def alone(self) -> BaseFileLock:
        """Keeps other processes of this machine from changing the study meanwhile."""
        return lock_of("study", self.config.storage, self.name)

    @property
    def trials(self) -> "list[FrozenTrial]":
        """All trials that belong to the search, in their order."""
        return self.optuna.get_trials(deepcopy=False)[: self.config.trials]

    @property
    def finished(self) -> int:
        """How many trials need nothing more."""
        return sum(trial.state.is_finished() for trial in self.trials)

    def fill(self) -> None:
        """Makes the trials that are not there yet."""
        for _ in range(self.config.trials - len(self.optuna.get_trials(deepcopy=False))):
            self.optuna.enqueue_trial({})

    def claim(self, running: Collection[int] = ()) -> "FrozenTrial | None":
        """Takes the first trial that waits, if any does; what a dead process was at waits again.

        Those that this process has `running`, by number, are not dead, even if it gave no sign of life for long: a
        laptop may have slept.
        """
        optuna = imported()
        with self.alone():  # else two processes could let go of the same trial
            for trial in self.trials:
                is_running = trial.state == optuna.trial.TrialState.RUNNING
                if is_running and trial.number not in running and self.is_dead(trial):
                    self.release(trial)
            for trial in self.trials:
                if trial.state == optuna.trial.TrialState.WAITING:
                    # A sign of life first: without any, who is killed right after would seem alive for ever.
                    self.storage.record_heartbeat(trial._trial_id)
                    if self.storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.RUNNING):
                        self.storage.set_trial_user_attr(trial._trial_id, PROCESS, this_process())
                        return self.trials[trial.number]
        return None

    @property
    def best(self) -> "FrozenTrial | None":
        """The trial with the best validation accuracy, the earliest of several; of the pruned ones nobody knows."""
        complete = [trial for trial in self.trials if trial.state == imported().trial.TrialState.COMPLETE]
        return max(complete, key=lambda trial: trial.value or 0.0, default=None)

    def recall(self, key: str, first: str = "") -> str:
        """What is written beside the study; whoever has made it writes it first, and others wait a moment for that."""
        of_this_machine = self.config.storage.startswith("sqlite")  # whose lock we hold
        end = time.monotonic() + (0 if of_this_machine else MOMENT)
        while not (known := self.optuna.user_attrs.get(key, "")):
            if first and (self.is_new or time.monotonic() > end):
                self.remember(key, first)
            elif self.is_new or time.monotonic() > end:
                return ""
            else:
                time.sleep(0.2)
        return known

    def remember(self, key: str, value: str) -> None:
        self.optuna.set_user_attr(key, value)

    def is_dead(self, trial: "FrozenTrial") -> bool:
        machine, _, number = trial.user_attrs.get(PROCESS, "").partition(" ")
        if machine == platform.node() and not is_alive(number):
            return True
        return trial._trial_id in self.storage._get_stale_trial_ids(self.id)

    @contextmanager
    def alive_at(self, trials: "Mapping[int, FrozenTrial]") -> Iterator[None]:
        """Gives signs of life of the trials that are at work, by number, in the background."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT):
                with suppress(Exception):  # training goes on; whoever asks next time will see
                    for trial in list(trials.values()):
                        self.storage.record_heartbeat(trial._trial_id)

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def release(self, trial: "FrozenTrial") -> None:
        """Lets a trial wait again."""
        self.storage.set_trial_state_values(trial._trial_id, imported().trial.TrialState.WAITING)

    def propose(self, trial: "FrozenTrial", space: "Mapping[str, BaseDistribution]") -> None:
        """Gives a trial that was claimed the values that it has not yet.

        The sampler's seed follows from the trial's number; one that went on with its draws could not go on after an
        interruption, and one that began anew would repeat them.
        """
        self.optuna.sampler = made("sampler", self.config, trial.number)
        asked = imported().trial.Trial(self.optuna, trial._trial_id)
        for key, distribution in space.items():
            asked._suggest(key, distribution)


def imported() -> Any:
    """Optuna, less talkative."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return optuna


def opened(address: str, patiently: bool) -> "optuna.storages.RDBStorage":
    """Optuna's storage at the address of a database, which is set up on its first use."""
    optuna = imported()
    arguments: dict[str, Any] = {"pool_pre_ping": True}  # a connection that was lost is made again
    if address.startswith("sqlite:///"):
        Path(address.removeprefix("sqlite:///")).absolute().parent.mkdir(parents=True, exist_ok=True)
        arguments = {"connect_args": {"timeout": PATIENCE}}

    def connected() -> Any:
        return optuna.storages.RDBStorage(address, arguments, heartbeat_interval=HEARTBEAT, grace_period=GRACE)

    try:
        with lock_of("store", str(Path.cwd()), address):
            return patient(insist(connected) if patiently else connected())
    except ImportError as error:
        raise UserError(
            f"hydra.sweeper.storage={address} needs a driver ({error}): uv sync --inexact --extra team"
        ) from error
    except Exception as error:  # of SQLAlchemy, and of whichever driver it has
        raise UserError(f"hydra.sweeper.storage={address} cannot be used: {reason_of(error)}") from error


def made(key: str, config: SearchConfig, number: int = 0) -> Any:
    """A sampler or pruner of Optuna's, as `_target_` and its arguments say; a sampler is made for a trial's number."""
    from hydra.utils import instantiate

    imported()
    settings: dict[str, Any] = getattr(config, key)
    try:
        if key == "sampler":
            own = settings.get("seed")
            settings = {**settings, "seed": seed_of(config.seed if own is None else own, number)}
        return instantiate(settings)
    except Exception as error:  # whatever a class makes of arguments that it does not know
        raise UserError(f"hydra.sweeper.{key} cannot be made: {reason_of(error.__cause__ or error)}") from error


def seed_of(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def this_process() -> str:
    return f"{platform.node()} {os.getpid()}"


def patient(storage: Any) -> Any:
    """The storage, each of whose calls waits while the database is away for a while."""
    names = [name for name in dir(storage) if not name.startswith("_") and callable(getattr(storage, name))]
    for name in [
        *names,
        "_get_trials",
        "_create_new_trial",
        "_set_trial_param",
        "_get_stale_trial_ids",
    ]:  # which a cache in front calls
        setattr(storage, name, partial(insist, getattr(storage, name)))
    return storage


def insist(call: Callable[..., Result], *arguments: Any, **settings: Any) -> Result:
    """Calls the storage, again and again where it is away; nothing that is done twice so does any harm."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import InterfaceError, OperationalError

    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call(*arguments, **settings)
        except (StorageInternalError, InterfaceError, OperationalError) as error:
            reason = reason_of(error.__cause__ or error)
            if time.monotonic() > end:
                raise StorageAwayError(f"the search's storage does not answer: {reason}") from error
            say(f"The search's storage does not answer ({reason}); trying again.")
            time.sleep(2)
