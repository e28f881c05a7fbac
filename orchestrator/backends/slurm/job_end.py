"""How a job of Slurm ended: from what it wrote itself, Slurm's answer, and the lines of its log."""

import re
from collections.abc import Sequence
from pathlib import Path

from orchestrator.backends.slurm.cell_job import JobReport
from orchestrator.execution.attempt import has_done_row
from orchestrator.execution.watchdog import recorded_outcome
from orchestrator.failures import Failure
from orchestrator.storage.open import root_of
from orchestrator.trial import Outcome, Trial
from slurm.monitor import JobInfo

_UNSEEN = (
    "it could not even write {}; choose a root=DIR that every node sees under the same path "
    "(`python -m orchestrator doctor --drill` tries it)"
)
_TAIL = 4000  # characters of a log
_BY_STATE = {
    "TIMEOUT": Failure.timed_out,
    "DEADLINE": Failure.timed_out,
    "PREEMPTED": Failure.preempted,
    "NODE_FAIL": Failure.node_lost,
    "BOOT_FAIL": Failure.node_lost,
    "OUT_OF_MEMORY": Failure.out_of_memory,
}
# What Slurm and the kernel leave in a job's errors; many sites report these ends as FAILED.
_BY_TEXT = (
    (r"oom[-_]kill|exceeded memory limit|Out Of Memory", Failure.out_of_memory),
    (r"DUE TO TIME LIMIT", Failure.timed_out),
    (r"DUE TO PREEMPTION|DUE TO JOB REQUEUE", Failure.preempted),
    (r"DUE TO NODE FAILURE", Failure.node_lost),
    # A rank above 0; it may end the job before rank 0 has written its report.
    (r"DeviceError: ", Failure.no_device),
    (r"ModuleNotFoundError|command not found|No such file or directory", Failure.bad_config),
)


def classify_exit(
    trial: Trial, info: JobInfo, report: JobReport | None, *, before: int, log: Path
) -> Outcome:
    """The outcome of a job that is over.

    Args:
        trial: what it ran.
        info: what Slurm last said about it.
        report: the newest report of the job, if there is one.
        before: newest attempt when the job was submitted.
        log: file of its standard error.
    """
    root = root_of(trial)
    number = root.newest_attempt(trial.key)
    own_words = [recorded_outcome(root, trial.key, before), report.outcome if report else None]
    written = [outcome for outcome in own_words if outcome is not None]
    final = [outcome for outcome in written if outcome.status in ("done", "failed", "busy")]
    if final:
        return final[0]
    if has_done_row(root, trial, number):
        return Outcome("done", number, is_published=True)
    if info.state == "CANCELLED":
        return Outcome("stopped", number, error_text=f"job {info.job_id} was cancelled")
    if info.state == "FAILED" and number <= before and not log.exists():
        failure, sign = Failure.bad_config, _UNSEEN.format(log)
    else:
        failure, sign = _class_of(info, log, was_stopped=bool(written), began=number > before)
    nodes = f" on {info.nodes}" if info.nodes else ""
    text = f"job {info.job_id}{nodes} ended as {info.state}{f': {sign}' if sign else ''}"
    return Outcome("failed", number if number > before else 0, failure.value, text)


def _class_of(info: JobInfo, log: Path, *, was_stopped: bool, began: bool) -> tuple[Failure, str]:
    """The class of a failed job, and the line of its log that shows it."""
    lines = _lines_of(log)
    if info.state in _BY_STATE:
        return _BY_STATE[info.state], ""
    if was_stopped:
        return Failure.preempted, "it stopped at a signal"
    for line in reversed(lines):
        for pattern, failure in _BY_TEXT:
            # Once training began, a missing file is the trial's own matter.
            if re.search(pattern, line) and not (began and failure is Failure.bad_config):
                return failure, line
    return Failure.node_lost, lines[-1] if lines else ""


def _lines_of(log: Path) -> list[str]:
    """The last lines of a log; none where there is no log."""
    try:
        text = log.read_text(errors="replace")[-_TAIL:]
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def reason_before_attempt(
    job_id: str, info: JobInfo | None, report: JobReport | None, log: Path
) -> str:
    """Why a job ended before an attempt at its cell began, in one line.

    Args:
        job_id: of the job.
        info: what Slurm still says about it; None where it has forgotten the job.
        report: what the job wrote about itself, if it came so far.
        log: file of its standard error.
    """
    nodes = f" on {info.nodes}" if info and info.nodes else ""
    ended = f"job {job_id}{nodes} ended" + (f" as {info.state}" if info else "")
    said = report.outcome.error_text if report and report.outcome else ""
    lines = said.strip().splitlines() or _lines_of(log)
    if lines:
        return f"{ended} before an attempt began: {_telling(lines)}"
    hint = "" if info else f"; `sacct -j {job_id}` may say why"
    return f"{ended} before {'an attempt' if log.exists() else 'it'} began{hint}"


def _telling(lines: Sequence[str]) -> str:
    """The newest line that shows why a job ended, else the last one."""
    known = [line for line in lines if any(re.search(sign, line) for sign, _ in _BY_TEXT)]
    return next(reversed(known), lines[-1] if lines else "")
