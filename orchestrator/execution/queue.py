"""The cells of a launch: which wait, which run where, and how each of them ended."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from orchestrator.failures import POLICIES, Budget, Failure
from orchestrator.storage.open import root_of
from orchestrator.trial import Outcome, Trial


class Listener(Protocol):
    """What a queue calls when a cell starts, ends or waits again; the screen of a launch is one."""

    def started(self, trial: Trial) -> None:
        """An attempt began."""

    def ended(self, trial: Trial, outcome: Outcome, *, retried: bool) -> None:
        """An attempt ended; `retried` says that another one follows."""

    def put_back(self, trial: Trial) -> None:
        """A cell that was taken waits again, without an attempt that counts."""


class Limit(Protocol):
    """What a queue asks before it hands a cell over; `execution/allowance.py` has one."""

    def fits(self, key: str) -> bool:
        """Whether a cell may start now."""

    def took(self, key: str) -> None:
        """A cell was handed to a pool."""

    def began(self, key: str) -> None:
        """A cell that was taken runs now."""

    def ended(self, key: str) -> None:
        """A cell that was taken ended, or has to wait again."""


class Taker(Protocol):
    """The part of a pool (`backends/base.py`) that decides which cells it gets.

    Attributes:
        slots: cells that may be in the pool at once, as things stand now.
    """

    slots: int

    def accepts(self, trial: Trial) -> bool:
        """Whether the cell may run here at all."""

    def prepare(self, trial: Trial) -> Trial:
        """The trial with what this pool adds to it, such as the number of GPUs."""


class Queue:
    """The cells of a launch, from waiting over running to their outcome.

    A cell belongs to the pool that took it until it is finished or put back. A failure that may be
    repeated lets the cell wait again, ahead of all others; after one for want of memory with the
    next rung of `run.memory`.

    Args:
        trials: still to start, in the order to start them.
        listener: called at every start and end.
        give_up: called when a retryable failure has used up its budget; publishes the row.
        retries: limit that replaces the failure classes' own; None keeps them.
        limit: may hold cells back; where it holds all that wait, and none runs, the queue is over.
    """

    def __init__(
        self,
        trials: Iterable[Trial],
        *,
        listener: Listener,
        give_up: Callable[[Trial, Outcome], None],
        retries: int | None = None,
        limit: Limit | None = None,
    ) -> None:
        self._waiting = list(trials)
        self._running: dict[str, tuple[Trial, Trial, Taker]] = {}  # as it waited, as it runs, where
        self._outcomes: dict[str, Outcome] = {}
        self._budgets: dict[str, Budget] = {}
        self._listener = listener
        self._give_up = give_up
        self._retries = retries
        self._limit = limit
        self._is_closed = False
        self._closed_because = ""

    @property
    def waiting(self) -> Sequence[Trial]:
        """Cells still to start, the next one first."""
        return tuple(self._waiting)

    @property
    def num_waiting(self) -> int:
        """How many cells wait."""
        return len(self._waiting)

    @property
    def closed_because(self) -> str:
        """Why nothing more is started; empty while the queue is open, or after a stop."""
        return self._closed_because

    def num_running(self, pool: Taker) -> int:
        """How many cells a pool has now."""
        return sum(where is pool for _, _, where in self._running.values())

    def is_over(self, pools: Collection[Taker]) -> bool:
        """Whether nothing runs and nothing will start in any of these pools."""
        if self._running:
            return False
        return self._is_closed or not any(
            pool.accepts(trial) and self._fits(trial) for trial in self._waiting for pool in pools
        )

    def take(self, pool: Taker) -> list[Trial]:
        """The trials that a pool shall start now, as many as it has free slots."""
        free = 0 if self._is_closed else pool.slots - self.num_running(pool)
        taken: list[Trial] = []
        left: list[Trial] = []
        waiting = iter(self._waiting)
        # It ends at the last free slot: every poll comes here, also with thousands of cells left.
        while len(taken) < free and (trial := next(waiting, None)) is not None:
            if pool.accepts(trial) and self._fits(trial):
                taken.append(self._hand_over(trial, pool))
            else:
                left.append(trial)
        self._waiting = [*left, *waiting]
        return taken

    def adopt(self, pool: Taker, keys: Collection[str]) -> None:
        """Take waiting cells as running in a pool, where an earlier launch started them."""
        for trial in [trial for trial in self._waiting if trial.key in keys]:
            self._waiting.remove(trial)
            self._hand_over(trial, pool)

    def start(self, key: str) -> None:
        """Record that a cell that was taken has begun to run."""
        if self._limit is not None:
            self._limit.began(key)
        self._listener.started(self._running[key][1])

    def put_back(self, key: str) -> None:
        """Let a cell that was taken wait again: the pool had no room for it after all."""
        self._end(key)
        # As it waited, without what the pool added: another pool may take it next.
        waited, trial, _ = self._running.pop(key)
        self._waiting.insert(0, waited)
        self._listener.put_back(trial)

    def finish(self, key: str, outcome: Outcome) -> None:
        """Record how an attempt ended; after one that may be repeated the cell waits again."""
        self._end(key)
        waited, trial, _ = self._running.pop(key)
        retried = outcome.status == "failed" and self._may_retry(trial, outcome)
        if retried:
            rung = outcome.next_memory
            self._waiting.insert(0, waited.with_memory(rung) if rung else waited)
        else:
            self._outcomes[key] = outcome
        self._listener.ended(trial, outcome, retried=retried)

    def close(self, reason: str = "") -> None:
        """Start no further cell; running ones go on.

        Args:
            reason: what is wrong, for the user; empty after a request to stop.
        """
        self._is_closed = True
        self._closed_because = self._closed_because or reason

    def outcome(self, key: str) -> Outcome:
        """How a cell ended."""
        return self._outcomes[key]

    def keys(self, status: str) -> list[str]:
        """Keys of the cells that ended with a status."""
        return [key for key, outcome in self._outcomes.items() if outcome.status == status]

    def _hand_over(self, trial: Trial, pool: Taker) -> Trial:
        prepared = pool.prepare(trial)
        self._running[trial.key] = (trial, prepared, pool)
        if self._limit is not None:
            self._limit.took(trial.key)
        return prepared

    def _fits(self, trial: Trial) -> bool:
        return self._limit is None or self._limit.fits(trial.key)

    def _end(self, key: str) -> None:
        if self._limit is not None:
            self._limit.ended(key)

    def _may_retry(self, trial: Trial, outcome: Outcome) -> bool:
        """Decide by class whether the cell runs again; a final failure is published."""
        failure = Failure(outcome.failure)
        if POLICIES[failure].ends_launch:
            self.close(outcome.error_text)
        step = root_of(trial).newest_step(trial.key)
        budget = self._budgets.setdefault(trial.key, Budget.fresh())
        # Each rung comes once, so it needs no budget; and the same again would fail the same way.
        is_next_rung = bool(outcome.next_memory) and self._retries != 0
        if is_next_rung or budget.allows(failure, step=step, limit=self._retries):
            return True
        if POLICIES[failure].leaves_row and not outcome.is_published:
            with suppress(OSError):  # a full disk takes no row either; the screen still shows it
                self._give_up(trial, outcome)
        return False


class Keyed(Protocol):
    """Anything about one cell."""

    @property
    def key(self) -> str:
        """Of the cell."""


AboutCell = TypeVar("AboutCell", bound=Keyed)


def in_start_order(
    trials: Sequence[AboutCell], seconds: Mapping[str, float], table: Mapping[str, int]
) -> list[AboutCell]:
    """Trials in the order to start: first table first, and within a table the longest first.

    Long cells at the end would leave machines idle while the last one runs.

    Args:
        trials: in the grid's order.
        seconds: estimated length by key, in any unit.
        table: index of the first table that needs a cell, by key.
    """
    return sorted(trials, key=lambda t: (table.get(t.key, len(table)), -seconds.get(t.key, 0.0)))
