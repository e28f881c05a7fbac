"""What a launch may still take: hours of GPUs or cores, or time until a moment."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from orchestrator.execution.stop import Stop
from orchestrator.storage.file_lock import background_thread

_LOOK_SECONDS = 0.2


@dataclass
class Allowance:
    """Decides which cells still fit, and when running ones must stop; the queue tells it of them.

    A running cell counts as long as it was expected to be, or as long as it runs if that is longer.
    A cell of which no length is known fits while anything is left.

    Attributes:
        budget_seconds: times the GPUs or cores held; infinite without a budget.
        until: seconds since the epoch; infinite without a deadline.
        seconds: expected of what is left of each cell, by key.
        held: GPUs or cores of each cell, by key.
        spent: seconds times GPUs or cores that ended attempts took, of earlier launches too.
        name: what the user asked for, such as budget=300h.
    """

    name: str
    budget_seconds: float = math.inf
    until: float = math.inf
    seconds: Mapping[str, float] = field(default_factory=dict)
    held: Mapping[str, float] = field(default_factory=dict)
    spent: float = 0.0
    _taken: dict[str, float | None] = field(default_factory=dict)  # when each began, once it did
    _before: dict[str, float] = field(default_factory=dict)  # used by taken cells that were cut off

    def fits(self, key: str, *, after: float = 0.0) -> bool:
        """Whether a cell that starts now, or after some seconds, ends within what is left.

        Args:
            key: of the cell; it may have been taken and still wait in a queue of its pool.
            after: seconds.
        """
        start = time.time() + after
        others = [self._expected(other) for other in list(self._taken) if other != key]
        own = self._expected(key)
        if start >= self.until or start + own / self.held[key] > self.until:
            return False
        # fsum, since the order of the others must not decide where all together fit exactly.
        is_left = math.fsum([self.spent, *others]) < self.budget_seconds
        return is_left and math.fsum([self.spent, *others, own]) <= self.budget_seconds

    def took(self, key: str) -> None:
        """A cell was handed to a pool."""
        self._taken[key] = None

    def began(self, key: str) -> None:
        """A cell that was taken runs now."""
        self._taken[key] = time.time()

    def cut_off(self, key: str) -> None:
        """A cell that was taken, such as a preempted job, waits in its pool to begin again."""
        used = self._used(key)
        self._taken[key] = None
        self._before[key] = self._before.get(key, 0.0) + used
        self.spent += used

    def ended(self, key: str) -> None:
        """A cell that was taken ended, or has to wait again."""
        self.cut_off(key)
        del self._taken[key], self._before[key]

    def is_used_up(self) -> bool:
        """Whether running cells must stop now."""
        used = self.spent + sum(self._used(key) for key in list(self._taken))
        return time.time() >= self.until or used >= self.budget_seconds

    def watching(
        self, stop: Stop, on_reached: Callable[[str], None]
    ) -> AbstractContextManager[None]:
        """Ask running cells to stop once all is used up, until the block ends; tell it, too."""

        # In a thread, because a back end may run a cell within the loop of the launch.
        def watch(over: threading.Event) -> None:
            while not over.wait(_LOOK_SECONDS):
                if self.is_used_up():
                    text = f"{self.name} is reached: running cells checkpoint and end."
                    stop.ask(text)
                    on_reached(text)
                    return

        return background_thread(watch, "allowance")

    def _used(self, key: str) -> float:
        """What a taken cell took so far."""
        began = self._taken.get(key)
        return 0.0 if began is None else (time.time() - began) * self.held[key]

    def _expected(self, key: str) -> float:
        """What a cell will have taken at its end, beside what it took before it was cut off."""
        whole = self.seconds.get(key, 0.0) * self.held[key]
        return max(self._used(key), whole - self._before.get(key, 0.0))
