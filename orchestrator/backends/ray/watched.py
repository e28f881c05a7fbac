"""Cells that run elsewhere, such as in Slurm, each with a Ray Tune trial that waits for its end.

The other pool starts all its jobs at once; Tune gets a trial for a cell when its job runs or has
ended. So there are a few waiting processes, not one for every queued job.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.backends.base import Pool, PoolEvent
from orchestrator.backends.ray.messages import Death
from orchestrator.backends.ray.outcome_files import stop_waiting, write_outcome
from orchestrator.backends.ray.supervisor import RaySupervisor
from orchestrator.trial import Outcome, Trial

_NUM_WATCHERS = 4  # Tune trials that wait for running jobs; one more takes those that ended


class WatchedPool(Pool):
    """Another pool's cells as Ray Tune sees them.

    Args:
        jobs: the pool that runs the cells.
        tune: gets a trial for each of them.
        folder: an existing folder through which outcomes reach the waiting trials.
    """

    def __init__(self, jobs: Pool, tune: RaySupervisor, folder: Path) -> None:
        self.slots = jobs.slots
        self.detaches = jobs.detaches
        self._jobs = jobs
        self._tune = tune
        self._folder = folder
        self._trials: dict[str, Trial] = {}
        self._outcomes: dict[str, Outcome] = {}  # of jobs whose Tune trial has not yet returned
        self._watched: set[str] = set()  # cells that have a Tune trial
        self._running: dict[str, None] = {}  # running cells without a Tune trial, in order
        self._ended: deque[str] = deque()  # ended cells without one

    def accepts(self, trial: Trial) -> bool:
        """Whether the other pool accepts the cell."""
        return self._jobs.accepts(trial)

    def prepare(self, trial: Trial) -> Trial:
        """The trial for the other pool."""
        return self._jobs.prepare(trial)

    def adopt(self, waiting: Sequence[Trial]) -> Collection[str]:
        """What the other pool adopts."""
        keys = self._jobs.adopt(waiting)
        self._trials |= {trial.key: trial for trial in waiting if trial.key in keys}
        return keys

    def start(self, trials: Sequence[Trial]) -> None:
        """Start jobs in the other pool."""
        self._trials |= {trial.key: trial for trial in trials}
        self._jobs.start(trials)

    def poll(self) -> Iterator[PoolEvent]:
        """Reports of the jobs; an end is reported once the cell's Tune trial has returned, too."""
        news = self._jobs.poll()  # before `slots`, which it may change
        self.slots = self._jobs.slots
        for report in news:
            if report.outcome is not None:
                self._on_end(report.key, report.outcome)
                continue
            if report.event == "running" and report.key not in self._watched:
                self._running[report.key] = None
            yield report
        self._tune.poll()
        for key, outcome in self._tune.ended("watch"):
            self._watched.discard(key)
            if isinstance(outcome, Death):
                self._on_lost_watcher(key)
            else:
                self._outcomes.pop(key, None)
                yield PoolEvent(key, "ended", outcome)
        self._submit()

    def close(self) -> None:
        """Let every waiting Tune trial return; the jobs go on."""
        stop_waiting(self._folder)

    def _on_end(self, key: str, outcome: Outcome) -> None:
        self._outcomes[key] = outcome
        # A file and not a message: a Tune trial that starts only now finds it, too.
        write_outcome(self._folder, key, outcome)
        self._running.pop(key, None)
        if key not in self._watched:
            self._ended.append(key)

    def _on_lost_watcher(self, key: str) -> None:
        """Watch a cell anew whose Tune trial died; its job does not depend on that trial."""
        if key not in self._outcomes:
            self._running[key] = None
        else:
            self._on_end(key, self._outcomes[key])

    def _submit(self) -> None:
        """Let Tune watch ended jobs first, then running ones."""
        while self._ended and len(self._watched) <= _NUM_WATCHERS:
            self._watch(self._ended.popleft())
        while self._running and len(self._watched) < _NUM_WATCHERS:
            key = next(iter(self._running))
            del self._running[key]
            self._watch(key)

    def _watch(self, key: str) -> None:
        self._watched.add(key)
        self._tune.submit(replace(self._trials[key], scratch=str(self._folder)), "watch")
