"""Bring a queue to Slurm: look at the site, find the jobs that are there, watch until the end."""

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace

from orchestrator.backends.slurm.dispatcher import Dispatcher
from orchestrator.backends.slurm.registry import JobRegistry, check_options, job_spec_of, refusal
from orchestrator.display.screen import Screen
from orchestrator.execution.queue import Queue, SharedQueue
from orchestrator.execution.stop import Stop
from orchestrator.options import LaunchOptions
from orchestrator.storage.paths import GridPaths
from orchestrator.trial import Outcome, Trial
from slurm.cluster import Site, site
from slurm.commands import SlurmFull, SlurmRefused, call
from slurm.monitor import JobMonitor

_STEP_SECONDS = 1.0
_MOST_JOBS = 5000  # in the queue at once where the site names no limit
_MEMORY_STEP = 2.0  # times as much after every out-of-memory


class Detach(Stop):
    """Ctrl-C on a launch whose cells run elsewhere: the launch ends, the jobs go on."""

    def ask(self, why: str) -> None:
        """End this launch; cells on Ray, if there are any, checkpoint and end."""
        self.mark()
        self._say(
            f"{why}: the jobs go on in Slurm and publish by themselves. The same command watches "
            "them again; `python -m orchestrator cancel GRID` ends them."
        )


class _OnlyEnds:
    """A queue's listener for which a cell starts when its job does, not when it is submitted."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def started(self, trial: Trial) -> None:
        """Submitted; nothing to show yet."""

    def ended(self, trial: Trial, outcome: Outcome, *, retried: bool) -> None:
        """An attempt ended."""
        self._screen.ended(trial, outcome, retried=retried)


def drain_on_slurm(
    queue: Queue, options: LaunchOptions, stop: Stop, *, screen: Screen, place: GridPaths
) -> None:
    """Run the queue as Slurm jobs until it is over, or until somebody wants to leave.

    Raises:
        SlurmMissing, SlurmSilent: no Slurm here, or no answer.
        SlurmRefused: the jobs are refused; a ValueError.
        ValueError: options that no job can have.
    """
    check_site(queue, options, place)
    dispatcher = dispatcher_for(queue, options, screen, place)
    with screen.live(queue):
        while not queue.is_over and not stop.asked:
            dispatcher.step()
            time.sleep(_STEP_SECONDS)
    log_request_count(dispatcher, screen)


def check_site(queue: Queue, options: LaunchOptions, place: GridPaths) -> None:
    """Ask Slurm whether it knows what these jobs name, before anything starts.

    Nodes that are all down or reserved for now are no reason to refuse: the jobs can wait.

    Raises:
        SlurmMissing, SlurmSilent: no Slurm here, or no answer.
        ValueError: it would not, in its words, and what to do.
    """
    check_options(options)
    if not queue.waiting:
        return
    desk = registry_of(place)
    trial = trial_for_slurm(options, desk)(queue.waiting[0])
    batch = desk.write([trial], job_spec_of(trial, options.slurm))[0].batch
    try:
        batch.test()
    except SlurmFull:
        return  # full for now; the launch waits
    except SlurmRefused as refused:
        if re.search("invalid|unrecognized|not permitted|denied", str(refused), re.IGNORECASE):
            raise refusal(refused) from None
    finally:
        shutil.rmtree(batch.folder, ignore_errors=True)


def log_request_count(dispatcher: Dispatcher, screen: Screen) -> None:
    """How much the launch asked of the controller."""
    requests = dispatcher.watch.num_requests + dispatcher.num_submissions
    screen.message(
        f"{requests} requests to Slurm, {dispatcher.num_submissions} of them submissions"
    )


def dispatcher_for(
    queue: Queue, options: LaunchOptions, screen: Screen, place: GridPaths
) -> Dispatcher:
    """A dispatcher that has taken over the jobs of earlier launches."""
    check_options(options)
    found = site()
    limits = [number for number in (options.slurm.max_jobs, found.max_submitted) if number]
    queue.slots = min([*limits, options.concurrency or _MOST_JOBS])
    queue.listener = _OnlyEnds(screen)
    desk = registry_of(place)
    dispatcher = Dispatcher(
        queue=queue,
        desk=desk,
        watch=monitor_for(options, found),
        job_spec_of=lambda trial, hungry: job_spec_of(
            trial, options.slurm, memory_factor=_MEMORY_STEP**hungry
        ),
        max_array_size=max(1, found.max_array_size - 1),
        say=screen.message,
        started=screen.started,
    )
    if isinstance(queue, SharedQueue):
        dispatcher.fits = queue.fits
    else:
        queue.waiting = [*map(trial_for_slurm(options, desk), queue.waiting)]
    total = len(queue.waiting)
    attached = dispatcher.attach()
    accounting = "with" if found.has_accounting else "without"
    screen.message(
        f"{total} cells on Slurm {found.version} ({found.cluster}, {accounting} accounting), at "
        f"most {queue.slots} jobs in the queue; {attached} jobs of an earlier launch go on"
    )
    return dispatcher


def monitor_for(options: LaunchOptions, found: Site) -> JobMonitor:
    """How often to ask, and when to believe."""
    longest = options.slurm.poll_seconds
    if not found.has_accounting:
        # Without a database the controller's short memory is all there is.
        longest = min(longest, max(2.0, found.forgets_seconds / 3))
    return JobMonitor(
        shortest_seconds=longest / 12,
        longest_seconds=longest,
        certain_seconds=max(6.0, longest / 4),
        absent_seconds=max(12.0, longest * 5),
        has_accounting=found.has_accounting,
    )


def registry_of(place: GridPaths) -> JobRegistry:
    """Where the grid's jobs are kept."""
    return JobRegistry(place.folder / "slurm", place.folder.name)


def trial_for_slurm(options: LaunchOptions, desk: JobRegistry) -> Callable[[Trial], Trial]:
    """The trial as it travels to a job: without the launch's stop file, which goes with it."""
    gpus = gpus_for(options)
    return lambda trial: replace(
        trial, backend="slurm", stop_file=str(desk.stop_file), gpus_per_rank=gpus
    )


def gpus_for(options: LaunchOptions) -> float:
    """What was asked for, or one where the nodes have GPUs."""
    if options.gpus_per_rank >= 0:
        return options.gpus_per_rank
    chosen = ["-p", options.slurm.partition] if options.slurm.partition else []
    return 1.0 if "gpu" in call("sinfo", "-h", "-o", "%G", *chosen) else 0.0
