"""The only use of submitit in this project, in three functions.

submitit's public `map_array` writes, submits and renames in one step, and one that dies or gets no
answer from Slurm in between leaves jobs without their calls. Here the three are apart: everything
is written first, `JobArray` calls `sbatch`, and the calls get the names under which a job looks for
them by any process that learns its number. Only the text of the script has no public function in
submitit 1.5.4; `tests/slurm/test_submitit_adapter.py` fails with both texts side by side if another
version writes it differently.
"""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.slurm.slurm import SlurmExecutor

from slurm.job_spec import JobSpec

# A warning that comes while Python is still starting must not kill it: Slurm would call that a
# failure and never start the job again. Ignored signals stay ignored through exec.
_DEAF_START = 'sh -c \'trap "" USR2 TERM; exec "$@"\' sh'


def script_text(folder: Path, spec: JobSpec, num_jobs: int, *, job_name: str, comment: str) -> str:
    """The script for sbatch whose jobs run the calls in a folder.

    Args:
        folder: of the calls and the logs, seen by all nodes.
        spec: what each job asks for.
        num_jobs: more than one make an array.
        job_name: of every job, until it is renamed.
        comment: of every job.
    """
    python = spec.python or shlex.quote(sys.executable)
    executor = SlurmExecutor(folder, python=f"{_DEAF_START} {python}")
    executor.update_parameters(**spec.parameters(num_jobs), job_name=job_name, comment=comment)
    if num_jobs > 1:
        executor.parameters["map_count"] = num_jobs
    # The only private names of submitit in this project.
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def write_call(path: Path, call: Callable[[], Any], minutes: int) -> None:
    """Pickle what a job runs.

    Args:
        path: of the file.
        call: must be picklable.
        minutes: time limit of the job.
    """
    delayed = DelayedSubmission(call)
    delayed.set_timeout(minutes, 0)  # a job that was stopped asks for its next start itself
    delayed.dump(path)


def paths_of_job(folder: Path, job_id: str, task: int = 0) -> JobPaths:
    """Where a job looks for its call, and where its task prints."""
    return JobPaths(folder, job_id=job_id, task_id=task)
