"""How a job ended that Slurm no longer runs: the files it left first, Slurm's word second."""

import re
from pathlib import Path

from orchestrator import sight
from orchestrator.backends.slurm_notes import Note
from orchestrator.failures import Failure
from orchestrator.hang_guard import last_words
from orchestrator.places import Places
from orchestrator.rows import has_done_row
from orchestrator.trial import Outcome, Trial
from slurm.sightings import Sighting

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
    (r"ModuleNotFoundError|command not found|No such file or directory", Failure.bad_config),
)


def verdict(trial: Trial, seen: Sighting, note: Note | None, *, before: int, log: Path) -> Outcome:
    """The outcome of a job that is over.

    Args:
        trial: what it ran.
        seen: Slurm's last word about it.
        note: the job's own last word.
        before: newest attempt when the job was submitted.
        log: what it wrote to its errors.
    """
    place = Places.at(trial.root).run(trial.key)
    number, place = sight.newest_attempt(place), sight.seen(place)
    written = [note.outcome] if note is not None and note.outcome is not None else []
    told = last_words(place, before)
    if told is not None:
        written.insert(0, told)
    final = [outcome for outcome in written if outcome.status in ("done", "failed", "busy")]
    if final:
        return final[0]
    if has_done_row(trial):
        return Outcome("done", number, is_published=True)
    if seen.state == "CANCELLED":
        return Outcome("stopped", number, error_text=f"job {seen.job_id} was cancelled")
    if seen.state == "FAILED" and number <= before and not log.exists():
        failure, sign = Failure.bad_config, _UNSEEN.format(log)
    else:
        failure, sign = _class_of(seen, log, was_stopped=bool(written), began=number > before)
    nodes = f" on {seen.nodes}" if seen.nodes else ""
    text = f"job {seen.job_id}{nodes} ended as {seen.state}{f': {sign}' if sign else ''}"
    return Outcome("failed", number if number > before else 0, failure.value, text)


def _class_of(seen: Sighting, log: Path, *, was_stopped: bool, began: bool) -> tuple[Failure, str]:
    """The class, and the line of the log that shows it."""
    try:
        text = log.read_text(errors="replace")[-_TAIL:]
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if seen.state in _BY_STATE:
        return _BY_STATE[seen.state], ""
    if was_stopped:
        return Failure.preempted, "it stopped at a signal"
    for line in reversed(lines):
        for pattern, failure in _BY_TEXT:
            # Once training began, a missing file is the trial's own matter.
            if re.search(pattern, line) and not (began and failure is Failure.bad_config):
                return failure, line
    return Failure.node_lost, lines[-1] if lines else ""
