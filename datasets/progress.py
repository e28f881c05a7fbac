"""Progress lines of long commands, with rate and remaining time."""

import time
from collections.abc import Callable

Say = Callable[[str], None]  # called with each line of output
_EVERY_SECONDS = 2.0


def silent(line: str) -> None:
    """A `Say` that drops every line."""


class Progress:
    """Counts steps and reports them every two seconds."""

    def __init__(self, total: int, what: str, say: Say) -> None:
        """Count `total` steps of `what`."""
        self._total, self._what, self._say = total, what, say
        self._count = self._skipped = 0
        self._start = self._said = time.monotonic()

    def skip(self, count: int) -> None:
        """Count steps that an earlier call had done; they do not enter the rate."""
        self._count = self._skipped = count

    def step(self) -> None:
        """Count one step, and report when two seconds have passed or it is the last."""
        self._count += 1
        now = time.monotonic()
        if now - self._said < _EVERY_SECONDS and self._count < self._total:
            return
        self._said = now
        rate = (self._count - self._skipped) / max(now - self._start, 1e-9)
        left = (self._total - self._count) / rate
        self._say(
            f"{self._what}: {self._count} of {self._total}, {rate:.0f} a second, {left:.0f} s left"
        )
