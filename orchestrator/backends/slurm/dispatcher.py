"""Turns a queue of cells into Slurm jobs and jobs into outcomes. Holds no state that matters.

Everything it knows stands in the grid's folder or in Slurm, so it may die at any moment: the jobs
go on, publish by themselves, and the next launch finds them.
"""

import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from datasets.errors import Unreachable
from orchestrator.backends.slurm.cell_job import JobReport, JobReports
from orchestrator.backends.slurm.registry import Job, JobRegistry, cancel, refusal, sighting_of
from orchestrator.execution.attempt import has_done_row
from orchestrator.execution.queue import Queue, everything
from orchestrator.execution.watchdog import recorded_outcome
from orchestrator.failures import Failure
from orchestrator.storage.root import root_of
from orchestrator.trial import Outcome, Trial
from slurm.commands import SlurmFull, SlurmRefused, SlurmSilent
from slurm.job_array import JobArray
from slurm.job_spec import JobSpec
from slurm.monitor import JobInfo, JobMonitor

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


def classify_exit(
    trial: Trial, seen: JobInfo, note: JobReport | None, *, before: int, log: Path
) -> Outcome:
    """The outcome of a job that is over.

    Args:
        trial: what it ran.
        seen: Slurm's last word about it.
        note: the job's own last word.
        before: newest attempt when the job was submitted.
        log: what it wrote to its errors.
    """
    root = root_of(trial)
    number = root.newest_attempt(trial.key)
    written = [note.outcome] if note is not None and note.outcome is not None else []
    told = recorded_outcome(root, trial.key, before)
    if told is not None:
        written.insert(0, told)
    final = [outcome for outcome in written if outcome.status in ("done", "failed", "busy")]
    if final:
        return final[0]
    if has_done_row(root, trial):
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


def _class_of(seen: JobInfo, log: Path, *, was_stopped: bool, began: bool) -> tuple[Failure, str]:
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


_FULL_SECONDS = 60.0  # between two tries at a full queue


