"""Runs fake trials for a few minutes as Slurm jobs, to see how jobs on this cluster are ended.

Each fake trial counts steps in a file and reacts to signals as a real one does. It is warned,
requeued, killed or runs out of its time, and must still do every step exactly once, in order.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.wording import quantity
from orchestrator.backends.slurm.launch import monitor_for
from orchestrator.backends.slurm.registry import cancel, check_options, job_spec_of
from orchestrator.doctor.checks import Check
from orchestrator.options import LaunchOptions
from orchestrator.storage.root import Root
from orchestrator.trial import Trial
from slurm.cluster import site
from slurm.commands import SlurmRefused, SlurmSilent, call
from slurm.job_array import JobArray
from slurm.job_runtime import JobContext, Signals, requeue
from slurm.job_spec import JobSpec
from slurm.monitor import JobMonitor

_STEP_SECONDS = 0.5
_LONGEST_SECONDS = 15 * 60.0
_LOOK_SECONDS = 1.0
_START_STEPS = 10  # done before anything is done to a trial


_SHARED = (
    "Choose a root=DIR that every node sees under the same path, and a Python that nodes see too; "
    "slurm.setup and slurm.python help."
)
_REQUEUE = (
    "Ask the site to allow requeueing (JobRequeue=1, scontrol requeue); without it such jobs go on "
    "only while a launch watches."
)


@dataclass(frozen=True)
class FakeTrial:
    """Counts steps in a file; ends at a signal and goes on in the next start."""

    path: Path
    num_steps: int

    def __call__(self) -> None:
        """Run inside a job."""
        here, signals = JobContext.from_environment(), Signals().listen()
        while (done := len(steps_in(self.path))) < self.num_steps:
            line = json.dumps([done, here.job_id, here.restart, os.uname().nodename])
            with self.path.open("a") as file:
                file.write(line + "\n")
            time.sleep(_STEP_SECONDS)
            if signals.asked:
                requeue(here.job_id, signals.received)
                return


def steps_in(path: Path) -> list[list[int | str]]:
    """The steps of a fake trial: number, job, start of the job, node."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    steps = []
    for line in lines:
        with suppress(ValueError):
            steps.append(json.loads(line))
    return steps


@dataclass
class Case:
    """One thing that happens to a fake trial.

    Attributes:
        proven: what the case shows, for the user.
        harm: makes the command that does it from the job id; None for what happens by itself.
        starts: starts of jobs, at least, without which it did not happen.
        advice: what to do where it fails.
    """

    name: str
    proven: str
    harm: Callable[[str], tuple[str, ...]] | None
    starts: int
    advice: str
    num_steps: int = 50
    batch: JobArray | None = None
    is_harmed: bool = False
    problem: str = ""

    def path(self, folder: Path) -> Path:
        """File of its steps."""
        return folder / f"{self.name}.steps"

    def verdict(self, folder: Path) -> str:
        """What is wrong with the steps; empty if they are right."""
        steps = steps_in(self.path(folder))
        numbers = [step[0] for step in steps]
        starts = {(step[1], step[2]) for step in steps}
        if self.problem or len(numbers) < self.num_steps:
            return self.problem or f"stayed at step {len(numbers)} of {self.num_steps}"
        if numbers != list(range(self.num_steps)):
            return "steps are missing or were done twice: two starts ran at once"
        if len(starts) < self.starts:
            return f"ran in {quantity(len(starts), 'start')}, so what should happen to it did not"
        return ""


def cases() -> list[Case]:
    """All cases."""
    return [
        Case("submit", "a job starts, finds Python and this folder", None, 1, _SHARED, num_steps=5),
        Case("warn", "a warned job goes on in its next start", _signal("USR2"), 2, _REQUEUE),
        Case("requeue", "a preempted job goes on", _requeue, 2, _REQUEUE),
        Case("kill", "a killed job is noticed and submitted again", _signal("KILL"), 2, _SHARED),
        Case("time", "a job that runs out of its time goes on", None, 2, _REQUEUE, num_steps=240),
    ]


