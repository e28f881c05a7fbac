"""What a back end is: pools that run cells, and the one loop that feeds them from a queue.

To add a back end, write one module with a function `pools` and a flag `detaches` (see `Backend`),
and name it in `BACKENDS` (`orchestrator/options.py`).
"""

import os
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Literal, Protocol, cast

from datasets.storage.base import WAIT_VARIABLE
from orchestrator.display.screen import Screen
from orchestrator.display.waiting import SHORT_SECONDS
from orchestrator.execution.allowance import Allowance
from orchestrator.execution.provenance import CHECKOUT
from orchestrator.execution.queue import Queue
from orchestrator.execution.stop import Stop
from orchestrator.options import BACKENDS, LaunchOptions, changed_options
from orchestrator.storage.file_lock import FRESH_VARIABLE
from orchestrator.storage.s3_storage import PATIENCE_VARIABLE
from orchestrator.trial import Outcome, Trial

_TICK_SECONDS = 0.05  # between two looks at the pools

# Variables of the launch that its workers get. Credentials are not among them: the variables are
# written into job scripts, and each host has its own way to keep secrets.
_PASSED = (
    FRESH_VARIABLE,
    PATIENCE_VARIABLE,
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_PROFILE",
)


@dataclass(frozen=True)
class PoolEvent:
    """What a pool reports about one of its cells.

    Attributes:
        key: of the cell.
        event: the cell began to run; its attempt ended; or the pool had no room for it after all.
        outcome: how the attempt ended.
    """

    key: str
    event: Literal["running", "ended", "no room"]
    outcome: Outcome | None = None


class Pool(Protocol):
    """Somewhere cells can run: this process, Ray, Slurm.

    Attributes:
        slots: cells that may be in the pool at once; `poll` may change it.
        detaches: the cells go on when the launch ends; otherwise the launch waits for them.
    """

    slots: int = 1
    detaches: bool = False

    def accepts(self, trial: Trial) -> bool:
        """Whether the cell may run here at all."""
        return True

    def prepare(self, trial: Trial) -> Trial:
        """The trial with what this pool adds to it, such as the number of GPUs."""
        return trial

    def adopt(self, waiting: Sequence[Trial]) -> Collection[str]:
        """Keys of waiting cells that an earlier launch started here and that still run."""
        return ()

    def start(self, trials: Sequence[Trial]) -> None:
        """Start cells, no more than there are free slots, often none; returns soon."""

    def poll(self) -> Iterable[PoolEvent]:
        """What happened to the cells since the last call."""


@dataclass(frozen=True)
class LaunchContext:
    """What a back end may need to know of the launch.

    Attributes:
        options: of the launch.
        folder: of the grid, where back ends keep their own files.
        trials: that will be run.
        stop: says when the launch shall end.
        screen: shows messages and progress to the user.
        limit: of the launch, which a pool with a queue of its own asks again; None without one.
    """

    options: LaunchOptions
    folder: Path
    trials: Sequence[Trial]
    stop: Stop
    screen: Screen
    limit: Allowance | None = None

    @property
    def code(self) -> str:
        """Where the launch keeps its copy of the code; empty for the checkout itself."""
        return next((trial.code for trial in self.trials), "")


class Backend(Protocol):
    """What the module of a back end offers.

    Attributes:
        detaches: after Ctrl-C its cells go on without the launch.
        ignores: options of a launch that mean nothing to it; `slurm` stands for all of Slurm's.
    """

    detaches: bool
    ignores: Sequence[str]

    def pools(self, context: LaunchContext) -> AbstractContextManager[Sequence[Pool]]:
        """Check what the cells ask for, then offer the pools until the block ends.

        Of two pools that accept a cell, the first one with a free slot gets it.

        Raises:
            ValueError: something that this back end can never run; nothing was started.
        """


def refuse_ignored(options: LaunchOptions) -> None:
    """Refuse options that the chosen back end would ignore.

    Raises:
        ValueError: an option that is not at its default and means nothing to the back end.
    """
    ignored = [
        f"{name}={value}"
        for name, value in changed_options(options).items()
        if name.partition(".")[0] in backend(options.backend).ignores
    ]
    if ignored:
        raise ValueError(
            f"backend={options.backend} ignores {' and '.join(ignored)}: leave that out, or choose "
            "another backend."
        )


def run_queue(queue: Queue, pools: Sequence[Pool], stop: Stop, screen: Screen) -> None:
    """Run the cells of a queue in pools until nothing is left, or until the launch shall end.

    After a stop no cell is started any more. Cells that look for the stop file checkpoint and end,
    and the launch waits for them; those of a pool that detaches go on without this process.
    """
    # Before anything starts: a second job of a running cell would only wait for its lock.
    with screen.waiting("Looking for cells that already run", quiet_seconds=SHORT_SECONDS):
        for pool in pools:
            queue.adopt(pool, pool.adopt(queue.waiting))
    with screen.live(queue):
        while not queue.is_over(pools):
            # Reports before new cells: an end frees a slot, which is filled in the same round.
            is_idle = True
            for report in chain.from_iterable(pool.poll() for pool in pools):
                _note(queue, report)
                is_idle = is_idle and report.event == "no room"
            if stop.is_asked():
                queue.close()
                if all(pool.detaches or not queue.num_running(pool) for pool in pools):
                    return
            for pool in pools:
                pool.start(queue.take(pool))
            if is_idle:
                time.sleep(_TICK_SECONDS)


def _note(queue: Queue, report: PoolEvent) -> None:
    """Tell the queue what a pool reports."""
    if report.event == "running":
        queue.start(report.key)
    elif report.event == "no room":
        queue.put_back(report.key)
    elif report.outcome is not None:
        queue.finish(report.key, report.outcome)


def worker_environment(code: str = "") -> dict[str, str]:
    """What every worker process must find in its environment before it starts.

    Args:
        code: folder of the launch's copy of the code; empty for the checkout itself.
    """
    from datasets.location import HOME_VARIABLE, home
    from trainer.environment import ENVIRONMENT

    # The copy comes first; a host that does not see it falls back to the checkout.
    paths = [code, str(CHECKOUT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    ours = {"PYTHONPATH": path, HOME_VARIABLE: str(home()), WAIT_VARIABLE: "1"}
    return {**ENVIRONMENT, **threads, **passed, **ours}


def backend(name: str) -> Backend:
    """The back end of a name; only now is its module imported."""
    return cast(Backend, import_module(BACKENDS[name]))
