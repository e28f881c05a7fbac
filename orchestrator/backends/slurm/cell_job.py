"""A trial as a Slurm job: what runs inside the job."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.attempt import run_trial
from orchestrator.backends.slurm_notes import Note
from orchestrator.claim import fresh_seconds
from orchestrator.places import Places
from orchestrator.sight import holder
from orchestrator.stopping import stop_asked
from orchestrator.trial import Outcome, Trial
from slurm.inside import Here, Signals, meet, rename, start_again

_DYING_SECONDS = 30.0  # on top of the heartbeat's time


class CellFailed(RuntimeError):
    """The cell failed; raised so that Slurm too calls the job failed and ends its other tasks."""


@dataclass(frozen=True)
class CellJob:
    """One cell as a call that travels to a job; every task of the job makes it.

    Nothing here needs a controller: the run folder is claimed, the row published and another start
    asked for by the job itself.

    Attributes:
        trial_json: the trial.
        notes: folder for words to the controller.
        batch: name of the batch that carries the job.
    """

    trial_json: str
    notes: str
    batch: str

    def __call__(self) -> None:
        """Run the cell in this job."""
        trial, here = Trial.from_json(self.trial_json), Here.from_environment()
        signals = Signals().listen()
        if here.num_tasks > 1:
            os.environ.update(meet(here, Path(self.notes).parent))
        if here.rank > 0:
            run_trial(trial)
            return
        note = Note(trial.key, self.batch, here.job_id, here.restart, _host(), "started")
        note.write(Path(self.notes))
        rename(here.job_id, trial.key)
        outcome = run_when_free(trial, _should_stop(trial, signals))
        # The note first: a requeued job is killed at once.
        note = replace(note, phase="ended", outcome=outcome)
        note.write(Path(self.notes))
        if outcome.status == "stopped" and signals.asked:
            problem = start_again(here.job_id, signals.received)
            if problem:
                replace(note, problem=problem).write(Path(self.notes))
        if outcome.status == "failed":
            raise CellFailed(f"{outcome.failure}: {outcome.error_text}")


def run_when_free(trial: Trial, should_stop: Callable[[], bool]) -> Outcome:
    """Run the trial once nobody else holds its folder.

    A node that died a moment ago held it, and its heartbeat counts for a while.
    """
    place = Places.at(trial.root).run(trial.key)
    give_up = time.monotonic() + fresh_seconds() + _DYING_SECONDS
    while holder(place) is not None and time.monotonic() < give_up:
        if should_stop() and trial.ranks == 1:
            return Outcome("stopped")
        time.sleep(0.5)
    return run_trial(trial, should_stop)


def _should_stop(trial: Trial, signals: Signals) -> Callable[[], bool]:
    """Whether a signal or the launch's stop file asks for the end."""
    by_file = stop_asked(Path(trial.stop_file))
    return lambda: signals.asked or by_file()


def _host() -> str:
    return os.uname().nodename