def drill(
    options: LaunchOptions,
    root: Root,
    on_message: Callable[[str], None],
    tried: Sequence[Case] = (),
) -> list[Check]:
    """Run all cases at once, wait for their ends, and check their steps.

    Args:
        options: of the launch that is planned.
        root: that the options name; every node must see its folder.
        on_message: shows a line of text to the user.
        tried: the cases to run; all when empty.

    Raises:
        SlurmMissing, SlurmSilent, SlurmRefused: no Slurm, no answer, or it refuses the jobs.
    """
    check_options(options)
    folder = root.folder / "drill" / uuid.uuid4().hex[:8]
    folder.mkdir(parents=True)
    shape = replace(_shape(options), minutes=1, signal_seconds=20)
    watch = monitor_for(options, site())
    watch.longest_seconds = min(watch.longest_seconds, 10.0)
    tried = tried or cases()
    for case in tried:
        _submit(case, folder, shape)
    on_message(f"{quantity(len(tried), 'fake trial')} of up to 2 minutes run in {folder}")
    give_up = time.monotonic() + _LONGEST_SECONDS
    while any(not _is_over(case, folder) for case in tried) and time.monotonic() < give_up:
        if watch.is_due():
            watch.look(_jobs(tried))
        for case in tried:
            _advance(case, folder, shape, watch)
        time.sleep(_LOOK_SECONDS)
    cancel(_jobs(tried))
    return [_check(case, folder) for case in tried]


def _check(case: Case, folder: Path) -> Check:
    """The result of a case as a check."""
    problem = case.verdict(folder)
    if problem:
        return Check(f"drill: {case.name}", "broken", f"{case.proven}: {problem}", case.advice)
    nodes = sorted({str(step[3]) for step in steps_in(case.path(folder))})
    return Check(f"drill: {case.name}", "works", f"{case.proven} ({', '.join(nodes)})")


def _shape(options: LaunchOptions) -> JobSpec:
    """What a real cell's job asks for, but one task without GPU."""
    trial = Trial("drill", "", "", options.root, "slurm", "", cpus_per_rank=1)
    return job_spec_of(trial, replace(options.slurm, nodes=1))


def _submit(case: Case, folder: Path, shape: JobSpec) -> None:
    """Submit a new job for a case; all but that of the case `time` get more time than they need."""
    longer = shape if case.name == "time" else replace(shape, minutes=30)
    trial = FakeTrial(case.path(folder), case.num_steps)
    jobs = folder / f"{case.name}-{uuid.uuid4().hex[:6]}"
    case.batch = JobArray.write(jobs, {f"drill.{case.name}": trial}, longer, "drill")
    case.batch.submit()


def _advance(case: Case, folder: Path, shape: JobSpec, watch: JobMonitor) -> None:
    """Do the harm once the trial has started; submit a job again that was killed."""
    job = _job(case)
    if job is None or _is_over(case, folder):
        return
    if case.harm and not case.is_harmed and len(steps_in(case.path(folder))) >= _START_STEPS:
        case.is_harmed = True
        try:
            call(*case.harm(job))
        except (SlurmRefused, SlurmSilent) as error:
            case.problem = str(error)
    seen = watch.end_of(job)
    if seen is not None and case.name == "kill":
        _submit(case, folder, shape)
    elif seen is not None:
        log = case.batch.logs(f"drill.{case.name}")[1] if case.batch else folder
        case.problem = f"its job ended as {seen.state} and was not started again; see {log}"


def _is_over(case: Case, folder: Path) -> bool:
    return bool(case.problem) or len(steps_in(case.path(folder))) >= case.num_steps


def _job(case: Case) -> str | None:
    return case.batch.job_id if case.batch is not None else None


def _jobs(tried: Sequence[Case]) -> list[str]:
    return [job for case in tried if (job := _job(case)) is not None]


def _requeue(job: str) -> tuple[str, ...]:
    return ("scontrol", "requeue", job)


def _signal(name: str) -> Callable[[str], tuple[str, ...]]:
    return lambda job: ("scancel", f"--signal={name}", job)
