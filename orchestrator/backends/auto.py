"""The back end that runs one grid in two places: some cells on Ray, some as Slurm jobs.

A cell goes to the place whose rule (`to_ray`, `to_slurm`) it fits, and where both fit to Ray while
that has a free slot.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.backends.base import LaunchContext, Pool
from orchestrator.backends.ray.launch import RayPool, connected_tune
from orchestrator.backends.slurm.launch import check_site, dispatcher_for, watched_jobs

detaches = True


@contextmanager
def pools(context: LaunchContext) -> Iterator[Sequence[Pool]]:
    """The own or the joined Ray, and Slurm watched by the same Tune."""
    check_site(context)
    dispatcher = dispatcher_for(context, only=context.options.to_slurm)
    with connected_tune(context, "; jobs in Slurm go on. Launch again to watch them.") as tune:
        on_ray = RayPool(context.options, tune, only=context.options.to_ray)
        with watched_jobs(dispatcher, tune) as in_slurm:
            yield [on_ray, in_slurm]
    dispatcher.show_num_requests()
