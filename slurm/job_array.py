"""Submit calls as one array of jobs, and find it again whatever happened to the submitter.

A batch is a folder: the pickled calls, the script, the logs, and `job_id` once that is known. It is
written before anything is submitted, so a submitter that dies leaves nothing unexplained.
"""

import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor

from slurm.commands import call
from slurm.job_spec import JobSpec
from slurm.monitor import JobInfo

# A warning that comes while Python is still starting must not kill it: Slurm would call that a
# failure and never start the job again. Ignored signals stay ignored through exec.
_DEAF_START = 'sh -c \'trap "" USR2 TERM; exec "$@"\' sh'
_NAME_LIMIT = 200  # characters; sites cut or refuse longer job names


@dataclass(frozen=True)
class JobArray:
    """Jobs that were submitted together.

    Attributes:
        folder: of this batch alone, seen by all nodes.
        name: unlike that of any other batch; also the jobs' comment.
        labels: one per call, in array order.
    """

    folder: Path
    name: str
    labels: tuple[str, ...]

    @classmethod
    def write(
        cls, folder: Path, calls: Mapping[str, Callable[[], Any]], shape: JobSpec, title: str = ""
    ) -> "JobArray":
        """Lay down everything a submission needs.

        Args:
            folder: to be made; its name becomes part of the batch's.
            calls: what each job runs, by label; must be picklable.
            shape: what each job asks for.
            title: of what the jobs belong to.

        Raises:
            FileExistsError: the folder exists.
        """
        folder.mkdir(parents=True)
        name = f"{title}-{folder.name}" if title else folder.name
        executor = _executor(folder, shape, len(calls))
        # One job carries its call's label from the start; those of an array take theirs at start.
        job_name = next(iter(calls)) if len(calls) == 1 else name
        executor.update_parameters(job_name=job_name[:_NAME_LIMIT], comment=name)
        if len(calls) > 1:
            executor.parameters["map_count"] = len(calls)
        for index, function in enumerate(calls.values()):
            delayed = DelayedSubmission(function)
            delayed.set_timeout(shape.minutes, 0)
            delayed.dump(folder / _call_file(index))
        script = executor._make_submission_file_text(executor._submitit_command_str, "")
        (folder / "submission.sh").write_text(script)
        (folder / "batch.json").write_text(json.dumps({"name": name, "labels": list(calls)}))
        return cls(folder, name, tuple(calls))

    @classmethod
    def read(cls, folder: Path) -> "JobArray | None":
        """The batch of a folder; None where its writer died before it was complete."""
        try:
            found = json.loads((folder / "batch.json").read_text())
        except (OSError, ValueError):
            return None
        return cls(folder, found["name"], tuple(found["labels"]))

    @property
    def job_id(self) -> str | None:
        """Slurm's number for the whole batch; None while nobody knows it."""
        try:
            return (self.folder / "job_id").read_text()
        except OSError:
            return None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {label: index for index, label in enumerate(self.labels)}

    def job_of(self, label: str) -> str | None:
        """Slurm's number for one call."""
        job_id = self.job_id
        if job_id is None or len(self.labels) == 1:
            return job_id
        return f"{job_id}_{self._positions[label]}"

    def logs(self, label: str, task: int = 0) -> tuple[Path, Path]:
        """Files that hold what a job's task prints: its output and its errors."""
        job = self.job_of(label)
        stem = f"{job}_{task}_log"
        return self.folder / f"{stem}.out", self.folder / f"{stem}.err"

    def submit(self) -> str:
        """Hand the batch to Slurm; returns the job id.

        Raises:
            SlurmSilent: no answer; the batch may have been accepted, see `recognise`.
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
        """Ask Slurm whether it would take the batch, and when the first job would start.

        Raises:
            SlurmSilent: no answer.
            SlurmRefused: it would not.
        """
        return call("sbatch", "--test-only", str(self.folder / "submission.sh"), keep_errors=True)

    def find_by_name(self, sightings: Mapping[str, JobInfo]) -> bool:
        """Look for a batch whose submission had no answer; True when it was accepted after all."""
        own = [
            seen.array_id for seen in sightings.values() if self.name in (seen.comment, seen.name)
        ]
        if own:
            self.set_job_id(own[0])
        return bool(own)

    def set_job_id(self, job_id: str) -> None:
        """Note the job id, and give the calls the names under which submitit looks for them."""
        for index, label in enumerate(self.labels):
            source = self.folder / _call_file(index)
            job = job_id if len(self.labels) == 1 else f"{job_id}_{index}"
            if source.exists():
                source.rename(self.folder / f"{job}_submitted.pkl")
            assert label
        part = self.folder / "job_id.tmp"
        part.write_text(job_id)
        part.replace(self.folder / "job_id")


def _executor(folder: Path, shape: JobSpec, num_jobs: int) -> SlurmExecutor:
    """Submitit's view of a shape."""
    python = shape.python or shlex.quote(sys.executable)
    executor = SlurmExecutor(folder, python=f"{_DEAF_START} {python}")
    executor.update_parameters(**shape.parameters(num_jobs))
    return executor


def _call_file(index: int) -> str:
    return f"call-{index:05d}.pkl"
