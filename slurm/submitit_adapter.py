"""The only use of submitit in this project: scripts for sbatch, and pickled calls.

submitit's public `map_array` writes, submits and renames in one step, and one that dies or gets no
answer from Slurm in between leaves jobs without their calls. Here the three are apart: everything
is written first, `JobArray` calls `sbatch`, and the calls get the names under which a job looks for
them by any process that learns its number. submitit's own start of a job takes %j and %t anywhere
in a path for the job's number and task; folders may be called like that, so jobs start with
`slurm.job_start`. Only the text of the script has no public function in submitit 1.5.4;
`tests/slurm/test_submitit_adapter.py` fails with both texts side by side if another version writes
it differently.
"""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from submitit.core.logger import get_logger
from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor

from slurm.commands import SlurmMissing
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

    Raises:
        SlurmMissing: submitit finds no srun.
    """
    if SlurmExecutor.affinity() < 0:
        raise SlurmMissing("srun")
    folder = folder.absolute()
    python = spec.python or shlex.quote(sys.executable)
    command = f"{_DEAF_START} {python} -u -m slurm.job_start {shlex.quote(str(folder))}"
    parameters = spec.parameters(num_jobs) | {"job_name": job_name, "comment": comment}
    # Slurm fills in %j and its kin in the whole path, and reads %% as a percent sign.
    escaped = Path(str(folder).replace("%", "%%"))
    output, error = log_files(escaped, "%A_%a" if num_jobs > 1 else "%j")
    parameters["additional_parameters"] |= {"output": output, "error": error}
    mark = shlex.quote(str(failure_mark(folder)))
    on_failure = f"|| {{ code=$?; touch {mark}; exit $code; }}"
    # submitit's own srun would name logs, too; srun 22.05 reads %% in two ways, so tasks open them.
    srun = shlex.join(["srun", "--unbuffered", *parameters["srun_args"]])
    executor = SlurmExecutor(folder)
    executor.update_parameters(**parameters, use_srun=False)
    if num_jobs > 1:
        executor.parameters["map_count"] = num_jobs
    # The only private name of submitit in this project.
    return str(executor._make_submission_file_text(f"{srun} {command} {on_failure}", ""))


def write_call(path: Path, call: Callable[[], Any]) -> None:
    """Pickle what a job runs; it must be picklable."""
    DelayedSubmission(call).dump(path)


def run_call(path: Path) -> None:
    """Run what `write_call` wrote."""
    logger = get_logger()
    logger.info(f"Loading {path}")
    DelayedSubmission.load(path).result()
    logger.info("Exiting after successful completion")


def call_file(folder: Path, job_id: str) -> Path:
    """Where a job looks for its call."""
    return folder / f"{job_id}_submitted.pkl"


def failure_mark(folder: Path) -> Path:
    """A file that a job of the folder touches when it fails, also where its program was killed."""
    return folder / "failed"


def log_files(folder: Path, job_id: str, task: int = 0) -> tuple[Path, Path]:
    """Where a job's task prints; the first one's are also what Slurm and srun say of the job."""
    return folder / f"{job_id}_{task}_log.out", folder / f"{job_id}_{task}_log.err"
