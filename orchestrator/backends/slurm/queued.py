"""Adds to a plan what only jobs of Slurm know: which cells are queued, and which were killed.

By the files under the root a queued cell is missing, interrupted or failed; and of a job that was
killed before its attempt began nothing is there but the job's own log.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.planning.plan import Plan, PlannedCell, QueuedJob, State

if TYPE_CHECKING:
    from orchestrator.backends.slurm.registry import Job, JobRegistry
    from slurm.monitor import JobInfo

_WAITING = (State.missing, State.interrupted, State.failed)
_ANSWER_SECONDS = 20.0
_asked: list[tuple[float, "Mapping[str, JobInfo]"]] = []  # when Slurm answered last, and what


def with_queued_jobs(plan: Plan, *, pause_seconds: float = 0.0) -> tuple[Plan, str]:
    """The plan with what became of the cells' jobs, after one request to Slurm at most.

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
    from orchestrator.backends.slurm.registry import JobRegistry
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

    with_jobs = {key: _with_job(waiting[key], job, infos, registry) for key, job in jobs.items()}
    return replace(plan, cells=tuple(with_jobs.get(cell.key, cell) for cell in plan.cells)), ""


def _with_job(
    cell: PlannedCell, job: "Job", infos: "Mapping[str, JobInfo]", registry: "JobRegistry"
) -> PlannedCell:
    """The cell with what became of its job."""
    from orchestrator.backends.slurm.registry import info_of

    if job.job_id is None:
        job.array.find_by_name(infos)  # an sbatch without an answer that did submit
    info = info_of(job, infos)
    is_stale = job.fingerprint != cell.fingerprint
    if info is not None and not info.has_ended:
        return _queued(cell, info, is_stale)
    is_newest = job.before >= cell.attempt  # no attempt began since it was submitted
    if job.job_id is None or is_stale or not is_newest or cell.state is State.failed:
        return cell
    return _killed(cell, job, info, registry)


def _queued(cell: PlannedCell, info: "JobInfo", is_stale: bool) -> PlannedCell:
    """The cell of a job that waits, or that Slurm has just started."""
    job = QueuedJob(info.job_id, info.state, info.reason, info.submitted)
    reason = f" ({job.reason})" if job.reason else ""
    why = f"job {job.job_id} {job.state.lower()}{reason} since {job.since}"
    if job.state == "RUNNING":
        why = f"job {job.job_id} begins on {info.nodes}, submitted {job.since}"
    if cell.state is State.interrupted:
        why += f"; {cell.why}"
    if is_stale:
        why += "; of another configuration than today's: launch replaces it"
    return replace(cell, state=State.queued, why=why, job=job)


def _killed(
    cell: PlannedCell, job: "Job", info: "JobInfo | None", registry: "JobRegistry"
) -> PlannedCell:
    """The cell of a job that ended before an attempt began; cut off if the job had begun."""
    from orchestrator.backends.slurm.cell_job import read_report
    from orchestrator.backends.slurm.job_end import reason_before_attempt

    log = job.array.logs(cell.key)[1]
    report = read_report(registry.reports / f"{cell.key}.json")
    own = report if report is not None and report.batch == job.array.name else None
    reason = reason_before_attempt(str(job.job_id), info, own, log)
    had_begun = own is not None or log.exists() or bool(info and info.nodes)
    if cell.state is State.missing and had_begun:
        return replace(cell, state=State.interrupted, why=reason)
    return replace(cell, why=f"{cell.why}; {reason}")
