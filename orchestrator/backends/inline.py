"""The back end without other processes: one cell after the other, in the process of the launch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.backends.base import LaunchContext, Pool, PoolEvent
from orchestrator.execution.attempt import DYING_SECONDS, run_trial
from orchestrator.trial import Trial

detaches = False
ignores = (
    *("ranks", "cpus_per_rank", "concurrency", "workers", "ray_address"),
    *("to_ray", "to_slurm", "slurm"),
)


@contextmanager
def pools(context: LaunchContext) -> Iterator[Sequence[Pool]]:
    """One pool of one slot."""
    yield [InlinePool()]


class InlinePool(Pool):
    """Runs cells in the process of the launch, one at a time, inside `poll`.

    Args:
        wait_seconds: for an owner of a run directory that may just be dying.
    """

    slots = 1

    def __init__(self, wait_seconds: float = DYING_SECONDS) -> None:
        self._started: list[Trial] = []
        self._wait_seconds = wait_seconds

    def start(self, trials: Sequence[Trial]) -> None:
        """Keep the cells for the next poll, which runs them."""
        self._started += trials

    def poll(self) -> Iterator[PoolEvent]:
        """Run every started cell to its end, and report both."""
        while self._started:
            trial = self._started.pop()
            yield PoolEvent(trial.key, "running")
            outcome = run_trial(trial, wait_seconds=self._wait_seconds)
            yield PoolEvent(trial.key, "ended", outcome)
