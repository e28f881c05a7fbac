"""The back end without other processes: one cell after the other, in the process of the launch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.backends.base import LaunchContext, Pool, PoolEvent
from orchestrator.execution.attempt import run_trial
from orchestrator.trial import Trial

detaches = False


@contextmanager
def pools(context: LaunchContext) -> Iterator[Sequence[Pool]]:
    """One pool of one slot."""
    yield [InlinePool()]


class InlinePool(Pool):
    """Runs a cell when it is asked what happened: this process does nothing else meanwhile."""

    slots = 1

    def __init__(self) -> None:
        self._started: list[Trial] = []

    def start(self, trials: Sequence[Trial]) -> None:
        """Let the cell run at the next poll."""
        self._started += trials

    def poll(self) -> Iterator[PoolEvent]:
        """Run what was started, to its end."""
        while self._started:
            trial = self._started.pop()
            yield PoolEvent(trial.key, "running")
            yield PoolEvent(trial.key, "ended", run_trial(trial))
