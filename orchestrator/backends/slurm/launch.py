"""The back end on Slurm: one job for every cell, watched through Ray Tune or without Ray."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.backends.base import LaunchContext, Pool
from orchestrator.backends.slurm.dispatcher import Dispatcher
from orchestrator.backends.slurm.registry import JobRegistry, check_options, job_spec_of, refusal
from orchestrator.display.waiting import SHORT_SECONDS
from orchestrator.options import LaunchOptions
from orchestrator.trial import Trial
from slurm.cluster import Site, site
from slurm.commands import SlurmFull, SlurmRefused, SlurmUnclear, call
from slurm.monitor import JobMonitor

if TYPE_CHECKING:
    from orchestrator.backends.ray.supervisor import RaySupervisor
    from orchestrator.backends.ray.watched import WatchedPool

_MOST_JOBS = 5000  # in the queue at once where the site names no limit
_MEMORY_STEP = 2.0  # times as much after every out-of-memory

detaches = True
ignores = ("to_ray", "to_slurm", "workers")


@contextmanager
def pools(context: LaunchContext) -> Iterator[Sequence[Pool]]:
    """Slurm as the only pool.

    Raises:
        SlurmMissing, SlurmSilent: no Slurm here, or no answer.
        ClusterUnreachable: no Ray answers, which is not needed with slurm.controller=plain.
        ValueError: options that no job can have, or jobs that Slurm would refuse.
    """
    dispatcher = checked_dispatcher(context)
    if context.trials[0].is_probe:
        with dispatcher.cancelling():  # nobody would read what they time
            yield [dispatcher]
    elif context.options.slurm.controller == "plain":
        yield [dispatcher]
    else:
        from orchestrator.backends.ray.launch import connected_tune

        with connected_tune(context) as tune, watched_jobs(dispatcher, tune) as in_slurm:
            yield [in_slurm]
    dispatcher.show_num_requests()


def checked_dispatcher(context: LaunchContext, *, only: str = "*") -> Dispatcher:
    """The dispatcher, once Slurm has said that it knows what the jobs name.

    Args:
        context: of the launch.
        only: keys of the cells that may go to Slurm, as a glob.

    Raises:
        SlurmMissing, SlurmSilent: no Slurm here, or no answer.
        ValueError: options that no job can have, or jobs that Slurm would refuse.
    """
    with context.screen.waiting("Asking Slurm's controller", quiet_seconds=SHORT_SECONDS):
        check_site(context)
        return dispatcher_for(context, only=only)


def watched_jobs(dispatcher: Dispatcher, tune: "RaySupervisor") -> "closing[WatchedPool]":
    """The jobs with a Tune trial for each one that runs, until the block ends."""
    from orchestrator.backends.ray.watched import WatchedPool

    folder = tune.cluster.scratch / "watched"
    folder.mkdir()
    return closing(WatchedPool(dispatcher, tune, folder))


def check_site(context: LaunchContext) -> None:
    """Ask Slurm whether it knows what these jobs name, before anything starts.

    Nodes that are all down or reserved for now are no reason to refuse: the jobs can wait.

    Raises:
        SlurmMissing, SlurmSilent: no Slurm here, or no answer.
        ValueError: Slurm would refuse the jobs; gives its message and what to change.
    """
    options = context.options
    check_options(options)
    registry = registry_in(context.folder)
    trial = trial_for_slurm(options, registry)(context.trials[0])
    array = registry.write([trial], job_spec_of(trial, options.slurm))[0].array
    try:
        array.test()
    except (SlurmFull, SlurmUnclear):
        return  # for now, perhaps; the launch waits
    except SlurmRefused as refused:
        if "not available" not in str(refused):  # said of nodes that are away, too
            raise refusal(str(refused)) from None
    finally:
        shutil.rmtree(array.folder, ignore_errors=True)


def dispatcher_for(context: LaunchContext, *, only: str = "*") -> Dispatcher:
    """The dispatcher that a launch asks for.

    Args:
        context: of the launch.
        only: keys of the cells that may go to Slurm, as a glob.
    """
    options, here = context.options, site()
    limits = [number for number in (options.slurm.max_jobs, here.max_submitted) if number]
    registry = registry_in(context.folder)
    accounting = "with" if here.has_accounting else "without"
    return Dispatcher(
        registry=registry,
        monitor=monitor_for(options, here),
        job_spec_of=lambda trial, oom_count: job_spec_of(
            trial, options.slurm, memory_factor=_MEMORY_STEP**oom_count
        ),
        prepare_trial=trial_for_slurm(options, registry),
        max_jobs=min([*limits, options.concurrency or _MOST_JOBS]),
        max_array_size=max(1, here.max_array_size - 1),
        on_message=context.screen.message,
        only=only,
        where=f"Slurm {here.version} ({here.cluster}, {accounting} accounting)",
        # Jobs with a limit end with the launch, since nothing else watches the limit.
        detaches=context.limit is None,
        limit=context.limit,
        must_end=context.stop.ends_cells,
    )


def monitor_for(options: LaunchOptions, here: Site) -> JobMonitor:
    """A monitor whose intervals fit the options and the cluster."""
    longest = options.slurm.poll_seconds
    if not here.has_accounting:
        # Without a database only the controller knows how a job ended, and it forgets soon.
        longest = min(longest, max(2.0, here.forgets_seconds / 3))
    return JobMonitor(
        shortest_seconds=longest / 12,
        longest_seconds=longest,
        certain_seconds=max(6.0, longest / 4),
        absent_seconds=max(12.0, longest * 5),
        has_accounting=here.has_accounting,
    )


def registry_in(grid_folder: Path) -> JobRegistry:
    """The registry of the grid's jobs."""
    return JobRegistry(grid_folder / "slurm", grid_folder.name)


def trial_for_slurm(options: LaunchOptions, registry: JobRegistry) -> Callable[[Trial], Trial]:
    """What makes a trial ready for a job.

    The job looks for the grid's stop file and not for the launch's, which is removed when the
    launch ends.
    """
    gpus = gpus_for(options)
    return lambda trial: replace(
        trial.on_gpus(gpus), backend="slurm", stop_file=str(registry.stop_file)
    )


def gpus_for(options: LaunchOptions) -> float:
    """The number that the options give; otherwise one where the nodes have GPUs."""
    if options.gpus_per_rank >= 0:
        return options.gpus_per_rank
    chosen = ["-p", options.slurm.partition] if options.slurm.partition else []
    return 1.0 if "gpu" in call("sinfo", "-h", "-o", "%G", *chosen) else 0.0
