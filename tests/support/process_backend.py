"""A back end that somebody adds: every cell in a Python process of its own.

    python -m tests.support.process_backend TRIAL_JSON

is such a process; it prints how the cell ended.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.backends.base import LaunchContext, Pool, PoolEvent, worker_environment
from orchestrator.trial import Outcome, Trial

detaches = False
ignores: tuple[str, ...] = ()


@contextmanager
def pools(context: LaunchContext) -> Iterator[Sequence[Pool]]:
    """As many processes as the launch asks for."""
    yield [ProcessPool(slots=max(1, context.options.concurrency))]


class ProcessPool(Pool):
    """Cells in processes of this machine."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._begun: list[str] = []

    def prepare(self, trial: Trial) -> Trial:
        """The trial, with the name of this back end for its row."""
        return replace(trial, backend="processes")

    def start(self, trials: Sequence[Trial]) -> None:
        """Start a process for each trial."""
        for trial in trials:
            self._processes[trial.key] = subprocess.Popen(
                [sys.executable, "-m", "tests.support.process_backend", trial.to_json()],
                env=worker_environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            self._begun.append(trial.key)

    def poll(self) -> Iterator[PoolEvent]:
        """What began, and which processes ended."""
        while self._begun:
            yield PoolEvent(self._begun.pop(), "running")
        for key, process in list(self._processes.items()):
            if process.poll() is not None:
                del self._processes[key]
                text, _ = process.communicate()
                lost = Outcome.lost(f"its process ended with {process.returncode}")
                yield PoolEvent(key, "ended", Outcome.from_json(text) if text else lost)


if __name__ == "__main__":
    from orchestrator.execution.attempt import run_trial

    sys.stdout.write(run_trial(Trial.from_json(sys.argv[1])).to_json())
