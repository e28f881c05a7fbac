"""One list of waiting cells, taken from by several slots at once."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.failures import POLICIES, Budget, Failure
from orchestrator.storage.root import root_of
from orchestrator.trial import Outcome, Trial


class Listener(Protocol):
    """Somebody who shows what happens."""

    def started(self, trial: Trial) -> None:
        """An attempt was handed out."""

    def ended(self, trial: Trial, outcome: Outcome, *, retried: bool) -> None:
        """An attempt ended; `retried` says that another one follows."""


@dataclass
class Queue:
    """The trials of a launch, longest wait first.

    Attributes:
        waiting: still to start, in order.
        slots: how many may run at once.
        listener: told about every start and end.
        give_up: called when a retryable failure has used up its budget; publishes the row.
        is_stopping: asked before anything new starts.
        retries: limit that replaces the classes' own; None keeps them.
        outcomes: how each cell ended, by key.
    """

    waiting: list[Trial]
    slots: int
    listener: Listener
    give_up: Callable[[Trial, Outcome], None]
    is_stopping: Callable[[], bool]
    retries: int | None = None
    running: dict[str, Trial] = field(default_factory=dict)
    started_at: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    ended_early: str = ""
    _budgets: dict[str, Budget] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will start."""
        return not self.running and (not self.waiting or self._is_closed())

    def take(self) -> Trial | None:
        """The next trial to start now; None when no place is free or nothing shall start."""
        if not self.waiting or len(self.running) >= self.slots or self._is_closed():
            return None
        trial = self.waiting.pop(0)
        self.running[trial.key] = trial
        self.started_at[trial.key] = time.monotonic()
        self.listener.started(trial)
        return trial

    def settle(self, key: str, outcome: Outcome) -> None:
        """Note how an attempt ended; a retryable failure goes back to the front."""
        trial = self.running.pop(key)
        retried = outcome.status == "failed" and self._retry(trial, outcome)
        if retried:
            self.waiting.insert(0, trial)
        else:
            self.outcomes[key] = outcome
        self.listener.ended(trial, outcome, retried=retried)

    def keys(self, status: str) -> list[str]:
        """Keys of the cells that ended so."""
        return [key for key, outcome in self.outcomes.items() if outcome.status == status]

    def _is_closed(self) -> bool:
        return bool(self.ended_early) or self.is_stopping()

    def _retry(self, trial: Trial, outcome: Outcome) -> bool:
        """Decide by class whether the cell runs again; a final failure is published."""
        failure = Failure(outcome.failure)
        if POLICIES[failure].ends_launch:
            self.ended_early = outcome.error_text
        step = root_of(trial).newest_step(trial.key)
        budget = self._budgets.setdefault(trial.key, Budget.fresh())
        if budget.allows(failure, step=step, limit=self.retries):
            return True
        if not outcome.is_published:
            with suppress(OSError):  # a full disk takes no row either; the screen still tells
                self.give_up(trial, outcome)
        return False


def by_length(
    trials: Sequence[Trial], seconds: dict[str, float], table: dict[str, int]
) -> list[Trial]:
    """Trials in the order to start: first table first, and within a table the longest first.

    Long cells at the end would leave machines idle while the last one runs.

    Args:
        trials: in the grid's order.
        seconds: estimated length by key, in any unit.
        table: index of the first table that needs a cell, by key.
    """
    return sorted(trials, key=lambda t: (table.get(t.key, len(table)), -seconds.get(t.key, 0.0)))


def everything(trial: Trial) -> bool:
    """The rule of a place that takes any cell."""
    return True


def as_it_is(trial: Trial) -> Trial:
    """The dress of a place that changes nothing."""
    return trial


@dataclass
class SharedQueue(Queue):
    """A queue whose waiting cells may also be taken by another queue of the same launch.

    The queues share `waiting`, `outcomes` and `lock`; each has its own `running` and `slots`.

    Attributes:
        fits: which cells this place takes.
        dress: what this place adds to a trial that it takes.
    """

    fits: Callable[[Trial], bool] = everything
    dress: Callable[[Trial], Trial] = as_it_is
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def is_over(self) -> bool:
        """Whether nothing runs here and nothing that fits waits."""
        with self.lock:
            waits = any(self.fits(trial) for trial in self.waiting)
            return not self.running and (not waits or self._is_closed())

    def take(self) -> Trial | None:
        """The next trial that fits and finds a place."""
        with self.lock:
            chosen = next((trial for trial in self.waiting if self.fits(trial)), None)
            if chosen is None or len(self.running) >= self.slots:
                return None
            self.waiting.remove(chosen)
            self.waiting.insert(0, self.dress(chosen))
            taken = super().take()
            if taken is None:  # nothing shall start any more
                self.waiting[0] = chosen
            return taken

    def settle(self, key: str, outcome: Outcome) -> None:
        """Note how an attempt ended."""
        with self.lock:
            super().settle(key, outcome)
