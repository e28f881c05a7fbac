"""A worker: runs cells of a grid that no process runs, one after the other, in this process.

Workers and launches see each other's cells by the locks of the run directories, so as many workers
as like may come and go on all machines that see the root. The lock of the grid, which keeps a
second launch away, is not theirs.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.backends.base import refuse_ignored, run_queue
from orchestrator.backends.inline import InlinePool
from orchestrator.display.format import cells_text
from orchestrator.display.screen import Screen
from orchestrator.execution.events import Events
from orchestrator.execution.queue import in_start_order
from orchestrator.execution.stop import CELLS_END, Stop
from orchestrator.failures import POLICIES, Failure
from orchestrator.launch import (
    check_disk,
    checked,
    first_tables,
    launch_events,
    queue_of,
    show_end,
    show_failures,
    trial_of,
)
from orchestrator.options import LaunchOptions, seconds_in
from orchestrator.planning.estimate import work
from orchestrator.planning.plan import (
    EXIT_DONE,
    EXIT_FAILED,
    LaunchRequest,
    Plan,
    PlannedCell,
    State,
)
from orchestrator.trial import Trial

_LOOK_SECONDS = 0.2  # between two looks at the stop
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # between two plans of an idle worker


def seconds_of(text: str) -> float:
    """A time such as 90s, 10m or 2h in seconds.

    Raises:
        ValueError: it is no such time.
    """
    seconds = seconds_in(text)
    if seconds is None:
        raise ValueError(f"while_idle={text}: give a time such as 90s, 10m or 2h.")
    return seconds


def run_worker(order: LaunchRequest, screen: Screen, *, idle_seconds: float) -> int:
    """Run free cells until there is none, for some time, or until a signal asks to leave.

    Args:
        order: the grid and the options; only those of backend=inline mean something.
        screen: shows what happens.
        idle_seconds: for so long it waits for cells that others may leave behind.

    Returns:
        The exit code: 0 everything is done, or others run the rest; 11 some cells failed; 10 cells
        are left, since a signal came or they need a launch.

    Raises:
        ValueError, OSError: configuration, data or room on the disk; nothing was started.
    """
    order = replace(order, options=_options_of_worker(order.options))
    plan = order.plan(needs_data=True)
    cells = [*_free(plan), *(cell for cell in plan.cells if cell.state is State.running)]
    if not cells:
        return show_end(plan, order, screen)
    order = checked(order, cells)
    screen.message(f"{plan.grid.title}: {cells_text(len(_free(plan)))} to take", "bold")
    stop = Stop(
        order.root,
        order.root.grid(plan.grid.name).stop_file(uuid.uuid4().hex[:8]),
        text=CELLS_END,
        on_message=screen.message,
        is_lost=lambda: False,
    )
    with launch_events(order, plan.grid.name, screen) as events:
        worker = _Worker(order, screen, stop, events)
        with stop.listening():
            worker.run(idle_seconds)
        plan = order.plan()
        code = worker.exit_code(plan, show_end(plan, order, screen))
        events.finished(code, plan.counts())
    return code


def _options_of_worker(options: LaunchOptions) -> LaunchOptions:
    """The options for cells of this process.

    Raises:
        ValueError: one that a launch knows and a worker does not.
    """
    if options.backend not in ("inline", LaunchOptions().backend):
        raise ValueError(
            f"backend={options.backend}: a worker runs cells in its own process. Leave that out, "
            "or take `launch`."
        )
    if options.rerun != "none":
        raise ValueError(
            f"rerun={options.rerun}: a worker runs nothing again that is done. Take `launch`; "
            "workers may help with what it sets aside."
        )
    if options.limits:
        raise ValueError(
            f"{options.limits}: a worker does not know what others take. Take `launch`, or end the "
            "worker by `timeout`."
        )
    options = replace(options, backend="inline")
    refuse_ignored(options)
    return options


def _free(plan: Plan) -> list[PlannedCell]:
    """The cells that a worker may take: those that failed for good wait for `launch`, `resume`."""
    return [
        cell
        for cell in plan.cells
        if cell.state in (State.missing, State.interrupted) or _failed_by_its_machine(cell)
    ]


def _failed_by_its_machine(cell: PlannedCell) -> bool:
    """Whether a cell failed for what ended its launch or worker, such as a full disk."""
    if cell.state is not State.failed or cell.row is None or cell.row.error_class is None:
        return False
    return POLICIES[Failure(cell.row.error_class)].ends_launch


@dataclass
class _Worker:
    """Takes free cells until it shall leave.

    Attributes:
        taken: length of each cell that ran here, by key, in the unit of `work`.
        failed: keys of the cells that failed here, which it does not take again.
        is_closed: the machine is at fault, so that no other cell would fare better here.
    """

    order: LaunchRequest
    screen: Screen
    stop: Stop
    events: Events
    taken: dict[str, float] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    is_closed: bool = False

    def run(self, idle_seconds: float) -> None:
        """Run one free cell after the other; leave after so long without any."""
        since = time.monotonic()
        while not (self.stop.is_asked() or self.is_closed):
            plan = self.order.plan()  # again for each cell: others take and end some meanwhile
            free = [cell for cell in _free(plan) if cell.key not in self.failed]
            if self._run_first(plan, free):
                since = time.monotonic()
                continue
            idle = time.monotonic() - since
            if idle >= idle_seconds or not (free or plan.count(State.running)):
                return
            pause = min(max(idle / 4, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            self._wait(min(pause, idle_seconds - idle))

    def exit_code(self, plan: Plan, otherwise: int) -> int:
        """Of the worker, from the states at its end; `otherwise` is that of a launch."""
        if self.stop.is_asked():
            return otherwise
        if self.failed and otherwise != EXIT_DONE:
            return EXIT_FAILED
        is_rest_elsewhere = all(cell.state in (State.done, State.running) for cell in plan.cells)
        return EXIT_DONE if is_rest_elsewhere else otherwise

    def _run_first(self, plan: Plan, cells: Sequence[PlannedCell]) -> bool:
        """Run the first cell that no other process takes before; False where there is none."""
        lengths = {cell.key: work(cell.config) for cell in cells}
        by_key = {cell.key: cell for cell in cells}
        trials = [trial_of(cell, self.order, self.stop.path) for cell in cells]
        for trial in in_start_order(trials, lengths, first_tables(plan)):
            if self.stop.is_asked():
                break
            if self.order.root.lock_owner(trial.key) is not None:
                continue
            check_disk(self.order.root.folder, [by_key[trial.key]], running=1)
            if self._run_trial(trial, lengths[trial.key]):
                return True
        return False

    def _run_trial(self, trial: Trial, length: float) -> bool:
        """Run a cell with its retries; False where another process was faster."""
        self.screen.expect({**self.taken, trial.key: length})
        queue = queue_of([trial], self.order.options, self.events)
        # Without waiting for the lock of the run: whoever has it now runs the cell.
        run_queue(queue, [InlinePool(wait_seconds=0.0)], self.stop, self.screen)
        if queue.keys("busy"):
            return False
        self.taken[trial.key] = length
        self.failed |= set(queue.keys("failed"))
        self.is_closed = bool(queue.closed_because)
        show_failures(queue, self.order.root, self.screen)
        return True

    def _wait(self, seconds: float) -> None:
        """Wait, unless a signal asks to leave."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.stop.is_asked():
            time.sleep(_LOOK_SECONDS)
