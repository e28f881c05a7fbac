"""The back end without other processes: one cell after the other, in the process of the launch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.backends.base import LaunchContext, Pool, PoolEvent
from orchestrator.execution.attempt import run_trial
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
    """Runs cells in the process of the launch, one at a time, inside `poll`."""

    slots = 1

    def __init__(self) -> None:
        self._started: list[Trial] = []

    def start(self, trials: Sequence[Trial]) -> None:
        """Keep the cells for the next poll, which runs them."""
        self._started += trials

    def poll(self) -> Iterator[PoolEvent]:
        """Run every started cell to its end, and report both."""
        while self._started:
            trial = self._started.pop()
            yield PoolEvent(trial.key, "running")
            yield PoolEvent(trial.key, "ended", run_trial(trial))
