"""Submits calls as one array of jobs, and finds the array again if the submitter died.

An array is a folder: the pickled calls, the script, the logs, and `job_id` once that is known. It
is written before anything is submitted, so every job in the queue belongs to a known folder.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from slurm.commands import call
from slurm.job_spec import JobSpec
from slurm.monitor import JobInfo
from slurm.submitit_adapter import call_file, failure_mark, log_files, script_text, write_call

_NAME_LIMIT = 200  # characters; sites cut or refuse longer job names


@dataclass(frozen=True)
class JobArray:
    """Jobs that were submitted together.

    Attributes:
        folder: of this array alone, seen by all nodes.
        name: different for every array; also the comment of the jobs.
        labels: one per call, in array order.
    """

    folder: Path
    name: str
    labels: tuple[str, ...]

    @classmethod
    def write(
        cls, folder: Path, calls: Mapping[str, Callable[[], Any]], spec: JobSpec, title: str = ""
    ) -> "JobArray":
        """Write everything that a submission needs to the folder.

        Args:
            folder: to be made; its name becomes part of the array's.
            calls: what each job runs, by label; must be picklable.
            spec: what each job asks for.
            title: first part of the name, such as that of a grid.

        Raises:
            FileExistsError: the folder exists.
        """
        folder.mkdir(parents=True)
        name = array_name(folder, title)
        # The jobs of an array share a name in the script; each is renamed when it starts.
        job_name = next(iter(calls)) if len(calls) == 1 else name
        for index, function in enumerate(calls.values()):
            write_call(folder / _call_file(index), function)
        script = script_text(
            folder, spec, len(calls), job_name=job_name[:_NAME_LIMIT], comment=name
        )
        (folder / "submission.sh").write_text(script)
        # Last: `read` takes a folder without it as incomplete.
        (folder / "batch.json").write_text(json.dumps({"name": name, "labels": list(calls)}))
        return cls(folder, name, tuple(calls))

    @classmethod
    def read(cls, folder: Path) -> "JobArray | None":
        """The array of a folder; None where its writer died before it was complete."""
        try:
            facts = json.loads((folder / "batch.json").read_text())
        except (OSError, ValueError):
            return None
        return cls(folder, facts["name"], tuple(facts["labels"]))

    @property
    def job_id(self) -> str | None:
        """Slurm's number for the whole array; None while it is not known."""
        try:
            return (self.folder / "job_id").read_text()
        except OSError:
            return None

    @property
    def newest_failure(self) -> float:
        """When a job of it last failed, by the clock of its node; 0 where none did."""
        try:
            return failure_mark(self.folder).stat().st_mtime
        except OSError:
            return 0.0

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {label: index for index, label in enumerate(self.labels)}

    def job_of(self, label: str) -> str | None:
        """Slurm's number for one call."""
        job_id = self.job_id
        return None if job_id is None else self._job_at(job_id, self._positions[label])

    def logs(self, label: str, task: int = 0) -> tuple[Path, Path]:
        """Files that hold what a job's task prints: its output and its errors."""
        return log_files(self.folder, str(self.job_of(label)), task)

    def submit(self) -> str:
        """Hand the array to Slurm; returns the job id.

        Raises:
            SlurmSilent: no answer; the array may have been accepted, see `find_by_name`.
            SlurmFull: a limit on the number of jobs.
            SlurmRefused: it will never be accepted.
        """
        said = call("sbatch", str(self.folder / "submission.sh"))
        number = re.search(r"job (\d+)", said)
        if number is None:
            raise RuntimeError(f"sbatch answered {said!r}, which names no job.")
        self.set_job_id(number.group(1))
        return number.group(1)

    def test(self) -> str:
        """Ask Slurm whether it would take the array, and when the first job would start.

        Raises:
            SlurmSilent: no answer.
            SlurmRefused: it would not.
        """
        return call("sbatch", "--test-only", str(self.folder / "submission.sh"), keep_errors=True)

    def find_by_name(self, infos: Mapping[str, JobInfo]) -> bool:
        """Look for an array whose submission had no answer; True when it was accepted after all."""
        own = [info.array_id for info in infos.values() if self.name in (info.comment, info.name)]
        if own:
            self.set_job_id(own[0])
        return bool(own)

    def set_job_id(self, job_id: str) -> None:
        """Store the job id, and rename the calls to the names under which their jobs look for them.

        A job that starts before the renaming waits for its file, for a minute.
        """
        for index in range(len(self.labels)):
            source = self.folder / _call_file(index)
            if source.exists():
                source.rename(call_file(self.folder, self._job_at(job_id, index)))
        # The number last: after a kill in between it is found again, and the rest is renamed.
        part = self.folder / "job_id.tmp"
        part.write_text(job_id)
        part.replace(self.folder / "job_id")

    def _job_at(self, job_id: str, index: int) -> str:
        """Slurm's number of one job, such as 17_3; a single call is no array."""
        return job_id if len(self.labels) == 1 else f"{job_id}_{index}"


def array_name(folder: Path, title: str = "") -> str:
    """Name of the array in a folder, without characters that Slurm's answers could not hold.

    They part their columns by `|`, and a client writes other letters than ASCII as its locale does.
    """
    name = f"{title}-{folder.name}" if title else folder.name
    return re.sub(r"[^A-Za-z0-9._+=@-]", "_", name)


def _call_file(index: int) -> str:
    return f"call-{index:05d}.pkl"
