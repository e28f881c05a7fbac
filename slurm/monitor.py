"""Asks Slurm about all of a user's jobs at once, and decides when a job has certainly ended.

One answer is no proof: a job that is being requeued shows as failed for seconds, a controller that
was restarted may know less than before, and a finished job is forgotten after minutes.
"""

import getpass
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from slurm.commands import SlurmMissing, SlurmRefused, SlurmSilent, call

ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
_COLUMNS = "%i|%F|%T|%r|%N|%V|%j|%k"  # the comment last: it alone may hold the separator


@dataclass(frozen=True)
class JobInfo:
    """One job in one answer.

    Attributes:
        job_id: such as 17 or 17_3.
        array_id: of the whole array, or the job itself.
        state: such as PENDING, RUNNING or COMPLETED.
        reason: why it waits or ended, as Slurm names it, such as Resources; empty for none.
        nodes: where it runs or ran.
        submitted: when, in local time, such as 2026-05-01T09:30:00.
    """

    job_id: str
    array_id: str
    state: str
    reason: str = ""
    nodes: str = ""
    submitted: str = ""
    name: str = ""
    comment: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the state is one of an ended job; it may still be requeued."""
        return self.state in ENDED


def squeue(*, seconds: float = 60.0) -> dict[str, JobInfo]:
    """All jobs of this user that the controller remembers, by id, in one request.

    Args:
        seconds: to wait for it.

    Raises:
        SlurmSilent: no answer.
    """
    # -r: a line for each job of an array, also of waiting ones. -t all: ended jobs, too.
    words = ("squeue", "-h", "-r", "-t", "all", "-u", getpass.getuser(), "-o", _COLUMNS)
    lines = call(*words, seconds=seconds).splitlines()
    columns = [line.split("|", 7) for line in lines if line.count("|") >= 7]
    infos = {values[0]: JobInfo(*values) for values in columns}
    return {i: replace(info, reason=_value(info.reason)) for i, info in infos.items()}


def sacct(job_ids: Iterable[str]) -> dict[str, JobInfo]:
    """What the accounting database knows about jobs; nothing where there is none."""
    wanted = ",".join(job_ids)
    if not wanted:
        return {}
    try:
        # -X: jobs without their steps.
        answer = call("sacct", "-n", "-X", "-P", "-j", wanted, "-o", "JobID,State,NodeList")
    except (SlurmSilent, SlurmRefused, SlurmMissing):
        return {}
    infos = {}
    for line in answer.splitlines():
        job_id, state, nodes = line.split("|", 2)
        word = state.split()[0] if state else ""  # "CANCELLED by 1000"
        infos[job_id] = JobInfo(job_id, job_id.partition("_")[0], word, nodes=_value(nodes))
    return infos


def _value(word: str) -> str:
    """A column of an answer; where there is nothing to say, Slurm writes None or None assigned."""
    return "" if word.startswith("None") else word


@dataclass
class JobMonitor:
    """Asks about all jobs at once, and remembers since when each looks ended or is missing.

    Attributes:
        shortest_seconds: between two requests after news.
        longest_seconds: between two requests when nothing happens.
        certain_seconds: how long a job must look ended before that is believed.
        absent_seconds: how long it must be missing from every answer.
        has_accounting: whether sacct is worth a request.
        clock: seconds that only grow.
        num_requests: to Slurm so far.
        is_silent: whether the last request had no answer.
        infos: the newest answer, by job id.
    """

    shortest_seconds: float = 5.0
    longest_seconds: float = 60.0
    certain_seconds: float = 15.0
    absent_seconds: float = 300.0
    has_accounting: bool = True
    clock: Callable[[], float] = time.monotonic
    num_requests: int = 0
    is_silent: bool = False
    infos: dict[str, JobInfo] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)
    _wait: float = 0.0
    _next: float = float("-inf")

    def poll_soon(self) -> None:
        """Shorten the time to the next request, since something happened; later ones slow down."""
        self._wait = 0.0
        self._next = min(self._next, self.clock() + self.shortest_seconds)

    def is_due(self) -> bool:
        """Whether it is time for the next request."""
        return self.clock() >= self._next

    def look(self, job_ids: Iterable[str]) -> bool:
        """Ask about jobs; False when there was no answer, which says nothing about any job."""
        self._wait = min(max(self.shortest_seconds, self._wait * 1.5), self.longest_seconds)
        self._next = self.clock() + self._wait
        self.num_requests += 1
        try:
            self.infos = squeue()
        except SlurmSilent:
            self.is_silent = True
            return False
        self.is_silent = False
        wanted = list(job_ids)
        missing = [job_id for job_id in wanted if job_id not in self.infos]
        if missing and self.has_accounting:
            self.num_requests += 1
            # A controller that lost its state never tells the database that a job has ended.
            accounted = sacct(missing)
            self.infos |= {key: info for key, info in accounted.items() if info.has_ended}
        self._note_bad_news(wanted)
        return True

    def _note_bad_news(self, job_ids: Iterable[str]) -> None:
        """Record since when each of the jobs looks ended, or is missing."""
        now = self.clock()
        for job_id in job_ids:
            info = self.infos.get(job_id)
            if info is not None and not info.has_ended:
                self._since.pop(job_id, None)
            elif job_id not in self._since:
                self._since[job_id] = now
                self._next = min(self._next, now + self.certain_seconds)

    def end_of(self, job_id: str) -> JobInfo | None:
        """How a job ended, once that is certain; None for all others."""
        if job_id not in self._since or self.is_silent:
            return None
        age = self.clock() - self._since[job_id]
        info = self.infos.get(job_id)
        if info is None:
            gone = JobInfo(job_id, job_id.partition("_")[0], "GONE")
            return gone if age >= self.absent_seconds else None
        return info if age >= self.certain_seconds else None
