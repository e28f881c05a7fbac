"""The jobs of a grid, kept on disk so that any later launch finds them, and what a job asks for."""

import json
import re
import shlex
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.backends.base import worker_environment
from orchestrator.backends.slurm.cell_job import CellJob
from orchestrator.options import LaunchOptions, SlurmOptions
from orchestrator.storage.open import root_of
from orchestrator.trial import Trial
from slurm.commands import SlurmFull, SlurmRefused, SlurmSilent, call
from slurm.job_array import JobArray, array_name
from slurm.job_spec import JobSpec
from slurm.monitor import JobInfo

_SHORTEST_RUN = 30  # seconds of a job before its warning, else it may still be starting


@dataclass
class Job:
    """A cell's newest job.

    Attributes:
        before: newest attempt of the cell before the job was submitted.
        fingerprint: of the configuration that it runs.
        code: sha256 of the code that it runs; empty for the checkout of that moment.
    """

    key: str
    array: JobArray
    before: int
    fingerprint: str
    code: str = ""

    @property
    def job_id(self) -> str | None:
        """Slurm's number; None while it is unknown whether the job was accepted."""
        return self.array.job_of(self.key)


@dataclass(frozen=True)
class JobRegistry:
    """The folder of a grid's jobs: arrays, job reports, stop file.

    Attributes:
        folder: ``<root>/grids/<name>/slurm``, seen by all nodes.
        grid: name, part of the job names.
        job: makes the call of a cell from its trial, the reports' folder and the array's name.
    """

    folder: Path
    grid: str
    job: Callable[[str, str, str], Callable[[], Any]] = CellJob

    @property
    def reports(self) -> Path:
        """Folder of the job reports."""
        return self.folder / "notes"

    @property
    def stop_file(self) -> Path:
        """Asks every job of the grid to checkpoint and end for good."""
        return self.folder / "stop"

    def write(self, trials: Sequence[Trial], spec: JobSpec) -> list[Job]:
        """Write an array of jobs to disk; nothing is submitted yet."""
        folder = self.folder / "batches" / uuid.uuid4().hex[:10]
        name = array_name(folder, self.grid)
        calls = {t.key: self.job(t.to_json(), str(self.reports), name) for t in trials}
        befores = {t.key: root_of(t).newest_attempt(t.key) for t in trials}
        array = JobArray.write(folder, calls, spec, self.grid)
        facts: dict[str, tuple[int, str, str]] = {
            t.key: (befores[t.key], t.fingerprint, Path(t.code).name) for t in trials
        }
        # Last: `known` finds an array by this file, so one that is cut short here is ignored.
        (folder / "cells.json").write_text(json.dumps(facts))
        return [Job(key, array, *values) for key, values in facts.items()]

    def known(self) -> dict[str, Job]:
        """The newest job of every cell that ever had one."""
        jobs: dict[str, Job] = {}
        # In the order of writing, so that a cell keeps its newest job.
        files = (self.folder / "batches").glob("*/cells.json")
        for path in sorted(files, key=lambda file: file.stat().st_mtime_ns):
            array = JobArray.read(path.parent)
            if array is None:
                continue
            for key, facts in json.loads(path.read_text()).items():
                jobs[key] = Job(key, array, *facts)
        return jobs


def job_logs(key: str, grids: Path) -> list[Path]:
    """Where the newest job of a cell that Slurm started prints to; nothing without one.

    Args:
        key: of the cell.
        grids: folder of the folders of grids.
    """
    files = grids.glob("*/slurm/batches/*/cells.json")
    for path in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        array = JobArray.read(path.parent) if json.dumps(key) in path.read_text() else None
        logs = array.logs(key) if array is not None else ()
        if any(log.exists() for log in logs):
            return list(logs)
    return []