@dataclass
class Dispatcher:
    """Submits, watches and judges the jobs of one launch.

    Attributes:
        queue: of the launch.
        job_spec_of: what a trial's job asks for, given how often it ran out of memory.
        max_array_size: jobs in one array.
        say: tells a person.
        started: told when a cell's job begins to run.
        fits: which waiting cells may go to Slurm.
        finish: takes the outcome of a job; the queue itself, unless somebody stands between.
    """

    queue: Queue
    desk: JobRegistry
    watch: JobMonitor
    job_spec_of: Callable[[Trial, int], JobSpec]
    max_array_size: int
    say: Callable[[str], None]
    started: Callable[[Trial], None]
    fits: Callable[[Trial], bool] = everything
    finish: Callable[[str, Outcome], None] | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    num_submissions: int = 0
    _chunk: int = 0
    _notes: dict[str, JobReport] = field(default_factory=dict)
    _mailbox: JobReports | None = None
    _doubts: dict[str, float] = field(default_factory=dict)  # since when, by batch name
    _oom_count: dict[str, int] = field(default_factory=dict)  # out-of-memory ends, by key
    _full_until: float = 0.0
    _was_silent: bool = False

    def __post_init__(self) -> None:
        self._chunk = self.max_array_size

    def attach(self) -> int:
        """Take over the jobs that an earlier launch left; returns how many.

        Raises:
            SlurmSilent: without an answer nobody can know which are alive.
        """
        known = self.desk.known()
        if not self.watch.look([]):
            raise SlurmSilent("squeue had no answer")
        by_key = {trial.key: trial for trial in self.queue.waiting if self.fits(trial)}
        stale = []
        for key, job in known.items():
            seen = self._sighting(job)
            if seen is None or seen.has_ended:
                continue
            if key in by_key and job.fingerprint == by_key[key].fingerprint:
                self.jobs[key] = job
            elif key in by_key:
                stale.append(seen.job_id)  # it would train another configuration than today's
        cancel(stale)
        others = sum(job.code != Path(by_key[key].code).name for key, job in self.jobs.items())
        if others:
            self.say(f"{others} jobs go on with the code of their own launch, which is not today's")
        for key in self.jobs:
            self._take(by_key[key])
        self.watch.poll_soon()
        return len(self.jobs)

    def step(self) -> None:
        """Read what the jobs say, ask Slurm if it is time to, submit what waits."""
        self._read_notes()
        if self.watch.is_due() and self.jobs:
            self._look()
        self._submit()

    def _take(self, trial: Trial) -> None:
        """Out of the queue's order, for a job that exists already."""
        self.queue.waiting.remove(trial)
        self.queue.waiting.insert(0, trial)
        self.queue.slots = max(self.queue.slots, len(self.queue.running) + 1)
        self.queue.take()

    def _sighting(self, job: Job) -> JobInfo | None:
        """Slurm's word on a job, also where its submission had no answer."""
        if job.job_id is None:
            job.batch.find_by_name(self.watch.seen)
        return sighting_of(job, self.watch.seen)

    def _read_notes(self) -> None:
        self._mailbox = self._mailbox or JobReports(self.desk.notes)
        for note in self._mailbox.news():
            job = self.jobs.get(note.key)
            if job is None or job.batch.name != note.batch:
                continue
            if job.job_id is None:  # an sbatch that failed and did submit
                job.batch.set_job_id(note.job_id.partition("_")[0])
            self._notes[note.key] = note
            if note.phase == "started":
                self.started(self.queue.running[note.key])
            elif note.outcome is not None and note.outcome.status != "stopped":
                self._settle(job, note.outcome)
            else:
                self.watch.poll_soon()  # stopped: only Slurm knows whether it starts again

    def _look(self) -> None:
        """One request about all jobs; no answer says nothing about any of them."""
        ids = [job.job_id for job in self.jobs.values() if job.job_id is not None]
        answered = self.watch.look(ids)
        if answered == self._was_silent:
            self._was_silent = not answered
            self.say("Slurm answers again." if answered else "Slurm does not answer; jobs go on.")
        if not answered:
            return
        for job in list(self.jobs.values()):
            if job.job_id is None:
                self._doubt(job)
            else:
                with suppress(Unreachable):  # the store is asked again at the next look
                    self._judge(job, job.job_id)

    def _doubt(self, job: Job) -> None:
        """A submission without an answer: found by its name, or known to have failed."""
        if job.batch.find_by_name(self.watch.seen):
            self._doubts.pop(job.batch.name, None)
            return
        since = self._doubts.setdefault(job.batch.name, time.monotonic())
        if time.monotonic() - since >= self.watch.certain_seconds:
            self._put_back(
                [self.queue.running[key] for key in job.batch.labels if key in self.jobs]
            )

    def _judge(self, job: Job, job_id: str) -> None:
        """Settle a job that certainly ended; a fresh claim on its folder says that it did not."""
        seen = self.watch.end_of(job_id)
        trial = self.queue.running[job.key]
        if seen is None or root_of(trial).lock_owner(job.key) is not None:
            return
        note = self._notes.get(job.key)
        log = job.batch.logs(job.key)[1]
        outcome = classify_exit(trial, seen, note, before=job.before, log=log)
        if outcome.status == "failed" and not seen.has_ended:
            cancel([job_id])  # it may come back; the claim would then keep it from running
        self._settle(job, outcome)

    def _settle(self, job: Job, outcome: Outcome) -> None:
        """Give the outcome to the queue, which decides what follows."""
        del self.jobs[job.key]
        self._notes.pop(job.key, None)
        if outcome.failure == Failure.out_of_memory.value:
            self._oom_count[job.key] = self._oom_count.get(job.key, 0) + 1
        (self.finish or self.queue.settle)(job.key, outcome)

    def _submit(self) -> None:
        """Hand over everything that waits, in arrays of one shape."""
        if time.monotonic() < self._full_until or self._was_silent:
            return
        taken: dict[JobSpec, list[Trial]] = {}
        while (trial := self.queue.take()) is not None:
            taken.setdefault(self.job_spec_of(trial, self._oom_count.get(trial.key, 0)), []).append(
                trial
            )
        for shape, trials in taken.items():
            while trials and time.monotonic() >= self._full_until:
                chunk, trials = trials[: self._chunk], trials[self._chunk :]
                self._submit_one(chunk, shape)
            self._put_back(trials)

    def _submit_one(self, trials: Sequence[Trial], shape: JobSpec) -> None:
        written = self.desk.write(trials, shape)
        self.jobs |= {job.key: job for job in written}
        batch: JobArray = written[0].batch
        self.num_submissions += 1
        try:
            batch.submit()
        except SlurmSilent as silent:
            self.say(f"sbatch had no answer ({silent}); looking for its jobs by name.")
        except SlurmRefused as refused:
            shutil.rmtree(batch.folder)
            raise refusal(refused) from None
        except SlurmFull as full:
            shutil.rmtree(batch.folder)
            self._put_back(trials)
            self._chunk = max(1, len(trials) // 2)
            if len(trials) == 1:
                self._full_until = time.monotonic() + _FULL_SECONDS
                self.say(f"{len(self.jobs)} jobs are in the queue, more are refused now: {full}")
        else:
            self._chunk = min(self.max_array_size, self._chunk * 2)
        self.watch.poll_soon()

    def _put_back(self, trials: Sequence[Trial]) -> None:
        """Let cells wait again; their jobs were never accepted."""
        for trial in reversed(trials):
            self.jobs.pop(trial.key, None)
            self.queue.running.pop(trial.key)
            self.queue.waiting.insert(0, trial)
