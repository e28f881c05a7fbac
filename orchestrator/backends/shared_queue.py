"""One list of waiting cells, taken from by several places at once."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.queue import Queue
from orchestrator.trial import Outcome, Trial


def everything(trial: Trial) -> bool:
    """The rule of a place that takes any cell."""
    return True


def as_it_is(trial: Trial) -> Trial:
    """The dress of a place that changes nothing."""
    return trial


@dataclass
class SharedQueue(Queue):
    """A queue whose waiting cells may also be taken by another queue of the same launch.

    The queues share `waiting`, `outcomes` and `lock`; each has its own `running` and `places`.

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
            if chosen is None or len(self.running) >= self.places:
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