def info_of(job: Job, infos: Mapping[str, JobInfo]) -> JobInfo | None:
    """What Slurm last said about a job; None without an answer about it.

    Slurm's numbers start again after the largest (MaxJobId), so one may belong to another job by
    now; the comment tells.
    """
    info = infos.get(job.job_id or "")
    is_other = info is not None and info.comment and info.comment != job.array.name
    return None if is_other else info


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs; those that have ended already are no error."""
    for start in range(0, len(job_ids), 500):  # a command line has a limited length
        with suppress(SlurmRefused, SlurmSilent, SlurmFull):
            call("scancel", *job_ids[start : start + 500])


# What to change, by what a refusal names.
_REMEDIES = (
    ("Wall|TimeLimit|time limit", "slurm.minutes"),
    ("Mem", "slurm.memory_gb"),
    ("C[Pp][Uu]|[Pp]rocessor", "ranks and cpus_per_rank"),
    ("G[Rr][Ee][Ss]|TRES|[Gg][Pp][Uu]", "ranks and gpus_per_rank"),
    ("Node(?!List)", "slurm.nodes"),
    ("SubmitJob", "slurm.max_jobs"),
    ("[Pp]artition", "slurm.partition"),
    ("[Aa]ccount", "slurm.account"),
    ("[Qq][Oo][Ss]", "slurm.qos"),
)
_ANY_OPTION = "slurm.partition, slurm.account, slurm.qos or what a job asks for"


def refusal(text: str) -> ValueError:
    """The error for the user whose jobs Slurm refuses.

    Args:
        text: Slurm's own words.
    """
    limit = re.search(r"\b[A-Z]\w*(Limit|Per[A-Z]\w*)\b", text)  # says more than its sentence
    named = [option for pattern, option in _REMEDIES if re.search(pattern, (limit or [text])[0])]
    return ValueError(
        f"Slurm refuses the jobs: {text}. Correct {' or '.join(named[:2]) or _ANY_OPTION}; "
        "`python -m orchestrator doctor slurm=...` tries it again."
    )


def job_spec_of(trial: Trial, options: SlurmOptions, *, memory_factor: float = 1.0) -> JobSpec:
    """What the job of a trial asks for."""
    environment = worker_environment(trial.code)
    if trial.code:
        # Otherwise Python would import from the folder that the job starts in, before the copy.
        environment["PYTHONSAFEPATH"] = "1"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return JobSpec(
        partition=options.partition,
        account=options.account,
        qos=options.qos,
        gpus_per_task=int(trial.gpus_per_rank),
        cpus_per_task=trial.cpus_per_rank,
        memory_gb=options.memory_gb * memory_factor,
        minutes=options.minutes,
        nodes=options.nodes,
        tasks_per_node=trial.ranks // options.nodes,
        constraint=options.constraint,
        signal_seconds=options.signal_seconds,
        at_once=options.at_once,
        extra=tuple(_pair(word) for word in options.extra),
        setup=(*lines, *options.setup),
        python=options.python,
    )


def check_options(options: LaunchOptions) -> None:
    """Check the options that only jobs have.

    Raises:
        ValueError: options that no job can have; says which.
    """
    for word in options.slurm.extra:
        _pair(word)
    if options.ranks % options.slurm.nodes:
        raise ValueError(
            f"ranks={options.ranks} cannot be spread evenly over slurm.nodes={options.slurm.nodes}."
        )
    if options.gpus_per_rank > 0 and options.gpus_per_rank != int(options.gpus_per_rank):
        raise ValueError(
            f"gpus_per_rank={options.gpus_per_rank}: Slurm gives whole GPUs; use 1, or backend=ray "
            "to share one."
        )
    if options.slurm.controller not in ("tune", "plain"):
        raise ValueError(f"slurm.controller={options.slurm.controller}: known are tune, plain.")
    if not options.slurm.minutes:
        raise ValueError("slurm.minutes=0: a job needs a time limit, such as 240.")
    if 60 * options.slurm.minutes - options.slurm.signal_seconds < _SHORTEST_RUN:
        raise ValueError(
            f"slurm.minutes={options.slurm.minutes} with slurm.signal_seconds="
            f"{options.slurm.signal_seconds}: the warning would come while a job still starts, as "
            "Slurm may send it a minute early; use more minutes or fewer seconds."
        )


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise ValueError(f"slurm.extra={word!r}: write key=value, such as reservation=paper.")
    return key, value
