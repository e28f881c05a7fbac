"""The back end that runs one grid in two places: some cells on Ray, some as Slurm jobs.

The options `to_ray` and `to_slurm` say which cells may go where. A cell that both accept goes to
Ray while Ray has a free slot.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.backends.base import LaunchContext, Pool
from orchestrator.backends.ray.launch import RayPool, connected_tune
from orchestrator.backends.slurm.launch import checked_dispatcher, watched_jobs

detaches = True
ignores = ()


@contextmanager
def pools(context: LaunchContext) -> Iterator[Sequence[Pool]]:
    """Two pools: Ray (own or joined), and Slurm jobs watched by the same Ray Tune."""
    dispatcher = checked_dispatcher(context, only=context.options.to_slurm)
    with connected_tune(context) as tune:
        on_ray = RayPool(context, tune, only=context.options.to_ray)
        with watched_jobs(dispatcher, tune) as in_slurm:
            yield [on_ray, in_slurm]
    dispatcher.show_num_requests()
