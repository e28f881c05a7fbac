"""A trial as a Slurm job: what runs inside the job, and what the job reports to the launch."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from datasets.files import atomic_write
from orchestrator.execution.attempt import run_trial
from orchestrator.execution.stop import stop_asked
from orchestrator.storage.file_lock import fresh_seconds
from orchestrator.storage.open import root_of
from orchestrator.trial import Outcome, Trial
from slurm.job_runtime import JobContext, Signals, rename, rendezvous, requeue

_DYING_SECONDS = 30.0  # on top of the heartbeat's time


@dataclass(frozen=True)
class JobReport:
    """The newest report that a cell's job wrote about itself.

    Attributes:
        batch: name of the array that the job belongs to.
        job_id: Slurm's number, such as 17 or 17_3.
        restart: how often Slurm started this job before.
        phase: "ended" means that this start of the job is over.
        outcome: how it ended.
        problem: why a stopped job could not ask for another start.
    """

    key: str
    batch: str
    job_id: str
    restart: int
    host: str
    phase: Literal["started", "ended"]
    outcome: Outcome | None = None
    problem: str = ""

    def write(self, folder: Path) -> None:
        """Replace the cell's report."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / f"{self.key}.json", json.dumps(asdict(self)))


def read_report(path: Path) -> JobReport | None:
    """The report in a file; None when there is none."""
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    outcome = fields.pop("outcome")
    return JobReport(**fields, outcome=Outcome(**outcome) if outcome else None)


class JobReports:
    """Reads each report once after every change.

    Args:
        folder: of the reports.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[int, int]] = {}

    def news(self) -> Iterator[JobReport]:
        """Reports that are new or changed since the last call."""
        try:
            with os.scandir(self._folder) as entries:  # a fifth of glob()'s time, over thousands
                files = [entry for entry in entries if entry.name.endswith(".json")]
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in files:
            try:
                facts = entry.stat()
            except OSError:
                continue
            # A report is replaced by rename, so a new one has another inode even at the same time.
            mark = (facts.st_mtime_ns, facts.st_ino)
            if self._seen.get(entry.name) == mark:
                continue
            self._seen[entry.name] = mark
            report = read_report(self._folder / entry.name)
            if report is not None:
                yield report


class CellFailed(RuntimeError):
    """The cell failed; raised so that Slurm too calls the job failed and ends its other tasks."""


@dataclass(frozen=True)
class CellJob:
    """One cell as a call that is pickled for a job; every task of the job makes it.

    No launch needs to be alive: the job itself locks the run directory, publishes the row and asks
    Slurm for another start.

    Attributes:
        trial_json: the trial.
        reports: folder of the job reports, which a launch reads.
        batch: name of the array that carries the job.
    """

    trial_json: str
    reports: str
    batch: str

    def __call__(self) -> None:
        """Run the cell in this job."""
        trial, here = Trial.from_json(self.trial_json), JobContext.from_environment()
        signals = Signals().listen()
        if here.num_tasks > 1:
            os.environ.update(rendezvous(here, Path(self.reports).parent))
        if here.rank > 0:
            run_trial(trial)
            return
        folder = Path(self.reports)
        report = JobReport(trial.key, self.batch, here.job_id, here.restart, _host(), "started")
        report.write(folder)
        rename(here.job_id, trial.key)
        outcome = run_when_free(trial, _should_stop(trial, signals))
        # The report before the requeue: Slurm kills a job as soon as it is requeued.
        report = replace(report, phase="ended", outcome=outcome)
        report.write(folder)
        if outcome.status == "stopped" and signals.asked:
            problem = requeue(here.job_id, signals.received)
            if problem:
                replace(report, problem=problem).write(folder)
        if outcome.status == "failed":
            raise CellFailed(f"{outcome.failure}: {outcome.error_text}")


def run_when_free(trial: Trial, should_stop: Callable[[], bool]) -> Outcome:
    """Run the trial once no other process holds its run directory.

    After a node died, the lock of its attempt counts until the heartbeat is too old.
    """
    root = root_of(trial)
    give_up = time.monotonic() + fresh_seconds() + _DYING_SECONDS
    while root.lock_owner(trial.key) is not None and time.monotonic() < give_up:
        # Of several ranks the others already wait for this one, inside `run_trial`.
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
