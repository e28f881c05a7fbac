"""Slurm as a pool: submits cells as jobs, and turns Slurm's answers and job reports into outcomes.

All state is kept in the grid's folder or in Slurm, so the dispatcher may die at any moment: the
jobs go on, publish by themselves, and the next launch finds them.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from datasets.errors import Unreachable
from datasets.wording import quantity
from orchestrator.backends.base import Pool, PoolEvent
from orchestrator.backends.slurm.cell_job import JobReport, JobReports
from orchestrator.backends.slurm.job_end import classify_exit
from orchestrator.backends.slurm.registry import Job, JobRegistry, cancel, info_of, refusal
from orchestrator.display.format import cells_text
from orchestrator.execution.allowance import Allowance
from orchestrator.failures import Failure
from orchestrator.storage.open import root_of
from orchestrator.trial import Outcome, Trial
from slurm.commands import SlurmFull, SlurmRefused, SlurmSilent, SlurmUnclear
from slurm.job_array import JobArray
from slurm.job_spec import JobSpec
from slurm.monitor import JobInfo, JobMonitor, squeue

_NO_MEMORY = (
    "jobs have the memory that this Slurm gives those that ask for none: set slurm.memory_gb=N, "
    "which is doubled for a cell that needs more"
)
_STEP_SECONDS = 1.0  # between two readings of the job reports, which lie on a shared disk
_FULL_SECONDS = 60.0  # between two tries at a full queue
_PATIENCE_SECONDS = 1800.0  # with refusals that pass, if they do, without an end of our own jobs


@dataclass
class Dispatcher(Pool):
    """Submits and watches the jobs of one launch, and classifies their ends.

    Attributes:
        registry: of the grid's jobs.
        monitor: asks Slurm about all jobs at once.
        job_spec_of: what a trial's job asks for, given how often it ran out of memory.
        prepare_trial: the trial as it is written into a job.
        max_jobs: in Slurm's queue at once.
        max_array_size: jobs in one array.
        on_message: shows a line of text to the user.
        only: keys of the cells that may run here, as a glob.
        where: name of the cluster, for messages.
        clock: seconds that only grow.
        limit: of the launch; jobs that wait and no longer fit are cancelled.
        must_end: whether all jobs shall checkpoint and end for good, if there is a limit.
        jobs: of the cells that are in this pool, by key.
    """

    registry: JobRegistry
    monitor: JobMonitor
    job_spec_of: Callable[[Trial, int], JobSpec]
    prepare_trial: Callable[[Trial], Trial]
    max_jobs: int
    max_array_size: int
    on_message: Callable[[str], None]
    only: str = "*"
    where: str = "Slurm"
    clock: Callable[[], float] = time.monotonic
    detaches: bool = True
    limit: Allowance | None = None
    must_end: Callable[[], bool] = lambda: False
    jobs: dict[str, Job] = field(default_factory=dict)
    num_submissions: int = 0
    _trials: dict[str, Trial] = field(default_factory=dict)  # of the jobs, by key
    _news: list[PoolEvent] = field(default_factory=list)
    _job_reports: dict[str, JobReport] = field(default_factory=dict)  # the newest of each cell
    _unanswered_since: dict[str, float] = field(default_factory=dict)  # sbatch, by array name
    _failures: dict[str, float] = field(default_factory=dict)  # newest of each array
    _oom_count: dict[str, int] = field(default_factory=dict)  # out-of-memory ends, by key
    _full_until: float = float("-inf")
    # The first and the newest of refusals that may pass, with nothing between them that gives hope.
    _refused: tuple[float, SlurmFull | SlurmUnclear] | None = None
    _next_step: float = float("-inf")
    _was_silent: bool = False

    def __post_init__(self) -> None:
        self.slots = self.max_jobs
        self._chunk = self.max_array_size
        self._reader = JobReports(self.registry.reports)

    def accepts(self, trial: Trial) -> bool:
        """Whether the cell's key is among those that may run here."""
        return fnmatch(trial.key, self.only)

    def prepare(self, trial: Trial) -> Trial:
        """The trial as it is written into a job."""
        return self.prepare_trial(trial)

    def adopt(self, waiting: Sequence[Trial]) -> list[str]:
        """Take over the jobs that an earlier launch left.

        Raises:
            SlurmSilent: without an answer it is unknown which of them are alive.
        """
        known = self.registry.known()
        self.registry.stop_file.unlink(missing_ok=True)  # of a launch that had a limit
        if not self.monitor.look([]):
            raise SlurmSilent("squeue had no answer")
        by_key = {trial.key: self.prepare(trial) for trial in waiting if self.accepts(trial)}
        stale = []
        for key, job in known.items():
            info = self._info(job)
            if info is None or info.has_ended:
                continue
            if key in by_key and job.fingerprint == by_key[key].fingerprint:
                self.jobs[key], self._trials[key] = job, by_key[key]
            elif key in by_key:
                stale.append(info.job_id)  # it would train another configuration than today's
        cancel(stale)
        others = sum(job.code != Path(by_key[key].code).name for key, job in self.jobs.items())
        if others:
            self.on_message(
                f"{others} jobs go on with the code of their own launch, which is not today's"
            )
        self.on_message(
            f"{cells_text(len(waiting))} on {self.where}, at most {quantity(self.max_jobs, 'job')} "
            "in the queue; still going on from an earlier "
            f"launch: {quantity(len(self.jobs), 'job')}"
        )
        self.monitor.poll_soon()
        return list(self.jobs)

    def start(self, trials: Sequence[Trial]) -> None:
        """Submit cells, in arrays of jobs that ask for the same.

        Raises:
            ValueError: Slurm refuses such jobs.
        """
        self._trials |= {trial.key: trial for trial in trials}
        by_spec: dict[JobSpec, list[Trial]] = {}
        for trial in trials:
            spec = self.job_spec_of(trial, self._oom_count.get(trial.key, 0))
            by_spec.setdefault(spec, []).append(trial)
        for spec, rest in by_spec.items():
            while rest and self.clock() >= self._full_until:
                chunk, rest = rest[: self._chunk], rest[self._chunk :]
                self._submit(chunk, spec)
            self._put_back([trial.key for trial in rest])

    def poll(self) -> list[PoolEvent]:
        """Read what the jobs say, and ask Slurm if it is time to."""
        if self.clock() >= self._next_step:
            self._next_step = self.clock() + _STEP_SECONDS
            self._read_reports()
            self._note_failures()
            if self.limit is not None and self.must_end() and not self._has_stop_file():
                self.registry.stop_file.touch()
                self.monitor.poll_soon()
            if self.monitor.is_due() and self.jobs:
                self._look()
        # No free slot while Slurm takes no jobs.
        is_blocked = self._was_silent or self.clock() < self._full_until
        self.slots = len(self.jobs) if is_blocked else self.max_jobs
        news, self._news = self._news, []
        return news

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """Cancel the jobs that are left when the block ends, however it ends."""
        try:
            yield
        finally:
            unanswered = [job for job in self.jobs.values() if job.job_id is None]
            if unanswered and self.monitor.look([]):
                for job in unanswered:
                    job.array.find_by_name(self.monitor.infos)
            cancel([job.job_id for job in self.jobs.values() if job.job_id is not None])

    def show_num_requests(self) -> None:
        """Show how much the launch asked of Slurm's controller."""
        number = self.monitor.num_requests + self.num_submissions
        self.on_message(
            f"{quantity(number, 'request')} to Slurm, "
            f"{quantity(self.num_submissions, 'submission')} among them"
        )

    def _info(self, job: Job) -> JobInfo | None:
        """What Slurm last said about a job, also about one whose submission had no answer."""
        if job.job_id is None:
            job.array.find_by_name(self.monitor.infos)
        return info_of(job, self.monitor.infos)

    def _read_reports(self) -> None:
        for report in self._reader.news():
            job = self.jobs.get(report.key)
            if job is None or job.array.name != report.batch:
                continue  # of an earlier job of the cell
            if job.job_id is None:  # an sbatch without an answer that did submit
                job.array.set_job_id(report.job_id.partition("_")[0])
            self._job_reports[report.key] = report
            if report.phase == "started":
                self._news.append(PoolEvent(report.key, "running"))
            elif report.outcome is not None and report.outcome.status != "stopped":
                self._finish(report.key, report.outcome)
            elif report.outcome is not None and self._has_stop_file():
                self._finish(report.key, report.outcome)  # for good
            else:
                self.monitor.poll_soon()  # stopped: only Slurm knows whether it starts again
                if self.limit is not None:
                    self.limit.cut_off(report.key)

    def _note_failures(self) -> None:
        """Ask Slurm soon where a job failed, perhaps without a report because it was killed."""
        arrays = {job.array.name: job.array for job in self.jobs.values()}
        newest = {name: array.newest_failure for name, array in arrays.items()}
        if any(at != self._failures.get(name, 0.0) for name, at in newest.items()):
            self.monitor.poll_soon()
        self._failures = newest

    def _look(self) -> None:
        """Ask Slurm about all jobs in one request; without an answer nothing changes."""
        ids = [job.job_id for job in self.jobs.values() if job.job_id is not None]
        answered = self.monitor.look(ids)
        if answered == self._was_silent:
            self._was_silent = not answered
            self.on_message(
                "Slurm answers again." if answered else "Slurm does not answer; jobs go on."
            )
        if not answered:
            return
        for job in list(self.jobs.values()):
            if job.key not in self.jobs:
                continue  # put back with another job of its array
            if job.job_id is None:
                self._look_for(job)
            else:
                with suppress(Unreachable):  # the store is asked again at the next look
                    self._judge(job, job.job_id)
        if self.limit is not None:
            self._keep_limit(self.limit)

    def _keep_limit(self, limit: Allowance) -> None:
        """Cancel waiting jobs: all at the end of a limit, before it the last that is too much."""
        infos = {key: self._info(job) for key, job in self.jobs.items()}
        waiting = {key: info for key, info in infos.items() if info and info.state == "PENDING"}
        if self._has_stop_file():  # running ones checkpoint and end by themselves
            cancel([info.job_id for info in waiting.values()])
            return
        for key in reversed(waiting):
            if not limit.fits(key):
                cancel([waiting[key].job_id])
                self._put_back([key])
                self.monitor.poll_soon()
                return  # the others may fit without it

    def _has_stop_file(self) -> bool:
        """Whether the jobs of this launch were asked to end for good."""
        return self.registry.stop_file.exists()

    def _look_for(self, job: Job) -> None:
        """Find a submission that had no answer by its name, or conclude that it failed."""
        if job.array.find_by_name(self.monitor.infos):
            self._unanswered_since.pop(job.array.name, None)
            return
        since = self._unanswered_since.setdefault(job.array.name, self.clock())
        if self.clock() - since >= self.monitor.certain_seconds:
            self._put_back([key for key in job.array.labels if key in self.jobs])

    def _judge(self, job: Job, job_id: str) -> None:
        """Finish a job that has certainly ended.

        A fresh lock of its run directory shows that it still runs, whatever Slurm says.
        """
        info = self.monitor.end_of(job_id)
        trial = self._trials[job.key]
        if info is None or root_of(trial).lock_owner(job.key) is not None:
            return
        report = self._job_reports.get(job.key)
        log = job.array.logs(job.key)[1]
        outcome = classify_exit(trial, info, report, before=job.before, log=log)
        if outcome.status == "failed" and not info.has_ended:
            # In no answer of Slurm any more, which is no proof: were it alive after all, it and the
            # next attempt would compete for the run directory.
            cancel([job_id])
        self._finish(job.key, outcome)

    def _finish(self, key: str, outcome: Outcome) -> None:
        """Report how a cell's job ended."""
        # With a next rung it was the memory of the card or of one allocation, not that of the job.
        if outcome.failure == Failure.out_of_memory.value and not outcome.next_memory:
            self._oom_count[key] = self._oom_count.get(key, 0) + 1
            if not self.job_spec_of(self._trials[key], 0).memory_gb:
                text = f"{outcome.error_text}; {_NO_MEMORY}".removeprefix("; ")
                outcome = replace(outcome, error_text=text)
        self._forget(key)
        self._news.append(PoolEvent(key, "ended", outcome))

    def _submit(self, trials: Sequence[Trial], spec: JobSpec) -> None:
        """Hand one array to Slurm.

        Raises:
            ValueError: Slurm refuses such jobs, or has taken none for a long time.
        """
        self._check_patience()
        written = self.registry.write(trials, spec)
        self.jobs |= {job.key: job for job in written}
        array: JobArray = written[0].array
        self.num_submissions += 1
        try:
            array.submit()
        except SlurmSilent as silent:
            self.on_message(f"sbatch had no answer ({silent}); looking for its jobs by name.")
        except SlurmUnclear as unclear:
            # Perhaps accepted after all, as without an answer; looked for and else tried again.
            self._wait(f"Slurm takes no jobs for now: {unclear}; trying again.")
            self._note_refusal(unclear)
        except SlurmRefused as refused:
            # It was never accepted; left on disk it would count as the newest job of its cells.
            shutil.rmtree(array.folder)
            raise refusal(str(refused)) from None
        except SlurmFull as full:
            shutil.rmtree(array.folder)
            self._put_back(array.labels)
            # An array is accepted or refused as a whole; a smaller one may still fit.
            self._chunk = max(1, len(trials) // 2)
            if len(trials) == 1:
                self._wait(
                    f"{quantity(len(self.jobs), 'job')} in the queue, more are refused now: {full}"
                )
                # With none of the user's jobs in the queue, none will end and make room.
                self._note_refusal(None if self.jobs or _has_jobs() else full)
        else:
            self._note_refusal(None)
            self._chunk = min(self.max_array_size, self._chunk * 2)
        self.monitor.poll_soon()

    def _wait(self, why: str) -> None:
        """Submit nothing for some time."""
        self._full_until = self.clock() + _FULL_SECONDS
        self.on_message(why)

    def _note_refusal(self, error: SlurmFull | SlurmUnclear | None) -> None:
        """Remember since when Slurm refuses without hope; None is an answer that gives hope."""
        since = self._refused[0] if self._refused else self.clock()
        self._refused = (since, error) if error else None

    def _check_patience(self) -> None:
        """Give up after a long time of refusals.

        Raises:
            ValueError: says what Slurm said, and what to change.
        """
        if self._refused and self.clock() - self._refused[0] >= _PATIENCE_SECONDS:
            minutes = f"{_PATIENCE_SECONDS / 60:.0f}"
            raise refusal(f"{self._refused[1]}, for {minutes} minutes now")

    def _put_back(self, keys: Sequence[str]) -> None:
        """Let cells wait again, in their order; their jobs were never accepted."""
        for key in reversed(keys):  # each goes to the front of the queue
            self._forget(key)
            self._news.append(PoolEvent(key, "no room"))

    def _forget(self, key: str) -> None:
        self.jobs.pop(key, None)
        self._trials.pop(key)
        self._job_reports.pop(key, None)


def _has_jobs() -> bool:
    """Whether the user has any job in Slurm's queue."""
    try:
        return any(not info.has_ended for info in squeue().values())
    except SlurmSilent:
        return True  # not known
