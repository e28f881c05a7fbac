"""Adds the state "queued" to a plan: cells whose job waits in Slurm.

By the files under the root such a cell is missing, interrupted or failed; only Slurm knows of its
job.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.planning.plan import Plan, PlannedCell, QueuedJob, State

if TYPE_CHECKING:
    from slurm.monitor import JobInfo

_WAITING = (State.missing, State.interrupted, State.failed)
_ANSWER_SECONDS = 20.0
_asked: list[tuple[float, "Mapping[str, JobInfo]"]] = []  # when Slurm answered last, and what


def with_queued_jobs(plan: Plan, *, pause_seconds: float = 0.0) -> tuple[Plan, str]:
    """The plan with its queued cells, after one request to Slurm at most.

    Nothing is asked while the grid never had a job there.

    Args:
        plan: made from the files under the root.
        pause_seconds: an answer that is younger is used again.

    Returns:
        The plan, and why Slurm could not be asked; empty when it was or need not be.
    """
    folder = plan.root.grid(plan.grid.name).folder / "slurm"
    if not folder.exists():
        return plan, ""
    # Here and not above: most grids never see Slurm.
    from orchestrator.backends.slurm.registry import Job, JobRegistry, info_of
    from slurm.commands import SlurmMissing, SlurmRefused, SlurmSilent
    from slurm.monitor import squeue

    registry = JobRegistry(folder, plan.grid.name)
    waiting = {cell.key: cell for cell in plan.cells if cell.state in _WAITING}
    jobs = {key: job for key, job in registry.known().items() if key in waiting}
    if not jobs:
        return plan, ""
    try:
        if not _asked or time.monotonic() - _asked[-1][0] >= pause_seconds:
            _asked[:] = [(time.monotonic(), squeue(seconds=_ANSWER_SECONDS))]
        infos = _asked[-1][1]
    except (SlurmMissing, SlurmSilent, SlurmRefused) as error:
        return plan, f"Cells may be queued in Slurm, which cannot be asked: {error}"

    def job_of(job: Job) -> QueuedJob | None:
        if job.job_id is None:
            job.array.find_by_name(infos)  # an sbatch without an answer that did submit
        info = info_of(job, infos)
        if info is None or info.has_ended:
            return None
        return QueuedJob(info.job_id, info.state, info.reason, info.submitted)

    queued = {key: alive for key, job in jobs.items() if (alive := job_of(job)) is not None}
    stale = {key for key in queued if jobs[key].fingerprint != waiting[key].fingerprint}
    cells = (
        _queued(c, queued[c.key], c.key in stale) if c.key in queued else c for c in plan.cells
    )
    return replace(plan, cells=tuple(cells)), ""


def _queued(cell: PlannedCell, job: QueuedJob, is_stale: bool) -> PlannedCell:
    """The cell of a waiting job."""
    why = f"job {job.job_id} {job.state.lower()} ({job.reason}) since {job.since}"
    if cell.state is State.interrupted:
        why += f"; {cell.why}"
    if is_stale:
        why += "; of another configuration than today's: launch replaces it"
    return replace(cell, state=State.queued, why=why, job=job)
