"""Runs inside a job: its number and rank, its signals, its requeue, and how its tasks connect."""

import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from slurm.commands import SlurmMissing, SlurmRefused, SlurmSilent, call

WARNING = signal.SIGUSR2  # what submitit asks Slurm to send ahead of the time limit
_MEETING_SECONDS = 600.0  # for task 0 to write its address
_TRIES = 10  # to reach a controller that does not answer


@dataclass(frozen=True)
class JobContext:
    """Which job, which start of it, and which of its tasks this process is."""

    job_id: str
    restart: int
    rank: int
    num_tasks: int
    local_rank: int

    @classmethod
    def from_environment(cls) -> "JobContext":
        """From the variables that Slurm sets for a task."""
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        return cls(
            job_id=f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"],
            restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            rank=int(os.environ.get("SLURM_PROCID", "0")),
            num_tasks=int(os.environ.get("SLURM_NTASKS", "1")),
            local_rank=int(os.environ.get("SLURM_LOCALID", "0")),
        )


class Signals:
    """Remembers which signal asked the job to end.

    The handler only records it: other work in a handler would see half-changed state.

    Attributes:
        received: "" until then; "SIGUSR2" is a warning after which the job should requeue itself,
            "SIGTERM" comes from preemption without warning, from scancel or from the time limit.
    """

    def __init__(self) -> None:
        self.received = ""

    def listen(self) -> "Signals":
        """Install the handlers; until then a job ignores both signals."""
        for number in (WARNING, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        # Slurm sends it together with SIGTERM, to wake suspended jobs.
        signal.signal(signal.SIGCONT, lambda number, frame: None)
        return self

    @property
    def asked(self) -> bool:
        """Whether the job shall end."""
        return bool(self.received)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # The warning stays the reason when SIGTERM follows it.
        self.received = self.received or signal.Signals(number).name


def requeue(job_id: str, received: str) -> str:
    """Make a job that stopped at a signal start again later.

    After a warning the job itself asks Slurm for a requeue. SIGTERM without a warning has three
    causes: a preemption with a grace time (the job still counts as RUNNING, and would not start
    again if it ended now, so it asks), a preemption without one (Slurm requeues the job), and
    scancel by a person (the job must not start again).

    Args:
        job_id: of this job.
        received: the signal.

    Returns:
        Empty when the job will start again or shall not; else why it cannot.
    """
    if received != WARNING.name and _state(job_id) != "RUNNING":
        return ""
    return _requeue(job_id)


def rename(job_id: str, name: str) -> None:
    """Rename a running job, for squeue; a failure is ignored."""
    try:
        call("scontrol", "update", f"JobId={job_id}", f"JobName={name}", seconds=10)
    except (SlurmMissing, SlurmRefused, SlurmSilent):
        return


def rendezvous(here: JobContext, folder: Path) -> dict[str, str]:
    """The environment by which torch.distributed joins the tasks of this start of the job.

    Task 0 chooses a free port on its host and writes it to a file.

    Args:
        here: this task.
        folder: seen by all tasks.

    Raises:
        TimeoutError: task 0 wrote no file in time.
    """
    step = os.environ.get("SLURM_STEP_ID", "0")
    path = folder / f"meeting-{here.job_id}-{here.restart}-{step}.json"
    if here.rank == 0:
        part = path.with_suffix(".tmp")  # renamed, so that no task reads half a file
        part.write_text(json.dumps({"host": socket.gethostname(), "port": _free_port()}))
        part.replace(path)
    address = _read_soon(path)
    return {
        "MASTER_ADDR": str(address["host"]),
        "MASTER_PORT": str(address["port"]),
        "RANK": str(here.rank),
        "WORLD_SIZE": str(here.num_tasks),
        "LOCAL_RANK": str(here.local_rank),
        "LOCAL_WORLD_SIZE": os.environ.get("SLURM_NTASKS_PER_NODE", str(here.num_tasks)),
    }


def _state(job_id: str) -> str:
    """State of this job now, such as RUNNING; empty without an answer."""
    try:
        return call("squeue", "-h", "-j", job_id, "-o", "%T", seconds=30).strip()
    except (SlurmMissing, SlurmRefused, SlurmSilent):
        return ""


def _requeue(job_id: str) -> str:
    """Ask Slurm to start this job again; returns the error, or an empty string."""
    problem = ""
    for _ in range(_TRIES):
        try:
            call("scontrol", "requeue", job_id, seconds=30)
        except SlurmSilent as silent:
            problem = str(silent)
            time.sleep(3.0)
        except (SlurmRefused, SlurmMissing) as error:
            return str(error)
        else:
            return ""
    return problem


def _read_soon(path: Path) -> dict[str, str | int]:
    """The contents of a file that another task writes."""
    give_up = time.monotonic() + _MEETING_SECONDS
    while True:
        try:
            facts: dict[str, str | int] = json.loads(path.read_text())
        except OSError:
            if time.monotonic() > give_up:
                raise TimeoutError(f"Task 0 never wrote {path}; is that folder shared?") from None
            time.sleep(0.1)
        else:
            return facts


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("", 0))
        return int(server.getsockname()[1])
