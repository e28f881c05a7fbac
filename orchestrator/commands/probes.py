"""Times kinds of cells where a launch would run them: short jobs in Slurm, trials on Ray."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchestrator.backends.base import LaunchContext, backend, run_queue
from orchestrator.display.screen import Screen
from orchestrator.execution.code_snapshot import snapshot_code
from orchestrator.execution.queue import Queue
from orchestrator.execution.stop import PROBE_ENDS, Stop
from orchestrator.launch import check_place, checked, trial_of
from orchestrator.options import LaunchOptions
from orchestrator.planning.plan import LaunchRequest, PlannedCell
from orchestrator.trial import Outcome, Trial
from sweeps.grid import load_grid

_SUFFIX = ".probe"  # of the key: a probe is no attempt at its cell, and may run beside one


def run_probes(
    order: LaunchRequest, cells: Sequence[PlannedCell], screen: Screen
) -> dict[str, Outcome]:
    """Time each cell as a trial of the back end that the options name.

    Args:
        order: the grid and the options of the launch to come.
        cells: one of each kind.
        screen: shows what happens.

    Returns:
        How each ended, by key of the cell, with its timing; without those that a stop left out.

    Raises:
        ValueError, OSError, SlurmSilent, ClusterUnreachable: as a launch would.
    """
    order = checked(replace(order, options=_options_of_probes(order.options)), cells)
    options, root, name = order.options, order.root, load_grid(order.grid).name
    # A folder of its own: the launch would take a job that it finds in the grid's for a cell's.
    folder = root.grid(name).folder / "probe"
    check_place(options.backend, root.folder, folder)
    folder.mkdir(parents=True, exist_ok=True)
    stop = Stop(
        root,
        root.grid(name).stop_file(uuid.uuid4().hex[:8]),
        text=PROBE_ENDS,
        on_message=screen.message,
        is_lost=lambda: False,
    )
    trials = list(_trials(order, cells, stop))
    queue = Queue(trials, listener=screen, give_up=lambda trial, outcome: None, retries=0)
    context = LaunchContext(options, folder, trials, stop, screen)
    screen.expect({trial.key: 1.0 for trial in trials})
    with stop.listening(), backend(options.backend).pools(context) as pools:
        run_queue(queue, pools, stop, screen)
    ended = {*queue.keys("done"), *queue.keys("failed")}
    return {key.removesuffix(_SUFFIX): queue.outcome(key) for key in ended}


def _options_of_probes(options: LaunchOptions) -> LaunchOptions:
    """The options of the launch, without its limits, and without a Ray that watches jobs."""
    return replace(options, budget="", until="", slurm=replace(options.slurm, controller="plain"))


def _trials(order: LaunchRequest, cells: Sequence[PlannedCell], stop: Stop) -> Iterable[Trial]:
    """A trial for each cell that times it."""
    code = str(snapshot_code(order.root.code))
    for cell in cells:
        trial = trial_of(cell, order, stop.path)
        yield replace(trial, key=f"{cell.key}{_SUFFIX}", code=code, is_probe=True)
