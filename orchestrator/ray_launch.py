"""Bring a queue to Ray: connect, count the places, run, and leave."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

from orchestrator.options import LaunchOptions
from orchestrator.places import GridPlace
from orchestrator.queue import Queue
from orchestrator.ray_cluster import Cluster, connected
from orchestrator.ray_watch import watched
from orchestrator.screen import Screen
from orchestrator.stopping import EXIT_UNFINISHED, Stop


def drain_on_ray(
    queue: Queue, options: LaunchOptions, stop: Stop, *, screen: Screen, place: GridPlace
) -> None:
    """Run the queue on an own or a joined Ray until it is over.

    Raises:
        ClusterUnreachable: no Ray answers.
        ValueError: one trial asks for more than the whole cluster has.
    """
    with connected(options, place.folder / "scratch", code_of(queue)) as cluster:
        stop.listen()  # ray.init takes SIGTERM for itself
        gpus = gpus_per_rank(options, cluster)
        queue.places = count_places(options, cluster, gpus)
        queue.waiting = [
            replace(trial, gpus_per_rank=gpus, scratch=str(cluster.scratch))
            for trial in queue.waiting
        ]
        where = "own local Ray" if cluster.is_own else f"Ray at {options.ray_address}"
        screen.say(
            f"{len(queue.waiting)} cells, {queue.places} at once, {options.ranks} ranks each, "
            f"on {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs of {where}"
        )
        from orchestrator.ray_tune import drain

        def leave() -> None:
            screen.say("Ray died. Launch again: every cell goes on from its checkpoint.", "red")
            os._exit(EXIT_UNFINISHED)

        log = place.folder / "ray.log"
        with watched(leave), screen.live(queue), elsewhere(log):
            drain(queue, options, cluster)


def code_of(queue: Queue) -> str:
    """Where the launch keeps its copy of the code."""
    return next((trial.code for trial in queue.waiting), "")


@contextmanager
def elsewhere(log: Path) -> Iterator[None]:
    """Send what Ray prints to a file; what matters arrives as an outcome."""
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        yield


def gpus_per_rank(options: LaunchOptions, cluster: Cluster) -> float:
    """What was asked for, or one where there are GPUs."""
    if options.gpus_per_rank >= 0:
        return options.gpus_per_rank
    return 1.0 if cluster.gpus >= 1 else 0.0


def count_places(options: LaunchOptions, cluster: Cluster, gpus: float) -> int:
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
