"""One launch with Ray Tune as its controller, and its cells in Slurm, or on Ray and in Slurm."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from orchestrator.backends.ray.cluster import Cluster, connected, watched
from orchestrator.backends.slurm.launch import (
    dispatcher_for,
    log_request_count,
    registry_of,
    trial_for_slurm,
)
from orchestrator.backends.slurm.registry import check_options
from orchestrator.display.screen import Screen
from orchestrator.execution.queue import Queue, SharedQueue
from orchestrator.execution.stop import EXIT_UNFINISHED, Stop
from orchestrator.options import LaunchOptions
from orchestrator.storage.paths import GridPaths
from orchestrator.trial import Trial


def drain_on_ray(
    queue: Queue, options: LaunchOptions, stop: Stop, *, screen: Screen, place: GridPaths
) -> None:
    """Run the queue on an own or a joined Ray until it is over.

    Raises:
        ClusterUnreachable: no Ray answers.
        ValueError: one trial asks for more than the whole cluster has.
    """
    with connected(options, place.folder / "scratch", code_of(queue)) as cluster:
        stop.listen()  # ray.init takes SIGTERM for itself
        gpus = gpus_per_rank(options, cluster)
        queue.slots = count_slots(options, cluster, gpus)
        queue.waiting = [
            replace(trial, gpus_per_rank=gpus, scratch=str(cluster.scratch))
            for trial in queue.waiting
        ]
        where = "own local Ray" if cluster.is_own else f"Ray at {options.ray_address}"
        screen.message(
            f"{len(queue.waiting)} cells, {queue.slots} at once, {options.ranks} ranks each, "
            f"on {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs of {where}"
        )
        from orchestrator.backends.ray.tune import drain

        def leave() -> None:
            screen.message("Ray died. Launch again: every cell goes on from its checkpoint.", "red")
            os._exit(EXIT_UNFINISHED)

        log = place.folder / "ray.log"
        with watched(leave), screen.live(queue), redirect_output(log):
            drain(queue, options, cluster)


def code_of(queue: Queue) -> str:
    """Where the launch keeps its copy of the code."""
    return next((trial.code for trial in queue.waiting), "")


@contextmanager
def redirect_output(log: Path) -> Iterator[None]:
    """Send what Ray prints to a file; what matters arrives as an outcome."""
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        yield


def gpus_per_rank(options: LaunchOptions, cluster: Cluster) -> float:
    """What was asked for, or one where there are GPUs."""
    if options.gpus_per_rank >= 0:
        return options.gpus_per_rank
    return 1.0 if cluster.gpus >= 1 else 0.0


def count_slots(options: LaunchOptions, cluster: Cluster, gpus: float) -> int:
    """How many trials the cluster holds at once.

    Raises:
        ValueError: not even one.
    """
    fits = [int(cluster.cpus // (options.ranks * options.cpus_per_rank))]
    if gpus:
        fits.append(int(cluster.gpus // (options.ranks * gpus)))
    if min(fits) < 1:
        raise ValueError(
            f"One cell asks for {options.ranks} ranks with {options.cpus_per_rank} CPUs and "
            f"{gpus:g} GPUs each; the cluster has {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs. "
            "Lower ranks, cpus_per_rank or gpus_per_rank."
        )
    return min(*fits, options.concurrency) if options.concurrency else min(fits)


def drain_mixed(
    queue: Queue, options: LaunchOptions, stop: Stop, *, screen: Screen, place: GridPaths
) -> None:
    """Run the queue until it is over, or until somebody wants to leave.

    With backend=auto a cell goes to the place whose rule (`to_ray`, `to_slurm`) it fits, and where
    both fit to the first with a free place (`concurrency` cells on Ray, `slurm.max_jobs` jobs).

    Raises:
        ClusterUnreachable: no Ray answers.
        SlurmMissing, SlurmSilent: no Slurm here, or no answer.
        ValueError: options that no cell can have.
    """
    check_options(options)
    with connected(options, place.folder / "scratch", code_of(queue)) as cluster:
        stop.listen()  # ray.init takes SIGTERM for itself
        on_ray = _ray_part(queue, options, stop, cluster) if options.backend == "auto" else None
        in_slurm = _slurm_part(queue, on_ray, options, place)
        dispatcher = dispatcher_for(in_slurm, options, screen, place)
        from orchestrator.backends.ray.tune import Watched, drain_with_tune, runs_inside_actor

        def leave() -> None:
            screen.message("Ray died; jobs in Slurm go on. Launch again to watch them.", "red")
            os._exit(EXIT_UNFINISHED)

        jobs = Watched(dispatcher, _made(cluster.scratch / "watched"))
        log = place.folder / "ray.log"
        with watched(leave), screen.live(queue), redirect_output(log):
            drain_with_tune(
                jobs,
                on_ray,
                inside=runs_inside_actor(options, cluster),
                cpus=options.cpus_per_rank,
            )
    queue.ended_early = queue.ended_early or in_slurm.ended_early
    log_request_count(dispatcher, screen)


def _ray_part(queue: Queue, options: LaunchOptions, stop: Stop, cluster: Cluster) -> SharedQueue:
    """The part of the queue that Ray takes."""
    gpus = gpus_per_rank(options, cluster)

    def dress(trial: Trial) -> Trial:
        return replace(
            trial,
            backend="ray",
            stop_file=str(stop.path),
            gpus_per_rank=gpus,
            scratch=str(cluster.scratch),
        )

    part = _part(queue, fits=lambda trial: fnmatch(trial.key, options.to_ray), dress=dress)
    part.slots = count_slots(options, cluster, gpus)
    return part


def _slurm_part(
    queue: Queue, on_ray: SharedQueue | None, options: LaunchOptions, place: GridPaths
) -> SharedQueue:
    """The part of the queue that Slurm takes: what fits, less what Ray takes at once."""

    def fits(trial: Trial) -> bool:
        if on_ray is None:
            return True
        if not fnmatch(trial.key, options.to_slurm):
            return False
        free = max(0, on_ray.slots - len(on_ray.running))
        firsts = [other for other in queue.waiting if on_ray.fits(other)][:free]
        return trial not in firsts

    part = _part(queue, fits=fits, dress=trial_for_slurm(options, registry_of(place)))
    if on_ray is not None:
        part.lock = on_ray.lock
    return part


def _part(
    queue: Queue, *, fits: Callable[[Trial], bool], dress: Callable[[Trial], Trial]
) -> SharedQueue:
    """A queue over the same waiting cells and outcomes."""
    same: dict[str, Any] = {
        item.name: getattr(queue, item.name)
        for item in fields(Queue)
        if item.name not in ("running", "slots", "ended_early")
    }
    return SharedQueue(**same, slots=queue.slots, fits=fits, dress=dress)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
