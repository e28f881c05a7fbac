"""What every task of a job starts with: `python -m slurm.job_start FOLDER` runs the job's call."""

import os
import sys
import time
from pathlib import Path

from slurm.job_runtime import JobContext
from slurm.submitit_adapter import call_file, log_files, run_call

_WAIT_SECONDS = 60.0  # for the submitter to learn the job's number and name its call by it


def main(folder: Path) -> None:
    """Run the call of this job, once it is there; print to the logs of this task from now on.

    Args:
        folder: of the array.

    Raises:
        FileNotFoundError: the call did not come in time.
    """
    here = JobContext.from_environment()
    for stream, log in zip((1, 2), log_files(folder, here.job_id, here.rank), strict=True):
        with log.open("ab") as file:
            os.dup2(file.fileno(), stream)
    path = call_file(folder, here.job_id)
    give_up = time.monotonic() + _WAIT_SECONDS
    while not path.exists():
        if time.monotonic() > give_up:
            raise FileNotFoundError(
                f"{path} did not come in {_WAIT_SECONDS:.0f} s. Launch again: what has no job is "
                "submitted anew. If it happens again, see whether the nodes see that folder."
            )
        time.sleep(0.2)
    run_call(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
