"""One launch with Ray Tune as its controller, and its cells in Slurm, or on Ray and in Slurm."""

import os
from collections.abc import Callable
from dataclasses import fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from orchestrator.backends.shared_queue import SharedQueue
from orchestrator.backends.slurm_jobs import check_options
from orchestrator.backends.slurm_launch import (
    desk_of,
    dispatcher_for,
    dress_for,
    say_requests,
)
from orchestrator.options import LaunchOptions
from orchestrator.places import GridPlace
from orchestrator.queue import Queue
from orchestrator.ray_cluster import Cluster, connected
from orchestrator.ray_launch import code_of, count_places, elsewhere, gpus_per_rank
from orchestrator.ray_watch import watched
from orchestrator.screen import Screen
from orchestrator.stopping import EXIT_UNFINISHED, Stop
from orchestrator.trial import Trial


def drain_mixed(
    queue: Queue, options: LaunchOptions, stop: Stop, *, screen: Screen, place: GridPlace
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
        from orchestrator.backends.slurm_tune import Watched, drain_with_tune
        from orchestrator.ray_tune import runs_inside_actor

        def leave() -> None:
            screen.say("Ray died; jobs in Slurm go on. Launch again to watch them.", "red")
            os._exit(EXIT_UNFINISHED)

        jobs = Watched(dispatcher, _made(cluster.scratch / "watched"))
        log = place.folder / "ray.log"
        with watched(leave), screen.live(queue), elsewhere(log):
            drain_with_tune(
                jobs,
                on_ray,
                inside=runs_inside_actor(options, cluster),
                cpus=options.cpus_per_rank,
            )
    queue.ended_early = queue.ended_early or in_slurm.ended_early
    say_requests(dispatcher, screen)


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
    part.places = count_places(options, cluster, gpus)
    return part


def _slurm_part(
    queue: Queue, on_ray: SharedQueue | None, options: LaunchOptions, place: GridPlace
) -> SharedQueue:
    """The part of the queue that Slurm takes: what fits, less what Ray takes at once."""

    def fits(trial: Trial) -> bool:
        if on_ray is None:
            return True
        if not fnmatch(trial.key, options.to_slurm):
            return False
        free = max(0, on_ray.places - len(on_ray.running))
        firsts = [other for other in queue.waiting if on_ray.fits(other)][:free]
        return trial not in firsts

    part = _part(queue, fits=fits, dress=dress_for(options, desk_of(place)))
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
        if item.name not in ("running", "places", "ended_early")
    }
    return SharedQueue(**same, places=queue.places, fits=fits, dress=dress)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
